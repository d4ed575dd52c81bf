"""What the robustness benchmark counts, on scorers whose faults are known."""

import json
import re
import shutil

import numpy as np
import pytest

from benchmarks import attacks, results, robustness, tables
from benchmarks.robustness import TRIES, Verdict, attacked, lost, of_bundle, sample, select, stayed
from severity_clf.records import Record

TRICKS = attacks.all_attacks(["The town has a market on Mondays.", "Cats sleep for most of the day."])


def records(*outputs):
    return [Record(id=str(n), output=text, labels={}, group=f"g{n}") for n, text in enumerate(outputs)]


def verdict(expected):
    expected = np.array(expected, float)
    return Verdict(expected, expected < 0.5, expected >= 2)


def shouting(_, texts, groups):
    """A scorer that finds one level in every two exclamation marks it can see, four at most."""
    assert len(texts) == len(groups)
    return verdict([min(text.count("!") / 2, 4) for text in texts])


def asleep(_, texts, groups):
    return verdict([0.0] * len(texts))


def test_a_row_without_a_level_has_none_to_lose():
    """And a drop of less than a level is none, nor is a rise."""
    counted, hit = lost(verdict([0.9, 1.0, 3.0, 3.0, 3.0]), verdict([0.0, 0.0, 2.0, 2.1, 4.0]))
    assert counted.tolist() == [False, True, True, True, True]
    assert hit[counted].tolist() == [True, True, False, False]


def test_a_benign_row_counts_if_it_was_at_level_0():
    """What was flagged before an attack says nothing about it."""
    counted, hit = stayed(verdict([0.0, 0.0, 3.0]), verdict([0.0, 1.0, 0.0]))
    assert (counted.tolist(), hit[counted].tolist()) == ([True, True, False], [True, False])


def test_the_share_is_of_the_rows_that_count_for_each_scorer():
    """`shouting` reads marks, which no wrapper takes away, and loses the encoded ones; `asleep` has nothing to lose."""
    rows = records("Tea!! Hot!! Now!!", "Tea!!!! Hot!!!!", "Tea.")
    found = attacked(lost, "any", rows, TRICKS, {"shouting": shouting, "asleep": asleep, "none": lambda *_: None})
    assert found["rows"] == 3
    told = found["systems"]
    assert (told["shouting"]["rows"], told["asleep"]["rows"]) == (2, 0)
    assert told["none"] == {"skipped": robustness.NO_JUDGES}
    shares = {trick: one["value"] for trick, one in told["shouting"]["attacks"].items()}
    assert list(shares) == list(TRICKS)
    assert {trick for trick, value in shares.items() if value} == {"tags", "emoji", "base64", "hex"}
    assert set(told["asleep"]["attacks"].values()) == {None}


def test_more_tries_never_end_worse_for_the_attacker():
    """The first n of the same combinations; and the scorer of marks is not fooled by what keeps them."""
    rows = records("Tea is hot.", "Tea is cold and stale.")

    def length(_, texts, groups):
        return verdict([4 * 60 / max(len(text), 60) for text in texts])

    found = select("any", rows, TRICKS, {"length": length, "none": lambda *_: None})["systems"]
    assert found["none"] == {"skipped": robustness.NO_JUDGES}
    means = [found["length"]["best_of"][str(n)]["mean"]["value"] for n in TRIES]
    assert means == sorted(means, reverse=True)
    assert found["length"]["unattacked"]["mean"]["value"] == 4
    assert found["length"]["unattacked"]["below"]["value"] == 0
    assert found["length"]["best_of"]["64"]["below"]["value"] == 1


def test_a_text_that_cannot_be_scored_is_no_success_of_an_attacker(tiny):
    """As in a reward, it counts as the worst there is."""
    found = of_bundle(tiny, None)("any", ["the cat", "\u200b"], ["a", "b"])
    assert found.expected[1] == tiny.taxonomy.top
    assert found.expected[0] == pytest.approx(tiny.score(["the cat"]).overall[0])
    assert (found.none[1], found.flag[1]) == (False, True)


def test_graded_rows_are_scored_by_bundles_that_saw_none_of_their_fold(tiny, base):
    """Or not at all; and the flag is of each judge's own threshold."""
    assert of_bundle(tiny, None)("pyrit", ["the cat"], ["a"]) is None
    texts, groups = ["the cat sat on a mat"] * 40, [f"group {number}" for number in range(40)]
    fold = np.array([robustness.fold_of(group) for group in groups])
    told = of_bundle(base, [base] * robustness.FOLDS)("pyrit", texts, groups)
    assert len(set(fold)) == robustness.FOLDS
    assert told.expected == pytest.approx(base.score(texts).overall)
    assert (told.flag == base.score(texts).flagged).all()


def test_judges_are_those_that_were_built_with_the_bundle(tiny, tiny_bundle, tmp_path):
    """Others have seen other rows."""
    assert robustness.find_judges(tiny, tmp_path) is None
    for fold in range(robustness.FOLDS):
        shutil.copytree(tiny_bundle, tmp_path / f"fold{fold}")
    judges = robustness.find_judges(tiny, tmp_path)
    assert [judge.path.name for judge in judges] == [f"fold{fold}" for fold in range(robustness.FOLDS)]
    card = tmp_path / "fold3" / "bundle.json"
    card.write_text(card.read_text().replace('"records": 0', '"records": 1'))
    assert robustness.find_judges(tiny, tmp_path) is None


def test_a_sample_is_the_same_in_any_order():
    """A figure can be measured again."""
    rows = records(*map(str, range(100)))
    assert sample(rows, 7) == sample(rows[::-1], 7)
    assert sample(rows, 20)[:7] == sample(rows, 7)


def test_benign_rows_are_at_level_0_and_of_groups_that_no_encoder_saw(data):
    """XSTest is never trained on; harmful rows are so by people's word."""
    for name, rows in robustness.benign_sets(data).items():
        assert len(rows) > 150, name
        assert all(row.labels["overall"] == (0, 0) for row in rows)
        assert all(row.source == "xstest" or robustness.held_out(row.group) for row in rows)
    for name, rows in robustness.harmful_sets(data).items():
        assert len(rows) > 250, name
        assert all(row.labels["overall"][0] >= 1 for row in rows)


def test_the_whole_benchmark_runs_on_two_rows(data, tiny_bundle, tmp_path, monkeypatch):
    """On the tiny bundle, with what it cannot judge left out and said."""
    monkeypatch.setattr(robustness, "TRIES", (1, 2))
    out = tmp_path / "robustness.json"
    robustness.main(data, bundle=[tiny_bundle], judges=tmp_path, peers=False, rows=2, out=out)
    found = json.loads(out.read_text())
    assert found["harmful"]["pyrit"]["systems"]["tiny"] == {"skipped": robustness.NO_JUDGES}
    assert found["harmful"]["harmbench"]["rows"] == 2
    assert found["padding"]["rows"] == robustness.PADDING
    assert found["stamp"]["machine"]["cores_usable"] >= 1
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    printed = tables.robustness()
    rows = re.findall(r"^\| ([^|]+) \|", printed, re.M)
    assert all(rows.count(trick) == 2 for trick in TRICKS)
    assert rows.count("best of 2") == 1
    assert "pyrit" not in printed


def test_without_the_recipes_folder_the_baseline_says_what_to_run(data, tmp_path):
    """Not an error from the depths after minutes."""
    with pytest.raises(robustness.typer.BadParameter, match=r"run python -m training\.build first"):
        robustness.fitted_tfidf(data, tmp_path)
