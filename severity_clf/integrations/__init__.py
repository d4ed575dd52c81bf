"""One thin file for each host that calls a reward with other arguments than `SafetyReward` takes.

TRL (GRPO, RLOO) and what wraps it, and `datasets.map`, take a `SafetyReward` as it is. docs/rewards.md has a recipe for
each. No file here is imported by the package, and only `trl` needs its host to be installed.
"""
