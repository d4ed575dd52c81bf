"""An evaluation as one HTML page: tables, and plots as inline SVG. No script, no font, no picture from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

WIDTH, HEIGHT = 460, 300  # of a plot, in its own units; the page scales it
LABELS_SHOWN = 9  # rows in the plot of distributions: the commonest labels
WORST_SHOWN = 15
NAME_SHOWN = 10  # characters of a level's name beside a plot
UNKNOWN = "<td>\N{EN DASH}</td>"
ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
CARDS = ("auroc", "average_precision", "precision", "recall", "f1", "macro_mae", "classwise_ece", "coverage")
TABLES = {
    "Ranking and levels": ("auroc", "average_precision", "mae", "macro_mae", "alpha", "spearman"),
    "Calibration": ("rps", "classwise_ece", "smooth_ece", "coverage", "harmful_coverage", "set_size"),
}

STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --soft: #5d6778; --line: #d9dee7; --grid: #eceff4; --paper: #ffffff;
  --card: #f7f8fb; --accent: #2c62d6; --second: #c4560f; --third: #7b8494; --light: 52%; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #9aa4b5; --line: #363d4a; --grid: #272d38;
  --paper: #14181f; --card: #1b2029; --accent: #7fa8ff; --second: #f2995a; --third: #8d97a8; --light: 58%; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 40px 24px 64px; max-width: 1160px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 26px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -.01em; }
h2 { font-size: 19px; margin: 0; } h3 { font-size: 14px; margin: 0; }
p { margin: 0; } .soft { color: var(--soft); } .small { font-size: 13px; }
h3.lead { margin-top: 28px; } .scroll { margin: 6px 0 32px; }
.stats { display: grid; grid-template-columns: repeat(auto-fit, minmax(112px, 1fr)); gap: 12px; margin: 10px 0 36px; }
.stat { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 14px; }
.stat b { display: block; font-size: 22px; line-height: 1.3; font-variant-numeric: tabular-nums; }
.stat span { display: block; font-size: 12.5px; color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 6px 8px; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; color: var(--soft); white-space: nowrap; } td small { display: block; color: var(--soft);
  font-size: 11.5px; white-space: nowrap; }
th:first-child, td:first-child, .left { text-align: left; } tbody tr:last-child td { border-bottom: 0; }
td.id { font: 12.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
a { color: var(--accent); text-decoration: none; } a:hover { text-decoration: underline; }
details { border-top: 1px solid var(--line); margin-top: 32px; padding-top: 20px; }
summary { cursor: pointer; display: flex; align-items: baseline; gap: 12px; flex-wrap: wrap; list-style: none; }
summary::-webkit-details-marker { display: none; }
summary::before { content: "\\25B8"; color: var(--soft); } details[open] > summary::before { content: "\\25BE"; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(430px, 100%), 1fr)); gap: 20px;
  margin: 18px 0 26px; scroll-margin-top: 64px; }
figure { margin: 0; padding: 16px 16px 10px; border: 1px solid var(--line); border-radius: 10px;
  background: var(--card); }
figcaption { margin-bottom: 10px; } figcaption span { color: var(--soft); font-size: 13px; display: block; }
svg { display: block; width: 100%; height: auto; } svg text { font-size: 12px; fill: var(--soft); }
svg text.strong { fill: var(--ink); } svg text.over { fill: var(--paper); font-weight: 600; }
.grid { stroke: var(--line); stroke-width: 1; opacity: .6; } .ideal { stroke: var(--third); stroke-dasharray: 4 4; }
.axis { stroke: var(--third); } .curve { fill: none; stroke-width: 2.2; stroke-linejoin: round; }
.one { stroke: var(--accent); } .two { stroke: var(--second); } .three { stroke: var(--third); }
.dot { fill: var(--accent); stroke: var(--card); stroke-width: 1.5; } .cell { fill: var(--accent); }
.frame { fill: none; stroke: var(--line); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 16px; font-size: 13px; margin: 12px 0 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
@media print { details { break-inside: avoid; } }
"""


