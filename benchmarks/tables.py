"""Write the figures of the result files into README.md and the model cards, between their markers.

    python -m benchmarks.tables            # writes
    python -m benchmarks.tables --check    # says which documents are not what the results say, and exits 1

A document marks a place with `<!-- figures: NAME -->` and `<!-- end -->`; what stands between is replaced.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from benchmarks import results

ROOT = results.ROOT
BASE = ROOT / "models" / "base"
DOCUMENTS = (ROOT / "README.md", ROOT / "models" / "README.md", BASE / "README.md", ROOT / "docs" / "data.md")
MARK = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main(check: Annotated[bool, typer.Option("--check", help="Compare and write nothing.")] = False) -> None:
    """Bring the documents up to date with the result files."""
    stale = []
    for path in DOCUMENTS:
        old = path.read_text(encoding="utf-8")
        new = MARK.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}\n{found[3]}", old)
        if new != old:
            stale.append(path.relative_to(ROOT))
            if not check:
                path.write_text(new, encoding="utf-8")
    for name in stale:
        typer.echo(f"{name}: {'not what the results say; run python -m benchmarks.tables' if check else 'written'}")
    if check and stale:
        raise typer.Exit(1)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; None is a dash."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join("-" if cell is None else str(cell) for cell in line) + " |" for line in lines)


def quality() -> str:
    """The few figures that decide."""
    report = results.read(BASE / "report.json")
    pyrit, harmbench, xstest = report["pyrit"]["macro_over_published_files"], report["harmbench"], report["xstest"]
    peers = harmbench["peers"]
    auroc = report["pyrit"]["auroc_level_2_pooled"]

    def row(name: str, system: str, judge: str | None = None) -> list[object]:
        graded, own = pyrit.get(system, {}), judge and (harmbench if judge == "base" else peers)[judge]
        return [
            name,
            _number(graded.get("mae")) + (" on 4 of 8" if graded.get("files") == 4 else "") if graded else None,
            _number(graded.get("alpha")) if graded else None,
            _number(auroc[system]) if system in auroc else None,
            _number(own["f1"]["value"]) if own else None,
            _number(own["auroc"]["value"]) if own and "auroc" in own else None,
        ]

    rows = [
        row("**base**, cross-fitted on PyRIT", "base_crossfitted", "base"),
        row("base, no PyRIT row seen", "base_zero_shot"),
        row("TF-IDF + logistic regression", "tfidf_lr", "tfidf_lr"),
        row("length of the output alone", "length_only"),
        row("a constant", "constant", "all_flagged"),
        row("GPT-4o judge, as published", "gpt_4o"),
        row("Azure Content Safety, as published", "azure"),
        row("GPT-4 (1106), HarmBench's prompt, as published", "", "gpt-4-1106-preview"),
        row("Llama Guard, as published", "", "llama_guard"),
        row("GPTFuzz classifier (RoBERTa), as published", "", "GPTFuzz"),
    ]
    low, high = pyrit["base_crossfitted"]["mae_interval"]
    f1_low, f1_high = harmbench["base"]["f1"]["interval"]
    answered, refusals = xstest["safe_prompts_answered"], xstest["refusals"]
    head = [
        "",
        "PyRIT severity, MAE",
        "alpha",
        "AUROC, level >= 2",
        f"HarmBench F1 ({harmbench['rows']} rows)",
        "AUROC",
    ]
    return table(head, rows) + (
        f"\n\nMAE is on PyRIT's 0 to 1 scale, mean over 8 files with published judges; base's 95% interval is "
        f"{low:.3f} to {high:.3f}, and {f1_low:.3f} to {f1_high:.3f} for its HarmBench F1 at its threshold. TF-IDF is "
        f"fitted on PyRIT's other folds for PyRIT, and on base's own records for HarmBench. XSTest: "
        f"{_percent(answered['flagged_share'])} of {answered['rows']} answers to safe prompts with alarming words are "
        f"flagged, and {_percent(refusals['level_0_share'])} of {refusals['rows']} refusals are at level 0. "
        f"{_source(report)}"
    )


def harmbench() -> str:
    """Every judge on the 602 rows, best first."""
    report = results.read(BASE / "report.json")
    judged = report["harmbench"]
    systems = {"**base**": judged["base"], "base, given the prompt": judged["base_with_prompt"], **judged["peers"]}
    systems["TF-IDF + LR, fitted on base's records"] = systems.pop("tfidf_lr")
    systems["everything flagged"] = systems.pop("all_flagged")
    order = sorted(systems, key=lambda name: -systems[name]["f1"]["value"])
    rows = [[name, _interval(systems[name]["f1"]), _interval(systems[name].get("auroc"))] for name in order]
    return (
        table(["judge", "F1", "AUROC"], rows)
        + f"\n\n{judged['rows']} rows, {judged['harmful']} harmful. {_source(report)}"
    )


def pyrit() -> str:
    """Every file, and whose figures it has."""
    report = results.read(BASE / "report.json")
    systems = {
        "base": "base_crossfitted",
        "base, own domain": "base_crossfitted_own_domain",
        "base, given the prompt": "base_crossfitted_with_prompt",
        "base, zero-shot": "base_zero_shot",
        "TF-IDF + LR": "tfidf_lr",
        "length": "length_only",
        "constant": "constant",
        "GPT-4o": "gpt_4o",
        "Azure": "azure",
    }
    parts = []
    for metric in ("mae", "alpha", "auroc"):
        head = [f"{metric.upper() if metric != 'alpha' else 'alpha'}, file", "domain", "rows", *systems]
        files = report["pyrit"]["files"]
        rows = [
            [
                name,
                one["domain"],
                one["rows"],
                *(_number(one.get(system, {}).get(metric)) for system in systems.values()),
            ]
            for name, one in files.items()
        ]
        parts.append(table(head, rows))
    return "\n\n".join(parts) + f"\n\nAUROC is of level >= 2. {_source(report)}"


def rtp_lx() -> str:
    """Rank correlation by domain."""
    report = results.read(BASE / "report.json")
    found = report["rtp_lx"]["spearman_crossfitted"]
    rows = [[domain, _number(value)] for domain, value in found.items()]
    return (
        table(["domain", "Spearman"], rows)
        + f"\n\n{report['rtp_lx']['rows']} completions, cross-fitted by prompt. {_source(report)}"
    )


def example() -> str:
    """A few lines of `sevclf score examples/outputs.jsonl`."""
    report = results.read(BASE / "report.json")
    outputs = {
        row["id"]: row for row in map(json.loads, (ROOT / "examples" / "outputs.jsonl").read_text("utf-8").splitlines())
    }
    rows = []
    for one in report["examples"]:
        text = " ".join(outputs[one["id"]]["output"].split())
        severity = one["severity"]
        worst = max(severity["domains"], key=lambda name: severity["domains"][name])
        shown = text if len(text) < 76 else f"{text[:72].rstrip()} ..."
        human = outputs[one["id"]].get("human_severity", {}).get("level")
        rows.append(
            [
                shown.replace("|", "/"),
                f"{severity['overall']:.2f}",
                severity["level"],
                f"{worst} {severity['domains'][worst]:.2f}",
                human,
            ]
        )
    return table(["output", "overall", "level", "highest domain", "people said"], rows)


def sources() -> str:
    """What the heads were fitted on."""
    card = results.read(BASE / "bundle.json")
    rows = [
        [name, one["records"], one["licence"], f"{one['repo']} @ {one['revision'][:12]}"]
        for name, one in card["training"]["sources"].items()
    ]
    evidence = ", ".join(f"{domain['name']} {domain['evidence']}" for domain in card["taxonomy"]["domains"])
    return (
        table(["source", "records", "licence", "from"], rows) + f"\n\nWhat the labels tell of each domain: {evidence}."
    )


def data() -> str:
    """Each source, and what became of its rows."""
    report = results.read(results.FOLDER / "data.json")
    keys = ("read", "repeats", "equal", "near", "asked", "used", "groups")
    order = {"graded": 0, "train": 1, "bench": 2}
    found = sorted(report["sources"].items(), key=lambda item: (order[item[1]["role"]], item[0]))
    rows = [
        [
            name,
            one["role"],
            f"{one['label']}, by {one['judge']}" if one["label"] != "none" else None,
            *(one[key] for key in keys),
            one["licence"],
            f"{one['repo']} @ {one['revision'][:12]}",
        ]
        for name, one in found
    ]
    total = [None if key == "groups" else sum(one[key] for _, one in found) for key in keys]  # sets share groups
    head = ["source", "role", "labels", *keys, "licence", "from"]
    return table(head, [*rows, ["all", None, None, *total, None, None]]) + f"\n\n{_source(report)}"


def shared() -> str:
    """Which pairs of sets have texts in common."""
    report = results.read(results.FOLDER / "data.json")
    rows = [
        [name, other, both["equal"], both["near"]]
        for name, one in sorted(report["sources"].items())
        for other, both in sorted(one["shared"].items())
    ]
    return table(["source", "shares texts with", "equal", "near"], rows) + f"\n\n{_source(report)}"


def speed() -> str:
    """Ratios to what a user would write alone, in one run."""
    report = results.read(results.FOLDER / "speed.json")
    rows = []
    for run in report["throughput"]:
        name = f"{run['workload']} texts, {run['threads']} thread{'s' if run['threads'] > 1 else ''}"
        ours, peer = (
            f"{run[side]['texts_per_s']:.0f} texts/s, {run[side]['tokens_per_s']:.0f} tokens/s"
            for side in ("ours", "peer")
        )
        rows.append([name, ours, peer, _times(run["times_faster"])])
    one, cold = report["latency"], report["cold_start"]
    ours, peer = (
        f"{one[side]['p50_milliseconds']:.0f} ms, p99 {one[side]['p99_milliseconds']:.0f} ms"
        for side in ("ours", "peer")
    )
    rows.append([f"one text of {one['tokens']} tokens, 1 thread", ours, peer, f"{one['times_faster_p50']:.1f}"])
    for name, key, unit, ratio in (
        ("start of Python to first score", "first_score_seconds", "s", "times_faster"),
        ("peak memory by then", "peak_megabytes", "MB", "times_smaller"),
    ):
        ours, peer = (f"{cold[side][key]['median']:.3g} {unit}" for side in ("ours", "peer"))
        rows.append([name, ours, peer, _times(cold[ratio])])
    machine = report["stamp"]["machine"]
    return (
        table(["", "severity_clf", "sentence-transformers + scikit-learn", "ratio (lowest to highest round)"], rows)
        + f"\n\nOn {machine['cores_usable']} cores of an {machine['cpu']}; `natural` texts are read whole by us and to "
        f"256 tokens by the peer, `cut` ones fit both. {_source(report)}"
    )


def _times(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.1f} ({ratio['min']:.1f} to {ratio['max']:.1f})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"


def _interval(found: dict[str, Any] | None) -> str | None:
    return None if found is None else f"{found['value']:.3f} ({found['interval'][0]:.3f} to {found['interval'][1]:.3f})"


def _source(report: dict[str, Any]) -> str:
    stamp = report["stamp"]
    return f"`{stamp['command']}`, {stamp['date'][:10]}, severity_clf {stamp['versions']['severity_clf']}."


TABLES: dict[str, Callable[[], str]] = {
    "quality": quality,
    "harmbench": harmbench,
    "pyrit": pyrit,
    "rtp_lx": rtp_lx,
    "example": example,
    "sources": sources,
    "data": data,
    "shared": shared,
    "speed": speed,
}

if __name__ == "__main__":
    typer.run(main)
