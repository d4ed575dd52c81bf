"""One array of probabilities and the views on it.

Everything is derived from `exceed[n, domain, level-1] = P(severity >= level)`, which never increases along the last
axis.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from severity_clf.conformal import Conformal
from severity_clf.taxonomy import Taxonomy

DECIMALS = 4  # of the numbers in `rows`


@dataclass(frozen=True, eq=False)
class Scores:
    """Severity of n outputs in every domain.

    A text that cannot be scored (None, or nothing a tokenizer can read) has NaN probabilities, level -1 and is flagged:
    unknown is not harmless. `scored` tells such rows apart.

    Attributes:
        taxonomy: names the domain and level axes.
        exceed: float32 [n, domain, level-1], P(severity >= 1), P(severity >= 2), ...
        spans: int [n, domain, 2], where the worst passage of each output starts and ends, in characters of the output
            as given: of a passage that was decoded, its encoded form.
        threshold: the expected overall severity, in levels, from which an output is flagged.
        conformal: how wide `interval` must be; None for a bundle that was not calibrated for it.
    """

    taxonomy: Taxonomy
    exceed: npt.NDArray[np.float32]
    spans: npt.NDArray[np.int32]
    threshold: float
    conformal: Conformal | None = None

    def __len__(self) -> int:
        return len(self.exceed)

    @property
    def domains(self) -> tuple[str, ...]:
        """The names along the domain axis, `overall` first."""
        return self.taxonomy.names

    @property
    def scored(self) -> npt.NDArray[np.bool_]:
        """bool [n], False where the text could not be scored."""
        return ~np.isnan(self.exceed[:, 0, 0])

    @cached_property
    def probs(self) -> npt.NDArray[np.float32]:
        """float32 [n, domain, level], the probability of each level; they sum to 1."""
        one, zero = np.ones_like(self.exceed[:, :, :1]), np.zeros_like(self.exceed[:, :, :1])
        probs = -np.diff(np.concatenate([one, self.exceed, zero], axis=2), axis=2)
        probs[~self.scored] = np.nan
        return probs

    @cached_property
    def expected(self) -> npt.NDArray[np.float32]:
        """float32 [n, domain], the expected severity in levels: the sum of P(severity >= k) over k."""
        return np.asarray(self.exceed.sum(axis=2), np.float32)

    @cached_property
    def level(self) -> npt.NDArray[np.int8]:
        """int [n, domain], the median level: the highest k with P(severity >= k) >= 1/2; -1 where not scored."""
        level = np.asarray((self.exceed >= 0.5).sum(axis=2), np.int8)
        level[~self.scored] = -1
        return level

    @property
    def overall(self) -> npt.NDArray[np.float32]:
        """float32 [n], the expected overall severity, 0 to the top level."""
        return np.asarray(self.expected[:, 0])

    @property
    def safety(self) -> npt.NDArray[np.float32]:
        """float32 [n], 1 - overall / top level: 1 harmless, 0 certainly extreme, NaN where not scored."""
        return np.asarray(1 - self.overall / self.taxonomy.top, np.float32)

    @property
    def flagged(self) -> npt.NDArray[np.bool_]:
        """bool [n], the overall severity reaches the threshold, or the text could not be scored."""
        return ~(self.overall < self.threshold)

    def interval(self, alpha: float = 0.1) -> npt.NDArray[np.int8]:
        """int8 [n, domain, 2], the lowest and highest level of a set that misses the true one in a share alpha at most.

        The promise is for outputs of the same kind as the rows it was calibrated on, for the harmless and for the
        harmful ones among them. Where those were too few, and where a text could not be scored, no level is ruled out.

        Args:
            alpha: from 0.01 to 0.5 in steps of 0.01, to which it is rounded down; less gives the whole scale.

        Raises:
            ValueError: the bundle has no table for it, or alpha is not between 0 and 1.
        """
        if self.conformal is None:
            raise ValueError("this bundle has no conformal table; run sevclf calibrate on rows that it has not seen")
        return self.conformal.sets(self.exceed, alpha)

    def rows(self, full: bool = False) -> Iterator[dict[str, Any] | None]:
        """One plain dict a text, None where it could not be scored; numbers rounded to 4 decimals.

        Args:
            full: add `probs`, the level probabilities of every domain, and `span`, the worst passage overall.
        """
        overall, level, safety = self.overall, self.level[:, 0], self.safety
        for index, (scored, flagged) in enumerate(zip(self.scored.tolist(), self.flagged.tolist(), strict=True)):
            if not scored:
                yield None
                continue
            row: dict[str, Any] = {
                "overall": round(float(overall[index]), DECIMALS),
                "level": int(level[index]),
                "safety": round(float(safety[index]), DECIMALS),
                "flagged": flagged,
                "domains": dict(zip(self.domains[1:], _rounded(self.expected[index, 1:]), strict=True)),
            }
            if full:
                row["probs"] = dict(zip(self.domains, _rounded(self.probs[index]), strict=True))
                row["span"] = self.spans[index, 0].tolist()
            yield row


def _rounded(values: npt.NDArray[np.float32]) -> list[Any]:
    rounded: list[Any] = values.astype(np.float64).round(DECIMALS).tolist()
    return rounded
