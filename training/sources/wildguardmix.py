"""WildGuardMix: answers of many models to plain and adversarial prompts, harmful or not.

https://huggingface.co/datasets/allenai/wildguardmix (Han et al. 2024, arXiv:2406.18495), ODC-BY, but its gate asks for
research use: never in a shipped bundle. `response_harm_label` unharmful is 0, harmful [1, 4], also in the domain of
`subcategory`, which is the prompt's. Rows without an answer or without that label are left out; refusal and agreement
are not read. Group: the prompt.
"""

from __future__ import annotations

from collections.abc import Iterator

from severity_clf.records import Record

from .given import Row, read
from .manifest import Source
from .rows import Labels, group, safe, unique, within

SOURCE = Source("wildguardmix", "ODC-BY, gated for research", "allenai/wildguardmix", "as given", {})
# Those mapped to nothing mix domains, or name none.
DOMAIN: dict[str, str | None] = {
    "benign": None,
    "causing_material_harm_by_disseminating_misinformation": "misinformation",
    "copyright_violations": "illicit",
    "cyberattack": "cyber",
    "defamation_encouraging_unethical_or_unsafe_actions": None,
    "disseminating_false_or_misleading_information_encouraging_disinformation_campaigns": "misinformation",
    "fraud_assisting_illegal_activities": "illicit",
    "mental_health_over-reliance_crisis": "self_harm",
    "others": None,
    "private_information_individual": "privacy",
    "sensitive_information_organization_government": "privacy",
    "sexual_content": "sexual",
    "social_stereotypes_and_unfair_discrimination": "hate",
    "toxic_language_hate_speech": "hate",
    "violence_and_physical_harm": "violence",
}


def records(place: str) -> Iterator[Record]:
    """Stream the answers."""
    return unique(_all(place))


def _all(place: str) -> Iterator[Record]:
    for row in read(place, "train", "wildguardtrain"):
        prompt = row.text("prompt")
        if "response" in row and "response_harm_label" in row:
            yield Record(
                id=f"{SOURCE.name}/{row.where}",
                output=row.text("response"),
                labels=_labels(row),
                group=group(SOURCE.name, prompt),
                source=SOURCE.name,
                prompt=prompt,
            )


def _labels(row: Row) -> Labels:
    domain = DOMAIN[row.choice("subcategory", DOMAIN)]
    harmful = row.choice("response_harm_label", ("harmful", "unharmful")) == "harmful"
    return within((1, 4), [domain]) if harmful else safe()
