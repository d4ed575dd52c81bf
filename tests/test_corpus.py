"""Whole files: every row comes back, in any format, and no work is lost however a run ends."""

import csv
import gzip
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest
from conftest import make_bundle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import severity_clf as sc
from severity_clf import reading
from severity_clf.cli import BAD_LINES, FAILED, GATE, USAGE, app
from severity_clf.jsonl import Wanted

ROWS = 700  # more than two chunks
TEXTS = ["the cat", "bad dog", "rain and sun", "unkindly", "the cat sat on a mat and it was good"]
FORMATS = ["jsonl", "jsonl.gz", "jsonl.zst", "csv", "csv.gz", "parquet"]
FLAT = ["overall", "level", "safety", "flagged", "rude", "wet", "error"]  # of the tiny bundle


def texts(rows=ROWS):
    """Made up, one for each row."""
    return [f"{TEXTS[number % len(TEXTS)]} {TEXTS[number // 5 % len(TEXTS)]}" for number in range(rows)]


def write(path, rows):
    """Rows with an id and an output, in the format that the suffix says."""
    if path.suffix == ".parquet":
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        pq.write_table(pa.table({"id": range(len(rows)), "output": rows}), path, row_group_size=300)
        return path
    if ".csv" in path.suffixes:
        stream = io.StringIO()
        csv.writer(stream).writerows([["id", "output"], *enumerate(rows)])
        content = stream.getvalue().encode()
    else:
        content = b"".join(b'{"id": %d, "output": %s}\n' % (n, json.dumps(row).encode()) for n, row in enumerate(rows))
    if path.suffix == ".gz":
        content = gzip.compress(content)
    if path.suffix == ".zst":
        content = pytest.importorskip("zstandard").ZstdCompressor(write_checksum=True).compress(content)
    path.write_bytes(content)
    return path


def write_heavy(path, rows):
    """Short outputs that 20 kB each come along with."""
    ballast = [f"{number} {'x' * 20_000}" for number in range(rows)]
    if path.suffix == ".parquet":
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        pq.write_table(pa.table({"output": ["the cat"] * rows, "x": ballast}), path)
    elif path.suffix == ".gz":
        lines = ("output,x\n", *(f"the cat,{text}\n" for text in ballast))
        path.write_bytes(gzip.compress("".join(lines).encode(), 1))
    else:
        path.write_text("".join(f'{{"output": "the cat", "x": "{text}"}}\n' for text in ballast))
    return path


def read(path):
    """Rows as dicts of strings, the severity's parts flat."""
    if path.suffix == ".parquet":
        rows = pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()
        return [{key: value for key, value in row.items() if value is not None} for row in rows]
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    if path.suffix == ".zst":
        zstandard = pytest.importorskip("zstandard")
        content = zstandard.ZstdDecompressor().stream_reader(content, read_across_frames=True).read()
    if ".csv" in path.suffixes:
        return list(csv.DictReader(io.StringIO(content.decode(), newline="")))
    return [json.loads(line) for line in content.splitlines()]


def overall(rows):
    """The overall severity, whichever way it is written, to four decimals."""
    nested = [row["severity"]["overall"] if "severity" in row else row["severity_overall"] for row in rows]
    return [round(float(value), 4) for value in nested]


@pytest.fixture
def run(tiny_bundle):
    """`sevclf score` on the tiny bundle, in this process."""

    def run(*arguments, stdin=None):
        return CliRunner().invoke(app, ["score", "-m", str(tiny_bundle), *map(str, arguments)], input=stdin)

    return run


@pytest.fixture
def spawn(tiny_bundle):
    """`sevclf score` on the tiny bundle, as a process of its own, which first runs `setup`."""

    def run(*arguments, setup=""):
        code = f"{setup}\nfrom severity_clf.cli import main; main()"
        command = [sys.executable, "-c", code, "score", "-m", tiny_bundle, "--threads", 1, *arguments]
        return subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    return run


# Formats.


@pytest.mark.parametrize("source", FORMATS)
@pytest.mark.parametrize("target", FORMATS)
def test_every_format_becomes_every_other_with_the_same_scores(tiny, tmp_path, source, target):
    """A format is how rows are written down, and nothing else."""
    for suffix, library in (("parquet", "pyarrow"), ("jsonl.zst", "zstandard")):
        if suffix in {source, target}:
            pytest.importorskip(library)
    path = write(tmp_path / f"in.{source}", texts())
    summary = sc.score_file(path, tmp_path / f"out.{target}", tiny)
    rows = read(tmp_path / f"out.{target}")
    assert (summary.rows, summary.errors) == (ROWS, 0)
    assert [str(row["id"]) for row in rows] == [str(number) for number in range(ROWS)]
    assert [row["output"] for row in rows] == texts()
    assert overall(rows) == [row["overall"] for row in tiny.score(texts()).rows()]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({f"in.{source}", f"out.{target}"})


def test_tables_get_flat_columns(tiny, tmp_path):
    """One number a column, so that any tool can filter by them."""
    sc.score_file(write(tmp_path / "in.csv", texts(3)), tmp_path / "out.csv", tiny)
    rows, wanted = read(tmp_path / "out.csv"), list(tiny.score(texts(3)).rows())
    assert list(rows[0]) == ["id", "output", *(f"severity_{name}" for name in FLAT)]
    for row, severity in zip(rows, wanted, strict=True):
        assert float(row["severity_safety"]) == severity["safety"]
        assert row["severity_flagged"] == json.dumps(severity["flagged"])
        assert {name: float(row[f"severity_{name}"]) for name in ("rude", "wet")} == severity["domains"]
        assert row["severity_error"] == ""


