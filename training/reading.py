"""Read every source, and keep what is fitted on apart from what is judged with.

    parts = read_parts(Path("data"), SeverityModel("build/encoder"), Path("build/cache"), 2500)
    records = [record for part in parts for record in part.used]

Benchmarks are read but nothing of them is used. Graded sources stay apart from benchmarks, training sources from both,
as `duplicates` says; and a prompt of a graded source is asked in no training record, because an objective is on one
side of a fold only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from severity_clf.model import SeverityModel
from severity_clf.records import Record
from training import sources
from training.crossfit import share
from training.duplicates import Match, matches, plain

SHELF = Path(__file__).parents[1] / "models"  # of shipped bundles


@dataclass(frozen=True)
class Part:
    """One source: what was loaded, and what became of it.

    Attributes:
        name: the source.
        role: `train`, `graded` or `bench`.
        read: rows that the loader made records of, before it dropped empty outputs and exact repeats.
        loaded: the records that it gave.
        equal: of those, left out because a set that judges holds the same text.
        near: left out because such a set holds nearly the same text.
        asked: left out because a graded source asks the same.
        shared: judging set -> records (equal, near) to one of its own; a record may count for several sets.
        used: what remains to be fitted on, at most as many as the recipe caps a source at.
    """

    name: str
    role: str
    read: int
    loaded: tuple[Record, ...]
    equal: int = 0
    near: int = 0
    asked: int = 0
    shared: Mapping[str, tuple[int, int]] | None = None
    used: tuple[Record, ...] = ()


def read_parts(
    data: Path, model: SeverityModel, cache: Path, cap: int, extra: Mapping[str, str] | None = None
) -> list[Part]:
    """Every source, benchmarks first, then graded ones, then those for training.

    Args:
        data: the folder of raw data sets.
        model: an encoder fitted on nothing here, for near duplicates.
        cache: a folder for what takes long.
        cap: most records of a training source; those with the lowest `share` of their id are used.
        extra: name in `sources.NON_COMMERCIAL` -> file, folder or hub name to read it from.
    """
    bench = [_load(name, "bench", load(data)) for name, load in sources.BENCH.items()]
    graded = [_load(name, "graded", load(data)) for name, load in sources.GRADED.items()]
    train = [_load(name, "train", load(data)) for name, load in sources.TRAIN.items()]
    for name, place in (extra or {}).items():
        train.append(_load(name, "train", sources.NON_COMMERCIAL[name].records(place)))
    held = [record for part in bench for record in part.loaded]
    graded = [_apart(part, matches(part.loaded, held, model, cache), frozenset()) for part in graded]
    held += [record for part in graded for record in part.used]
    asked = frozenset(plain(record.prompt) for part in graded for record in part.used if record.prompt)
    found = iter(matches([record for part in train for record in part.loaded], held, model, cache))
    train = [_apart(part, [next(found) for _ in part.loaded], asked, cap) for part in train]
    return bench + graded + train


def given(pairs: Sequence[str], out: Path) -> dict[str, str]:
    """Parse NAME=PLACE pairs of `--non-commercial`: name -> place.

    Args:
        pairs: as typed.
        out: the bundle to be written.

    Raises:
        typer.BadParameter: an unknown name, no place, or a bundle on the shelf.
    """
    extra = {}
    for pair in pairs:
        name, _, place = pair.partition("=")
        if name not in sources.NON_COMMERCIAL or not place:
            wanted = ", ".join(sources.NON_COMMERCIAL)
            raise typer.BadParameter(f"--non-commercial {pair}: want NAME=PLACE, where NAME is one of {wanted}")
        extra[name] = place
    if extra and SHELF.resolve() in (out.resolve(), *out.resolve().parents):
        raise typer.BadParameter(
            f"{', '.join(extra)} must not enter a shipped bundle; name --out outside {SHELF.name}/"
        )
    return extra


def mark(extra: Mapping[str, str]) -> dict[str, str]:
    """What the card of a bundle says that knows data not for commercial use."""
    return {"licence": "non-commercial"} if extra else {}


def _load(name: str, role: str, records: Iterable[Record]) -> Part:
    loaded = tuple(records)
    return Part(name, role, getattr(records, "read", len(loaded)), loaded)


def _apart(part: Part, found: list[Match | None], asked: frozenset[str], cap: int | None = None) -> Part:
    """The part with its counts and what remains of it, given what each of its records has in common."""
    free = [record for record, match in zip(part.loaded, found, strict=True) if match is None]
    used = [record for record in free if plain(record.prompt or "-") not in asked]
    if cap is not None:
        used.sort(key=lambda record: share(record.id))
    equal = Counter(name for match in found if match and match.equal for name in match.sources)
    near = Counter(name for match in found if match and not match.equal for name in match.sources)
    return Part(
        part.name,
        part.role,
        part.read,
        part.loaded,
        sum(match is not None and match.equal for match in found),
        sum(match is not None and not match.equal for match in found),
        len(free) - len(used),
        {name: (equal[name], near[name]) for name in sorted(equal | near)},
        tuple(used[:cap]),
    )