def page(report: Mapping[str, Any], figures: Mapping[str, tuple[str, str]]) -> str:
    """The whole page.

    Args:
        report: as `Report.to_dict` gives it.
        figures: key of an estimate -> its head in tables, and what it is.
    """
    bundle, records, run = report["bundle"], report["records"], report["run"]
    title = escape(f"{bundle['name']} {bundle['version']}")
    context = "outputs with their prompts" if records["prompts"] else "outputs alone"
    lead = f"{records['n']:,} labelled records in {records['groups']:,} groups, {context}, {escape(run['date'][:10])}"
    head = report["domains"][0]
    shown = [key for key in figures if any(_known(one["estimates"].get(key)) for one in report["domains"])]
    tables = "".join(
        f"<h3>{name}</h3>{_table(report['domains'], [key for key in keys if key in shown], figures)}"
        for name, keys in TABLES.items()
    )
    sections = "\n".join(_section(one, report["levels"], one is head) for one in report["domains"])
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Evaluation of {title}</title>
<style>{STYLE}</style>
<h1>Evaluation of {title}</h1>
<p class="soft">{lead}</p>
{_stats(head, figures)}
{tables}
{sections}
{_footer(report, shown, figures)}
</html>
"""


def _known(estimate: Mapping[str, Any] | None) -> bool:
    return estimate is not None and estimate["value"] is not None


def _beside(estimate: Mapping[str, Any]) -> str:
    """An estimate's interval or floor, as small print; empty where it has neither."""
    interval = estimate["interval"]
    if interval is not None and None not in interval:
        return f"{interval[0]:.3f}\N{EN DASH}{interval[1]:.3f}"
    return "" if estimate["floor"] is None else f"floor {estimate['floor']:.3f}"


def _stats(domain: Mapping[str, Any], figures: Mapping[str, tuple[str, str]]) -> str:
    """The first domain's figures as cards."""
    cards = [
        f'<div class="stat" title="{escape(figures[key][1])}"><span>{figures[key][0]}</span>'
        f"<b>{estimate['value']:.3f}</b><span>{_beside(estimate) or '&nbsp;'}</span></div>"
        for key in CARDS
        for estimate in [domain["estimates"].get(key)]
        if _known(estimate)
    ]
    return f'<h3 class="lead">{escape(domain["name"])}</h3><div class="stats">{"".join(cards)}</div>'


def _table(domains: Sequence[Mapping[str, Any]], keys: Sequence[str], figures: Mapping[str, tuple[str, str]]) -> str:
    """Every domain's figures; below each its interval or floor."""
    head = "".join(f'<th title="{escape(figures[key][1])}">{figures[key][0]}</th>' for key in keys)
    rows = []
    for domain in domains:
        name = escape(domain["name"])
        cells = [
            f'<td><a href="#{name}">{name}</a></td><td>{domain["n"]:,}<small>{domain["harmful"]:,} harmful</small></td>'
        ]
        for estimate in map(domain["estimates"].get, keys):
            known = _known(estimate)
            cells.append(f"<td>{estimate['value']:.3f}<small>{_beside(estimate)}</small></td>" if known else UNKNOWN)
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<div class="scroll"><table><thead><tr><th>domain</th><th>rows</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _section(domain: Mapping[str, Any], levels: Sequence[str], is_open: bool) -> str:
    """One domain: four plots and the worst rows."""
    undecided = domain["n"] - domain["harmless"] - domain["harmful"]
    counts = f"{domain['harmless']:,} harmless, {domain['harmful']:,} harmful"
    counts += f", {undecided:,} undecided" if undecided else ""
    cut = domain["threshold"]
    plots = [
        (
            "Reliability",
            "of P(severity \N{GREATER-THAN OR EQUAL TO} 1); a dot's area is its rows",
            _reliability(domain),
        ),
        ("Confusion by level", "rows that name a level; a shade is a share of its row", _confusion(domain, levels)),
        (
            "Severity by label",
            "expected severity of each label's rows, and how many they are",
            _distributions(domain, levels),
        ),
        (
            "Threshold trade-off",
            "flagging from an expected severity" + (f"; the bundle's is {cut:.2f}" if cut is not None else ""),
            _trade_off(domain, len(levels) - 1),
        ),
    ]
    figures = "".join(
        f"<figure><figcaption><h3>{title}</h3><span>{text}</span></figcaption>{plot}</figure>"
        for title, text, plot in plots
    )
    name = escape(domain["name"])
    return (
        f"<details{' open' if is_open else ''}><summary><h2>{name}</h2>"
        f'<span class="soft small">{counts}</span></summary>'
        f'<div class="plots" id="{name}">{figures}</div>{_worst(domain)}</details>'  # inside: a link to it opens it
    )


def _worst(domain: Mapping[str, Any]) -> str:
    worst = domain["worst"][:WORST_SHOWN]
    if not worst:
        return '<p class="soft small">Every expected severity lies within its label.</p>'
    named = any(row["source"] for row in worst)
    rows = "".join(
        f'<tr><td class="id">{escape(row["id"])}</td>'
        + (f'<td class="left">{escape(row["source"])}</td>' if named else "")
        + f"<td>{_label(row['label'])}</td><td>{row['expected']:.2f}</td><td>{row['level']}</td>"
        + f"<td>{row['off']:.2f}</td></tr>"
        for row in worst
    )
    source = '<th class="left">source</th>' if named else ""
    head = f"<th>record</th>{source}<th>label</th><th>expected</th><th>median</th><th>off by</th>"
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<h3>Worst errors</h3><div class="scroll">{table}</div>'


