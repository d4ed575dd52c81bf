"""Labelled rows are read as they were meant, or refused with file, line and field."""

import json

import numpy as np
import pytest
from conftest import TAXONOMY
from hypothesis import given
from hypothesis import strategies as st

import severity_clf as sc
from severity_clf.records import Record, RecordError, label_array, read_records

ROW = {"output": "the cat", "labels": {"overall": 2}}


@pytest.fixture
def rows(tmp_path):
    """Write rows, or lines as they are, and read them back."""

    def read(*lines, taxonomy=None):
        path = tmp_path / "rows.jsonl"
        path.write_bytes(b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines))
        return read_records(path, taxonomy)

    return read


def test_a_whole_row_is_read_whole(rows):
    """Every key, and a chat as its last messages."""
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": [{"type": "text", "text": "the cat"}]}]
    labels = {"overall": [1, 2], "rude": 1, "wet": None}
    row = {"id": 7, "output": chat, "prompt": chat, "labels": labels, "group": "g", "source": "s", "weight": 2}
    assert rows(row) == [Record("7", "the cat", {"overall": (1, 2), "rude": (1, 1)}, "g", "s", "q", 2.0)]


def test_a_row_needs_an_output_and_labels_and_is_else_a_group_of_its_own(rows):
    """Its name is the number of its line, also where lines above it are blank."""
    found = rows(ROW, b"", b" \r", {**ROW, "prompt": None, "weight": None, "group": None, "id": None, "note": 1})
    assert found == [Record(name, "the cat", {"overall": (2, 2)}, name) for name in ("1", "4")]
    assert found[0].weight == 1


def test_an_absent_domain_is_unknown(rows):
    """Never 0, whether it is left out or null; the interval of a binary label stays one."""
    found = label_array(rows({**ROW, "labels": {"overall": [1, 2], "wet": None}}), TAXONOMY)
    assert found.tolist() == [[[1, 2], [0, 2], [0, 2]]]


def test_a_level_may_have_come_through_a_spreadsheet(rows):
    """3.0 is 3; a byte order mark is no part of a key."""
    line = b'\xef\xbb\xbf{"output": "the cat", "labels": {"overall": 2.0, "rude": [0.0, 1]}}\r'
    assert rows(line)[0].labels == {"overall": (2, 2), "rude": (0, 1)}


NAMES = "want a string or a whole number"
LEVELS = "want a level, a whole number from 0, or [lowest, highest]"
BAD = {
    "not JSON": (b"no", "not JSON: Expecting value at column 1"),
    "not UTF-8": (b'{"output": "\xff"}', "not UTF-8 at byte 12"),
    "a list": (b"[]", "the line is a list, want an object"),
    "too deep": (b"[" * 100_000, "not read: lists or objects nested too deeply"),
    "misspelt labels": (
        {"output": "a", "label": {}},
        'no "labels" key, only output, label; every row needs "output" and "labels"',
    ),
    "no output": (
        {"text": "a", "labels": {}},
        'no "output" key, only text, labels; every row needs "output" and "labels"',
    ),
    "misspelt group": ({**ROW, "groups": 1}, '"groups" is not a key of a record; rename it to "group" or drop it'),
    "capital": ({**ROW, "Weight": 1}, '"Weight" is not a key of a record; rename it to "weight" or drop it'),
    "output number": ({**ROW, "output": 1}, '"output" is a number, want a string or a list of messages'),
    "empty output": ({**ROW, "output": " \n"}, '"output" is empty: nothing to score; drop the row'),
    "prompt": ({**ROW, "prompt": []}, "\"prompt\" has no message with role 'user'"),
    "labels": ({**ROW, "labels": 3}, '"labels" is a number, want an object such as {"overall": 2}'),
    "label text": ({**ROW, "labels": {"wet": "high"}}, f'"labels": wet is a string, {LEVELS}'),
    "label boolean": ({**ROW, "labels": {"wet": True}}, f'"labels": wet is a boolean, {LEVELS}'),
    "label half": ({**ROW, "labels": {"wet": 1.5}}, f'"labels": wet is 1.5, {LEVELS}'),
    "label below 0": ({**ROW, "labels": {"wet": -1}}, f'"labels": wet is -1, {LEVELS}'),
    "label NaN": ({**ROW, "labels": {"wet": float("nan")}}, f'"labels": wet is nan, {LEVELS}'),
    "label infinite": ({**ROW, "labels": {"wet": float("inf")}}, f'"labels": wet is inf, {LEVELS}'),
    "label of three": ({**ROW, "labels": {"wet": [0, 1, 2]}}, f'"labels": wet is a list, {LEVELS}'),
    "label boolean end": ({**ROW, "labels": {"wet": [0, True]}}, f'"labels": wet is a boolean, {LEVELS}'),
    "lowest last": ({**ROW, "labels": {"wet": [2, 1]}}, '"labels": wet is [2, 1], want the lowest level first'),
    "weight below 0": ({**ROW, "weight": -1}, '"weight" is -1, want a number from 0'),
    "weight NaN": ({**ROW, "weight": float("nan")}, '"weight" is nan, want a number from 0'),
    "weight infinite": ({**ROW, "weight": float("inf")}, '"weight" is inf, want a number from 0'),
    "weight boolean": ({**ROW, "weight": True}, '"weight" is a boolean, want a number from 0'),
    "weight text": ({**ROW, "weight": "1"}, '"weight" is a string, want a number from 0'),
    "id": ({**ROW, "id": 1.5}, f'"id" is a number, {NAMES}'),
    "group": ({**ROW, "group": ["a"]}, f'"group" is a list, {NAMES}'),
    "empty group": ({**ROW, "group": ""}, '"group" is an empty string; name it or leave the key out'),
    "source": ({**ROW, "source": True}, f'"source" is a boolean, {NAMES}'),
    "same id": ({**ROW, "id": "1"}, "\"id\" '1' is also that of line 1; give every row its own"),
}


