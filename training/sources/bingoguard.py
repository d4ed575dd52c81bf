"""BingoGuard: answers written to a level of severity, 0 to 4, in 11 topics.

https://github.com/SalesforceAIResearch/BingoGuard (Yin et al. 2025, arXiv:2503.06550), CC-BY-NC-4.0: never in a shipped
bundle. The rows with a severity have `prompt, response, category, level`, where a level is `level1` to `level4`, or its
number; ours is the same, overall and in the topic's domain. The training set without severities has `label` in place
of both, whose first line says safe (0) or unsafe ([1, 4], in a domain that is not read); its rows without an answer
(`none`, or `levels`, where the answer stands inside the judge's prompt) are left out. Group: the prompt.
"""

from __future__ import annotations

from collections.abc import Iterator

from severity_clf.records import Record

from .given import Row, read
from .manifest import Source
from .rows import Labels, group, safe, unique, unsafe, within

SOURCE = Source("bingoguard", "CC-BY-NC-4.0", "SalesforceAIResearch/BingoGuard", "as given", {})
LEVEL = {name: level for level in range(5) for name in (f"level{level}", str(level))}
DOMAIN: dict[str, str | None] = {
    "hate": "hate",
    "ip": "illicit",
    "misinformation": "misinformation",
    "nonviolent": "illicit",
    "privacy": "privacy",
    "profanity": "harassment",
    "self_harm": "self_harm",
    "sex_content": "sexual",
    "sex_crime": "sexual",
    "violence": "violence",
    "weapon": "violence",
}


def records(place: str) -> Iterator[Record]:
    """Stream the answers."""
    return unique(_all(place))


def _all(place: str) -> Iterator[Record]:
    for row in read(place, "train"):
        prompt, output = row.text("prompt"), row.text("response")
        if output.strip() in ("none", "levels") and "label" in row:
            continue
        yield Record(
            id=f"{SOURCE.name}/{row.where}",
            output=output,
            labels=_labels(row),
            group=group(SOURCE.name, prompt),
            source=SOURCE.name,
            prompt=prompt,
        )


def _labels(row: Row) -> Labels:
    if "level" not in row and "label" in row:
        verdict = row.text("label").split()[0].lower()
        if verdict not in ("safe", "unsafe"):
            raise row.error("label", row.text("label"), "want safe or unsafe on its first line")
        return safe() if verdict == "safe" else unsafe()
    level = LEVEL[row.choice("level", LEVEL)]
    return within((level, level), [DOMAIN[row.choice("category", DOMAIN)]])