def test_full_tables_hold_every_probability_and_the_worst_passage(tiny, tmp_path):
    """What `--full` adds to JSON, flat."""
    pytest.importorskip("pyarrow")
    scores = tiny.score(texts(3))
    for suffix in ("csv", "parquet"):
        path = write(tmp_path / f"in.{suffix}", texts(3))
        sc.score_file(path, tmp_path / f"out.{suffix}", tiny, full=True)
        for index, row in enumerate(read(tmp_path / f"out.{suffix}")):
            found = [float(row[f"severity_wet_p{level}"]) for level in range(3)]
            assert found == pytest.approx(scores.probs[index, 2].tolist(), abs=1e-4)
            assert [int(row["severity_start"]), int(row["severity_stop"])] == scores.spans[index, 0].tolist()


def test_csv_records_stay_byte_for_byte(run, tmp_path):
    """Quotes, line breaks inside cells, CRLF and a byte order mark are not ours to tidy."""
    path = tmp_path / "in.csv"
    header = b'\xef\xbb\xbfid,"output",note\r\n'
    records = [b'1,"the\r\ncat, ""sat""",x\r\n', b'2,bad dog,"a,b"\r\n', b'3,"rain",\r\n', b"4,sun,\xc3\xa9"]
    path.write_bytes(header + b"".join(records))
    assert run(path, "-o", tmp_path / "out.csv").exit_code == 0
    written = (tmp_path / "out.csv").read_bytes()
    assert written.startswith(header.rstrip() + b",severity_overall")
    at = 0
    for record in records:
        body = record.rstrip(b"\r\n")
        at = written.index(body + b",", at) + len(body)
    assert written.count(b"\r\n") == 5
    assert not written.endswith(b"\n")


BAD_RECORDS = {  # a record, how its cells come back, and why it was not scored
    "short": (b"7", ["7", ""], "1 cells, want the header's 2"),
    "long": (b"7,a,b", ["", ""], "3 cells, want the header's 2"),
    "empty": (b"", ["", ""], "empty line, want 2 cells"),
    "text after a quote": (b'7,"a"b', ["", ""], "not CSV: ',' expected after '\"'"),
    "no text": (b"7,", ["7", ""], "the text is empty: nothing to score"),
}


@pytest.mark.parametrize(("record", "cells", "reason"), BAD_RECORDS.values(), ids=BAD_RECORDS)
def test_a_bad_record_keeps_the_columns_in_their_places(run, tmp_path, record, cells, reason):
    """A cell in the wrong column would be a number in the wrong place."""
    path = tmp_path / "in.csv"
    path.write_bytes(b"id,output\n1,the cat\n" + record + b"\n2,bad dog\n")
    result = run(path)
    assert (result.exit_code, result.stderr) == (BAD_LINES, f"{path}:3: {reason}\n")
    rows = list(csv.reader(io.StringIO(result.stdout)))
    assert {len(row) for row in rows} == {2 + len(FLAT)}
    assert rows[2] == [*cells, "", "", "", "true", "", "", reason]
    assert [rows[1][1], rows[3][1]] == ["the cat", "bad dog"]


def test_a_cell_that_is_not_utf_8_is_kept_and_named(run, tmp_path):
    """Its bytes are the user's; its text is nobody's."""
    path = tmp_path / "in.csv"
    path.write_bytes(b"id,output\n1,caf\xe9 the cat\n")
    result = run(path, "-o", tmp_path / "out.csv")
    assert (result.exit_code, result.stderr) == (BAD_LINES, f"{path}:2: not UTF-8 at byte 5\n")
    assert (tmp_path / "out.csv").read_bytes().splitlines()[1].startswith(b"1,caf\xe9 the cat,,,,true,")


def test_a_quote_that_is_never_closed_takes_what_follows_and_says_so(run, tmp_path):
    """The rows behind it cannot be told apart; they are not lost without a word."""
    path = tmp_path / "in.csv"
    path.write_bytes(b'id,output\n1,the cat\n2,"bad\n3,dog\n')
    result = run(path, "--errors-file", tmp_path / "errors.jsonl")
    assert result.exit_code == BAD_LINES
    (error,) = read(tmp_path / "errors.jsonl")
    assert (error["line"], error["error"]) == (3, "not CSV: unexpected end of data")
    assert error["content"] == '2,"bad\n3,dog'


def test_parquet_columns_keep_their_types_and_values(tiny, tmp_path):
    """Dates, decimals, nested values, dictionaries, and what the schema says about itself."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    from datetime import datetime, timezone
    from decimal import Decimal

    columns = {
        "output": pa.array(["the cat", "bad dog", None], pa.large_string()),
        "small": pa.array([1, None, 3], pa.int8()),
        "price": pa.array([Decimal("1.10"), None, Decimal("2.00")], pa.decimal128(9, 2)),
        "at": pa.array([datetime(2026, 1, 1, tzinfo=timezone.utc)] * 3, pa.timestamp("us", "UTC")),
        "nested": pa.array([{"a": [1, 2]}, {"a": []}, None], pa.struct([("a", pa.list_(pa.int32()))])),
        "kind": pa.array(["x", "y", "x"]).dictionary_encode(),
        "raw": pa.array([b"\xff", b"", None]),
    }
    table = pa.table(columns).replace_schema_metadata({"made by": "a test"})
    pq.write_table(table, tmp_path / "in.parquet")
    before = pq.read_table(tmp_path / "in.parquet")
    summary = sc.score_file(tmp_path / "in.parquet", tmp_path / "out.parquet", tiny)
    after = pq.read_table(tmp_path / "out.parquet")
    assert after.select(before.schema.names).equals(before, check_metadata=True)
    assert summary.errors == 1
    scores = tiny.score(["the cat", "bad dog", None])
    assert after["severity_overall"].to_pylist()[:2] == scores.overall[:2].tolist()  # to the bit
    last = after.slice(2, 1).to_pylist()[0]
    assert last["severity_overall"] is None
    assert last["severity_flagged"] is True
    assert last["severity_error"] == '"output" is null, want a string or a list of messages'
    assert after.schema.field("severity_level").type == pa.int8()


def test_parquet_becomes_json_with_times_and_decimals_as_text(tiny, tmp_path):
    """What JSON has no type for is written so that nothing is lost."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    from datetime import date
    from decimal import Decimal

    pq.write_table(
        pa.table({"output": ["the cat"], "on": [date(2026, 1, 2)], "p": [Decimal("1.10")]}), tmp_path / "i.parquet"
    )
    sc.score_file(tmp_path / "i.parquet", tmp_path / "out.jsonl", tiny)
    (row,) = read(tmp_path / "out.jsonl")
    assert (row["on"], row["p"]) == ("2026-01-02", "1.10")


