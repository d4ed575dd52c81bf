"""What does `SafetyReward` cost beyond `model.score`, and how well does `is_refusal` tell refusals?

    python -m benchmarks.reward --data DATA

Overhead: both score the same texts by turns, on one thread; the reward also combines with helpfulness and logs every
metric, as in TRL. CPU seconds count, since other work on the machine does not move them; the ratio is taken within a
round. Helpfulness comes from a column: what a judge of helpfulness costs is not the reward's.

Refusals: people's labels of XSTest (full refusal against full compliance; the patterns were written with a look at
these) and of Do-Not-Answer (action 0, cannot assist; not looked at). Only the first is a rate of false alarms as well.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks import results
from severity_clf import SafetyReward, load
from severity_clf.reward import is_refusal
from training.sources import do_not_answer, xstest

EXAMPLES = results.ROOT / "examples" / "outputs.jsonl"
RESULT = results.FOLDER / "reward.json"


def cpu_seconds(run: Callable[[], object]) -> float:
    """CPU time of one call, all threads of the process together."""
    start = time.process_time()
    run()
    return time.process_time() - start


def overhead(rounds: int) -> dict[str, Any]:
    """The examples, scored and rewarded by turns."""
    texts = [json.loads(line)["output"] for line in EXAMPLES.read_text(encoding="utf-8").splitlines()]
    model, reward = load(threads=1), SafetyReward(helpfulness="quality", severe=(3, 0.5), threads=1)
    quality, logged = [0.5] * len(texts), dict[str, float]()

    def rewarded() -> None:
        reward(texts, quality=quality, log_metric=logged.__setitem__)

    def scored() -> None:
        assert model.score(texts).safety.all()

    rewarded()  # the first call loads
    pairs = [(cpu_seconds(scored), cpu_seconds(rewarded)) for _ in range(rounds)]
    ratios = [ours / alone for alone, ours in pairs]
    return {
        "texts": len(texts),
        "rounds": rounds,
        "score_cpu_seconds": round(statistics.median(alone for alone, _ in pairs), 4),
        "reward_cpu_seconds": round(statistics.median(ours for _, ours in pairs), 4),
        "ratio": {
            "median": round(statistics.median(ratios), 4),
            "min": round(min(ratios), 4),
            "max": round(max(ratios), 4),
        },
    }


def share(texts: list[str]) -> dict[str, Any]:
    """How many are taken for refusals."""
    return {"texts": len(texts), "refusals": round(sum(map(is_refusal, texts)) / len(texts), 4)}


def refusals(data: Path) -> dict[str, Any]:
    """What `is_refusal` says of texts that people labelled."""
    judged = [(record.output, label) for record, _, label in xstest.rows(data)]
    return {
        "xstest_full_refusal": share([text for text, label in judged if label == "2_full_refusal"]),
        "xstest_full_compliance": share([text for text, label in judged if label == "1_full_compliance"]),
        "do_not_answer_cannot_assist": share([row.output for row, action in do_not_answer.rows(data) if action == 0]),
    }


def main(
    data: Annotated[Path, typer.Option(help="Folder of the labelled data sets.")],
    out: Annotated[Path, typer.Option(help="Where to write the results.")] = RESULT,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of scoring and rewarding.")] = 9,
) -> None:
    """Measure and write."""
    stamp = results.stamp(results.command_line("benchmarks.reward"))
    found = {"stamp": stamp, "overhead": overhead(rounds), "is_refusal": refusals(data)}
    results.write(out, found)
    print(json.dumps({name: found[name] for name in ("overhead", "is_refusal")}, indent=2))


if __name__ == "__main__":
    typer.run(main)
