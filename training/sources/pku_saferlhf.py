"""PKU-SafeRLHF: two answers of Alpaca-style models to a prompt, each with a severity and its kinds of harm.

https://huggingface.co/datasets/PKU-Alignment/PKU-SafeRLHF (Ji et al. 2024, arXiv:2406.15513), CC-BY-NC-4.0: never in a
shipped bundle. People and a model together gave 0 (safe) or 1 minor, 2 moderate, 3 severe. Three steps on a scale of
four are two levels wide each: 1 is [1, 2], 2 [2, 3], 3 [3, 4]. Where `is_response_..._safe` contradicts the severity,
the answer is known to be no worse than the severity. The severity is the whole answer's: it is the domain's too if
all its kinds of harm lie in one, and else each of their domains is at least 1. Group: the prompt.
"""

from __future__ import annotations

from collections.abc import Iterator

from severity_clf.records import Record

from .given import Row, read
from .manifest import Source
from .rows import Labels, group, unique, within

SOURCE = Source("pku_saferlhf", "CC-BY-NC-4.0", "PKU-Alignment/PKU-SafeRLHF", "as given", {})
LEVEL = ((0, 0), (1, 2), (2, 3), (3, 4))
# Those mapped to nothing mix domains, or harm no person.
DOMAIN: dict[str, str | None] = {
    "Animal Abuse": "violence",
    "Copyright Issues": "illicit",
    "Cybercrime": "cyber",
    "Discriminatory Behavior": "hate",
    "Disrupting Public Order": "illicit",
    "Drugs": "illicit",
    "Economic Crime": "illicit",
    "Endangering National Security": None,
    "Endangering Public Health": None,
    "Environmental Damage": None,
    "Human Trafficking": "illicit",
    "Insulting Behavior": "harassment",
    "Mental Manipulation": None,
    "Physical Harm": "violence",
    "Privacy Violation": "privacy",
    "Psychological Harm": None,
    "Sexual Content": "sexual",
    "Violence": "violence",
    "White-Collar Crime": "illicit",
}


def records(place: str) -> Iterator[Record]:
    """Stream the answers, two to a row."""
    return unique(_all(place))


def _all(place: str) -> Iterator[Record]:
    for row in read(place, "train"):
        prompt = row.text("prompt")
        for which in (0, 1):
            yield Record(
                id=f"{SOURCE.name}/{row.where}/{which}",
                output=row.text(f"response_{which}"),
                labels=_labels(row, which),
                group=group(SOURCE.name, prompt),
                source=SOURCE.name,
                prompt=prompt,
            )


def _labels(row: Row, which: int) -> Labels:
    low, high = LEVEL[row.level(f"response_{which}_severity_level", 3)]
    safe = row.flag(f"is_response_{which}_safe")
    kinds = row.ticked(f"response_{which}_harm_category", DOMAIN)
    if safe != (high == 0):
        return {"overall": (0, max(high, 1))}
    return within((low, high), [DOMAIN[kind] for kind in kinds])