@pytest.mark.parametrize("target", ["jsonl", "csv"])
def test_a_value_that_a_format_cannot_hold_is_refused_with_advice(tiny, tmp_path, target):
    """Bytes are not text."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"output": ["the cat"], "raw": [b"\xff"]}), tmp_path / "in.parquet")
    with pytest.raises(sc.CorpusError, match="type bytes; write Parquet"):
        sc.score_file(tmp_path / "in.parquet", tmp_path / f"out.{target}", tiny)


def test_json_rows_of_one_key_with_two_types_are_no_parquet(tiny, tmp_path):
    """Found out before a row is scored."""
    pytest.importorskip("pyarrow")
    (tmp_path / "in.jsonl").write_text('{"output": "the cat", "n": 1}\n{"output": "bad dog", "n": "one"}\n')
    with pytest.raises(sc.CorpusError, match=r'up to "n": .*; Parquet wants one type a column: write JSONL'):
        sc.score_file(tmp_path / "in.jsonl", tmp_path / "out.parquet", tiny)
    sc.score_file(tmp_path / "in.jsonl", tmp_path / "out.csv", tiny)
    assert [row["n"] for row in read(tmp_path / "out.csv")] == ["1", "one"]


def test_json_rows_with_different_keys_make_one_table(tiny, tmp_path):
    """Every key that any row has is a column; bad lines are rows of nothing."""
    pytest.importorskip("pyarrow")
    (tmp_path / "in.jsonl").write_text('{"output": "the cat", "a": 1}\nno\n{"b": {"c": [1.5]}, "output": "bad dog"}\n')
    sc.score_file(tmp_path / "in.jsonl", tmp_path / "out.parquet", tiny)
    first, second, third = read(tmp_path / "out.parquet")
    assert (first["a"], third["b"], set(second)) == (1, {"c": [1.5]}, {"severity_flagged", "severity_error"})
    sc.score_file(tmp_path / "in.jsonl", tmp_path / "out.csv", tiny)
    assert read(tmp_path / "out.csv")[2]["b"] == '{"c": [1.5]}'


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("field", "row"),
    [
        ("response.text", {"response": {"text": "the cat"}}),
        ("response.text", {"response.text": "the cat", "response": {"text": "bad dog"}}),
        ("choices.1.message", {"choices": [{"message": "bad dog"}, {"message": "the cat"}]}),
        ("log", {"log": [{"role": "user", "content": "bad"}, {"role": "assistant", "content": "the cat"}]}),
        ("a.log", {"a": {"log": [{"role": "assistant", "content": "the cat"}]}}),
    ],
)
def test_a_field_may_lie_inside_another(tiny, tmp_path, suffix, field, row):
    """As OpenAI's and others' records have them; a key that has the whole name wins."""
    path = tmp_path / f"in.{suffix}"
    if suffix == "parquet":
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        pq.write_table(pa.Table.from_pylist([row]), path)
    else:
        path.write_text(json.dumps(row) + "\n")
    assert sc.score_file(path, tmp_path / f"out.{suffix}", tiny, field=field).errors == 0
    assert overall(read(tmp_path / f"out.{suffix}")) == overall([{"severity": next(tiny.score(["the cat"]).rows())}])


def test_a_field_that_is_not_there_is_an_error_of_the_row_or_of_the_table(run, tmp_path):
    """JSON's rows have keys of their own, a table has its columns once for all."""
    path = write(tmp_path / "in.jsonl", ["the cat"])
    assert f'{path}:1: no "a.b" key, only id, output; name it with --field' in run(path, "--field", "a.b").stderr
    path = write(tmp_path / "in.csv", ["the cat"])
    result = run(path, "--field", "answer", "-o", tmp_path / "out.csv")
    assert isinstance(result.exception, sc.CorpusError)
    assert str(result.exception) == f'{path}: no "answer" column, only id, output; name it with --field'
    assert not (tmp_path / "out.csv.partial").exists()


@pytest.mark.parametrize(
    ("source", "target"), [("csv", "csv"), ("csv", "jsonl"), ("jsonl", "csv"), ("parquet", "parquet")]
)
def test_a_column_of_the_user_is_not_overwritten(tiny, tmp_path, source, target):
    """A second bundle's severity needs another name, and the error says how."""
    name = "severity" if target == "jsonl" else "severity_wet"
    path = write(tmp_path / f"in.{source}", ["the cat"])
    if source == "parquet":
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        pq.write_table(pa.table({"output": ["the cat"], name: [1]}), path)
    elif source == "csv":
        path.write_text(f"output,{name}\nthe cat,1\n")
    else:
        path.write_text(json.dumps({"output": "the cat", name: 1}) + "\n")
    with pytest.raises(sc.CorpusError, match=f"already has columns {name}; name another with --key"):
        sc.score_file(path, tmp_path / f"out.{target}", tiny)
    sc.score_file(path, tmp_path / f"out.{target}", tiny, key="mine")
    assert str(read(tmp_path / f"out.{target}")[0][name]) == "1"


