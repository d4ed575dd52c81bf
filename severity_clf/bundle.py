"""The on-disk format of a model: a folder with a graph, a tokenizer and a card.

    model.onnx       token ids -> embedding, buckets, exceed
    tokenizer.json   vocabulary, text normaliser, window length and overlap
    bundle.json      {"format": 1, "name", "version", "taxonomy", "thresholds", "prompt_tokens",
                      "encoder", "training", "calibration", "conformal", "sha256": {file: hash}}
    report.json, README.md, LICENSE, NOTICE: for people; not needed to score

Nothing in it is executable, and a file whose hash differs from the card's is refused. Sessions are `model`'s affair.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from severity_clf.conformal import Conformal
from severity_clf.taxonomy import Taxonomy

FORMAT = 1
CARD = "bundle.json"
GRAPH = "model.onnx"
TOKENIZER = "tokenizer.json"


class BundleError(Exception):
    """A bundle that is missing, damaged or of another format. The message names the file."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle.

    Attributes:
        path: the folder it was read from.
        tokenizer: text of `tokenizer.json`.
        card: content of `bundle.json`.
        taxonomy: the card's, parsed.
        conformal: the card's, parsed; None where it has none, and then there are no level intervals.
    """

    path: Path
    tokenizer: str
    card: Mapping[str, Any]
    taxonomy: Taxonomy
    conformal: Conformal | None

    @property
    def graph(self) -> Path:
        """The file of the graph: a path, not bytes, since a session holds its own copy of the weights."""
        return self.path / GRAPH

    @property
    def threshold(self) -> float:
        """Expected overall severity, in levels, from which an output is flagged."""
        return float(self.card["thresholds"]["overall"])


def shelf() -> Path:
    """The folder of the shipped bundles: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    inside = package / "models"
    return inside if inside.is_dir() else package.parent / "models"


def find_bundle(model: str | os.PathLike[str]) -> Path:
    """The folder of a shipped bundle by name, or a path as it is.

    Raises:
        BundleError: there is no such folder.
    """
    shipped = sorted(path.parent.name for path in shelf().glob(f"*/{CARD}"))
    path = shelf() / model if str(model) in shipped else Path(model)
    if not path.is_dir():
        raise BundleError(f"{model}: no such folder, and the shipped bundles are {', '.join(shipped) or 'missing'}")
    return path


def read_bundle(path: Path) -> Bundle:
    """Read a bundle and verify its hashes.

    Raises:
        BundleError: a missing file, an unknown format, a broken card, or a hash that differs.
    """
    try:
        card = json.loads(_read(path / CARD))
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path / CARD}: not JSON ({error}); copy the bundle again") from None
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        found = card.get("format") if isinstance(card, dict) else type(card).__name__
        raise BundleError(
            f"{path / CARD}: format {found!r}, this severity_clf reads {FORMAT}; install the release that wrote it"
        )
    try:
        taxonomy = Taxonomy.from_dict(card["taxonomy"])
        hashes = {file: str(card["sha256"][file]) for file in (GRAPH, TOKENIZER)}
        float(card["thresholds"]["overall"]), int(card["prompt_tokens"])
        conformal = Conformal.from_dict(card["conformal"], taxonomy.names) if "conformal" in card else None
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{path / CARD}: missing or wrong {error}") from None
    for file, wanted in hashes.items():
        found = _sha256(path / file)
        if found != wanted:
            raise BundleError(
                f"{path / file}: sha256 {found[:8]}... is not the {wanted[:8]}... in {CARD}; copy the bundle again"
            )
    return Bundle(path, _read(path / TOKENIZER).decode("utf-8"), card, taxonomy, conformal)


def _sha256(path: Path) -> str:
    """Of a file read in pieces, so that a graph is never in memory beside the session that is made of it."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while piece := stream.read(1 << 20):
                digest.update(piece)
    except OSError as error:
        raise _missing(path, error) from None
    return digest.hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _missing(path, error) from None


def _missing(path: Path, error: OSError) -> BundleError:
    return BundleError(f"{path}: {error.strerror}; a bundle has {GRAPH}, {TOKENIZER} and {CARD}")


def check_target(path: Path) -> None:
    """Refuse, before any work, a place where no bundle can be written.

    Raises:
        FileExistsError: `path` exists and is not a bundle.
    """
    if path.exists() and not (path / CARD).is_file():
        raise FileExistsError(f"{path}: exists and is not a bundle; name another folder")


def write_bundle(
    path: Path, graph: bytes, tokenizer: str, card: Mapping[str, Any], extras: Mapping[str, str] | None = None
) -> None:
    """Write a bundle whole or not at all; an older bundle at `path` is replaced.

    Args:
        path: the folder to make.
        graph: bytes of `model.onnx`.
        tokenizer: text of `tokenizer.json`.
        card: content of `bundle.json` without `format` and `sha256`, which are added.
        extras: further text files by name.

    Raises:
        FileExistsError: `path` exists and is not a bundle.
    """
    check_target(path)
    files = {GRAPH: graph, TOKENIZER: tokenizer.encode()}
    hashes = {file: hashlib.sha256(content).hexdigest() for file, content in files.items()}
    text = json.dumps({"format": FORMAT, **card, "sha256": hashes}, indent=2, ensure_ascii=False) + "\n"
    files |= {CARD: text.encode(), **{file: content.encode() for file, content in (extras or {}).items()}}
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh, old = path.with_name(f".{path.name}.new"), path.with_name(f".{path.name}.old")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    try:
        for file, content in files.items():
            with (fresh / file).open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
            path.rename(old)
        fresh.rename(path)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