def _label(label: Sequence[int]) -> str:
    low, high = label
    return str(low) if low == high else f"{low}\N{EN DASH}{high}"


def _level(level: int, levels: Sequence[str]) -> str:
    """Number and name, cut to what fits beside a plot."""
    name = levels[level]
    return f"{level} {name if len(name) <= NAME_SHOWN else name[: NAME_SHOWN - 1] + ELLIPSIS}"


def _footer(report: Mapping[str, Any], keys: Sequence[str], figures: Mapping[str, tuple[str, str]]) -> str:
    """What the figures are, and what they were measured on."""
    bundle, records, run = report["bundle"], report["records"], report["run"]
    facts = {figures[key][0]: figures[key][1] for key in keys}
    facts["intervals"] = f"the central 95% of {run['rounds']} bootstrap samples of whole groups"
    facts |= {f"sha256 of {file}": value for file, value in bundle["sha256"].items()}
    facts["sha256 of the records"] = records["sha256"]
    facts["sources"] = ", ".join(f"{name or 'unnamed'} ({count:,})" for name, count in records["sources"].items())
    facts["versions"] = ", ".join(f"{name} {number}" for name, number in run["versions"].items() if number)
    unscored = records["unscored"]
    facts["not scored"] = ", ".join(unscored[:20]) + (ELLIPSIS if len(unscored) > 20 else "")
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts.items() if text)
    return f"<details open><summary><h2>About these figures</h2></summary><dl>{rows}</dl></details>"


# Plots. Each gives one <svg>; colours come from the page's style.