@pytest.mark.parametrize(("row", "reason"), BAD.values(), ids=BAD)
def test_a_bad_row_is_refused_with_file_line_and_field(rows, tmp_path, row, reason):
    """And with what to do, never with the text itself."""
    with pytest.raises(RecordError) as caught:
        rows(ROW, b"", row)
    assert str(caught.value) == f"{tmp_path}/rows.jsonl:3: {reason}"


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ({"wet": 3}, "wet: label [3, 3] must satisfy 0 <= low <= high <= 2"),
        ({"dry": 1}, "unknown domain 'dry'; this taxonomy has overall, rude, wet"),
        ({"overall": 0, "wet": 1}, "labels {'overall': (0, 0), 'wet': (1, 1)} put a domain above overall"),
    ],
)
def test_a_label_that_the_taxonomy_refuses_is_found_where_there_is_a_taxonomy(rows, tmp_path, labels, reason):
    """With its line, where the file is read; with the record's name, later."""
    records = rows(ROW, {**ROW, "labels": labels})
    with pytest.raises(RecordError) as caught:
        label_array(records, TAXONOMY)
    assert str(caught.value) == f"2: {reason}"
    with pytest.raises(RecordError) as caught:
        rows(ROW, {**ROW, "labels": labels}, taxonomy=TAXONOMY)
    assert str(caught.value) == f"{tmp_path}/rows.jsonl:2: {reason}"


@pytest.mark.parametrize("content", [b"", b"\n \r\n"])
def test_an_empty_file_is_an_error(rows, tmp_path, content):
    """A fit on nothing is a mistake made earlier."""
    with pytest.raises(RecordError, match=r"rows\.jsonl: no rows; want one JSON object a line"):
        rows(content)


def test_one_id_may_be_in_two_sources(rows):
    """Data sets number their rows alike."""
    assert len(rows({**ROW, "id": 1, "source": "a"}, {**ROW, "id": 1, "source": "b"})) == 2


def test_a_missing_file_is_an_os_error(tmp_path):
    """The caller's own words for it."""
    with pytest.raises(FileNotFoundError):
        sc.read_records(tmp_path / "nowhere.jsonl")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["overall", "wet"]), inner, max_size=2),
    max_leaves=5,
)


@given(row=st.fixed_dictionaries({"output": JSON, "labels": JSON}, optional=dict.fromkeys(("id", "weight"), JSON)))
def test_whatever_a_row_holds_it_is_a_record_or_a_record_error(tmp_path_factory, row):
    """And a record's levels and weight are numbers that a fit can use."""
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text(json.dumps(row))
    try:
        (record,) = read_records(path)
    except RecordError as error:
        assert str(error).startswith(f"{path}:1: ")
        return
    assert record.output.strip()
    assert np.isfinite(record.weight)
    assert all(0 <= low <= high for low, high in record.labels.values())
