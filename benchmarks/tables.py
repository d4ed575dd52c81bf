"""Write the figures of the result files into README.md, docs and the model cards, between their markers; and a plot.

    python -m benchmarks.tables            # writes
    python -m benchmarks.tables --check    # says which documents are not what the results say, and exits 1

A document marks a place with `<!-- figures: NAME -->` and `<!-- end -->`; what stands between is replaced. Tables of a
bundle's report are of `base`, or of the bundle that the mark names: `<!-- figures: NAME fast -->`.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from benchmarks import plot, results

ROOT = results.ROOT
SHELF = ROOT / "models"
PLOT = ROOT / "docs" / "speed.svg"
PUBLISHED = ROOT / "benchmarks" / "published.toml"
OUTPUTS, CORES, PRICES = 10**10, (96, 960, 9600), (0.02, 0.05)  # of the plan: outputs, machines, dollars a core-hour
DOCUMENTS = (
    ROOT / "README.md",
    SHELF / "README.md",
    *SHELF.glob("*/README.md"),
    *(ROOT / "docs" / f"{name}.md" for name in ("data", "ablations", "robustness", "corpus", "speed", "engine")),
)
# What the systems of a report are called in a table: the baselines, then all of them in the tables' order.
BASELINES = {"tfidf": "TF-IDF + LR", "frozen": "frozen MiniLM + LR", "length": "length alone", "constant": "a constant"}
FORMS = {
    "median_level": "median level",
    "own_domain": "own domain",
    "with_prompt": "given the prompt",
    "zero_shot": "zero-shot",
    "zero_shot_own_domain": "zero-shot, own domain",
}
JUDGES = {"gpt_4o": "GPT-4o", "azure": "Azure"}
MARK = re.compile(r"(<!-- figures: (\w+)(?: (\w+))? -->\n).*?(<!-- end -->)", re.DOTALL)


def main(check: Annotated[bool, typer.Option("--check", help="Compare and write nothing.")] = False) -> None:
    """Bring the documents up to date with the result files."""
    stale = []
    for path in (*DOCUMENTS, *([PLOT] if (results.FOLDER / "speed.json").is_file() else [])):
        old = path.read_text(encoding="utf-8") if path.is_file() else ""
        new = picture() if path == PLOT else MARK.sub(_filled, old)
        if new != old:
            stale.append(path.relative_to(ROOT))
            if not check:
                path.write_text(new, encoding="utf-8")
    for name in stale:
        typer.echo(f"{name}: {'not what the results say; run python -m benchmarks.tables' if check else 'written'}")
    if check and stale:
        raise typer.Exit(1)


def _filled(found: re.Match[str]) -> str:
    return f"{found[1]}{figures(found[2], found[3] or 'base')}\n{found[4]}"


def picture() -> str:
    """The plot of the speed results, as SVG."""
    lines = speed_lines(results.read(results.FOLDER / "speed.json"))
    return plot.log_log(lines, "tokens in the text", "milliseconds")


def figures(name: str, bundle: str = "base") -> str:
    """A table by its name; of a bundle that nobody has judged yet, a line that says so."""
    if name not in OF_A_BUNDLE:
        return TABLES[name]()
    if not (SHELF / bundle / "report.json").is_file():
        return f"Not measured yet: `python -m benchmarks.quality --model {bundle}`."
    return OF_A_BUNDLE[name](bundle)


def names_of(bundle: str) -> dict[str, str]:
    """What the systems of a bundle's report are called, in the tables' order."""
    forms = {f"{bundle}_{form}": f"{bundle}, {title}" for form, title in FORMS.items()}
    return {bundle: f"**{bundle}**", **forms, **BASELINES, **JUDGES}


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; None is a dash."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join("-" if cell is None else str(cell) for cell in line) + " |" for line in lines)


def quality(bundle: str) -> str:
    """The few figures that decide, beside other bundles' and the goals that were set before base was measured."""
    others = sorted(path.parent.name for path in SHELF.glob("*/report.json") if path.parent.name != bundle)
    reports = {name: results.read(SHELF / name / "report.json") for name in (bundle, *others)}
    report = reports[bundle]
    macro, judges = report["pyrit"]["macro"], report["harmbench"]["judges"]
    azure = f"Azure {_number(macro['azure']['mae']['value'])} on {macro['azure']['files']} of the files"
    names = {"GPT-4 (1106)": "gpt-4-1106-preview", "GPTFuzz": "GPTFuzz", "Llama Guard": "llama_guard"}
    judged = {name: judges[judge]["f1"]["value"] for name, judge in names.items()}
    judged["GuardReasoner 1B"] = published("harmbench", "f1")["GuardReasoner 1B"]
    found = {name: _headline(name, one) for name, one in reports.items()}
    said = {
        "PyRIT severity, MAE": ("<= .165", f"GPT-4o {_value(macro['gpt_4o']['mae'])}, {azure}"),
        "PyRIT severity, alpha": (">= .75", f"GPT-4o {_value(macro['gpt_4o']['alpha'])}"),
        "PyRIT level 0 or >= 2, zero-shot AUROC": (">= .87", None),
        "PyRIT pairs of one length, in order": (">= .80", None),
        "RTP-LX votes, Spearman": (">= .80", None),
        "HarmBench, F1": (">= .82", _listed(judged)),
        "OpenAI moderation, zero-shot AUPRC": (">= .78", _listed(published("openai_mod", "auprc"))),
        "the same, highest of its five domains": (">= .78", None),
        "XSTest, answers to safe prompts flagged": ("<= .04", None),
        "XSTest, refusals at level 0": (">= .98", None),
        "Do-Not-Answer, refusals at level 0": (">= .98", None),
        "PyRIT, classwise ECE less its null floor": ("<= .02", None),
    }
    rows = [
        [
            name,
            _interval(found[bundle][name][bundle], bold=True),
            *(_value(found[other][name][other]) for other in others),
            goal,
            *(_value(found[bundle][name].get(peer)) for peer in BASELINES),
            by_others,
        ]
        for name, (goal, by_others) in said.items()
    ]
    head = ["", f"**{bundle}** (95%)", *others, "goal for base", *BASELINES.values(), "others, as published"]
    return table(head, rows) + (
        f"\n\nPyRIT and RTP-LX are cross-fitted, for {bundle} and for the baselines: MAE, on a scale of 0 to 1, and "
        f"alpha are means over the {macro[bundle]['files']} files with published judges, Spearman is over "
        f"{_words(report['rtp_lx']['headline'])}. Elsewhere, and zero-shot, the baselines are fitted on {bundle}'s own "
        f"records. The answers of Do-Not-Answer are of groups that no encoder saw, though calibration did. Sources of "
        f"published figures: the model card. "
        f"{_source(report)}"
    )


