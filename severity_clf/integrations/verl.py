"""verl: `compute_score` for its reward loop, which asks for one sample at a time, from many threads.

    # my_rewards.py, named by reward.custom_reward_function.path=pkg://my_rewards and .name=compute_score
    compute_score = adapt(SafetyReward("base", helpfulness=fn))

Helpfulness finds `data_source`, `ground_truth` and the keys of `extra_info` and of `reward_kwargs` as columns; the key
`prompt`, if there is one, is taken for the prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from severity_clf.reward import SafetyReward


def adapt(reward: SafetyReward) -> Callable[..., dict[str, float]]:
    """A `compute_score` that gives `score` and, for verl's logs, the figures of `Judged`."""
    return partial(_compute_score, reward)


def _compute_score(
    reward: SafetyReward,
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> dict[str, float]:
    row = {**(extra_info or {}), **kwargs, "data_source": data_source, "ground_truth": ground_truth}
    prompt = row.pop("prompt", None)
    judged = reward.judge([solution_str], [prompt], **{name: [value] for name, value in row.items()})
    return {"score": float(judged.reward[0]), **judged.row(0)}
