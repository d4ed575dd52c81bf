"""Does the severity agree with people's grades? PyRIT and RTP-LX, by bundles that saw no row of a text's fold.

PyRIT's published figures are GPT-4o's and Azure's, on the same rows. Its alpha of a judge counts the judge's three
trials as raters of their own, ours is one rater: that favours the judges. A row's level is its raters' median.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline

from benchmarks.quality_peers import Array, Folds, Frozen, Peers, Said, crossfitted, features, logistic
from benchmarks.results import figure
from severity_clf import metrics
from severity_clf.model import SeverityModel
from severity_clf.scores import Scores
from training.crossfit import FOLDS, fold_of
from training.sources import files, pyrit, rtp_lx

# The files whose judges' metrics are published, and the names those go by.
PUBLISHED = {
    "exploits": "exploits",
    "hate_speech": "hate_speech",
    "info_integrity": "information_integrity",
    "privacy": "privacy",
    "representational": "representational",
    "self_harm": "self_harm",
    "sexual": "sexual",
    "violence": "violence",
}
ALPHAS = (0.1, 0.2)  # how often the level intervals may miss
ALIKE = 0.1  # two lengths match when their logarithms differ by less
HEADLINE = ("violence", "sexual", "hate")  # the domains of RTP-LX whose votes vary most


def judge_pyrit(
    ours: str, zero_shot: SeverityModel, folds: Sequence[SeverityModel], peers: Peers, frozen: Frozen, data: Path
) -> dict[str, Any]:
    """Severity on people's own 0 to 1 scale, file by file, then what the files share; `ours` names the bundle."""
    rows = list(pyrit.rows(data))
    outputs = [row.record.output for row in rows]
    groups = [row.record.group for row in rows]
    fold = np.array([fold_of(group) for group in groups])
    truth = np.array([row.score for row in rows])
    level = np.array([row.record.labels["overall"][0] for row in rows])
    names = np.array([row.file for row in rows])
    domain = np.array([zero_shot.taxonomy.names.index(pyrit.DOMAIN[row.file]) for row in rows])
    own = np.arange(len(rows)), domain
    parts = by_fold(folds, outputs, fold)
    seen = merged(parts)
    asked = merged(by_fold(folds, outputs, fold, [row.objective for row in rows]))
    unseen = zero_shot.score(outputs)
    systems = {
        ours: seen.expected[:, 0] / 4,
        f"{ours}_median_level": seen.level[:, 0] / 4,
        f"{ours}_own_domain": seen.expected[own] / 4,
        f"{ours}_with_prompt": asked.expected[:, 0] / 4,
        f"{ours}_zero_shot": unseen.expected[:, 0] / 4,
        f"{ours}_zero_shot_own_domain": unseen.expected[own] / 4,
        **{
            name: crossfitted(make_pipeline(transform, logistic()), outputs, level, fold) / 4
            for name, transform in features(frozen).items()
        },
        "constant": np.array([np.median(truth[fold != held]) for held in fold]),
    }
    blind = {ours: Said.overall(unseen), **peers.say(outputs, zero_shot=True)}
    table = {
        str(name): {
            "rows": int(at.sum()),
            "domain": pyrit.DOMAIN[str(name)],
            **{system: _agreement(score[at], truth[at], level[at]) for system, score in systems.items()},
            **published(data, str(name)),
        }
        for name in np.unique(names)
        for at in [names == name]
    }
    clear = np.flatnonzero((level == 0) | (level >= 2)).tolist()
    length = np.log([len(output) for output in outputs])
    return {
        "rows": len(rows),
        "folds": FOLDS,
        "macro": _macro(table, systems, truth, names, groups),
        "auroc_2": {name: figure(metrics.auroc, score, level >= 2, groups=groups) for name, score in systems.items()},
        "zero_shot_auroc_0_against_2": {
            name: figure(metrics.auroc, said.score[clear], level[clear] >= 2, groups=[groups[row] for row in clear])
            for name, said in blind.items()
        },
        "matched_pairs": {
            str(apart): {
                "pairs": len(matched_pairs(level, names, length, apart)[0]),
                "systems": {
                    name: figure(partial(ordered_share, apart=apart), score, level, names, length, groups=groups)
                    for name, score in systems.items()
                },
            }
            for apart in (1, 2)
        },
        "calibration": {ours: _calibration(seen, level), f"{ours}_zero_shot": _calibration(unseen, level)},
        "level_intervals": {
            ours: _intervals(parts, level),
            f"{ours}_zero_shot": _intervals([(list(range(len(rows))), unseen)], level),
        },
        "files": table,
    }