def _headline(bundle: str, report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Each line's figures, by system."""
    pyrit, moderated = report["pyrit"], report["openai_mod"]["systems"]
    refused, declined = report["xstest"]["refusals"], report["held_out"]["do_not_answer_refusals"]

    def of(systems: dict[str, Any], measure: str) -> dict[str, Any]:
        return {name: one[measure] for name, one in systems.items() if measure in one}

    return {
        "PyRIT severity, MAE": of(pyrit["macro"], "mae"),
        "PyRIT severity, alpha": of(pyrit["macro"], "alpha"),
        "PyRIT level 0 or >= 2, zero-shot AUROC": pyrit["zero_shot_auroc_0_against_2"],
        "PyRIT pairs of one length, in order": pyrit["matched_pairs"]["1"]["systems"],
        "RTP-LX votes, Spearman": of(report["rtp_lx"]["spearman"], "headline"),
        "HarmBench, F1": of(report["harmbench"]["systems"], "f1"),
        "OpenAI moderation, zero-shot AUPRC": of(moderated, "auprc"),
        "the same, highest of its five domains": {bundle: moderated[f"{bundle}_own_domain"]["auprc"]},
        "XSTest, answers to safe prompts flagged": report["xstest"]["safe_prompts_answered"]["flagged"],
        "XSTest, refusals at level 0": {bundle: refused["level_0"]},
        "Do-Not-Answer, refusals at level 0": {bundle: declined["level_0"]},
        "PyRIT, classwise ECE less its null floor": {bundle: {"value": pyrit["calibration"][bundle]["excess"]}},
    }


def harmbench(bundle: str) -> str:
    """Every judge on the 602 rows, best first."""
    report = results.read(SHELF / bundle / "report.json")
    names = names_of(bundle)
    judged = report["harmbench"]
    systems = {names.get(name, name): one for name, one in {**judged["systems"], **judged["judges"]}.items()}
    for name, value in published("harmbench", "f1").items():
        systems[f"{name}, not row by row"] = {"f1": {"value": value}}
    order = sorted(systems, key=lambda name: -systems[name]["f1"]["value"])
    rows = [[name, _interval(systems[name]["f1"]), _interval(systems[name].get("auroc"))] for name in order]
    return (
        table(["judge", "F1", "AUROC"], rows)
        + f"\n\n{judged['rows']} rows, {judged['harmful']} harmful. Not row by row: {_cited('harmbench')}. "
        + _source(report)
    )


def openai_mod(bundle: str) -> str:
    """Any category, then each."""
    report = results.read(SHELF / bundle / "report.json")
    names = names_of(bundle)
    judged = report["openai_mod"]
    systems = {names[name]: one for name, one in judged["systems"].items()}
    for measure in ("auprc", "f1"):
        for name, value in published("openai_mod", measure).items():
            systems.setdefault(f"{name}, as published", {})[measure] = {"value": value}
    rows = [
        [name, *(_interval(one.get(measure)) for measure in ("auprc", "auroc", "f1"))] for name, one in systems.items()
    ]
    columns = (bundle, f"{bundle}_own_domain", *BASELINES)
    categories = [
        [name, one["rows"], one["harmful"], *(_value(one["systems"].get(system)) for system in columns)]
        for name, one in judged["categories"].items()
    ]
    return (
        table(["any category", "AUPRC", "AUROC", "F1"], rows)
        + "\n\n"
        + table(["AUROC, category", "rows", "harmful", *(names[column] for column in columns)], categories)
        + f"\n\n{judged['rows']} texts, {judged['harmful']} harmful. As published: {_cited('openai_mod')}. "
        + _source(report)
    )


def pyrit(bundle: str) -> str:
    """Every file, and whose figures it has."""
    report = results.read(SHELF / bundle / "report.json")
    names = names_of(bundle)
    parts = []
    for metric, title in (("mae", "MAE"), ("alpha", "alpha"), ("auroc", "AUROC")):
        systems = {name: title for name, title in names.items() if metric in report["pyrit"]["macro"].get(name, {})}
        if metric == "auroc":  # judges publish none
            systems = {name: names[name] for name in report["pyrit"]["auroc_2"]}
        rows = [
            [name, one["domain"], one["rows"], *(_number(one.get(system, {}).get(metric)) for system in systems)]
            for name, one in report["pyrit"]["files"].items()
        ]
        parts.append(table([f"{title}, file", "domain", "rows", *systems.values()], rows))
    return "\n\n".join(parts) + f"\n\nAUROC is of level >= 2. {_source(report)}"


def pyrit_pooled(bundle: str) -> str:
    """What the files share: means, rank, pairs, calibration."""
    report = results.read(SHELF / bundle / "report.json")
    names = names_of(bundle)
    found = report["pyrit"]
    near, far = (found["matched_pairs"][apart] for apart in ("1", "2"))
    rows = [
        [
            names[name],
            *(_interval(found["macro"][name][measure]) for measure in ("mae", "alpha")),
            _interval(auroc),
            *(_interval(pairs["systems"][name]) for pairs in (near, far)),
        ]
        for name, auroc in found["auroc_2"].items()
    ]
    head = ["", "MAE", "alpha", "AUROC, level >= 2", f"{near['pairs']} pairs", f"{far['pairs']} pairs 2 levels apart"]
    errors = [
        [names[name], *(_number(one[key]) for key in ("classwise_ece", "null_floor", "excess", "rps"))]
        for name, one in found["calibration"].items()
    ]
    intervals = [
        [names[name], promised, *(one[key] for key in ("coverage", "coverage_harmful", "levels"))]
        for name, by_promise in found["level_intervals"].items()
        for promised, one in by_promise.items()
    ]
    return (
        table(head, rows)
        + "\n\n"
        + table(["overall", "classwise ECE", "null floor", "difference", "RPS"], errors)
        + "\n\n"
        + table(["level intervals of overall", "promised", "hold the true level", "of harmful", "levels"], intervals)
        + f"\n\n{found['rows']} answers. {_source(report)}"
    )


def rtp_lx(bundle: str) -> str:
    """Rank correlation by domain."""
    report = results.read(SHELF / bundle / "report.json")
    names = names_of(bundle)
    found = report["rtp_lx"]
    rows = [
        [domain if domain != "headline" else f"mean of {_words(found['headline'])}"]
        + [_interval(one[domain]) for one in found["spearman"].values()]
        for domain in found["spearman"][bundle]
    ]
    return (
        table(["domain", *(names[name] for name in found["spearman"])], rows)
        + f"\n\n{found['rows']} completions, cross-fitted by prompt. {_source(report)}"
    )


def harmless(bundle: str) -> str:
    """What people found harmless, and who flags it."""
    report = results.read(SHELF / bundle / "report.json")
    parts = {
        "XSTest, answers to safe prompts": report["xstest"]["safe_prompts_answered"],
        "XSTest, refusals": report["xstest"]["refusals"],
        "Do-Not-Answer, refusals": report["held_out"]["do_not_answer_refusals"],
        "Do-Not-Answer, all harmless answers": report["held_out"]["do_not_answer_harmless"],
        "HaluEval, ordinary answers": report["held_out"]["halueval"],
    }
    peers = [name for name in BASELINES if name != "constant"]
    rows = [
        [
            name,
            one["rows"],
            _interval(one["level_0"]),
            _interval(one["flagged"][bundle]),
            _value(one["flagged"][f"{bundle}_with_prompt"]),
            *(_value(one["flagged"][peer]) for peer in peers),
        ]
        for name, one in parts.items()
    ]
    head = [
        "",
        "rows",
        f"{bundle}, at level 0",
        f"{bundle}, flagged",
        "given the prompt",
        *(f"{BASELINES[peer]}, flagged" for peer in peers),
    ]
    return table(head, rows) + f"\n\nShares of the rows. {_source(report)}"


def others(bundle: str) -> str:
    """HateCheck, DICES and HH-RLHF, one line a system."""
    report = results.read(SHELF / bundle / "report.json")
    names = names_of(bundle)
    hate, dices, pairs = report["hatecheck"], report["dices"], report["hh_rlhf"]
    rows = [
        [
            names[name],
            _interval(one["auroc"]),
            _interval(one["f1"]),
            _interval(dices["spearman"].get(name)),
            _interval(pairs["ordered"].get(name)),
        ]
        for name, one in hate["systems"].items()
    ]
    head = ["", f"HateCheck, AUROC ({hate['rows']} posts)", "HateCheck, F1"]
    head += [f"DICES, Spearman ({dices['rows']} replies)", f"HH-RLHF, in order ({pairs['pairs']} pairs)"]
    return table(head, rows) + f"\n\n{_source(report)}"


def hatecheck(bundle: str) -> str:
    """Where the hate domain is misled."""
    report = results.read(SHELF / bundle / "report.json")
    kinds = report["hatecheck"]["functionalities"]
    order = sorted(kinds, key=lambda kind: kinds[kind]["accuracy"])
    rows = [
        [kind, "yes" if kinds[kind]["hateful"] else "no", kinds[kind]["rows"], _number(kinds[kind]["accuracy"])]
        for kind in order
    ]
    return table(["kind of post", "hateful", "rows", "right"], rows) + f"\n\n{_source(report)}"


def example(bundle: str) -> str:
    """A few lines of `sevclf score examples/outputs.jsonl`."""
    report = results.read(SHELF / bundle / "report.json")
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


def sources(bundle: str) -> str:
    """What the heads were fitted on."""
    card = results.read(SHELF / bundle / "bundle.json")
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


def ablations() -> str:
    """Each variant beside the recipe."""
    report = results.read(results.FOLDER / "ablations.json")
    rows = [
        [
            name,
            *(_number(one["output"][key]) for key in ("left", "pyrit", "pyrit_mae", "harmbench")),
            *(_number(one["output and prompt"][key]) for key in ("left", "pyrit", "harmbench")),
        ]
        for name, one in report["variants"].items()
    ]
    head = ["", "left out", "PyRIT", "PyRIT, MAE", "HarmBench"]
    head += [f"{name}, given the prompt" for name in ("left out", "PyRIT", "HarmBench")]
    return table(head, rows) + f"\n\n{report['rows']} rows and their changed copies, read once. {_source(report)}"


def heads() -> str:
    """Heads of other kinds on one frozen encoder."""
    found = results.read(results.FOLDER / "ablations.json")["heads"]
    keys = ("classwise_ece", "null_floor", "rps", "mae", "auroc")
    rows = [[name, f"{one['penalty']:g}", *(_number(one[key]) for key in keys)] for name, one in found["ways"].items()]
    head = ["", "L2 penalty", "classwise ECE", "null floor", "RPS", "MAE", "AUROC"]
    return table(head, rows) + f"\n\n{found['rows']} answers. {_source(found)}"


def calibrators() -> str:
    """Calibration error of the tuned heads before and after."""
    found = results.read(results.FOLDER / "ablations.json")["calibrators"]
    keys = ("classwise_ece", "null_floor", "rps", "mae")
    rows = [[name, *(_number(one[key]) for key in keys)] for name, one in found["ways"].items()]
    curves = [
        [name, count, _number(predicted), _number(observed)]
        for name, one in found["ways"].items()
        for count, predicted, observed in zip(*one["reliability"].values(), strict=True)
    ]
    return (
        table(["", "classwise ECE", "null floor", "RPS", "MAE"], rows)
        + "\n\n"
        + table(["", "answers", "predicted", "came true"], curves)
        + f"\n\n{found['rows']} answers. {_source(found)}"
    )


def robustness() -> str:
    """Harmful rows, benign rows, the selection attack."""
    report = results.read(results.FOLDER / "robustness.json")

    def judged(side: str) -> list[tuple[str, dict[str, Any]]]:
        """Each scorer on each set that it can judge: what a column is called, and its figures."""
        names = dict.fromkeys(system for one in report[side].values() for system in one["systems"])
        return [
            (f"{system}, {name} ({of['rows']} of {one['rows']})" if "rows" in of else f"{system}, {name}", of)
            for system in names
            for name, one in report[side].items()
            for of in [one["systems"][system]]
            if "skipped" not in of
        ]

    parts = []
    for side, title in (
        ("harmful", "share of harmful rows that drop a level or more"),
        ("benign", "share of benign rows at level 0 that stay there"),
    ):
        columns = judged(side)
        rows = [[trick, *(_percent(one["attacks"][trick]) for _, one in columns)] for trick in report["attacks"]]
        parts.append(table([title, *(name for name, _ in columns)], rows))
    ends = judged("selection")

    def end(one: dict[str, Any]) -> str:
        return f"{one['mean']['value']:.2f}, {_percent(one['below'])}"

    rows = [["unattacked", *(end(one["unattacked"]) for _, one in ends)]]
    rows += [[f"best of {n}", *(end(one["best_of"][n]) for _, one in ends)] for n in ends[0][1]["best_of"]]
    parts.append(table(["mean severity, and share not flagged, of harmful rows", *(name for name, _ in ends)], rows))
    padding = report["padding"]
    alone = ", ".join(f"{_percent(one)} by {name}" for name, one in padding["level_0"].items())
    parts.append(f"Of {padding['rows']} passages that pad, at level 0 by themselves: {alone}.")
    parts += [
        f"Of {sum(one['rows'].values()):,} ordinary answers {sum(one['decoded'].values())} hold something to decode; "
        f"to look for it takes {one['time_of_scoring']:.2%} of the time that {name} scores in."
        for name, one in report["decoding"].items()
    ]
    return "\n\n".join([*parts, f"At most {report['rows']} rows of each set. {_source(report)}"])


def corpus_plan() -> str:
    """Core-hours and cost of ten billion outputs, from each model's rows a second of CPU time."""
    rows = []
    for name, run in results.read(results.FOLDER / "corpus.json")["models"].items():
        local = run["local"]
        rate = local["rows"] / local["command"]["cpu_seconds"]
        hours = OUTPUTS / rate / 3600
        terabytes = local["megabytes_out"] / local["rows"] * OUTPUTS / 1e6
        cells = [f"{rate:,.0f}", f"{hours:,.0f}", *(f"{hours / cores:,.1f}" for cores in CORES)]
        rows.append([name, *cells, *(f"{hours * price:,.0f}" for price in PRICES), f"{terabytes:,.2f}"])
    head = ["model", "rows a CPU-second", "core-hours", *(f"hours on {cores:,} cores" for cores in CORES)]
    return table([*head, *(f"dollars at {price} a core-hour" for price in PRICES), "TB out"], rows)


def corpus() -> str:
    """What scoring a file costs beside scoring its texts, and Ray beside the local engine."""
    lines = []
    for name, run in results.read(results.FOLDER / "corpus.json")["models"].items():
        local, machine = run["local"], run["stamp"]["machine"]
        command = local["command"]
        lines.append(
            f"- **{name}**, {local['rows']:,} outputs of {run['characters']:.0f} characters on average, Parquet to "
            f"Parquet, threads {local['threads']}: {command['rows_per_second']:,.0f} rows/s, at most "
            f"{command['peak_megabytes']:.0f} MB, {local['times_alone']:.2f} times the time of `model.score` alone on "
            f"the same texts ({local['times_alone_cpu']:.2f} times its process's CPU time)."
        )
        for one in run["ray"]:
            equal = "equal to the local engine's, bit for bit" if one["equal"] else "NOT equal to the local engine's"
            lines.append(
                f"  Ray, workers {one['workers']}, {one['shards']} shards: {one['rows_per_second']:,.0f} rows/s with "
                f"the start of its processes; rows {equal}."
            )
        lines.append(
            f"  {machine['cores_usable']} usable cores of an {machine['cpu']}, load {machine['load_average_1min']} "
            f"before the start; {_source(run)}"
        )
    return "\n".join(lines)


def engine() -> str:
    """Every form of the graph beside the one that ships, where the time goes, and the machine's limit."""
    run = results.read(results.FOLDER / "engine.json")
    machine, peak = run["stamp"]["machine"], run["peak_gops"]
    forms = [
        [
            name,
            *(f"{one[name]['ratio']:.2f}" for one in run["forms"].values()),
            *(f"{run['cosine'][name][part]:.4f}" for part in ("mean", "min")),
        ]
        for name in run["cosine"]
    ]
    first = [
        [
            "milliseconds, shipped",
            *(f"{one['shipped']['milliseconds']:.2f}" for one in run["forms"].values()),
            None,
            None,
        ]
    ]
    head = ["time for a window of", *(f"{length} tokens" for length in run["forms"]), "cosine to float32", "lowest"]
    kinds = list(next(iter(run["limits"].values()))["microseconds"])[:6]
    share = [
        [
            length,
            *(f"{100 * one['microseconds'].get(kind, 0) / sum(one['microseconds'].values()):.0f}%" for kind in kinds),
            f"{one['products_gops']:.0f} ({100 * one['products_share']:.0f}%)",
            f"{one['graph_gops']:.0f} ({100 * one['graph_share']:.0f}%)",
        ]
        for length, one in run["limits"].items()
    ]
    where = ["tokens", *kinds, "integer GOPS in `DynamicQuantizeMatMul`", "over all of the time"]
    return (
        table(head, first + forms)
        + "\n\nWhere the shipped graph's time goes, and its integer products beside the peak:\n\n"
        + table(where, share)
        + f"\n\nThe peak of one thread: {peak['int8']:.0f} GOPS in int8, {peak['float32']:.0f} in float32. "
        f"Of an {machine['cpu']}, load {machine['load_average_1min']} before the start; {_source(run)}"
    )


def measured(fill: Callable[[dict[str, Any]], str]) -> Callable[[], str]:
    """A table of the speed results; before they are there, a line that says so."""

    def filled() -> str:
        path = results.FOLDER / "speed.json"
        if not path.is_file():
            return "Not measured yet: `python -m benchmarks.speed --data DATA`."
        return fill(results.read(path))

    return filled


def speed(report: dict[str, Any]) -> str:
    """The few ratios that decide, against what a user would write alone, at its best threads and batch size."""
    ours = list(report["bundles"])
    rows: list[list[str | None]] = []
    for cell in report["headline"]:
        user, rates = cell["systems"]["user"]["rounds"], []
        for name in ours:
            rounds = cell["systems"][name]["rounds"]
            rates.append(f"{_rate(cell, rounds)} texts/s, {_times(_ratio(user, rounds))}x")
        rows.append([f"{cell['texts']} texts, {_threads(cell['threads'])}", *rates, f"{_rate(cell, user)} texts/s"])
    for cell in report["grid"]:
        if cell["batch"] == 1 and cell["texts"] in ("128", "natural"):
            waits = [_wait(cell["systems"][name]) for name in (*ours, "user")]
            kind = "one natural text" if cell["texts"] == "natural" else f"one text of {cell['texts']} tokens"
            rows.append([f"{kind}, {_threads(cell['threads'])}", *waits])
    cold = report["cold_start"]["systems"]
    for title, key, unit in (
        ("start of Python to first score", "first_score_seconds", "s"),
        ("peak memory by then", "peak_megabytes", "MB"),
    ):
        rows.append([title, *(f"{_middle(cold[name][key]):.3g} {unit}" for name in (*ours, "user"))])
    tried = report["user_batch_size"]
    best = {threads: f"{one['chosen']} on {_threads(int(threads))}" for threads, one in tried.items()}
    return (
        table(["", *ours, report["peers"]["user"]["title"]], rows)
        + "\n\nTimes quicker: median of the rounds (lowest to highest). `natural` texts are read whole by us and to "
        "256 tokens by sentence-transformers, `equal` ones are cut to fit both; its batch size is the quickest of "
        f"{', '.join(tried['1']['texts_per_s'])}: {_words(list(best.values()))}. {_on(report)}"
    )


def speed_who(report: dict[str, Any]) -> str:
    """The peers, what they read, and who is missing."""
    rows = [[one["title"], one["what"]] for one in report["peers"].values()]
    chosen = {report["peers"][name]["title"]: one["chosen"] for name, one in report["guards"].items()}
    formats = "; ".join(f"{name}: {dtype}" for name, dtype in chosen.items())
    absent = "".join(f" Not run: {name}, {why}." for name, why in report["absent"].items())
    kinds = [
        [name, one["texts"], f"{one['tokens_a_text']['median']:g}", one["tokens_a_text"]["max"]]
        for name, one in report["texts"].items()
    ]
    return (
        table(["peer", "what it is"], rows)
        + f"\n\nNumber format of the guards, the quicker of float32 and bfloat16 here: {formats}.{absent}\n\n"
        + table(["texts", "number", "tokens, median", "most"], kinds)
        + f"\n\nFrom {report['sources']}. The whole run took {report['minutes']:.0f} minutes. {_on(report)}"
    )


def speed_throughput(report: dict[str, Any]) -> str:
    """Texts a second, and how many times base's that is, cell by cell."""
    parts = []
    for threads, batch in dict.fromkeys((cell["threads"], cell["batch"]) for cell in report["grid"]):
        cells = [cell for cell in report["grid"] if (cell["threads"], cell["batch"]) == (threads, batch)]
        rows = []
        for name in cells[0]["systems"]:
            rows.append([_title(report, name), *(_beside_base(cell, name) for cell in cells)])
        head = [f"{_threads(threads)}, batch {batch}", *(_kind(cell) for cell in cells)]
        parts.append(table(head, rows))
    return "\n\n".join(parts) + (
        f"\n\nTexts a second: median (lowest to highest round), and how many times base's. A dash: one call would take "
        f"more than {report['limit_seconds']:g} s. {_on(report)}"
    )


def speed_latency(report: dict[str, Any]) -> str:
    """Milliseconds of one text, at the median and at the slowest of a hundred."""
    parts = []
    for threads in dict.fromkeys(cell["threads"] for cell in report["grid"]):
        cells = [cell for cell in report["grid"] if cell["threads"] == threads and cell["batch"] == 1]
        rows = [
            [_title(report, name), *(_wait(cell["systems"][name]) for cell in cells)] for name in cells[0]["systems"]
        ]
        parts.append(table([_threads(threads), *(_kind(cell) for cell in cells)], rows))
    return "\n\n".join(parts) + f"\n\nOne text a call; p99 where there were a hundred calls. {_on(report)}"


def speed_machine(report: dict[str, Any]) -> str:
    """The limits, and our share of them."""
    machine = report["machine"]
    peaks = [
        [kind, _threads(int(threads)), _spread(one["billion_operations_per_s"], ".0f"), one["shape"]]
        for kind, by_threads in machine["products"].items()
        for threads, one in by_threads.items()
    ]
    columns = [(name, threads) for name, by_threads in machine["bundles"].items() for threads in by_threads]
    titles = {
        "score_texts_per_s": ("texts/s", ",.0f"),
        "tokenizer_texts_per_s": ("tokenizer alone, texts/s", ",.0f"),
        "tokenizer_tokens_per_s": ("tokenizer alone, tokens/s", ",.0f"),
        "normaliser_share_of_tokenizer": ("of which our normaliser takes more than BERT's", ".0%"),
        "score_share_of_tokenizer_peak": ("scoring, share of the tokenizer's rate", ".0%"),
        "tokens_share_of_time": ("windows of tokens, share of the time", ".0%"),
        "inference_share_of_time": ("inference, share of the time", ".0%"),
        "inference_share_of_int8_peak": ("inference, share of the int8 peak", ".0%"),
        "inference_share_of_float32_peak": ("inference, share of the float32 peak", ".0%"),
        "score_share_of_int8_peak": ("all of scoring, share of the int8 peak", ".0%"),
    }
    rows = [
        [
            title,
            *(
                _spread(found[key], form) if key in (found := machine["bundles"][name][threads]) else None
                for name, threads in columns
            ),
        ]
        for key, (title, form) in titles.items()
    ]
    return (
        table(["product of matrices", "threads", "billion operations a second", "best shape"], peaks)
        + "\n\n"
        + table([f"{machine['texts']} texts", *(f"{name}, {_threads(int(one))}" for name, one in columns)], rows)
        + f"\n\n{_on(report)}"
    )


def speed_length(report: dict[str, Any]) -> str:
    """One text, from a line to a book."""
    rows = [
        [
            name,
            f"{point['tokens']:,}",
            _short(1000 * point["seconds"]["median"]),
            _spread({key: 1e6 * value / point["tokens"] for key, value in point["seconds"].items()}, ".3g"),
        ]
        for name, one in report["one_text"].items()
        for point in one["points"]
    ]
    powers = "; ".join(f"{name}: {one['power']:.2f}" for name, one in report["one_text"].items())
    return (
        table(["model", "tokens", "milliseconds", "microseconds a token"], rows)
        + f"\n\nFrom 2,000 tokens on, time grows with this power of the length: {powers}. {_on(report)}"
    )


def speed_number(report: dict[str, Any]) -> str:
    """Many texts, and the memory of the process."""
    rows = [
        [
            name,
            f"{run['texts']:,}",
            _short(run["seconds"]),
            _short(1e6 * run["seconds"] / run["texts"]),
            f"{run['resident_megabytes'][0]:.0f}",
            f"{run['resident_megabytes'][-1]:.0f}",
        ]
        for name, one in report["many_texts"].items()
        for run in one["runs"]
    ]
    peaks = "; ".join(f"{name} {one['peak_megabytes']:.0f} MB" for name, one in report["many_texts"].items())
    powers = "; ".join(
        f"{name}: {one['power']:.2f}" for name, one in report["many_texts"].items() if one["power"] is not None
    )
    return (
        table(["model", "texts", "seconds", "microseconds a text", "MB, first tenth", "MB, last tenth"], rows)
        + f"\n\nTexts of 20 tokens, in a process of their own. Time grows with this power of their number: {powers}. "
        f"The process needed at most: {peaks}. {_on(report)}"
    )


def speed_cold(report: dict[str, Any]) -> str:
    """Fresh processes."""
    found = report["cold_start"]
    rows = [
        [
            _title(report, name),
            *(_spread(_extent(one[key]), ".3g") for key in ("first_score_seconds", "import_seconds", "peak_megabytes")),
        ]
        for name, one in found["systems"].items()
    ]
    head = ["", "seconds to the first score", "of which imports", "MB at most by then"]
    return table(head, rows) + f"\n\n{found['runs']} processes each, by turns. {_on(report)}"


def cascade() -> str:
    """What two bundles together cost and reach, by how much of a set the second reads."""
    path = results.FOLDER / "cascade.json"
    if not path.is_file():
        return "Not measured yet: `python -m benchmarks.cascade --data DATA`."
    report = results.read(path)
    sets, rows = report["sets"], []
    for at, width in enumerate(report["widths"]):
        name = {0: "fast alone", len(report["widths"]) - 1: "base alone"}.get(at, f"within {width:g} of the threshold")
        cells = [one["rows"][at] for one in sets.values()]
        rows.append([name, *(f"{cell['value']:.3f}, {cell['read_by_base']:.0%}, {cell['cost']:.0%}" for cell in cells)])
    titles = [f"{name.replace('_', ' ')}, {one['measure']}" for name, one in sets.items()]
    return f"{table(['read by base', *titles], rows)}\n\n{_source(report)}"


def speed_plot(report: dict[str, Any]) -> str:
    """The picture's place in the page."""
    return f"![Milliseconds a text against its tokens, everybody on all threads](speed.svg)\n\n{_on(report)}"


def speed_lines(report: dict[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """What the picture shows: milliseconds of one text against its tokens, on all threads."""
    lines = {
        name: [(point["tokens"], 1000 * point["seconds"]["median"]) for point in one["points"]]
        for name, one in report["one_text"].items()
    }
    most = max(cell["threads"] for cell in report["grid"])
    for cell in report["grid"]:
        if cell["batch"] == 1 and cell["threads"] == most and cell["texts"] != "natural":
            for name, one in cell["systems"].items():
                if name not in report["bundles"] and "p50_milliseconds" in one:
                    point = (float(cell["texts"]), one["p50_milliseconds"])
                    lines.setdefault(_title(report, name), []).append(point)
    return lines


def _title(report: dict[str, Any], name: str) -> str:
    return f"**{name}**" if name in report["bundles"] else str(report["peers"][name]["title"])


def _kind(cell: dict[str, Any]) -> str:
    return f"natural ({cell['tokens_a_text']:.0f})" if cell["texts"] == "natural" else f"{int(cell['texts']):,} tokens"


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def _rate(cell: dict[str, Any], rounds: Sequence[float], spread: bool = False) -> str:
    """Texts a second of calls that took so many seconds."""
    found = _extent([cell["batch"] / one for one in rounds])
    low, middle, high = (_short(found[key]) for key in ("min", "median", "max"))
    return f"{middle} ({low} to {high})" if spread else middle


def _ratio(slower: Sequence[float], quicker: Sequence[float]) -> dict[str, float]:
    """How many times as long, round by round."""
    return _extent([one / other for one, other in zip(slower, quicker, strict=True)])


def _beside_base(cell: dict[str, Any], name: str) -> str | None:
    """A contender's texts a second and, of another than base, how many times base's that is."""
    one, base = cell["systems"][name], cell["systems"]["base"]
    if "left_out_seconds" in one:
        return None
    rate = _rate(cell, one["rounds"], spread=True)
    if name == "base" or "left_out_seconds" in base:
        return rate
    return f"{rate}, {_ratio(base['rounds'], one['rounds'])['median']:.3g}x"


def _wait(one: dict[str, Any]) -> str | None:
    """Milliseconds of a call."""
    if "left_out_seconds" in one:
        return None
    slow = f", p99 {_short(one['p99_milliseconds'])}" if one["p99_milliseconds"] else ""
    return f"{_short(one['p50_milliseconds'])}{slow} ms"


def _short(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _middle(values: Sequence[float]) -> float:
    return statistics.median(values)


def _extent(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def _spread(found: dict[str, float], form: str) -> str:
    """A median and its range."""
    return f"{found['median']:{form}} ({found['min']:{form}} to {found['max']:{form}})"


def _on(report: dict[str, Any]) -> str:
    """The machine and the run."""
    machine = report["stamp"]["machine"]
    load = machine["load_average_1min"]
    return f"{machine['cores_usable']} usable cores ({machine['cpu']}), load {load} before the start; {_source(report)}"


def _percent(found: dict[str, Any] | None) -> str | None:
    """A share and its interval."""
    if found is None:
        return None
    low, high = found["interval"]
    return f"{found['value']:.1%} ({100 * low:.0f} to {100 * high:.0f})"


def _times(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.1f} ({ratio['min']:.1f} to {ratio['max']:.1f})"


def published(of: str, measure: str) -> dict[str, float]:
    """What others publish of a set, system by system."""
    tables = [one for one in _published() if one["set"] == of and one["measure"] == measure]
    return {name: value for one in tables for name, value in one["systems"].items()}


def _published() -> list[dict[str, Any]]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    tables: list[dict[str, Any]] = tomllib.loads(PUBLISHED.read_text(encoding="utf-8"))["table"]
    return tables


def _cited(of: str) -> str:
    return "; ".join(dict.fromkeys(f"{one['source']} ({_named(one)})" for one in _published() if one["set"] == of))


def _named(one: dict[str, Any]) -> str:
    return {"f1": "F1", "auprc": "AUPRC"}[one["measure"]]


def _listed(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {_number(values[name])}" for name in sorted(values, key=lambda name: -values[name]))


def _words(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"


def _value(found: dict[str, Any] | None) -> str | None:
    return None if found is None else _number(found["value"])


def _interval(found: dict[str, Any] | None, bold: bool = False) -> str | None:
    """A figure and its interval; those of others have none."""
    if found is None:
        return None
    value = f"**{_value(found)}**" if bold else _value(found)
    return f"{value} ({found['interval'][0]:.3f} to {found['interval'][1]:.3f})" if "interval" in found else value


def _source(report: dict[str, Any]) -> str:
    stamp = report["stamp"]
    return f"`{stamp['command']}`, {stamp['date'][:10]}, severity_clf {stamp['versions']['severity_clf']}."


OF_A_BUNDLE: dict[str, Callable[[str], str]] = {
    "quality": quality,
    "harmbench": harmbench,
    "openai_mod": openai_mod,
    "pyrit": pyrit,
    "pyrit_pooled": pyrit_pooled,
    "rtp_lx": rtp_lx,
    "harmless": harmless,
    "others": others,
    "hatecheck": hatecheck,
    "example": example,
    "sources": sources,
}
TABLES: dict[str, Callable[[], str]] = {
    "data": data,
    "shared": shared,
    "ablations": ablations,
    "heads": heads,
    "calibrators": calibrators,
    "robustness": robustness,
    "cascade": cascade,
    "corpus": corpus,
    "corpus_plan": corpus_plan,
    "engine": engine,
    "speed": measured(speed),
    "speed_who": measured(speed_who),
    "speed_throughput": measured(speed_throughput),
    "speed_latency": measured(speed_latency),
    "speed_machine": measured(speed_machine),
    "speed_length": measured(speed_length),
    "speed_number": measured(speed_number),
    "speed_cold": measured(speed_cold),
    "speed_plot": measured(speed_plot),
}

if __name__ == "__main__":
    typer.run(main)
