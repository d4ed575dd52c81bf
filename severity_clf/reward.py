"""A reward for reinforcement learning: how helpful is a completion, and how safe.

    reward = SafetyReward("base", helpfulness=fn, combine="product")
    reward(completions, prompts) -> list of float

With helpfulness h and safety s in [0, 1], never falling in either:

    product     h * s, as in safe-completion training (https://arxiv.org/abs/2508.09224)
    gate        h where s >= threshold, else fail
    hinge       h - cost * max(0, threshold - s)
    lagrangian  (h - m * (1 - s)) / (1 + m), the multiplier m learnt from how much harm there is
    safety      s alone, which teaches a policy to refuse: for comparison, not for training

What cannot be judged has h = 0 and s = 0, the worst reward there is whatever the combination. Nothing here knows a
trainer: `severity_clf.integrations` holds one file for each that needs other arguments.
"""

from __future__ import annotations

import math
import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from severity_clf.bundle import BundleError, find_bundle, read_bundle
from severity_clf.chat import kind_of, text_of
from severity_clf.model import SeverityModel
from severity_clf.scores import Scores
from severity_clf.taxonomy import Taxonomy

Array = npt.NDArray[np.float64]
Combine = Callable[[Array, Array], Array]  # helpfulness [n], safety [n] -> reward [n]

ROUNDING = 1e-6  # helpfulness this far outside [0, 1] is a rounding error
REFUSAL_CHARACTERS = 250  # a refusal says so at its start
REFUSAL = re.compile(
    r"""\b(?:
        (?:can\s?not|can['\u2019]?t|won['\u2019]?t|will\snot|unable\sto|not\sable\sto|decline\sto|refuse\sto)
            \s(?:\w+\s){0,2}?(?:help|assist|provide|answer|do|give|offer|share|discuss|engage|recommend|create|write|
            generate|condone|support|fulfil+|comply|suggest|participate|encourage|tell|explain|advise|promote|teach)\b
        | (?:not|never)\s(?:\w+\sor\s)?(?:ethical|appropriate|acceptable|legal|okay|ok)\b
        | do(?:\snot|n['\u2019]?t)\s(?:condone|encourage|support|promote|feel\scomfortable)\b
        | must\sdecline\b
        | sorry,?\sbut\b
    )""",
    re.IGNORECASE | re.VERBOSE,
)

# A lock made before a fork may be held for ever in the child, so the child makes its own.
_lock = threading.Lock()


def _renew_lock() -> None:
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def product(helpfulness: Array, safety: Array) -> Array:
    """h * s: among harmful completions the more helpful still wins, and where nothing helps nothing is learnt."""
    return helpfulness * safety


def bare_safety(helpfulness: Array, safety: Array) -> Array:
    """s, whatever the helpfulness: refusing everything is optimal."""
    return safety


@dataclass(frozen=True)
class Gate:
    """h where s reaches the threshold, else `fail`: among harmful completions nothing is preferred.

    Attributes:
        threshold: in (0, 1].
        fail: at most 0, so that harm is never worth more than a refusal.
    """

    threshold: float = 0.5
    fail: float = 0.0

    def __post_init__(self) -> None:
        _check("threshold", self.threshold, 0 < self.threshold <= 1, "above 0 and at most 1")
        _check("fail", self.fail, self.fail <= 0, "at most 0: harm must not be worth more than a refusal")

    def __call__(self, helpfulness: Array, safety: Array) -> Array:
        """The reward, float [n]."""
        return np.where(safety >= self.threshold, helpfulness, self.fail)


@dataclass(frozen=True)
class Hinge:
    """h - cost * max(0, threshold - s): free above the threshold, dearer the further below.

    Attributes:
        threshold: in (0, 1].
        cost: reward lost for each unit of safety that is missing; above 0.
    """

    threshold: float = 0.75
    cost: float = 2.0

    def __post_init__(self) -> None:
        _check("threshold", self.threshold, 0 < self.threshold <= 1, "above 0 and at most 1")
        _check("cost", self.cost, 0 < self.cost < math.inf, "above 0")

    def __call__(self, helpfulness: Array, safety: Array) -> Array:
        """The reward, float [n]."""
        return helpfulness - self.cost * np.maximum(0, self.threshold - safety)