# Several files, and streams.


def test_several_files_become_one_in_their_order(run, tmp_path):
    """As `cat` would, also where the first one's last line does not end."""
    (tmp_path / "a.jsonl").write_bytes(b'{"output": "the cat"}')
    write(tmp_path / "b.jsonl.gz", ["bad dog"])
    write(tmp_path / "c.jsonl", ["rain"])
    result = run(tmp_path / "a.jsonl", tmp_path / "[bc].jsonl*")
    assert [json.loads(line)["output"] for line in result.stdout.splitlines()] == ["the cat", "bad dog", "rain"]
    for name in ("a", "b"):
        write(tmp_path / f"{name}.csv", [name])
    rows = list(csv.DictReader(io.StringIO(run(tmp_path / "*.csv").stdout)))
    assert [row["output"] for row in rows] == ["a", "b"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.jsonl", "a.csv"], "a.csv is csv, {0}/a.jsonl is jsonl; score them one by one"),
        (["a.csv", "b.csv"], "b.csv: other columns or types than {0}/a.csv"),
        (["x*.csv"], "x*.csv: no file is called so"),
        (["a.parquet.gz"], "Parquet compresses its columns itself; leave .gz out"),
    ],
)
def test_files_that_do_not_go_together_are_refused(tiny, tmp_path, names, message):
    """Before a row is scored."""
    write(tmp_path / "a.jsonl", ["the cat"])
    write(tmp_path / "a.csv", ["the cat"])
    (tmp_path / "b.csv").write_text("output,id\nthe cat,1\n")
    with pytest.raises(sc.CorpusError) as caught:
        sc.score_file([tmp_path / name for name in names], tmp_path / "out", tiny)
    assert message.format(tmp_path) in str(caught.value)


def test_a_folder_gets_a_file_for_each_input(run, tmp_path):
    """Shards in, shards out, under their own names."""
    for name in ("a.jsonl", "b.jsonl.gz"):
        write(tmp_path / name, texts(5))
    assert run(tmp_path / "*.jsonl*", "-o", f"{tmp_path}/out/").exit_code == 0
    assert [len(read(tmp_path / "out" / name)) for name in ("a.jsonl", "b.jsonl.gz")] == [5, 5]
    assert run(tmp_path / "*.jsonl*", "-o", f"{tmp_path}/tables/", "--format", "csv").exit_code == 0
    names = [path.name for path in (tmp_path / "tables").iterdir() if path.is_file()]
    assert sorted(names) == ["a.csv", "b.csv.gz"]
    (tmp_path / "other").mkdir()
    write(tmp_path / "other" / "a.jsonl", texts(1))
    result = run(tmp_path / "a.jsonl", tmp_path / "other" / "a.jsonl", "-o", f"{tmp_path}/out/")
    assert "would both become" in str(result.exception)


def test_csv_goes_through_a_pipe(run):
    """`--input-format` says what a name cannot; the output is the same format unless another is asked for."""
    result = run("--input-format", "csv", stdin=b"id,output\n1,the cat\n")
    assert result.stdout.startswith("id,output,severity_overall,")
    result = run("--input-format", "csv", "--format", "jsonl", stdin=b"id,output\n1,the cat\n")
    assert json.loads(result.stdout)["id"] == "1"


def test_parquet_can_be_written_to_a_pipe_but_not_read_from_one(run, tmp_path):
    """Its index stands at its end."""
    pq = pytest.importorskip("pyarrow.parquet")
    result = run("--format", "parquet", "--input-format", "csv", stdin=b"id,output\n1,the cat\n")
    assert pq.read_table(io.BytesIO(result.stdout_bytes)).num_rows == 1
    assert "Parquet cannot be read from a pipe" in str(run("--input-format", "parquet", stdin=b"").exception)
    assert "put it into a file" in str(run("--format", "csv", stdin=b"{}\n").exception)


@pytest.mark.parametrize(("suffix", "library"), [("parquet", "pyarrow"), ("jsonl.zst", "zstandard")])
def test_without_the_library_of_a_format_the_error_says_what_to_install(tmp_path, monkeypatch, run, suffix, library):
    """And formats that need none go on working."""
    (tmp_path / f"in.{suffix}").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setitem(sys.modules, f"{library}.parquet", None)
    result = run(tmp_path / f"in.{suffix}", "-o", tmp_path / "out.jsonl")
    assert str(result.exception).endswith(f"needs {library}; install it with: pip install 'severity-clf[io]'")
    assert run(write(tmp_path / "in.csv", ["the cat"])).exit_code == 0


# Damage and size.


@pytest.mark.parametrize("suffix", ["jsonl.gz", "jsonl.zst", "csv.gz"])
@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data[:300] + b"\0" * 9 + data[309:]])
def test_a_compressed_file_that_is_damaged_is_not_taken_for_a_shorter_one(tiny, tmp_path, suffix, damage):
    """What was whole before the damage is kept; the rest is an error that names the line."""
    path = write(tmp_path / f"in.{suffix}", [f"{text} {os.urandom(9).hex()}" for text in texts(2000)])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(sc.CorpusError, match=r"in\..*: damaged (gzip|zstd) after line \d+: .*; copy the file again"):
        sc.score_file(path, tmp_path / "out.jsonl", tiny)
    assert not (tmp_path / "out.jsonl").exists()