def by_fold(
    folds: Sequence[SeverityModel],
    outputs: Sequence[str],
    fold: Folds,
    prompts: Sequence[str] | None = None,
) -> list[tuple[list[int], Scores]]:
    """The rows of each fold, and their scores by the bundle that saw none of it."""
    rows = [np.flatnonzero(fold == number).tolist() for number in range(len(folds))]
    return [
        (own, model.score([outputs[row] for row in own], None if prompts is None else [prompts[row] for row in own]))
        for model, own in zip(folds, rows, strict=True)
    ]


def merged(parts: Sequence[tuple[list[int], Scores]]) -> Scores:
    """The scores of all rows, in order; folds differ in their threshold and level intervals, so there are none."""
    order = np.argsort(np.concatenate([rows for rows, _ in parts]))
    exceed, spans = (np.concatenate([getattr(one, name) for _, one in parts])[order] for name in ("exceed", "spans"))
    return replace(parts[0][1], exceed=exceed, spans=spans, threshold=float("nan"), conformal=None)


def matched_pairs(
    level: npt.NDArray[np.integer], file: npt.NDArray[Any], length: Array, apart: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """The rows of lower and of higher level of each pair of one file and of nearly one length.

    Length tells people's grades apart on PyRIT; on such pairs it cannot.

    Args:
        level: [n].
        file: [n].
        length: [n], the logarithm of the number of characters; those of a pair differ by less than `ALIKE`.
        apart: by how many levels, at least, the two of a pair differ.
    """
    lower, higher = [], []
    for name in np.unique(file):
        rows = np.flatnonzero(file == name)
        alike = np.abs(length[rows, None] - length[rows]) < ALIKE
        low, high = np.nonzero(alike & (level[rows] - level[rows, None] >= apart))
        lower.append(rows[low])
        higher.append(rows[high])
    return np.concatenate(lower), np.concatenate(higher)


def ordered_share(
    score: Array, level: npt.NDArray[np.integer], file: npt.NDArray[Any], length: Array, *, apart: int
) -> float:
    """The share of `matched_pairs` whose higher level scores higher, ties counting half; NaN where there are none."""
    lower, higher = matched_pairs(level, file, length, apart)
    if not len(lower):
        return float("nan")
    return float(((np.sign(score[higher] - score[lower]) + 1) / 2).mean())


def published(data: Path, file: str) -> dict[str, dict[str, float]]:
    """The newest figures that PyRIT's authors publish for each kind of judge on this file."""
    if file not in PUBLISHED:
        return {}
    (path,) = files(pyrit.DATASET, data, f"*/harm/{PUBLISHED[file]}_metrics.jsonl").values()
    judges = {"SelfAskLikertScorer": "gpt_4o", "AzureContentFilterScorer": "azure"}
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        values = entry["metrics"]
        found[judges[entry["class_name"]]] = {
            "mae": round(values["mean_absolute_error"], 4),
            "alpha": round(values["krippendorff_alpha_combined"], 4),
        }
    return found


def _agreement(score: Array, truth: Array, level: npt.NDArray[np.integer]) -> dict[str, float | None]:
    found = {"mae": metrics.mae(score, truth), "alpha": _alpha(score, truth), "auroc": metrics.auroc(score, level >= 2)}
    return {name: None if np.isnan(value) else round(value, 4) for name, value in found.items()}


def _alpha(score: Array, truth: Array) -> float:
    return metrics.krippendorff_alpha(np.stack([truth, score]))


def _macro(
    table: dict[str, dict[str, Any]],
    systems: dict[str, Array],
    truth: Array,
    names: npt.NDArray[np.str_],
    groups: Sequence[str],
) -> dict[str, Any]:
    """Means over the files whose judges are published.

    Alpha has no interval: its scale is made of the ranks of the answers at hand, and resampling biases it.
    """

    def mean(score: Array, truth: Array, names: npt.NDArray[Any]) -> float:
        return float(np.mean([metrics.mae(score[names == name], truth[names == name]) for name in np.unique(names)]))

    at = np.flatnonzero(np.isin(names, list(PUBLISHED))).tolist()
    own = [groups[row] for row in at]
    found: dict[str, Any] = {}
    for system in [*systems, "gpt_4o", "azure"]:
        judged = [table[name][system] for name in PUBLISHED if system in table[name]]
        means = {key: {"value": round(float(np.mean([one[key] for one in judged])), 4)} for key in ("mae", "alpha")}
        found[system] = {"files": len(judged), **means}
    for system, score in systems.items():
        found[system]["mae"] = figure(mean, score[at], truth[at], names[at], groups=own)
    return found


def _calibration(scores: Scores, level: npt.NDArray[np.integer]) -> dict[str, float]:
    """How far the probabilities of overall are from the frequencies, and how far they would be if they were right."""
    probs, labels = scores.probs[:, 0], np.stack([level, level], axis=1)
    error, floor = metrics.classwise_ece(probs, labels), metrics.null_floor(metrics.classwise_ece, probs, labels)
    found = {"classwise_ece": error, "null_floor": floor, "excess": error - floor, "rps": metrics.rps(probs, level)}
    return {name: round(value, 4) for name, value in found.items()}


def _intervals(
    parts: Sequence[tuple[list[int], Scores]], level: npt.NDArray[np.integer]
) -> dict[str, dict[str, float]]:
    """How often the level intervals of overall hold the true level, and how many levels they hold, by 1 - alpha."""
    truth = np.concatenate([level[rows] for rows, _ in parts])
    labels, found = np.stack([truth, truth], axis=1), {}
    for alpha in ALPHAS:
        sets = np.concatenate([scores.interval(alpha)[:, 0] for _, scores in parts])
        harmful = truth > 0
        found[f"{1 - alpha:g}"] = {
            "coverage": round(metrics.coverage(sets, labels), 4),
            "coverage_harmful": round(metrics.coverage(sets[harmful], labels[harmful]), 4),
            "levels": round(metrics.mean_size(sets), 2),
        }
    return found


def judge_rtp_lx(ours: str, folds: Sequence[SeverityModel], frozen: Frozen, data: Path) -> dict[str, Any]:
    """Rank correlation of each domain's expected severity with the mean vote of three native speakers.

    `ours` names the bundle. The baselines are ridge regressions on the votes of all domains at once.
    """
    rows = [(record, votes) for record, votes in rtp_lx.rows(data) if votes]
    outputs, groups = [record.output for record, _ in rows], [record.group for record, _ in rows]
    fold = np.array([fold_of(group) for group in groups])
    domains = list(rows[0][1])
    votes = np.array([[given[domain] for domain in domains] for _, given in rows])
    scores = merged(by_fold(folds, outputs, fold))
    systems: dict[str, npt.NDArray[np.floating]] = {
        ours: scores.expected[:, [scores.domains.index(domain) for domain in domains]],
        **{
            name: crossfitted(make_pipeline(transform, Ridge()), outputs, votes, fold)
            for name, transform in features(frozen).items()
        },
    }
    headline = [domains.index(domain) for domain in HEADLINE]

    def mean(score: Array, truth: Array) -> float:
        return float(np.mean([metrics.spearman(score[:, column], truth[:, column]) for column in headline]))

    return {
        "rows": len(rows),
        "headline": list(HEADLINE),
        "spearman": {
            name: {
                "headline": figure(mean, score, votes, groups=groups),
                **{
                    domain: figure(metrics.spearman, score[:, column], votes[:, column], groups=groups)
                    for column, domain in enumerate(domains)
                },
            }
            for name, score in systems.items()
        },
    }
