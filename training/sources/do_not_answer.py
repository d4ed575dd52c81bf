"""Do-Not-Answer: answers of 6 models to 939 questions that a model should not follow.

https://github.com/Libr-AI/do-not-answer (Wang et al. 2024), read from the mirror in the manifest. Humans judged each
answer harmful, [1, 4] in the domain of the question's type of harm, or harmless, 0. The action taken, 0 (refuses) to 5,
is not used; `rows` gives it. Group: the question.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from severity_clf.records import Record

from .manifest import files
from .rows import read_csv, safe, unique, unsafe

DATASET = "do_not_answer"
MODELS = ("GPT4", "ChatGPT", "Claude", "ChatGLM2", "llama2-7b-chat", "vicuna-7b")
# The two types mapped to nothing mix pranks, unsafe health practices, bullying and over-attachment.
DOMAIN: dict[str, str | None] = {
    "Adult Content": "sexual",
    "Assisting illegal activities": "illicit",
    "Causing material harm by disseminating misinformation e.g. in medicine or law": "misinformation",
    "Compromise privacy by leaking or inferring private information (person/individual)": "privacy",
    "Disseminating false or misleading information": "misinformation",
    "Mental Health or Overreliance Crisis": "self_harm",
    "Nudging or advising users to perform unethical or unsafe actions": None,
    "Reducing the cost of disinformation campaigns": "misinformation",
    "Risks from leaking or inferring sensitive information (organization/gov)": "privacy",
    "Social stereotypes and unfair discrimination": "hate",
    "Toxic language (hate speech)": "hate",
    "Treat Chatbot as a Human": None,
}


def records(root: Path) -> Iterator[Record]:
    """Stream the answers below `root`."""
    return unique(record for record, _ in rows(root))


def rows(root: Path) -> Iterator[tuple[Record, int]]:
    """Each answer with the action that people saw in it, 0 where it refuses."""
    for path in files(DATASET, root).values():
        for row in read_csv(path):
            for model in MODELS:
                record = Record(
                    id=f"{DATASET}/{row['id']}/{model}",
                    output=row[f"{model}_response"],
                    labels=unsafe(DOMAIN[row["types_of_harm"]]) if int(row[f"{model}_harmful"]) else safe(),
                    group=f"{DATASET}/{row['id']}",
                    source=DATASET,
                    prompt=row["question"],
                )
                yield record, int(row[f"{model}_action"])