@dataclass
class Lagrangian:
    """(h - m * (1 - s)) / (1 + m); m rises while the mean cost 1 - s is over the limit and falls while it is under.

    After every call, log m += rate * (mean cost - limit). Each process learns its own m from its own completions.
    `state_dict` and `load_state_dict` carry it over a restart.

    Attributes:
        limit: the mean cost to be reached, in (0, 1).
        rate: step of log m for each unit of cost; above 0.
        multiplier: m; it stays within 1/1000 and 1000.
    """

    limit: float = 0.05
    rate: float = 0.5
    multiplier: float = 1.0

    def __post_init__(self) -> None:
        _check("limit", self.limit, 0 < self.limit < 1, "between 0 and 1")
        _check("rate", self.rate, 0 < self.rate < math.inf, "above 0")
        self.load_state_dict(self.state_dict())

    def __call__(self, helpfulness: Array, safety: Array) -> Array:
        """The reward, float [n]."""
        return (helpfulness - self.multiplier * (1 - safety)) / (1 + self.multiplier)

    def update(self, safety: Array) -> None:
        """Learn from the safety of some completions."""
        step = self.rate * (float(np.mean(1 - safety)) - self.limit)
        self.multiplier = min(max(self.multiplier * math.exp(step), 1e-3), 1e3)

    def state_dict(self) -> dict[str, float]:
        """What `load_state_dict` wants, fit for JSON."""
        return {"multiplier": self.multiplier}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on from a state.

        Raises:
            KeyError: it has no multiplier.
            ValueError: the multiplier is not a number from 1/1000 to 1000.
        """
        _check("multiplier", state["multiplier"], 1e-3 <= state["multiplier"] <= 1e3, "from 0.001 to 1000")
        self.multiplier = state["multiplier"]


COMBINE: Mapping[str, Callable[[], Combine]] = {
    "product": lambda: product,
    "gate": Gate,
    "hinge": Hinge,
    "lagrangian": Lagrangian,
    "safety": lambda: bare_safety,
}


@dataclass(frozen=True, eq=False)
class Judged:
    """What one call found out about n completions.

    Attributes:
        texts: what was scored, None where there was no text.
        scores: the severity of each.
        safety: float [n], 0 where there was nothing to score or no helpfulness.
        helpfulness: float [n], 0 in the same places; all 0 where the reward has no helpfulness.
        unhelped: bool [n], helpfulness was NaN or None.
        reward: float [n].
    """

    texts: Sequence[str | None]
    scores: Scores
    safety: Array
    helpfulness: Array
    unhelped: npt.NDArray[np.bool_]
    reward: Array

    def figures(self) -> dict[str, Array]:
        """What hosts log, float [n] by name: severities, one 1 among the levels, and what the reward was made from.

        A completion that cannot be scored counts as the top level: unknown is not harmless.
        """
        scores, top = self.scores, self.scores.taxonomy.top
        expected = np.where(scores.scored[:, None], scores.expected, top)
        level = np.where(scores.scored, scores.level[:, 0], top)
        found = {
            **dict(zip(scores.domains, expected.T, strict=True)),
            **{f"level_{number}": level == number for number in range(top + 1)},
            "safety": self.safety,
            "helpfulness": self.helpfulness,
            "refusals": np.array([is_refusal(text or "") for text in self.texts]),
            "unscorable": ~scores.scored,
            "unhelped": self.unhelped,
        }
        return {f"severity/{name}": values.astype(np.float64) for name, values in found.items()}

    def row(self, index: int) -> dict[str, float]:
        """The figures of one completion, for hosts that ask for one at a time."""
        return {name: float(values[index]) for name, values in self.figures().items()}


class SafetyReward:
    """Rewards completions for being helpful and safe: `reward(completions, prompts=None, **columns) -> list[float]`.

    It pickles as a path and its options, loads the model when first called, and may be shared by threads and forks. Its
    name in a trainer's log is `__name__`. `counts` says how many completions it has seen in this process, how many had
    nothing to score (`unscorable`) and how many no helpfulness (`unhelped`); both kinds get the worst reward.

    Args:
        model: a shipped bundle's name, or a bundle's path.
        helpfulness: the name of a column that the host passes, or a function called as TRL calls a reward function,
            `fn(completions=..., prompts=..., **columns)`; either way one number in [0, 1] a completion, None or NaN
            where there is none.
        combine: `"product"`, `"gate"`, `"hinge"`, `"lagrangian"`, `"safety"`, or `Gate(...)`, `Hinge(...)`,
            `Lagrangian(...)`, or a function of h and s, both float [n], that falls in neither.
        domains: what safety is made from, s = 1 - max(weight * expected severity) / top level. Names, or weights in
            (0, 1] by name.
        severe: a level and a probability: s = 0 where P(severity >= level) is above it in any of these domains.
        with_prompts: score completions with their prompts as context.
        threads: as for `severity_clf.load`.

    Raises:
        BundleError: there is no such bundle, or it is damaged.
        ValueError: an option names what is not there, or is out of range.
        TypeError: `model` is no name or path.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = "base",
        *,
        helpfulness: str | Callable[..., Iterable[float | None]] | None = None,
        combine: str | Combine = "product",
        domains: Sequence[str] | Mapping[str, float] = ("overall",),
        severe: tuple[int, float] | None = None,
        with_prompts: bool = False,
        threads: int | None = None,
    ) -> None:
        if not isinstance(model, (str, os.PathLike)):
            raise TypeError(f"model is {type(model).__name__}, want the name or path of a bundle; pass model.path")
        # A path, not a session: trainers pickle rewards into worker processes, which may stand in another folder.
        self._path = find_bundle(model).resolve()
        bundle = read_bundle(self._path)
        self._sha256 = bundle.card["sha256"]
        if isinstance(combine, str):
            if combine not in COMBINE:
                raise ValueError(f"combine is {combine!r}, want one of {', '.join(COMBINE)}, or a function of h and s")
            combine = COMBINE[combine]()
        if helpfulness is None and combine is not bare_safety:
            raise ValueError(
                "helpfulness is missing: name a column or pass a function. Safety alone teaches a policy to refuse "
                'everything; if that is meant, say combine="safety"'
            )
        if threads is not None:
            _check("threads", threads, threads >= 1, "at least 1")
        self.combine = combine
        self._helpfulness = helpfulness
        self._weights = _weights(domains, bundle.taxonomy)  # float [domain]
        self._severe = _severe(severe, bundle.taxonomy)
        self._with_prompts = with_prompts
        self._threads = threads
        self.__name__ = "safety_reward"
        self._reset()

    def _reset(self) -> None:
        self._model: SeverityModel | None = None
        self._pid = os.getpid()
        self.counts = {"completions": 0, "unscorable": 0, "unhelped": 0}

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key not in ("_model", "_pid", "counts")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._reset()

    def __call__(self, completions: Sequence[Any], prompts: Sequence[Any] | None = None, **columns: Any) -> list[float]:
        """One reward a completion, the same whatever its neighbours (but for a Lagrangian, which learns from them).

        Args:
            completions: strings, lists of chat messages, or None. All that the assistant says in the messages counts.
            prompts: one for each, or None.
            columns: what the host passes besides. If `log_metric` is there, as in TRL, `Judged.figures` are logged.

        Raises:
            TypeError: a completion is something else, or `completions` a bare string.
            ValueError: prompts or helpfulness have another length, or helpfulness is outside [0, 1].
        """
        judged = self.judge(completions, prompts, **columns)
        log: Callable[[str, float], None] | None = columns.get("log_metric")
        if log is not None and judged.texts:
            for name, values in judged.figures().items():
                log(name, float(values.mean()))
            if isinstance(self.combine, Lagrangian):
                log("severity/multiplier", self.combine.multiplier)
        rewards: list[float] = judged.reward.tolist()
        return rewards

    def judge(self, completions: Sequence[Any], prompts: Sequence[Any] | None = None, **columns: Any) -> Judged:
        """What `__call__` rewards, with all that it is made of; arguments and errors are the same."""
        _check_batch("completions", completions)
        texts = [_completion_text(index, completion) for index, completion in enumerate(completions)]
        if prompts is not None:
            _check_batch("prompts", prompts)
            if len(prompts) != len(texts):
                raise ValueError(f"got {len(texts)} completions and {len(prompts)} prompts; want a prompt for each")
        helpfulness, unhelped = self._help(completions, prompts, columns)
        context = [_prompt_text(prompt) for prompt in prompts] if self._with_prompts and prompts is not None else None
        scores = self._scorer().score(texts, context)
        worst = ~scores.scored | unhelped
        safety = np.where(worst, 0, self._safety(scores))
        helpfulness = np.where(worst, 0, helpfulness)
        with _lock:
            reward = np.asarray(self.combine(helpfulness, safety), np.float64)
            if isinstance(self.combine, Lagrangian) and texts:
                self.combine.update(safety)
            for name, count in (
                ("completions", len(texts)),
                ("unscorable", int((~scores.scored).sum())),
                ("unhelped", int(unhelped.sum())),
            ):
                self.counts[name] += count
        if reward.shape != safety.shape or not np.isfinite(reward).all():
            raise ValueError(f"combine gave {reward.shape} rewards, want {safety.shape} finite ones")
        return Judged(texts, scores, safety, helpfulness, unhelped, reward)

    def _scorer(self) -> SeverityModel:
        with _lock:  # one of many threads loads, the others wait
            if self._model is None or self._pid != os.getpid():
                model = SeverityModel(self._path, threads=self._threads)
                if model.card["sha256"] != self._sha256:
                    raise BundleError(f"{self._path}: the bundle changed after this reward was made; make it again")
                self._model, self._pid = model, os.getpid()
            return self._model

    def _safety(self, scores: Scores) -> Array:
        """float [n], NaN where not scored."""
        chosen = self._weights > 0
        severity = (scores.expected[:, chosen] * self._weights[chosen]).max(axis=1)  # [n], in levels
        safety = np.clip(1 - severity / scores.taxonomy.top, 0, 1)
        if self._severe is not None:
            level, probability = self._severe
            safety[(scores.exceed[:, chosen, level - 1] > probability).any(axis=1)] = 0
        return np.asarray(safety, np.float64)

    def _help(
        self, completions: Sequence[Any], prompts: Sequence[Any] | None, columns: Mapping[str, Any]
    ) -> tuple[Array, npt.NDArray[np.bool_]]:
        """Helpfulness, float [n], and bool [n], where it was NaN or None."""
        source = self._helpfulness
        if source is None:
            return np.zeros(len(completions)), np.zeros(len(completions), np.bool_)
        if isinstance(source, str):
            if source not in columns:
                raise ValueError(f"no column {source!r} to take helpfulness from, only {', '.join(columns) or 'none'}")
            values = columns[source]
        else:
            values = source(completions=completions, prompts=prompts, **columns)
        _check_batch("helpfulness", values)
        if len(values) != len(completions):
            raise ValueError(
                f"got {len(completions)} completions and {len(values)} helpfulness values; want one for each"
            )
        found = np.array([_number(index, value) for index, value in enumerate(values)], np.float64)
        wrong = np.flatnonzero((found < -ROUNDING) | (found > 1 + ROUNDING))
        if len(wrong):
            raise ValueError(f"helpfulness[{wrong[0]}] is {found[wrong[0]]}, want a number from 0 to 1; scale it")
        return np.clip(found, 0, 1), np.isnan(found)


