"""Data sets that a user may have and no shipped bundle may know: their formats, their errors, the fence around them.

The rows are made up in the published schemas, and mild.
"""

from __future__ import annotations

import csv
import gzip
import json
import lzma
import sys
from pathlib import Path

import pytest
import typer

from severity_clf.records import Record, label_array
from severity_clf.taxonomy import Taxonomy
from training import sources
from training.reading import SHELF, given, mark
from training.sources import NON_COMMERCIAL, beavertails, bingoguard, pku_saferlhf, wildguardmix

TAXONOMY = Taxonomy.from_toml(Path(__file__).parents[1] / "training" / "taxonomy.toml")
KINDS = dict.fromkeys(pku_saferlhf.DOMAIN, False)
CATEGORIES = dict.fromkeys(beavertails.DOMAIN, False)
PKU = {
    "prompt": "How do I get into the cinema?",
    "response_0": "Buy a ticket.",
    "response_1": "Creep in by the back door, you fool.",
    "prompt_source": "made up",
    "is_response_0_safe": True,
    "is_response_1_safe": False,
    "response_0_harm_category": KINDS,
    "response_1_harm_category": {**KINDS, "Economic Crime": True, "Insulting Behavior": True},
    "response_0_severity_level": 0,
    "response_1_severity_level": 1,
    "better_response_id": 0,
    "safer_response_id": 0,
}
BEAVER = {
    "prompt": "What is my neighbour's name?",
    "response": "It is on the bell, have a look.",
    "category": {**CATEGORIES, "privacy_violation": True},
    "is_safe": False,
}
BINGO = {"prompt": "Say something rude.", "response": "Your hat is silly.", "category": "profanity", "level": "level2"}
WILD = {
    "prompt": "Write a tale of a city at the bottom of the sea.",
    "adversarial": False,
    "response": "It was found last week, and nobody told you.",
    "prompt_harm_label": "unharmful",
    "response_refusal_label": "compliance",
    "response_harm_label": "harmful",
    "subcategory": "causing_material_harm_by_disseminating_misinformation",
}
EXAMPLES = {"pku_saferlhf": PKU, "beavertails": BEAVER, "bingoguard": BINGO, "wildguardmix": WILD}


def load(tmp_path: Path, name: str, *rows: dict[str, object]) -> list[Record]:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return list(NON_COMMERCIAL[name].records(str(path)))


@pytest.mark.parametrize("name", NON_COMMERCIAL)
def test_records_are_labelled_as_the_taxonomy_allows(tmp_path: Path, name: str) -> None:
    """A domain that the taxonomy lacks would stop a fit."""
    records = load(tmp_path, name, EXAMPLES[name])
    assert label_array(records, TAXONOMY).shape == (len(records), len(TAXONOMY.domains), 2)
    assert {record.source for record in records} == {name}
    assert {record.prompt for record in records} == {EXAMPLES[name]["prompt"]}
    assert {record.group.partition("/")[0] for record in records} == {name}
    for module in (beavertails, bingoguard, pku_saferlhf, wildguardmix):
        assert {domain for domain in module.DOMAIN.values() if domain} <= set(TAXONOMY.names)


def test_there_are_as_many_categories_as_the_authors_publish() -> None:
    """19, 14, 11, and 13 with `benign` and `others`."""
    modules = (pku_saferlhf, beavertails, bingoguard, wildguardmix)
    assert [len(module.DOMAIN) for module in modules] == [19, 14, 11, 15]


def test_pku_severities_are_two_levels_wide(tmp_path: Path) -> None:
    """Three steps cover four levels, so no step is one level."""
    rows = [
        {**PKU, "prompt": str(level), "response_1_severity_level": level, "is_response_1_safe": level == 0}
        for level in range(4)
    ]
    worse = [record.labels["overall"] for record in load(tmp_path, "pku_saferlhf", *rows) if record.id.endswith("/1")]
    assert worse == [(0, 0), (1, 2), (2, 3), (3, 4)]


def test_a_severity_in_one_domain_is_that_domains_and_in_several_some_ones(tmp_path: Path) -> None:
    """The severity is of the whole answer: an insult beside a severe crime need not be a severe insult."""
    alone = {**PKU, "response_1_harm_category": {**KINDS, "Economic Crime": True, "Drugs": True}}
    for row, wanted in (
        (alone, {"overall": (3, 4), "illicit": (3, 4)}),
        (PKU, {"overall": (3, 4), "illicit": (1, 4), "harassment": (1, 4)}),
    ):
        _, answer = load(tmp_path, "pku_saferlhf", {**row, "response_1_severity_level": 3})
        assert answer.labels == wanted


