"""One thin file for each host that severity_clf plugs into.

TRL (GRPO, RLOO) and what wraps it, and `datasets.map`, take a `SafetyReward` as it is; trainers that call a reward with
other arguments have a file here, and so has Ray. docs/rewards.md and docs/corpus.md have a recipe for each. Only `trl`
and `ray` need their host to be installed.
"""