def is_refusal(text: str) -> bool:
    """Whether an English text opens like a refusal: a rough measure to watch, no part of any reward."""
    return REFUSAL.search(text[:REFUSAL_CHARACTERS]) is not None


def _completion_text(index: int, completion: Any) -> str | None:
    """All that the assistant says in a completion; None if that is nothing, as for calls of tools alone."""
    if completion is None or isinstance(completion, str):
        return completion
    if not isinstance(completion, Sequence) or not all(isinstance(message, Mapping) for message in completion):
        raise TypeError(f"completions[{index}] is {kind_of(completion)}, want a string, a list of messages or None")
    said = []
    for message in completion:
        if message.get("role") == "assistant":
            try:
                said.append(text_of([dict(message)], "assistant"))
            except ValueError:  # no text in it
                continue
    return "\n\n".join(said) if said else None


def _prompt_text(prompt: Any) -> str | None:
    """What the user asked last; None if there is no such text."""
    try:
        return text_of(prompt, "user")
    except ValueError:
        return None


def _number(index: int, value: Any) -> float:
    """A number of any kind, tensors of one number included; NaN for None."""
    if value is None:
        return math.nan
    try:
        if isinstance(value, str):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"helpfulness[{index}] is {kind_of(value)}, want a number from 0 to 1, or None") from None


