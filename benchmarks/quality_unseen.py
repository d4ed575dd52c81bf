"""Does a verdict hold on sets that are never trained on? The shipped bundle at its own threshold, beside the baselines.

Baselines flag from a probability of 1/2. Answers of Do-Not-Answer and HaluEval are of the tenth of the groups that no
fit sees. Figures are of outputs alone unless the prompt is named; texts of OpenAI's moderation set and of HateCheck are
users', scored as if they were outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.quality_peers import Peers, Said
from benchmarks.results import figure
from severity_clf import metrics
from severity_clf.model import SeverityModel
from severity_clf.records import Record
from training.crossfit import held_out
from training.sources import (
    dices_990,
    do_not_answer,
    halueval_general,
    harmbench_cls_val,
    hatecheck,
    hh_rlhf_harmless,
    openai_mod,
    xstest,
)

Bool = npt.NDArray[np.bool_]


def judge_harmbench(model: SeverityModel, peers: Peers, data: Path) -> dict[str, Any]:
    """Is a completion harmful? The majority of three people says; 11 judges' verdicts come with the rows."""
    ours = model.card["name"]
    rows = list(harmbench_cls_val.rows(data))
    records, harmful = [record for record, _, _ in rows], np.array([majority for _, majority, _ in rows])
    groups, outputs = [record.group for record in records], [record.output for record in records]
    systems = {
        ours: Said.overall(model.score(outputs)),
        f"{ours}_with_prompt": Said.overall(model.score(outputs, [record.prompt for record in records])),
        **peers.say(outputs),
    }
    verdicts = {
        judge: np.array([bool(said[judge]) for _, _, said in rows])  # no verdict counts as not harmful
        for judge in harmbench_cls_val.JUDGES
    }
    return {
        "rows": len(rows),
        "harmful": int(harmful.sum()),
        "systems": {name: _binary(said, harmful, groups) for name, said in systems.items()},
        "judges": {judge: {"f1": figure(metrics.f1, flag, harmful, groups=groups)} for judge, flag in verdicts.items()},
    }


def judge_openai_mod(model: SeverityModel, peers: Peers, data: Path) -> dict[str, Any]:
    """Is a text harmful in any category, and in which? A category that nobody labelled counts as not harmful.

    The own domain of "any" is the highest of the five domains that are the set's categories.
    """
    ours = model.card["name"]
    records = list(openai_mod.records(data))
    groups, outputs = [record.group for record in records], [record.output for record in records]
    harmful = np.array([any(low > 0 for low, _ in record.labels.values()) for record in records])
    scores = model.score(outputs)
    domains = [scores.domains.index(domain) for domain in openai_mod.STEPS]
    systems = {
        ours: Said.overall(scores),
        f"{ours}_own_domain": Said(
            scores.expected[:, domains].max(axis=1), (scores.level[:, domains] != 0).any(axis=1)
        ),
        **peers.say(outputs),
    }
    categories = {}
    for domain, column in zip(openai_mod.STEPS, domains, strict=True):
        at = [row for row, record in enumerate(records) if domain in record.labels]
        true = np.array([records[row].labels[domain][0] > 0 for row in at])
        said = {name: one.score for name, one in systems.items()} | {f"{ours}_own_domain": scores.expected[:, column]}
        categories[domain] = {
            "rows": len(at),
            "harmful": int(true.sum()),
            "systems": {
                name: figure(metrics.auroc, score[at], true, groups=[groups[row] for row in at])
                for name, score in said.items()
            },
        }
    return {
        "rows": len(records),
        "harmful": int(harmful.sum()),
        "systems": {
            name: {
                "auprc": figure(metrics.average_precision, said.score, harmful, groups=groups),
                **_binary(said, harmful, groups),
            }
            for name, said in systems.items()
        },
        "categories": categories,
    }


def judge_xstest(model: SeverityModel, peers: Peers, data: Path) -> dict[str, Any]:
    """How often is a harmless answer flagged? People told refusals from answers, to safe and to unsafe prompts."""
    rows = list(xstest.rows(data))
    safe_prompt = np.array([not kind.startswith("contrast_") for _, kind, _ in rows])
    label = np.array([label for _, _, label in rows])
    return _harmless(
        model,
        peers,
        [record for record, _, _ in rows],
        {"safe_prompts_answered": safe_prompt & (label == "1_full_compliance"), "refusals": label == "2_full_refusal"},
    )


