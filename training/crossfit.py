"""Which groups judge, and which calibrate: decided by their names alone, for every source alike."""

from __future__ import annotations

import hashlib

FOLDS = 5


def share(name: str) -> float:
    """A number in [0, 1) that depends on nothing but the name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def fold_of(group: str) -> int:
    """The fold that holds out this group, for every source."""
    return int(share(group) * FOLDS)


def held_out(group: str) -> bool:
    """Whether no encoder sees this group; calibration and the threshold may."""
    return share("held out/" + group) < 0.1