def _weights(domains: Sequence[str] | Mapping[str, float], taxonomy: Taxonomy) -> Array:
    """float [domain], 0 for a domain that does not count."""
    if isinstance(domains, str) or not domains:
        raise ValueError(f"domains is {domains!r}, want a list of names, or weights by name")
    weights = dict(domains) if isinstance(domains, Mapping) else dict.fromkeys(domains, 1.0)
    for name, weight in weights.items():
        if name not in taxonomy.names:
            raise ValueError(f"domains names {name!r}, the bundle has {', '.join(taxonomy.names)}")
        _check(f"the weight of {name}", weight, 0 < weight <= 1, "above 0 and at most 1")
    return np.array([weights.get(name, 0) for name in taxonomy.names], np.float64)


def _severe(severe: tuple[int, float] | None, taxonomy: Taxonomy) -> tuple[int, float] | None:
    if severe is not None:
        level, probability = severe
        _check("severe's level", level, level in range(1, taxonomy.top + 1), f"a whole number from 1 to {taxonomy.top}")
        _check("severe's probability", probability, 0 <= probability < 1, "at least 0 and below 1")
    return severe


def _check(name: str, value: float, good: bool, want: str) -> None:
    if not good:  # NaN is never good
        raise ValueError(f"{name} is {value}, want {want}")


def _check_batch(name: str, values: Any) -> None:
    if isinstance(values, (str, bytes, Mapping)) or not (isinstance(values, Iterable) and isinstance(values, Sized)):
        raise TypeError(f"{name} must be a list with one entry a completion, got one {type(values).__name__}")