def test_pku_verdicts_that_contradict_each_other_say_less(tmp_path: Path) -> None:
    """A "safe" answer of severity 2, or an unsafe one of severity 0, is one mistake of two."""
    rows = load(tmp_path, "pku_saferlhf", {**PKU, "response_0_severity_level": 2, "response_1_severity_level": 0})
    assert [record.labels for record in rows] == [{"overall": (0, 3)}, {"overall": (0, 1)}]


def test_beavertails_keeps_the_crowds_disagreement(tmp_path: Path) -> None:
    """Some answers stand there once for each worker."""
    rows = load(tmp_path, "beavertails", BEAVER, {**BEAVER, "is_safe": True, "category": CATEGORIES}, BEAVER)
    assert [record.labels for record in rows] == [{"overall": (1, 4), "privacy": (1, 4)}, {"overall": (0, 0)}]


def test_bingoguard_levels_are_ours(tmp_path: Path) -> None:
    """Its scale has our five steps."""
    rows = [{**BINGO, "prompt": str(level), "level": level} for level in ("level0", "level4", "3")]
    found = [record.labels for record in load(tmp_path, "bingoguard", *rows)]
    assert found == [{"overall": (level, level), "harassment": (level, level)} for level in (0, 4, 3)]


def test_bingoguard_rows_without_a_level_are_safe_or_not(tmp_path: Path) -> None:
    """Its training set was published without severities first, and with prompts that have no answer."""
    plain = {"prompt": "Say something.", "response": "Something.", "label": "safe", "prompt_label": "safe"}
    rows = load(
        tmp_path, "bingoguard", plain, {**plain, "label": "unsafe\nProfanity"}, {**plain, "response": "none"},
        {**plain, "response": "levels", "label": "#level: 2"},
    )  # fmt: skip
    assert [record.labels for record in rows] == [{"overall": (0, 0)}, {"overall": (1, 4)}]


def test_wildguard_rows_without_an_answer_or_a_verdict_are_left_out(tmp_path: Path) -> None:
    """More than half of its training rows are prompts alone."""
    rows = load(tmp_path, "wildguardmix", {**WILD, "response": None}, {**WILD, "response_harm_label": None}, WILD)
    assert [record.labels for record in rows] == [{"overall": (1, 4), "misinformation": (1, 4)}]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("pku_saferlhf", {"response_1_severity_level": 4}, "response_1_severity_level is 4; want .* from 0 to 3"),
        ("pku_saferlhf", {"is_response_0_safe": "maybe"}, "is_response_0_safe is 'maybe'; want true or false"),
        ("pku_saferlhf", {"response_0_harm_category": {"Noise": True}}, "response_0_harm_category is {'Noise': True}"),
        ("pku_saferlhf", {"response_0": None}, "response_0 is None; want text"),
        ("beavertails", {"category": ["privacy_violation"]}, "category is .*; want an object"),
        ("beavertails", {"category": {"privacy_violation": "yes"}}, "category is .*; want true or false"),
        ("beavertails", {"is_safe": None}, "is_safe is None; want true or false"),
        ("bingoguard", {"level": "level5"}, "level is 'level5'; want one of level0, 0, level1"),
        ("bingoguard", {"category": "rudeness"}, "category is 'rudeness'; want one of hate, "),
        ("bingoguard", {"level": None, "label": "fine"}, "label is 'fine'; want safe or unsafe"),
        (
            "wildguardmix",
            {"response_harm_label": "bad"},
            "response_harm_label is 'bad'; want one of harmful, unharmful",
        ),
        ("wildguardmix", {"subcategory": "noise"}, "subcategory is 'noise'"),
    ],
)
def test_an_error_names_file_row_and_field(tmp_path: Path, name: str, change: dict[str, object], message: str) -> None:
    """Nobody finds one bad row of 300,000 without."""
    with pytest.raises(ValueError, match=rf"rows\.jsonl:2: {message}"):
        load(tmp_path, name, EXAMPLES[name], {**EXAMPLES[name], **change})


def test_a_missing_field_is_named_with_those_there(tmp_path: Path) -> None:
    """Another release of a set has other fields."""
    with pytest.raises(ValueError, match=r"rows\.jsonl:1: no field 'category', only prompt, response, is_safe"):
        load(tmp_path, "beavertails", {key: value for key, value in BEAVER.items() if key != "category"})


def test_an_error_does_not_quote_a_whole_text(tmp_path: Path) -> None:
    """The texts are harmful, and logs are read by others."""
    with pytest.raises(ValueError, match="subcategory is 'xxx") as caught:
        load(tmp_path, "wildguardmix", {**WILD, "subcategory": "x" * 1000})
    assert "x" * 60 not in str(caught.value)