@dataclass(frozen=True, slots=True)
class _Axes:
    """A rectangle of the plot and the values along its sides."""

    x_max: float
    y_max: float = 1.0
    left: float = 60
    right: float = WIDTH - 14
    top: float = 10
    bottom: float = HEIGHT - 44

    def x(self, value: float) -> float:
        return self.left + (self.right - self.left) * value / self.x_max

    def y(self, value: float) -> float:
        return self.bottom - (self.bottom - self.top) * value / self.y_max

    def lines(self, x_label: str, y_label: str, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> str:
        """Grid, ticks and names of both axes."""
        parts = [
            f'<line class="grid" x1="{self.left}" x2="{self.right}" y1="{self.y(tick):.1f}" y2="{self.y(tick):.1f}"/>'
            f"{_text(self.left - 8, self.y(tick) + 4, f'{tick:g}', 'end')}"
            for tick in y_ticks
        ]
        parts += [_text(self.x(tick), self.bottom + 18, f"{tick:g}", "middle") for tick in x_ticks]
        middle = (self.top + self.bottom) / 2
        parts.append(f'<line class="axis" x1="{self.left}" x2="{self.right}" y1="{self.bottom}" y2="{self.bottom}"/>')
        parts.append(_text((self.left + self.right) / 2, self.bottom + 37, x_label, "middle"))
        parts.append(
            f'<text text-anchor="middle" transform="translate(13 {middle:.1f}) rotate(-90)">{escape(y_label)}</text>'
        )
        return "".join(parts)

    def curve(self, xs: Sequence[float], ys: Sequence[float | None], style: str) -> str:
        """A line through the points; it breaks where a value is unknown."""
        steps, pen = [], "M"
        for x, y in zip(xs, ys, strict=True):
            if y is None:
                pen = "M"
                continue
            steps.append(f"{pen}{self.x(x):.1f} {self.y(y):.1f}")
            pen = "L"
        return f'<path class="curve {style}" d="{"".join(steps)}"/>'


QUARTERS = (0, 0.25, 0.5, 0.75, 1)


def _svg(body: str, title: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{body}</svg>'


def _text(x: float, y: float, text: str, anchor: str = "start", style: str = "") -> str:
    style = f' class="{style}"' if style else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>{escape(text)}</text>'


def _nothing(why: str) -> str:
    return _svg(_text(WIDTH / 2, HEIGHT / 2, why, "middle"), why)


def _reliability(domain: Mapping[str, Any]) -> str:
    count, predicted, observed = (domain["reliability"][key] for key in ("count", "predicted", "observed"))
    if not count:
        return _nothing("no label says whether a row is harmful")
    axes = _Axes(1)
    body = axes.lines("predicted probability", "share that was harmful", QUARTERS, QUARTERS)
    body += f'<line class="ideal" x1="{axes.x(0)}" y1="{axes.y(0)}" x2="{axes.x(1)}" y2="{axes.y(1)}"/>'
    body += axes.curve(predicted, observed, "one")
    for rows, x, y in zip(count, predicted, observed, strict=True):
        radius = 2.5 + 8 * (rows / max(count)) ** 0.5
        tip = f"<title>{rows:,} rows: predicted {x:.3f}, observed {y:.3f}</title>"
        body += f'<circle class="dot" cx="{axes.x(x):.1f}" cy="{axes.y(y):.1f}" r="{radius:.1f}">{tip}</circle>'
    return _svg(body, "Reliability curve")


def _confusion(domain: Mapping[str, Any], levels: Sequence[str]) -> str:
    counts = domain["confusion"]
    if not any(map(sum, counts)):
        return _nothing("no label names a level")
    left, top, right, bottom = 116, 10, WIDTH - 14, HEIGHT - 44
    wide, high = (right - left) / len(levels), (bottom - top) / len(levels)
    body = ""
    for true, row in enumerate(counts):
        y = top + true * high
        body += _text(left - 10, y + high / 2 + 4, _level(true, levels), "end")
        for given, count in enumerate(row):
            x, share = left + given * wide, count / max(sum(row), 1)
            box = f'x="{x + 1:.1f}" y="{y + 1:.1f}" width="{wide - 2:.1f}" height="{high - 2:.1f}" rx="4"'
            tip = f"<title>{count:,} of {sum(row):,} rows at level {true}: {share:.0%}</title>"
            body += f'<rect class="cell" {box} fill-opacity="{0.04 + 0.9 * share:.2f}">{tip}</rect>'
            style = "over" if share > 0.5 else "strong"
            body += _text(x + wide / 2, y + high / 2 + 4, f"{count:,}", "middle", style if count else "")
    for given in range(len(levels)):
        body += _text(left + (given + 0.5) * wide, bottom + 18, f"{given}", "middle")
    body += _text((left + right) / 2, bottom + 37, "median level given", "middle")
    middle = (top + bottom) / 2
    body += f'<text text-anchor="middle" transform="translate(13 {middle:.1f}) rotate(-90)">level of the label</text>'
    return _svg(body, "Confusion of the labelled and the given level")


def _distributions(domain: Mapping[str, Any], levels: Sequence[str]) -> str:
    top_level = len(levels) - 1
    common = sorted(domain["severity"], key=lambda group: -group["n"])[:LABELS_SHOWN]
    groups = sorted(common, key=lambda group: group["label"])
    axes = _Axes(top_level, left=136)
    step = (axes.bottom - axes.top) / len(groups)
    ticks = [axes.x(level) for level in range(top_level + 1)]
    body = "".join(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{axes.top}" y2="{axes.bottom}"/>' for x in ticks)
    for place, group in enumerate(groups):
        low, high = group["label"]
        base, width = axes.top + step * (place + 1), (axes.right - axes.left) / len(group["counts"])
        hue = 172 * (1 - (low + high) / (2 * top_level))
        name = _level(low, levels) if low == high else _label(group["label"])
        body += _text(axes.left - 54, base - step / 2 + 4, name, "end", "strong")
        body += _text(axes.left - 10, base - step / 2 + 4, f"{group['n']:,}", "end")
        for place_in, count in enumerate(group["counts"]):
            if not count:
                continue
            tall = max((step - 6) * count / max(group["counts"]), 1)
            x, y = axes.left + place_in * width + 0.5, base - tall
            box = f'x="{x:.1f}" y="{y:.1f}" width="{width - 1:.1f}" height="{tall:.1f}"'
            body += f'<rect {box} style="fill:hsl({hue:.0f} 52% var(--light))"><title>{count:,} rows</title></rect>'
        body += f'<line class="axis" x1="{axes.left}" x2="{axes.right}" y1="{base:.1f}" y2="{base:.1f}"/>'
    for level, x in enumerate(ticks):
        body += _text(x, axes.bottom + 18, f"{level}", "middle")
    body += _text((axes.left + axes.right) / 2, axes.bottom + 37, "expected severity", "middle")
    return _svg(body, "Distribution of expected severity by label")


def _trade_off(domain: Mapping[str, Any], top_level: int) -> str:
    trade, axes = domain["trade_off"], _Axes(top_level, top=34)
    body = axes.lines("threshold on expected severity", "share", range(top_level + 1), QUARTERS)
    if domain["threshold"] is not None:
        x = axes.x(min(domain["threshold"], top_level))
        body += f'<line class="ideal" x1="{x:.1f}" x2="{x:.1f}" y1="{axes.top}" y2="{axes.bottom}"/>'
    for place, (key, style) in enumerate((("precision", "one"), ("recall", "two"), ("flagged", "three"))):
        body += axes.curve(trade["threshold"], trade[key], style)
        x = axes.left + place * 108
        body += f'<line class="curve {style}" x1="{x}" x2="{x + 20}" y1="14" y2="14"/>' + _text(
            x + 27, 18, key, style="strong"
        )
    return _svg(body, "Precision, recall and share flagged by threshold")