def test_parquet_that_is_damaged_is_an_error_and_never_a_crash(tiny, tmp_path):
    """Whatever byte is wrong."""
    path = write(tmp_path / "in.parquet", texts())
    whole, rng = path.read_bytes(), random.Random(0)
    for _ in range(40):
        data = bytearray(whole)
        for _ in range(rng.choice([1, 5])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data if rng.random() < 0.8 else data[: rng.randrange(len(data))])
        try:
            assert sc.score_file(path, tmp_path / "out.parquet", tiny).rows == ROWS
        except sc.CorpusError as error:
            assert "in.parquet" in str(error)
            for left in tmp_path.glob("*.partial*"):
                left.unlink()


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_line_without_end_is_an_error_and_not_read_into_memory(tiny, tmp_path, monkeypatch, suffix):
    """A file that is one line is not what it says it is."""
    monkeypatch.setattr(reading, "LINE_BYTES", 5000)
    path = write(tmp_path / f"in.{suffix}", ["the cat", "x" * 20_000, "bad dog"])
    summary = sc.score_file(path, tmp_path / "out.jsonl", tiny, errors_file=tmp_path / "errors.jsonl")
    assert (summary.rows, summary.errors) == (3, 1)
    (error,) = read(tmp_path / "errors.jsonl")
    assert error["error"] == "longer than 0 MiB"
    assert len(error["content"]) <= reading.SHOWN_BYTES


def test_a_chunk_holds_only_so_many_bytes(tiny, tmp_path, monkeypatch):
    """Rows of a megabyte are not read 256 at a time; and the order of rows is the file's all the same."""
    monkeypatch.setattr(reading, "CHUNK_BYTES", 1000)
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"".join(b'{"output": "the cat", "n": %d, "x": "%s"}\n' % (n, b"y" * 400) for n in range(20)))
    sizes = []
    score = type(tiny).score

    def spied(self, outputs, prompts=None):
        sizes.append(len(outputs))
        return score(self, outputs, prompts)

    monkeypatch.setattr(type(tiny), "score", spied)
    sc.score_file(path, tmp_path / "out.jsonl", tiny)
    assert max(sizes) == 3
    assert [row["n"] for row in read(tmp_path / "out.jsonl")] == list(range(20))


@pytest.mark.parametrize("suffix", ["jsonl", "csv.gz", "parquet"])
def test_memory_does_not_grow_with_the_file(spawn, tmp_path, suffix):
    """Four times the rows of a file that fills every buffer, and nowhere near the 120 megabytes more that they are."""
    psutil = pytest.importorskip("psutil")
    peaks = []
    for times in (4, 16):
        path = write_heavy(tmp_path / f"in{times}.{suffix}", 500 * times)
        process = spawn(path, "-o", tmp_path / f"out.{suffix}")
        peak, watched = 0, psutil.Process(process.pid)
        while process.poll() is None:
            with suppress(psutil.NoSuchProcess):
                peak = max(peak, watched.memory_info().rss)
            time.sleep(0.01)
        assert whole(process) == (0, "")
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 45e6


# Never lose work.


def whole(process):
    """Wait for its end; what it said on standard error."""
    _, stderr = process.communicate()
    return process.returncode, stderr.decode()


@pytest.mark.parametrize(("suffix", "kills"), [("jsonl", 10), ("jsonl.zst", 4), ("csv.gz", 4), ("parquet", 4)])
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bytes(spawn, tiny, tmp_path, suffix, kills):
    """kill -9 at random points, --resume each time."""
    rows = [f"{text} {number}" if number % 97 else "" for number, text in enumerate(texts(12_000))]
    path, output = write(tmp_path / f"in.{suffix}", rows), tmp_path / f"out.{suffix}"
    errors = ["--errors-file", tmp_path / "errors.jsonl"]
    wanted = sc.score_file(path, output, tiny, errors_file=tmp_path / "errors.jsonl")
    uninterrupted, listed = output.read_bytes(), (tmp_path / "errors.jsonl").read_bytes()
    output.unlink()
    partial = output.with_name(f"{output.name}.partial")
    setup = (
        "import time, severity_clf.sinks as s; s.SAVE_SECONDS = 0; commit = s.Growing.commit\n"
        "s.Growing.commit = lambda *a: (commit(*a), time.sleep(0.02))"  # time to be killed in
    )
    rng = random.Random(suffix)
    for _ in range(kills):
        process = spawn(path, "-o", output, "--resume", *errors, setup=setup)
        more = rng.randint(0, len(uninterrupted) // 16)  # of 47 units, so that the end is not reached
        size = partial.stat().st_size if partial.exists() else 0
        while process.poll() is None and not (partial.exists() and partial.stat().st_size > size + more):
            time.sleep(0.001)
        process.kill()
        assert whole(process)[0] == -signal.SIGKILL
    code, stderr = whole(spawn(path, "-o", output, "--resume", *errors, "--summary-json", tmp_path / "summary.json"))
    assert code == BAD_LINES, stderr
    assert output.read_bytes() == uninterrupted
    assert (tmp_path / "errors.jsonl").read_bytes() == listed
    found = json.loads((tmp_path / "summary.json").read_text())
    same = ("rows", "errors", "flagged", "over", "means")
    assert {name: found[name] for name in same} == {name: wanted.to_dict()[name] for name in same}
    assert not list(tmp_path.glob("*.partial*"))


@pytest.mark.parametrize("suffix", ["jsonl.gz", "parquet"])
def test_a_run_that_dies_between_any_two_steps_ends_with_the_same_bytes(spawn, tiny, tmp_path, suffix):
    """In the middle of a write, before and after the state is put on disk, while the file takes its name."""
    path, output = write(tmp_path / f"in.{suffix}", texts()), tmp_path / f"out.{suffix}"
    sc.score_file(path, output, tiny)
    uninterrupted = output.read_bytes()
    output.unlink()
    setup = (
        "import os, signal, pathlib, severity_clf.sinks as s; s.SAVE_SECONDS = 0; steps = [{}]\n"
        "def step():\n    steps[0] -= 1\n    steps[0] or os.kill(os.getpid(), signal.SIGKILL)\n"
        "def before(f):\n    return lambda *a: (step(), f(*a))[1]\n"
        "def half(stream, data, f=s._write):\n"
        "    f(stream, data[: len(data) // 2]); step(); f(stream, data[len(data) // 2 :])\n"
        "s._write = half; s.os.fsync = before(os.fsync); s.Path.replace = before(pathlib.Path.replace)\n"
        "s.Path.unlink = before(pathlib.Path.unlink)"
    )
    for step in range(1, 12 * 3):
        killed = whole(spawn(path, "-o", output, "--resume", setup=setup.format(step)))[0] == -signal.SIGKILL
        code, stderr = whole(spawn(path, "-o", output, "--resume")) if step % 3 == 0 or not killed else (0, "")
        assert code == 0, stderr
        if step % 3 == 0:
            assert output.read_bytes() == uninterrupted
            output.unlink()
        if not killed:
            break
    else:
        pytest.fail("there were more steps than were tried")


def interrupted(run, path, output, *options):
    """A run that has stopped in its second chunk, and what it has kept."""
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:300], b"no\n", *lines[300:]]))
    assert run(path, "-o", output, "--on-error", "fail", *options).exit_code == BAD_LINES
    path.write_bytes(content)
    return output.with_name(f"{output.name}.partial")


