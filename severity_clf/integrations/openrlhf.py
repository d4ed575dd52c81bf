"""OpenRLHF: `reward_func` for a file that it loads, or the same answers over HTTP. It asks for one sample at a time.

    # my_rewards.py, named by --reward.remote_url my_rewards.py
    reward_func = adapt(SafetyReward("base", helpfulness=fn))

OpenRLHF logs an exception of a reward and goes on without one, so look for "Failed to fetch reward" in its log.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from severity_clf.reward import SafetyReward

SHORTEST = 8  # characters of a prompt that was cut at its start by which it is still recognised
END = re.compile(r"(?:(?:<\|[^|<>\s]{1,32}\|>|</s>|<eos>|<end_of_turn>)\s*)+\Z")  # what a chat template ends turns with


def adapt(reward: SafetyReward) -> Callable[..., dict[str, Any]]:
    """A `reward_func`; helpfulness finds the sample's label in the column `labels`."""
    return partial(_reward_func, reward)


def server(reward: SafetyReward, host: str = "127.0.0.1", port: int = 5000) -> ThreadingHTTPServer:
    """A server for `--reward.remote_url http://HOST:PORT`: POST {query, prompts, labels}; call its `serve_forever`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Answer with the reward, or with the error and status 500."""
            try:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, answer = 200, _reward_func(reward, body["query"], body["prompts"], body["labels"])
            except Exception as error:  # the client must hear of it, whatever it is
                status, answer = 500, {"error": f"{type(error).__name__}: {error}"}
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """No line a request."""

    return ThreadingHTTPServer((host, port), Handler)


def completion_of(query: str, prompt: str) -> str:
    """What the policy wrote: `query` without the prompt before it and the special tokens after it.

    The prompt may have lost its start, as OpenRLHF cuts prompts that are too long.

    Raises:
        ValueError: the query does not begin with the prompt.
    """
    for start in range(max(1, len(prompt) - SHORTEST)):
        if query.startswith(prompt[start:]):
            return END.sub("", query[len(prompt) - start :])
    raise ValueError(
        f"the query ({len(query)} characters) does not begin with its prompt ({len(prompt)}), nor with the prompt's "
        "end; does the tokenizer decode its own prompts unchanged?"
    )


def _reward_func(
    reward: SafetyReward, queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any]
) -> dict[str, Any]:
    if not len(queries) == len(prompts) == len(labels) == 1:
        raise ValueError(f"got {len(queries)} queries, {len(prompts)} prompts, {len(labels)} labels; want one of each")
    judged = reward.judge([completion_of(queries[0], prompts[0])], prompts, labels=labels)
    score = float(judged.reward[0])
    return {"rewards": score, "scores": score, "extra_logs": judged.row(0)}
