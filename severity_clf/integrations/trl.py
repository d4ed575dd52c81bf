"""TRL takes a `SafetyReward` as it is; this keeps what a Lagrangian has learnt with the trainer's checkpoints.

    GRPOTrainer(..., reward_funcs=reward, callbacks=[KeepMultiplier(reward)])

It needs transformers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from severity_clf.reward import Lagrangian, SafetyReward

FILE = "safety_reward.json"


class KeepMultiplier(TrainerCallback):  # type: ignore[misc]  # transformers is not read by mypy
    """Write the multiplier of the first process into every checkpoint, and read it when training resumes.

    Raises:
        TypeError: the reward has no multiplier.
        FileNotFoundError: on resuming, the checkpoint was written without this callback.
    """

    def __init__(self, reward: SafetyReward) -> None:
        if not isinstance(reward.combine, Lagrangian):
            raise TypeError('the reward has no multiplier to keep; only combine="lagrangian" has')
        self._lagrangian = reward.combine

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write."""
        if state.is_world_process_zero:
            _file(args, state).write_text(json.dumps(self._lagrangian.state_dict()), encoding="utf-8")

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Read."""
        if state.global_step:
            self._lagrangian.load_state_dict(json.loads(_file(args, state).read_text(encoding="utf-8")))


def _file(args: Any, state: Any) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}" / FILE