def test_work_is_kept_where_a_bad_line_stopped_it_and_goes_on_once_the_line_is_mended(run, tmp_path):
    """Only what was read counts: the rows behind it may change."""
    path, output = write(tmp_path / "in.jsonl", texts()), tmp_path / "out.jsonl"
    partial = interrupted(run, path, output)
    assert partial.read_bytes().count(b"\n") == 256
    assert not output.exists()
    assert run(path, "-o", output, "--on-error", "fail", "--resume").exit_code == 0
    assert output.read_bytes() == run(path).stdout_bytes


def test_what_is_kept_is_not_overwritten_by_a_run_that_forgot_to_resume(run, tmp_path):
    """An hour's work is not to be lost by a word."""
    path, output = write(tmp_path / "in.jsonl", texts()), tmp_path / "out.jsonl"
    partial = interrupted(run, path, output)
    kept = partial.read_bytes()
    result = run(path, "-o", output)
    assert str(result.exception) == (
        f"{partial}: 256 rows of a run that was cut off; go on with --resume, or remove it"
    )
    assert partial.read_bytes() == kept


REFUSED = {
    "other options": (lambda bundle, path: ["--key", "mine", "--full"], "it was made with another key, full"),
    "another gate": (lambda bundle, path: ["--fail-over", "1"], "it was made with another gate"),
    "another model": (lambda bundle, path: ["-m", str(bundle)], "it was made with another model"),
    "another input": (
        lambda bundle, path: path.write_bytes(path.read_bytes().replace(b"dog", b"cat")) and [],
        "it was made of other rows than those in",
    ),
    "a shorter input": (
        lambda bundle, path: path.write_bytes(b"".join(path.read_bytes().splitlines(True)[:99])) and [],
        "it was made of other rows than those in",
    ),
}


@pytest.mark.parametrize(("change", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_run_goes_on_only_with_the_same_model_options_and_input(run, encoder_dir, tmp_path, change, reason):
    """A file made half of one thing and half of another is worse than none; and what is kept stays."""
    path, output = write(tmp_path / "in.jsonl", texts()), tmp_path / "out.jsonl"
    partial = interrupted(run, path, output)
    kept = partial.read_bytes()
    other = make_bundle(encoder_dir, tmp_path / "other", int8=False)
    result = run(path, "-o", output, "--on-error", "fail", "--resume", *change(other, path))
    assert isinstance(result.exception, sc.CorpusError)
    assert f"{partial}: cannot go on: {reason}" in str(result.exception)
    assert partial.read_bytes() == kept
    assert partial.with_name(f"{partial.name}.json").exists()


def test_resume_without_anything_to_resume_starts(run, tmp_path):
    """So that a script can always say it."""
    path = write(tmp_path / "in.jsonl", texts(3))
    assert run(path, "-o", tmp_path / "out.jsonl", "--resume").exit_code == 0
    assert len(read(tmp_path / "out.jsonl")) == 3
    assert "cannot be resumed" in str(run(path, "--resume").exception)


def test_finished_shards_are_not_scored_again(run, tmp_path, monkeypatch):
    """A restart of a thousand shards is about the last one; a changed input or option is refused."""
    for name in ("a", "b"):
        write(tmp_path / f"{name}.jsonl", texts(5))
    folder = tmp_path / "out"
    assert run(tmp_path / "*.jsonl", "-o", f"{folder}/", "--summary-json", tmp_path / "one.json").exit_code == 0
    (folder / "a.jsonl").write_bytes(b"mark")
    (folder / "b.jsonl").unlink()
    assert (
        run(tmp_path / "*.jsonl", "-o", f"{folder}/", "--resume", "--summary-json", tmp_path / "two.json").exit_code
        == 0
    )
    assert (folder / "a.jsonl").read_bytes() == b"mark"
    assert len(read(folder / "b.jsonl")) == 5
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert (one["rows"], one["means"]) == (two["rows"], two["means"])
    write(tmp_path / "a.jsonl", texts(6))
    result = run(tmp_path / "*.jsonl", "-o", f"{folder}/", "--resume")
    assert "a.jsonl: cannot go on: it was made of other rows" in str(result.exception)
    assert (folder / "a.jsonl").read_bytes() == b"mark"
    assert run(tmp_path / "*.jsonl", "-o", f"{folder}/").exit_code == 0
    assert len(read(folder / "a.jsonl")) == 6


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_full_disk_ends_the_run_with_what_was_done_kept(spawn, run, tmp_path, suffix):
    """A limit that the kernel enforces, as a full disk does; exit code 1, one line, and then it goes on."""
    pytest.importorskip("resource", reason="this platform has no limits")
    path, output = write(tmp_path / f"in.{suffix}", texts(2000)), tmp_path / f"out.{suffix}"
    setup = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, -1))"
    code, stderr = whole(spawn(path, "-o", output, setup=setup))
    assert code == FAILED
    assert stderr.startswith("sevclf: [Errno 27] File too large")
    assert stderr.count("\n") == 1
    rows = json.loads((tmp_path / f"out.{suffix}.partial.json").read_text())["tally"]["rows"]
    assert 0 < rows < 2000
    assert run(path, "-o", output, "--resume").exit_code == 0
    resumed = output.read_bytes()
    run(path, "-o", output)
    assert resumed == output.read_bytes()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this platform has no /dev/full")  # noqa: PTH110
