"""Score many texts in a fresh process that holds nothing else: how long it takes, and how much memory it needs.

    python -m benchmarks.scale BUNDLE TEXTS.json --threads 2 --most 1000000 --budget 120

100, 1,000, 10,000 ... texts, those of the file over and over, never in memory at once. Ends at `--most`, or where the
next step would take longer than the budget. Prints JSON. `benchmarks.speed` starts it and keeps what it says.
Megabytes are 10^6 bytes. Nothing is imported here that scoring does not need, but for psutil.
"""

from __future__ import annotations

import json
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated

import psutil
import typer

from benchmarks.memory import peak
from severity_clf import SeverityModel

BLOCK = 1_000  # scores handed out and forgotten at a time
SAMPLES = 10  # of resident memory, evenly over the longest run


def resident() -> float:
    """Megabytes of this process that are in memory now."""
    return float(psutil.Process().memory_info().rss) / 1e6


def main(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder.")],
    texts: Annotated[Path, typer.Argument(help="A JSON list of texts.")],
    threads: Annotated[int, typer.Option(help="Windows scored side by side.")] = 1,
    most: Annotated[int, typer.Option(help="Texts in the longest run.")] = 1_000_000,
    budget: Annotated[float, typer.Option(help="Seconds that a run may be expected to take.")] = 120.0,
) -> None:
    """Measure, and print what was found as JSON."""
    pool = json.loads(texts.read_text(encoding="utf-8"))
    model = SeverityModel(bundle, threads=threads)
    model.score(pool[:64])
    runs: list[dict[str, object]] = []
    count, took = 100, 0.0
    while count <= most and 10 * took <= budget:
        seen, samples = 0, []
        start = time.perf_counter()
        for scores in model.stream(islice(cycle(pool), count), size=BLOCK):
            seen += len(scores)
            samples.append(resident())
        took = time.perf_counter() - start
        assert seen == count
        at = [samples[min(len(samples) - 1, len(samples) * step // SAMPLES)] for step in range(SAMPLES)]
        runs.append({"texts": count, "seconds": took, "resident_megabytes": [round(one, 1) for one in at]})
        count *= 10
    print(json.dumps({"threads": threads, "runs": runs, "peak_megabytes": round(peak(), 1)}))


if __name__ == "__main__":
    typer.run(main)