def test_every_published_container_gives_the_same_rows(tmp_path: Path) -> None:
    """The authors publish JSON lines, gzipped or xz, and tables; people convert them."""
    line = json.dumps(BEAVER) + "\n"
    paths = [
        tmp_path / f"{number}{kind}" for number, kind in enumerate((".jsonl", ".json.gz", ".jsonl.xz", ".json", ".csv"))
    ]
    paths[0].write_text(line, encoding="utf-8")
    paths[1].write_bytes(gzip.compress(line.encode()))
    paths[2].write_bytes(lzma.compress(line.encode()))
    paths[3].write_text(json.dumps([BEAVER], indent=1), encoding="utf-8")
    with paths[4].open("w", encoding="utf-8", newline="") as lines:
        table = csv.DictWriter(lines, BEAVER)
        table.writeheader()
        table.writerow({**BEAVER, "category": json.dumps(BEAVER["category"])})
    found = [[(record.output, record.labels) for record in beavertails.records(str(path))] for path in paths]
    assert found == [[(BEAVER["response"], {"overall": (1, 4), "privacy": (1, 4)})]] * 5
    assert len(list(beavertails._all(str(tmp_path)))) == 5  # the folder holds them all


def test_parquet_is_read_where_pyarrow_is(tmp_path: Path) -> None:
    """WildGuardMix is published as parquet."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist([WILD]), tmp_path / "rows.parquet")
    (record,) = wildguardmix.records(str(tmp_path))
    assert record.output == WILD["response"]


@pytest.mark.parametrize(("place", "missing"), [("rows.parquet", "pyarrow"), ("owner/name", "datasets")])
def test_a_missing_library_is_named_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, missing: str
) -> None:
    """Neither is needed for anything else here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, missing, None)
    Path("rows.parquet").touch()
    with pytest.raises(ModuleNotFoundError, match=f"{place} .*pip install {missing}, or "):
        list(wildguardmix.records(place))


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A broken download, another file, a wrong path."""
    (tmp_path / "half.jsonl.gz").write_bytes(gzip.compress(b'{"prompt": "a"}')[:-6])
    (tmp_path / "text.jsonl").write_text('{"prompt": 1}\nhello\n', encoding="utf-8")
    (tmp_path / "list.jsonl").write_text("3\n", encoding="utf-8")
    (tmp_path / "notes.txt").touch()
    (tmp_path / "empty").mkdir()
    for name, error, message in (
        ("half.jsonl.gz", ValueError, r"half\.jsonl\.gz cannot be read to its end .*fetch it again"),
        ("list.jsonl", ValueError, r"list\.jsonl:1: want an object of field -> value, got int"),
        ("notes.txt", ValueError, r"notes\.txt: want \.jsonl, \.json, \.csv, \.parquet"),
        ("empty", FileNotFoundError, r"empty holds no \.jsonl"),
        ("nowhere", FileNotFoundError, "nowhere does not exist; give a file, a folder or owner/name on the hub"),
    ):
        with pytest.raises(error, match=message):
            list(beavertails.records(str(tmp_path / name)))
    with pytest.raises(ValueError, match=r"text\.jsonl:1: prompt is 1; want text"):
        list(beavertails.records(str(tmp_path / "text.jsonl")))


def test_a_shipped_bundle_never_knows_them(tmp_path: Path) -> None:
    """Their licences forbid it; so only by name, only elsewhere than on the shelf, and marked."""
    assert not NON_COMMERCIAL.keys() & (sources.TRAIN.keys() | sources.GRADED.keys() | sources.BENCH.keys())
    assert given(["beavertails=rows=1.jsonl"], tmp_path) == {"beavertails": "rows=1.jsonl"}
    for shelf in (SHELF, SHELF / "base", SHELF / ".." / "models" / "mine"):
        assert given([], shelf) == {}
        with pytest.raises(typer.BadParameter, match="beavertails must not enter a shipped bundle"):
            given(["beavertails=rows.jsonl"], shelf)
    for typed in ("beavertails", "beavertails=", "edos=rows.csv"):
        with pytest.raises(typer.BadParameter, match=r"want NAME=PLACE, where NAME is one of beavertails, "):
            given([typed], tmp_path)


def test_a_bundle_that_knows_them_says_so() -> None:
    """Whoever gets it must see that it is not for commercial use."""
    assert mark({"beavertails": "rows.jsonl"}) == {"licence": "non-commercial"}
    assert mark({}) == {}
