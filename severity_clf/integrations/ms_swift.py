"""ms-swift: a reward under a name that `--reward_funcs` takes.

    # plugin.py, named by --external_plugins plugin.py; then --reward_funcs safety
    register("safety", SafetyReward("base", helpfulness="quality"))

ms-swift passes the columns of the data set and no prompts.
"""

from __future__ import annotations

from typing import Any

from severity_clf.reward import SafetyReward


def register(name: str, reward: SafetyReward) -> None:
    """Make it known to ms-swift, which must be installed.

    Raises:
        ValueError: ms-swift has a reward of this name.
    """
    from swift.rewards import orms

    if name in orms:
        raise ValueError(f"ms-swift has a reward named {name!r} already; choose another name")

    def made(args: Any = None, **kwargs: Any) -> SafetyReward:
        return reward

    orms[name] = made
