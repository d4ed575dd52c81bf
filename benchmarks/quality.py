"""How well does a bundle agree with people, beside its peers, on rows it has not seen?

    python -m benchmarks.quality --data DATA
    python -m benchmarks.quality --data DATA --model fast

- `quality_unseen`: sets that are never trained on judge the shipped bundle itself, at its own threshold.
- `quality_graded`: PyRIT and RTP-LX are trained on, so each of their rows is scored by the bundle of `training.build`,
  or of `training.fast`, that saw no row of its fold, and PyRIT's also by one that saw no PyRIT row at all
  (`zero_shot`).
- `quality_peers`: baselines fitted on the same records. Judges whose verdicts come with a set are scored row by row;
  figures that others publish stand in `published.toml`.

Scores come from `SeverityModel.score`. Figures of ours and of the baselines have the 95% interval over resampled
groups: objectives, prompts, behaviours, templates.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks import results
from benchmarks.quality_graded import judge_pyrit, judge_rtp_lx
from benchmarks.quality_peers import Frozen, Peers
from benchmarks.quality_unseen import JUDGES
from severity_clf.model import SeverityModel
from training.build import read_corpus
from training.crossfit import FOLDS

BUILD = results.ROOT / "build"


def main(
    data: Annotated[Path, typer.Option(help="Folder of the raw data sets, with train/ and bench/.")],
    model: Annotated[str, typer.Option(help="Name or folder of the bundle; its report.json is written.")] = "base",
    work: Annotated[Path, typer.Option(help="Folder of training.build: the baselines' encoder and cache.")] = BUILD,
    judges: Annotated[
        Path | None,
        typer.Option(help="Folder of its judging bundles. [default: WORK for base, or WORK/MODEL]"),
    ] = None,
) -> None:
    """Judge a bundle and write its report.json. About ten minutes on two cores."""
    start = time.monotonic()
    loaded = SeverityModel(model)
    name = str(loaded.card["name"])
    judges = judges or (work if name == "base" else work / name)
    zero_shot = SeverityModel(judges / "zero_shot")
    folds = [SeverityModel(judges / f"fold{fold}") for fold in range(FOLDS)]
    for judge in (zero_shot, *folds):
        if judge.card["version"] != loaded.card["version"] or judge.card["training"] != loaded.card["training"]:
            raise typer.BadParameter(f"{judge!r} was not built with {loaded!r}; run its recipe again")
    found: dict[str, Any] = {
        "stamp": results.stamp(results.command_line("benchmarks.quality"), packages=("scikit-learn",)),
        "bundle": {key: loaded.card[key] for key in ("name", "version", "sha256", "thresholds")},
    }

    def say(what: str) -> None:
        typer.echo(f"[{time.monotonic() - start:5.0f} s] {what}")

    say("fitting the baselines")
    frozen = Frozen(SeverityModel(work / "encoder"), work / "cache")
    peers = Peers(read_corpus(data, work), frozen)
    for of, judge_set in JUDGES.items():
        say(of)
        found[of] = judge_set(loaded, peers, data)
    say("pyrit")
    found["pyrit"] = judge_pyrit(name, zero_shot, folds, peers, frozen, data)
    say("rtp_lx")
    found["rtp_lx"] = judge_rtp_lx(name, folds, frozen, data)
    found["examples"] = score_examples(loaded)
    results.write(loaded.path / "report.json", found)
    say(f"written to {loaded.path / 'report.json'}")


def score_examples(model: SeverityModel) -> list[dict[str, Any]]:
    """Every fourth row of the examples as the command line scores it, for the README."""
    lines = (results.ROOT / "examples" / "outputs.jsonl").read_text(encoding="utf-8").splitlines()[::4]
    rows = [json.loads(line) for line in lines]
    scores = model.score([row["output"] for row in rows])
    return [{"id": row["id"], "severity": severity} for row, severity in zip(rows, scores.rows(), strict=True)]


if __name__ == "__main__":
    typer.run(main)
