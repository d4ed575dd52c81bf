"""How well does a bundle agree with people, beside its peers, on rows it has not seen?

    python -m benchmarks.quality --data DATA --judges build

- `quality_unseen`: sets that are never trained on judge the shipped bundle itself, at its own threshold.
- `quality_graded`: PyRIT and RTP-LX are trained on, so each of their rows is scored by the bundle of `training.build`
  that saw no row of its fold, and PyRIT's also by one that saw no PyRIT row at all (`zero_shot`).
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

BASE = results.ROOT / "models" / "base"
BUILD = results.ROOT / "build"


def main(
    data: Annotated[Path, typer.Option(help="Folder of the raw data sets, with train/ and bench/.")],
    judges: Annotated[Path, typer.Option(help="Folder that training.build wrote the judging bundles to.")] = BUILD,
    model: Annotated[Path, typer.Option(help="The bundle to judge; its report.json is written.")] = BASE,
) -> None:
    """Judge a bundle and write its report.json. About ten minutes on two cores."""
    start = time.monotonic()
    loaded = SeverityModel(model)
    zero_shot = SeverityModel(judges / "zero_shot")
    folds = [SeverityModel(judges / f"fold{fold}") for fold in range(FOLDS)]
    for judge in (zero_shot, *folds):
        if judge.card["version"] != loaded.card["version"] or judge.card["training"] != loaded.card["training"]:
            raise typer.BadParameter(f"{judge!r} was not built with {loaded!r}; run training.build again")
    found: dict[str, Any] = {
        "stamp": results.stamp(results.command_line("benchmarks.quality"), packages=("scikit-learn",)),
        "bundle": {key: loaded.card[key] for key in ("name", "version", "sha256", "thresholds")},
    }

    def say(what: str) -> None:
        typer.echo(f"[{time.monotonic() - start:5.0f} s] {what}")

    say("fitting the baselines")
    frozen = Frozen(SeverityModel(judges / "encoder"), judges / "cache")
    peers = Peers(read_corpus(data, judges), frozen)
    for name, judge_set in JUDGES.items():
        say(name)
        found[name] = judge_set(loaded, peers, data)
    say("pyrit")
    found["pyrit"] = judge_pyrit(zero_shot, folds, peers, frozen, data)
    say("rtp_lx")
    found["rtp_lx"] = judge_rtp_lx(folds, frozen, data)
    found["examples"] = score_examples(loaded)
    results.write(model / "report.json", found)
    say(f"written to {model / 'report.json'}")


def score_examples(model: SeverityModel) -> list[dict[str, Any]]:
    """Every fourth row of the examples as the command line scores it, for the README."""
    lines = (results.ROOT / "examples" / "outputs.jsonl").read_text(encoding="utf-8").splitlines()[::4]
    rows = [json.loads(line) for line in lines]
    scores = model.score([row["output"] for row in rows])
    return [{"id": row["id"], "severity": severity} for row, severity in zip(rows, scores.rows(), strict=True)]


if __name__ == "__main__":
    typer.run(main)
