"""What the documents say is what the project does."""

import json
import re

import pytest
import typer
from conftest import ROOT

from benchmarks import tables

README = (ROOT / "README.md").read_text(encoding="utf-8")


def fenced(language, text=README):
    """A document's code blocks of one language, the README's if none is given."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def test_the_readme_example_runs_and_prints_what_it_says(capsys):
    """The first ten lines a newcomer tries."""
    scope = {}
    exec(fenced("python")[0], scope)
    refusal, threat = scope["scores"].overall
    assert refusal < 0.5
    assert threat > 1.5
    assert "(2, 11, 5)" in capsys.readouterr().out


def test_the_readme_reward_runs():
    """A refusal that helps nobody and a helpful answer get helpfulness times safety; an empty one gets nothing."""
    scope = {"helpfulness": lambda completions, **columns: [float(len(text) > 40) for text in completions]}
    exec(fenced("python")[1], scope)
    answer = "Water boils at 100 degrees at sea level, and lower up in the mountains."
    rewards = scope["reward"]([answer, "No.", ""], prompts=["", "", ""])
    assert rewards[0] > 0.5
    assert rewards[1:] == [0.0, 0.0]


def test_the_example_of_the_page_on_rewards_runs(capsys):
    """It asserts what it says."""
    (code,) = fenced("python", (ROOT / "docs" / "rewards.md").read_text(encoding="utf-8"))
    exec(code, {})
    (printed,) = re.findall(r"print\(reward.counts\)  # (.*)", code)
    assert capsys.readouterr().out.strip() == printed


def test_what_the_page_on_rewards_says_of_figures_is_in_the_result_files():
    """Severity falls under both rewards; refusals stay rare with helpfulness in it and take over without it."""
    runs = json.loads((ROOT / "examples" / "results" / "safe_completion_grpo.json").read_text())["runs"]

    def ends(run, curve):
        tenth = len(runs[run][curve]) // 10
        return (sum(part) / tenth for part in (runs[run][curve][:tenth], runs[run][curve][-tenth:]))

    for run in ("product", "safety"):
        first, last = ends(run, "severity")
        assert last < first / 2
    _, refusals = ends("product", "refusals")
    assert refusals < 0.2
    _, refusals = ends("safety", "refusals")
    assert refusals > 0.5
    first, last = ends("product", "helpfulness")
    assert last > first
    measured = json.loads((ROOT / "benchmarks" / "results" / "reward.json").read_text())
    assert measured["overhead"]["ratio"]["median"] < 1.05


def test_the_readme_has_two_commands():
    """The gate runs them as they stand: the first installs and scores, the second installs and tests."""
    (block,) = fenced("sh")
    first, second = block.splitlines()
    assert first.startswith("pip install .")
    assert second.endswith("pytest")


def test_figures_in_documents_are_those_of_the_result_files():
    """A figure typed by hand, or left behind by a new measurement, fails here."""
    try:
        tables.main(check=True)
    except typer.Exit:
        pytest.fail("a document's figures are not its result files'; run python -m benchmarks.tables")


def test_the_report_in_the_bundle_is_of_the_graph_in_the_bundle():
    """Figures of another build must not be shown beside this one."""
    report, card = (
        json.loads((ROOT / "models" / "base" / name).read_text()) for name in ("report.json", "bundle.json")
    )
    assert report["bundle"]["sha256"] == card["sha256"]
    assert report["bundle"]["thresholds"] == card["thresholds"]


def test_every_example_names_its_source_and_licence():
    """The texts are others' work."""
    rows = [json.loads(line) for line in (ROOT / "examples" / "outputs.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) >= 30
    assert all(row["output"].strip() and row["source"] and row["licence"] for row in rows)


def test_refusals_and_plain_answers_in_the_examples_are_below_the_graded_ones(base):
    """The order a person would give, on real outputs."""
    rows = [json.loads(line) for line in (ROOT / "examples" / "outputs.jsonl").read_text(encoding="utf-8").splitlines()]
    overall = base.score([row["output"] for row in rows]).overall
    level = [row.get("human_severity", {}).get("level") for row in rows]
    worst = [score for score, graded in zip(overall, level, strict=True) if graded and graded >= 2]
    assert sorted(overall[:8])[4] < 0.5  # the file starts with eight refusals
    assert sum(worst) / len(worst) > overall[:8].mean() + 0.5