def judge_held_out(model: SeverityModel, peers: Peers, data: Path) -> dict[str, Any]:
    """How often is a harmless answer of a training source flagged, of a group that calibrated, but tuned no encoder?"""
    asked = [(record, action) for record, action in do_not_answer.rows(data) if record.output.strip()]
    rows = [(record, "refusals" if action == 0 else "") for record, action in asked if record.labels["overall"][1] == 0]
    rows += [(record, "ordinary") for record in halueval_general.records(data)]
    rows = [(record, kind) for record, kind in rows if held_out(record.group)]
    kind = np.array([kind for _, kind in rows])
    return _harmless(
        model,
        peers,
        [record for record, _ in rows],
        {
            "do_not_answer_refusals": kind == "refusals",
            "do_not_answer_harmless": kind != "ordinary",
            "halueval": kind == "ordinary",
        },
    )


def judge_hatecheck(model: SeverityModel, peers: Peers, data: Path) -> dict[str, Any]:
    """Is a post hateful, and which kinds of post mislead? A domain flags from a median level of 1."""
    ours = model.card["name"]
    records = list(hatecheck.records(data))
    groups, outputs = [record.group for record in records], [record.output for record in records]
    hateful = np.array([record.labels["hate"][0] > 0 for record in records])
    kinds = np.array([record.id.split("/")[1] for record in records])
    scores = model.score(outputs)
    hate = scores.domains.index("hate")
    own = Said(scores.expected[:, hate], scores.level[:, hate] != 0)
    return {
        "rows": len(records),
        "hateful": int(hateful.sum()),
        "systems": {
            name: _binary(said, hateful, groups)
            for name, said in {ours: Said.overall(scores), f"{ours}_own_domain": own, **peers.say(outputs)}.items()
        },
        "functionalities": {
            str(kind): {
                "rows": int(at.sum()),
                "hateful": bool(hateful[at].all()),
                "accuracy": round(float((own.flag[at] == hateful[at]).mean()), 4),
            }
            for kind in np.unique(kinds)
            for at in [kinds == kind]
        },
    }


def judge_dices(model: SeverityModel, peers: Peers, data: Path) -> dict[str, Any]:
    """Does a reply score higher the more of its some 70 raters find it unsafe?"""
    ours = model.card["name"]
    rows = list(dices_990.rows(data))
    groups, outputs = [record.group for record, _ in rows], [record.output for record, _ in rows]
    unsafe = np.array([unsafe for _, unsafe in rows])
    systems = {ours: Said.overall(model.score(outputs)), **peers.say(outputs)}
    spearman = {name: figure(metrics.spearman, said.score, unsafe, groups=groups) for name, said in systems.items()}
    return {"rows": len(rows), "spearman": spearman}


def judge_hh_rlhf(model: SeverityModel, peers: Peers, data: Path) -> dict[str, Any]:
    """Does the reply that people rejected as more harmful score higher than the one they chose? Ties count half."""
    ours = model.card["name"]
    outputs = [record.output for record in hh_rlhf_harmless.records(data)]  # chosen and rejected by turns
    systems = {ours: Said.overall(model.score(outputs)), **peers.say(outputs)}

    def higher(chosen: npt.NDArray[np.floating], rejected: npt.NDArray[np.floating]) -> float:
        return float(((np.sign(rejected - chosen) + 1) / 2).mean())

    ordered = {name: figure(higher, said.score[0::2], said.score[1::2]) for name, said in systems.items()}
    return {"pairs": len(outputs) // 2, "ordered": ordered}


JUDGES: Mapping[str, Callable[[SeverityModel, Peers, Path], dict[str, Any]]] = {
    "harmbench": judge_harmbench,
    "openai_mod": judge_openai_mod,
    "xstest": judge_xstest,
    "held_out": judge_held_out,
    "hatecheck": judge_hatecheck,
    "dices": judge_dices,
    "hh_rlhf": judge_hh_rlhf,
}


def _binary(said: Said, harmful: Bool, groups: Sequence[str]) -> dict[str, Any]:
    return {
        "auroc": figure(metrics.auroc, said.score, harmful, groups=groups),
        "f1": figure(metrics.f1, said.flag, harmful, groups=groups),
    }


def _harmless(
    model: SeverityModel, peers: Peers, records: Sequence[Record], parts: Mapping[str, Bool]
) -> dict[str, Any]:
    """The share of each part's outputs that is flagged, and that our bundle puts at level 0 overall."""
    ours = model.card["name"]
    outputs, groups = [record.output for record in records], np.array([record.group for record in records])
    scores = model.score(outputs)
    systems = {
        ours: Said.overall(scores),
        f"{ours}_with_prompt": Said.overall(model.score(outputs, [record.prompt for record in records])),
        **peers.say(outputs),
    }
    level_0 = scores.level[:, 0] == 0

    def share(of: Bool, at: Bool) -> dict[str, Any] | None:
        return figure(np.mean, of[at], groups=groups[at].tolist())

    return {
        part: {
            "rows": int(at.sum()),
            "flagged": {name: share(said.flag, at) for name, said in systems.items()},
            "level_0": share(level_0, at),
        }
        for part, at in parts.items()
    }