def test_a_device_without_space_is_one_line_of_error(spawn, tmp_path):
    """ENOSPC itself."""
    code, stderr = whole(spawn(write(tmp_path / "in.jsonl", texts(3)), "-o", "/dev/full"))
    assert (code, stderr) == (FAILED, "sevclf: [Errno 28] No space left on device\n")


def test_two_runs_do_not_write_one_file(spawn, tmp_path):
    """The second says so, and leaves the first alone."""
    pytest.importorskip("fcntl", reason="this platform has no such locks")
    os.mkfifo(tmp_path / "pipe")
    first = spawn(tmp_path / "pipe", "-o", tmp_path / "out.jsonl")
    with (tmp_path / "pipe").open("wb") as pipe:
        pass  # it looks at the file's start, then reads it
    while not (tmp_path / "out.jsonl.partial").exists():
        assert first.poll() is None
    with (tmp_path / "pipe").open("wb") as pipe:
        code, stderr = whole(spawn(write(tmp_path / "in.jsonl", texts(3)), "-o", tmp_path / "out.jsonl"))
        assert (code, "another run is writing it" in stderr) == (USAGE, True)
        pipe.write(b'{"output": "the cat"}\n')
    assert whole(first) == (0, "")
    assert len(read(tmp_path / "out.jsonl")) == 1


# Errors, gate, summary.


def test_bad_rows_are_listed_with_file_line_reason_and_content(run, tmp_path):
    """Whatever becomes of them in the output; standard error then says only how many."""
    path, errors = tmp_path / "in.jsonl", tmp_path / "errors.jsonl"
    path.write_bytes(b'{"output": "the cat"}\n{"output": 3}\n\xff{\n')
    for treatment, rows in (("null", 3), ("skip", 1)):
        result = run(path, "--errors-file", errors, "--on-error", treatment)
        assert result.exit_code == BAD_LINES
        assert result.stderr == f"sevclf: 2 rows could not be scored; see {errors}\n"
        assert len(result.stdout.splitlines()) == rows
        number = '"output" is a number, want a string or a list of messages'
        assert read(errors) == [
            {"file": str(path), "line": 2, "error": number, "content": '{"output": 3}'},
            {"file": str(path), "line": 3, "error": "not UTF-8 at byte 0", "content": "\udcff{"},
        ]
    result = run(path, "--errors-file", errors, "-o", f"{tmp_path}/out/")
    assert [row["line"] for row in read(errors)] == [2, 3]


@pytest.mark.parametrize(
    ("gate", "code"), [("1", GATE), ("low", GATE), ("high:wet", GATE), ("2", 0), ("2:rude", 0), ("1:wet", GATE)]
)
def test_the_gate_is_reached_by_a_level_in_overall_or_in_a_domain(run, tiny, tmp_path, gate, code):
    """Exactly where some row's median level reaches it."""
    level, _, domain = gate.partition(":")
    number = {"low": 1, "high": 2}.get(level) or int(level)
    found = tiny.score(TEXTS).level[:, tiny.taxonomy.names.index(domain or "overall")]
    result = run(write(tmp_path / "in.jsonl", TEXTS), "--fail-over", gate, "--summary-json", tmp_path / "summary.json")
    assert result.exit_code == (GATE if (found >= number).any() else 0)
    assert json.loads((tmp_path / "summary.json").read_text())["over"] == (found >= number).sum()
    assert len(result.stdout.splitlines()) == len(TEXTS)


def test_a_gate_over_rows_that_cannot_be_scored_is_not_passed(run):
    """Unknown is not harmless: 4 is no 0."""
    assert run("--fail-over", "2", stdin=b"no\n").exit_code == BAD_LINES


@pytest.mark.parametrize("gate", ["0", "3", "none", "2:dry", "", ":wet", "-1"])
def test_a_gate_that_does_not_exist_is_refused(run, gate):
    """With the levels and domains that do."""
    error = run("--fail-over", gate, stdin=b"").exception
    assert isinstance(error, sc.CorpusError)
    assert "want one of" in str(error)


def test_the_summary_counts_what_the_output_holds(run, tiny, tmp_path):
    """Means are over the rows that were scored."""
    path = write(tmp_path / "in.jsonl", [*TEXTS, ""])
    run(path, "-o", tmp_path / "out.jsonl", "--summary-json", tmp_path / "summary.json")
    found = json.loads((tmp_path / "summary.json").read_text())
    scores = tiny.score(TEXTS)
    assert (found["rows"], found["errors"], found["over"]) == (6, 1, None)
    assert found["flagged"] == scores.flagged.sum()
    assert list(found["means"]) == list(tiny.taxonomy.names)
    assert list(found["means"].values()) == pytest.approx(scores.expected.mean(axis=0).tolist())
    assert found["rows_per_second"] > 0
    assert json.loads(run(path, "-o", tmp_path / "out.jsonl", "--summary-json", "-").stdout)["rows"] == 6
    assert run(path, "--summary-json", "-").exit_code == USAGE
    result = run(path, "-o", tmp_path / "new.jsonl", "--summary-json", tmp_path / "nowhere" / "s.json")
    assert isinstance(result.exception, FileNotFoundError)
    assert not (tmp_path / "new.jsonl").exists()


