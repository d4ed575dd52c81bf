"""One plot as SVG, by hand: time against length, both in powers of ten. No script, no font, no library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 880, 520
LEFT, RIGHT, TOP, BOTTOM = 70, 270, 20, 50  # margins; names stand in the right one
COLOURS = ("#2c62d6", "#0f8a5f", "#c4560f", "#8a3fb0", "#b08900", "#7b8494", "#c0392b", "#3a7d8c", "#6d4c2f", "#444444")
STYLE = "text { font: 13px system-ui, sans-serif; fill: #333 } .grid { stroke: #ddd } .paper { fill: #fff }"
Points = Sequence[tuple[float, float]]


def log_log(lines: Mapping[str, Points], across: str, up: str) -> str:
    """The whole file.

    Args:
        lines: name -> points, both coordinates above 0; in the order in which they take their colours.
        across, up: what the axes are.
    """
    xs, ys = ([point[axis] for points in lines.values() for point in points] for axis in (0, 1))
    x_range, y_range = _decades(xs), _decades(ys)

    def place(x: float, y: float) -> tuple[float, float]:
        right = (math.log10(x) - x_range[0]) / (x_range[1] - x_range[0])
        above = (math.log10(y) - y_range[0]) / (y_range[1] - y_range[0])
        return LEFT + right * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - above * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape(up)} against {escape(across)}</title><style>{STYLE}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}"/>',
    ]
    for power in range(x_range[0], x_range[1] + 1):
        x, bottom = place(10.0**power, 10.0 ** y_range[0])
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom:.1f}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18:.1f}" text-anchor="middle">{10.0**power:,.7g}</text>')
    for power in range(y_range[0], y_range[1] + 1):
        left, y = place(10.0 ** x_range[0], 10.0**power)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:,.7g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 10}" text-anchor="middle">{escape(across)}</text>')
    parts.append(f'<text transform="translate(16 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">{escape(up)}</text>')
    # Names stand in the order of the lines' ends, none on another.
    order = sorted(lines, key=lambda name: place(*lines[name][-1])[1])
    heights: list[float] = []
    for name in order:
        heights.append(max(place(*lines[name][-1])[1] + 4, heights[-1] + 17 if heights else TOP + 10))
    over = max(0.0, heights[-1] - (HEIGHT - BOTTOM)) if heights else 0.0
    for colour, (name, points) in zip(_colours(len(lines)), lines.items(), strict=True):
        at = [place(*point) for point in points]
        track = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
        parts.append(f'<polyline points="{track}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in at]
        y = heights[order.index(name)] - over
        parts.append(f'<rect x="{WIDTH - RIGHT + 14}" y="{y - 10:.1f}" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{WIDTH - RIGHT + 32}" y="{y:.1f}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _decades(values: Sequence[float]) -> tuple[int, int]:
    """Whole powers of ten around all values, at least one apart."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _colours(count: int) -> list[str]:
    """One a line, over again if there are many."""
    return [COLOURS[number % len(COLOURS)] for number in range(count)]
