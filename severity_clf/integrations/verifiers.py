"""verifiers and prime-rl: a reward of a trace.

    # my_rewards.py, named by the task's config: rewards = {"safety": {"fn": "my_rewards:safety"}}
    safety = adapt(SafetyReward("base", helpfulness=fn))

or, in a `vf.Task` of one's own, `@vf.reward` on a method that returns `await safety(trace)`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from severity_clf.reward import SafetyReward


def adapt(reward: SafetyReward) -> Callable[[Any], Awaitable[float]]:
    """A reward of all that the model said in a trace, as one text; figures become metrics of the trace.

    Helpfulness finds the fields of the task's data as columns. Scoring runs in a thread beside the event loop.
    """
    return partial(_reward_of, reward)


async def _reward_of(reward: SafetyReward, trace: Any) -> float:
    data = trace.task.data
    said = [message.content for message in trace.assistant_messages if message.content]
    if trace.root_reply and trace.root_reply not in said:
        said.append(trace.root_reply)
    columns = {name: [getattr(data, name)] for name in type(data).model_fields if name != "prompt"}
    judged = await asyncio.to_thread(reward.judge, ["\n\n".join(said)], [data.prompt_text], **columns)
    trace.record_metrics(judged.row(0))
    return float(judged.reward[0])