def test_progress_says_how_far_a_run_is(tiny, tmp_path):
    """Also of a compressed file, whose length in rows nobody knows."""
    seen = []
    sc.score_file(write(tmp_path / "in.jsonl.gz", texts()), tmp_path / "out.jsonl", tiny, progress=seen.append)
    assert [one.rows for one in seen] == [256, 512, 700]
    assert seen[0].name == str(tmp_path / "in.jsonl.gz")
    assert seen[-1].share == 1
    assert seen[-1].seconds_left == 0
    assert all(one.rows_per_second > 0 for one in seen)


def test_the_help_documents_the_exit_codes(run):
    """They are what scripts read."""
    text = " ".join(run("--help").stdout.split())
    for code in (
        "0 all rows are scored",
        "1 it could not go on",
        "2 a usage error",
        "3 --fail-over",
        "4 rows could",
        "130 interrupted",
    ):
        assert code in text


def test_the_command_is_a_thin_shell_over_the_function(run, tiny, tmp_path):
    """The same file, the same bytes, the same counts."""
    path = write(tmp_path / "in.csv", texts(9))
    run(path, "-o", tmp_path / "cli.csv", "--summary-json", tmp_path / "summary.json", "--fail-over", "1:wet")
    summary = sc.score_file(str(path), str(tmp_path / "python.csv"), tiny, fail_over="1:wet")
    assert (tmp_path / "cli.csv").read_bytes() == (tmp_path / "python.csv").read_bytes()
    timed = {"seconds", "rows_per_second"}
    found = json.loads((tmp_path / "summary.json").read_text())
    assert {name: found[name] for name in found.keys() - timed} == {
        name: value for name, value in summary.to_dict().items() if name not in timed
    }


def test_a_table_in_memory_gets_the_columns_that_a_file_gets(tiny, tmp_path):
    """For everything that hands out Arrow."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = write(tmp_path / "in.parquet", [*texts(9), ""])
    sc.score_file(path, tmp_path / "out.parquet", tiny)
    table = pq.read_table(path)
    assert sc.score_table(table, tiny).equals(pq.read_table(tmp_path / "out.parquet"))
    assert isinstance(sc.score_table(table.to_batches()[0], tiny), pa.RecordBatch)
    assert sc.score_table(table.slice(0, 0), tiny).num_rows == 0
    with pytest.raises(sc.CorpusError, match="already has columns severity_overall"):
        sc.score_table(sc.score_table(table, tiny), tiny)
    with pytest.raises(sc.CorpusError, match='no "answer" column, only id, output'):
        sc.score_table(table, tiny, field="answer")


# Whatever the lines hold.

GOOD = {
    "jsonl": [b'{"id": 1, "output": "the cat", "n": [1, {"a": null}]}', b'{"text": "bad dog \\u00e9"}'],
    "csv": [b'1,"the ""cat"", sat",x', b"2,bad dog,"],
}
SPLICES = [
    b'"',
    b"{",
    b"}",
    b"[",
    b",",
    b"\\",
    b"\x00",
    b"\xff",
    b"\xed\xa0\x80",
    b"\\ud800",
    b"null",
    b"1e999",
    b"\r",
    b"\xef\xbb\xbf",
    b" ",
    b"9" * 5000,
]


def mangled(rng, suffix):
    """A line of its kind with something wrong, or right after all."""
    line = bytearray(rng.choice(GOOD[suffix]))
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(line) + 1)
        kind = rng.randrange(5)
        if kind == 0:
            del line[at:]
        elif kind == 1:
            line[at:at] = rng.choice(SPLICES)
        elif kind == 2:
            del line[at : at + rng.randint(1, 9)]
        elif kind == 3 and at < len(line):
            line[at] = rng.randrange(256)
        else:
            line[:] = rng.choice([b"", b"[]", b"null", b"NaN", b"[" * 3000, bytes(line) * 2, bytes(rng.randbytes(20))])
    return bytes(line).replace(b"\n", b"")


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rng=st.randoms(use_true_random=True))
def test_of_ten_thousand_malformed_lines_each_is_accounted_for(tiny, tmp_path, suffix, rng):
    """Scored, or null and listed with its line and its content: nothing is lost, and nothing stops the run."""
    rng = random.Random(rng.getrandbits(64))
    lines = [mangled(rng, suffix) for _ in range(100)]
    path, output, errors = (tmp_path / name for name in (f"in.{suffix}", f"out.{suffix}", "errors.jsonl"))
    header = b"id,output,note\n" if suffix == "csv" else b""
    path.write_bytes(header + b"".join(line + b"\n" for line in lines))
    summary = sc.score_file(path, output, tiny, errors_file=errors)
    listed = read(errors)
    assert len(listed) == summary.errors
    if suffix == "jsonl":
        rows = [json.loads(line.decode("utf-8-sig"), parse_int=float) for line in output.read_bytes().split(b"\n")[:-1]]
        assert summary.rows == len(rows) == len(lines)
        assert [one["line"] for one in listed] == [at for at, row in enumerate(rows, 1) if row["severity"] is None]
        for one in listed:
            content = one["content"].encode("utf-8", "surrogateescape")
            assert content == lines[one["line"] - 1].rstrip(b"\r\n")
    else:
        with reading.Source([path], None, Wanted()) as source:
            numbers = [row.number for chunk in source.chunks() for row in chunk.rows]
        assert numbers == sorted(set(numbers))
        assert numbers[0] == 2
        assert len(numbers) == summary.rows
        assert {one["line"] for one in listed} <= set(numbers)
        scored = output.read_bytes().count(b",true,") + output.read_bytes().count(b",false,")
        assert scored >= summary.rows
