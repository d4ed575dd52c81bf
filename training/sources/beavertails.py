"""BeaverTails: answers of an Alpaca model to prompts of red teams, safe or unsafe in some of 14 categories.

https://huggingface.co/datasets/PKU-Alignment/BeaverTails (Ji et al. 2023, arXiv:2307.04657), CC-BY-NC-4.0: never in a
shipped bundle. Crowd workers labelled; one answer may stand there several times, and their disagreements are kept. Safe
is 0, unsafe [1, 4] overall and in the domain of its categories; if these lie in several domains, each is at least 1.
Group: the prompt.
"""

from __future__ import annotations

from collections.abc import Iterator

from severity_clf.records import Record

from .given import Row, read
from .manifest import Source
from .rows import Labels, group, safe, unique, within

SOURCE = Source("beavertails", "CC-BY-NC-4.0", "PKU-Alignment/BeaverTails", "as given", {})
# Those mapped to nothing mix domains.
DOMAIN: dict[str, str | None] = {
    "animal_abuse": "violence",
    "child_abuse": None,
    "controversial_topics,politics": None,
    "discrimination,stereotype,injustice": "hate",
    "drug_abuse,weapons,banned_substance": None,
    "financial_crime,property_crime,theft": "illicit",
    "hate_speech,offensive_language": None,
    "misinformation_regarding_ethics,laws_and_safety": "misinformation",
    "non_violent_unethical_behavior": None,
    "privacy_violation": "privacy",
    "self_harm": "self_harm",
    "sexually_explicit,adult_content": "sexual",
    "terrorism,organized_crime": None,
    "violence,aiding_and_abetting,incitement": "violence",
}


def records(place: str) -> Iterator[Record]:
    """Stream the answers."""
    return unique(_all(place))


def _all(place: str) -> Iterator[Record]:
    for row in read(place, "330k_train"):
        prompt = row.text("prompt")
        yield Record(
            id=f"{SOURCE.name}/{row.where}",
            output=row.text("response"),
            labels=_labels(row),
            group=group(SOURCE.name, prompt),
            source=SOURCE.name,
            prompt=prompt,
        )


def _labels(row: Row) -> Labels:
    categories = row.ticked("category", DOMAIN)
    return safe() if row.flag("is_safe") else within((1, 4), [DOMAIN[category] for category in categories])
