"""Would a cascade pay: `fast` for the clear cases, `base` for the rest?

    python -m benchmarks.cascade --data DATA

A text goes on to `base` where `fast` puts its overall severity within so many levels of `fast`'s own threshold; width 0
is `fast` alone, the widest `base` alone. What a set then costs is CPU time of `fast` on all of it and of `base` on what
goes on, as a share of `base` on all of it, measured by turns on one thread. PyRIT is scored by the bundles that saw no
row of a text's fold.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from benchmarks import results
from benchmarks.quality_graded import by_fold, merged
from severity_clf import metrics
from severity_clf.model import SeverityModel
from training.crossfit import FOLDS, fold_of, held_out
from training.sources import halueval_general, harmbench_cls_val, pyrit, xstest

RESULT = results.FOLDER / "cascade.json"
BUILD = results.ROOT / "build"
WIDTHS = (0.0, 0.25, 0.5, 1.0, 1.5, 4.0)
TIMED = 200  # texts of a set that are timed

Array = npt.NDArray[np.floating]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Read:
    """What one bundle says of a set: overall severity [n] and whether that is flagged [n]."""

    overall: Array
    flagged: Bool


@dataclass(frozen=True)
class Task:
    """A set of texts and what is measured on it.

    Attributes:
        measure: its name.
        outputs: the texts.
        judge: of a `Read` of all texts, the figure.
        groups: of texts that bundles were fitted on; None where none was.
    """

    measure: str
    outputs: Sequence[str]
    judge: Callable[[Read], float]
    groups: Sequence[str] | None = None


def tasks(data: Path) -> dict[str, Task]:
    """The sets by name."""
    harmful = list(harmbench_cls_val.rows(data))
    answers = [
        record
        for record, kind, label in xstest.rows(data)
        if not kind.startswith("contrast_") and label == "1_full_compliance"
    ]
    ordinary = [record for record in halueval_general.records(data) if held_out(record.group)]
    graded = list(pyrit.rows(data))
    majority, truth = np.array([said for _, said, _ in harmful]), np.array([row.score for row in graded])

    def f1(read: Read, truth: Bool) -> float:
        return metrics.f1(read.flagged, truth)

    def flagged(read: Read) -> float:
        return float(read.flagged.mean())

    def mae(read: Read, truth: Array) -> float:
        return metrics.mae(read.overall / 4, truth)

    return {
        "harmbench": Task("F1", [record.output for record, _, _ in harmful], partial(f1, truth=majority)),
        "pyrit": Task(
            "MAE",
            [row.record.output for row in graded],
            partial(mae, truth=truth),
            [row.record.group for row in graded],
        ),
        "xstest_safe_answers": Task("flagged", [record.output for record in answers], flagged),
        "ordinary_answers": Task("flagged", [record.output for record in ordinary], flagged),
    }


def read(model: SeverityModel, folds: Sequence[SeverityModel], task: Task) -> Read:
    """What a bundle says of a task, through its judging bundles where it was fitted on the texts."""
    if task.groups is None:
        scores = model.score(task.outputs)
        return Read(scores.overall, scores.flagged)
    scores = merged(by_fold(folds, task.outputs, np.array([fold_of(group) for group in task.groups])))
    return Read(scores.overall, scores.overall >= model.card["thresholds"]["overall"])


def cost(models: Sequence[SeverityModel], outputs: Sequence[str], rounds: int = 3) -> list[float]:
    """CPU milliseconds a text of each model, the least of the rounds, by turns."""
    some = outputs[:: max(1, len(outputs) // TIMED)]
    least = [float("inf")] * len(models)
    for _ in range(rounds):
        for at, model in enumerate(models):
            start = time.process_time()
            model.score(some)
            least[at] = min(least[at], 1000 * (time.process_time() - start) / len(some))
    return least


def main(
    data: Annotated[Path, typer.Option(help="Folder of the raw data sets, with train/ and bench/.")],
    judges: Annotated[Path, typer.Option(help="Folder that training.build and training.fast judged with.")] = BUILD,
    out: Annotated[Path, typer.Option(help="The result file.")] = RESULT,
) -> None:
    """Measure and write. Two minutes on two cores."""
    stamp = results.stamp(results.command_line("benchmarks.cascade"))
    fast, base = SeverityModel("fast", threads=1), SeverityModel("base", threads=1)
    folds = {
        name: [SeverityModel(folder / f"fold{fold}") for fold in range(FOLDS)]
        for name, folder in (("fast", judges / "fast"), ("base", judges))
    }
    cut = float(fast.card["thresholds"]["overall"])
    found: dict[str, Any] = {"stamp": stamp, "widths": list(WIDTHS), "sets": {}}
    for name, task in tasks(data).items():
        first, second = read(fast, folds["fast"], task), read(base, folds["base"], task)
        quick, slow = cost((fast, base), task.outputs)
        rows = []
        for width in WIDTHS:
            on = np.abs(first.overall - cut) < width
            both = Read(np.where(on, second.overall, first.overall), np.where(on, second.flagged, first.flagged))
            share = float(on.mean())
            spent = slow if width == WIDTHS[-1] else quick + share * slow
            rows.append(
                {
                    "width": width,
                    "read_by_base": round(share, 4),
                    "value": round(task.judge(both), 4),
                    "cost": round(spent / slow, 4),
                }
            )
        milliseconds = {"fast": round(quick, 4), "base": round(slow, 4)}
        found["sets"][name] = {
            "texts": len(task.outputs),
            "measure": task.measure,
            "cpu_ms": milliseconds,
            "rows": rows,
        }
        typer.echo(f"{name}: {rows}")
    results.write(out, found)


if __name__ == "__main__":
    typer.run(main)
