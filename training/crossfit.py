"""Fit heads on everything and on everything but each fold, and calibrate each on what its parts did not see."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from joblib import Parallel, delayed

from severity_clf.fit.crossfit import flag_rate, readings, recalibrated
from severity_clf.fit.heads import Features, Heads, calibrate, fit_heads

FOLDS = 5
ORDINARY = "halueval_general"  # everyday questions, answered by a chat model
FALSE_FLAGS = 0.2  # the share of them, held out, that may be flagged: a guard that flags more is switched off

Rows = npt.NDArray[np.intp]


def share(name: str) -> float:
    """A number in [0, 1) that depends on nothing but the name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def fold_of(group: str) -> int:
    """The fold that holds out this group, for every source."""
    return int(share(group) * FOLDS)


def held_out(group: str) -> bool:
    """Whether no encoder and no head sees this group of a training source; calibration and the threshold may."""
    return share("held out/" + group) < 0.1


@dataclass(frozen=True)
class Corpus:
    """Everything a fit needs; row i of each is record i."""

    features: Features
    labels: npt.NDArray[np.int8]
    weights: npt.NDArray[np.float64]
    graded: npt.NDArray[np.float64]
    names: npt.NDArray[np.str_]
    offsets: npt.NDArray[np.intp]
    folds: npt.NDArray[np.intp]

    def fit(self, rows: Rows, label: str) -> Heads:
        """Heads on some of the records."""
        start = time.monotonic()
        parts = (self.labels[rows], self.weights[rows], self.offsets[rows], self.graded[rows])
        heads = fit_heads(self.features.take(rows), *parts)
        print(f"  {label}: {len(rows)} records, {time.monotonic() - start:.0f} s", flush=True)
        return heads

    def calibrated(self, heads: Heads, fitted: Mapping[int, Heads], rows: Rows) -> tuple[Heads, float]:
        """The heads with slope, thresholds and flagging threshold from the held-out part of each of `fitted`.

        Args:
            heads: fitted on `rows`.
            fitted: fold -> heads fitted on `rows` without that fold.
            rows: what the heads may know.
        """
        order, worst = readings(self.features, fitted, self.folds, rows)
        ready = calibrate(heads, worst, self.labels[order], self.weights[order])
        overall = recalibrated(heads, ready, worst[:, :1])[:, 0].sum(axis=1)
        return ready, flag_rate(overall, self.names[order] == ORDINARY, FALSE_FLAGS, top=4)


def fit_all(corpus: Corpus, unseen: Rows) -> dict[str, tuple[Heads, float]]:
    """The shipped heads and those that judge them, each with its flagging threshold.

    Heads without two folds calibrate the heads without one, so that no judged row has a say in its own calibration.

    Args:
        corpus: all records.
        unseen: the records that the `zero_shot` heads may know.
    """
    everything = np.arange(len(corpus.folds))
    without = [frozenset(pair) for pair in itertools.combinations(range(FOLDS), 2)]
    without += [frozenset([fold]) for fold in range(FOLDS)] + [frozenset()]
    jobs = {folds: everything[~np.isin(corpus.folds, list(folds))] for folds in without}
    halves = {half: unseen[corpus.folds[unseen] % 2 != half] for half in range(2)}
    names = [f"without {sorted(folds)}" for folds in jobs] + ["zero-shot", "zero-shot half 0", "zero-shot half 1"]
    fits = [*jobs.values(), unseen, *halves.values()]
    found = list(Parallel(n_jobs=2)(delayed(corpus.fit)(rows, name) for rows, name in zip(fits, names, strict=True)))
    heads = dict(zip(jobs, found, strict=False))
    singles = {fold: heads[frozenset([fold])] for fold in range(FOLDS)}
    ready = {"base": corpus.calibrated(heads[frozenset()], singles, everything)}
    for fold in range(FOLDS):
        rest = {other: heads[frozenset([fold, other])] for other in range(FOLDS) if other != fold}
        ready[f"fold{fold}"] = corpus.calibrated(singles[fold], rest, everything[corpus.folds != fold])
    zero, *half = found[-3:]
    halved = replace(corpus, folds=corpus.folds % 2)
    ready["zero_shot"] = halved.calibrated(zero, dict(enumerate(half)), unseen)
    return ready
