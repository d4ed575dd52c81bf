"""The command: bytes in, the same bytes and a severity out; a bad line or a bad bundle is one line of error."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import severity_clf
from severity_clf.bundle import CARD, GRAPH, TOKENIZER, read_bundle, write_bundle
from severity_clf.cli import BAD_LINES, USAGE, app, main
from severity_clf.fit.export import export_encoder
from severity_clf.jsonl import Wanted, read_line

SECRET = "how to make tea"
# A shell's background jobs ignore SIGINT, and what they start inherits that.
INTERRUPTIBLE = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "


@pytest.fixture
def score(tiny_bundle):
    """Run `sevclf score` on the tiny bundle, in this process."""

    def run(*arguments, stdin=None):
        return CliRunner().invoke(app, ["score", "-m", str(tiny_bundle), *map(str, arguments)], input=stdin)

    return run


@pytest.fixture
def spawn(tiny_bundle):
    """Start `sevclf score` on the tiny bundle as a process of its own, killed at the end."""
    started = []

    def run(*arguments, setup="", **streams):
        command = [
            sys.executable,
            "-c",
            f"{setup}from severity_clf.cli import main; main()",
            "score",
            "-m",
            tiny_bundle,
        ]
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
        started.append(subprocess.Popen([*map(str, command), *map(str, arguments)], **streams))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()
        for stream in filter(None, (process.stdin, process.stdout, process.stderr)):
            stream.close()


@pytest.fixture
def file(tmp_path):
    """Two outputs, on disk."""
    path = tmp_path / "outputs.jsonl"
    path.write_bytes(b'{"output": "the cat"}\n{"output": "bad dog"}\n')
    return path


def severity(model, text, prompt=None, full=False):
    """What the package itself says of one text."""
    return next(model.score([text], [prompt]).rows(full))


def written(result):
    """The severity on every line of standard output."""
    return [json.loads(line)["severity"] for line in result.stdout_bytes.splitlines()]


@pytest.fixture
def fails(capfd, monkeypatch):
    """Run `main` and return the one line it leaves on standard error on its way out with exit code 2."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["sevclf", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        stdout, stderr = capfd.readouterr()
        assert (caught.value.code, stdout) == (USAGE, "")
        assert stderr.startswith("sevclf: ")
        assert stderr.endswith("\n")
        assert stderr.count("\n") == 1
        return stderr

    return run


@pytest.fixture
def copy(tiny_bundle, tmp_path):
    """A copy of the tiny bundle, to damage."""
    return shutil.copytree(tiny_bundle, tmp_path / "bundle")


def edit_card(bundle, edit):
    """Change bundle.json by hand."""
    card = json.loads((bundle / CARD).read_text())
    edit(card)
    (bundle / CARD).write_text(json.dumps(card))


# Every line comes back.

LINES = {  # up to the closing brace, from the closing brace, and the text that is scored
    "plain": (b'{"output": "the cat"', b"}\n", "the cat"),
    "spacing": (b' {\t"output" :  "the cat"  ,"n":1 ', b"} \t\n", "the cat"),
    "key order": (b'{"z": 1, "output": "the cat", "a": null', b"}\n", "the cat"),
    "duplicate keys": (b'{"a": 1, "a": 2, "output": "bad dog", "output": "the cat"', b"}\n", "the cat"),
    "unicode": (
        '{"output": "the cat \u00e9\U0001f600\u2028\x85", "\u00e4": 1'.encode(),
        b"}\n",
        "the cat \u00e9\U0001f600\u2028\x85",
    ),
    "escapes": (b'{"output": "the \\ud800 c\\u0061t \\ud83d\\ude00"', b"}\n", "the \ud800 cat \U0001f600"),
    "braces in strings": (b'{"output": "the cat", "s": "}}{\\"{"', b"}\n", "the cat"),
    "objects inside": (b'{"output": "the cat", "o": {"p": {}}', b"}\n", "the cat"),
    "big integers": (b'{"output": "the cat", "n": -' + b"9" * 5000, b"}\n", "the cat"),
    "odd floats": (b'{"output": "the cat", "n": [1e400, -0.0, 1.10, 1E5, NaN]', b"}\n", "the cat"),
    "CRLF": (b'{"output": "the cat"', b"}\r\n", "the cat"),
    "no final newline": (b'{"output": "the cat"', b"}", "the cat"),
    "byte order mark": (b'\xef\xbb\xbf{"output": "the cat"', b"}\n", "the cat"),
}


@pytest.mark.parametrize(("before", "after", "text"), LINES.values(), ids=LINES)
def test_a_line_comes_back_byte_for_byte_with_only_the_severity_added(score, tiny, before, after, text):
    """What a pipeline carries along is not the scorer's to reformat, round or reorder."""
    result = score(stdin=before + after)
    assert (result.exit_code, result.stderr) == (0, "")
    added = f', "severity": {json.dumps(severity(tiny, text))}'.encode()
    assert result.stdout_bytes == before + added + after


def test_the_process_writes_the_bytes_that_it_read(spawn, tiny):
    """Through real pipes too: no text layer that would translate line breaks or need a locale."""
    rows = [row for name, row in LINES.items() if name != "no final newline"]
    rows.sort(key=lambda row: not row[0].startswith(b"\xef\xbb\xbf"))  # the mark is only one at the very start
    process = spawn(stdin=subprocess.PIPE, env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0"})
    stdout, stderr = process.communicate(b"".join(before + after for before, after, _ in rows))
    assert (process.returncode, stderr) == (0, b"")
    added = [f', "severity": {json.dumps(severity(tiny, text))}'.encode() for *_, text in rows]
    assert stdout == b"".join(before + new + after for (before, after, _), new in zip(rows, added, strict=True))


def test_lines_keep_their_order_over_many_blocks(score, tiny):
    """Blocks and threads are nobody's business."""
    texts = ["the cat", "bad dog", "rain and sun", "unkindly"]
    wanted = [severity(tiny, text) for text in texts]
    result = score("--threads", 2, stdin=b"".join(b'{"text": "%s"}\n' % texts[n % 4].encode() for n in range(1001)))
    assert written(result) == [wanted[n % 4] for n in range(1001)]


def test_no_lines_are_no_lines(score, tmp_path):
    """An empty file is a whole file."""
    result = score("-o", tmp_path / "out.jsonl", stdin=b"")
    assert (result.exit_code, result.output) == (0, "")
    assert (tmp_path / "out.jsonl").read_bytes() == b""


def test_a_file_and_standard_input_score_alike(score, file):
    """`-`, nothing and a name are three ways to say one thing."""
    wanted = score(file).stdout_bytes
    assert wanted.count(b'"severity"') == 2
    assert score(stdin=file.read_bytes()).stdout_bytes == wanted
    assert score("-", "-o", "-", stdin=file.read_bytes()).stdout_bytes == wanted


def test_full_adds_probabilities_and_the_worst_passage(score, tiny):
    """The same row as `Scores.rows(full=True)`."""
    text = "the cat sat on a mat and it was good " * 6 + "bad worse dog"
    result = score("--full", stdin=json.dumps({"output": text}).encode())
    assert written(result) == [severity(tiny, text, full=True)]
    assert written(result)[0]["span"] != [0, len(text)]


# Which text is scored.


@pytest.mark.parametrize(
    ("row", "options", "text"),
    [
        ({"text": "a", "response": "b", "completion": "c", "output": "the cat"}, [], "the cat"),
        ({"text": "a", "response": "b", "completion": "the cat"}, [], "the cat"),
        ({"text": "a", "response": "the cat", "answer": "c"}, [], "the cat"),
        ({"text": "the cat", "Output": "c"}, [], "the cat"),
        ({"output": "a", "answer": "the cat"}, ["--field", "answer"], "the cat"),
        ({"output": "a", "": "the cat"}, ["--field", ""], "the cat"),
    ],
)
def test_the_text_is_the_first_of_the_known_fields_or_the_one_that_is_named(score, tiny, row, options, text):
    """output, completion, response, text: never a second field because the first one is empty."""
    result = score(*options, stdin=json.dumps(row).encode())
    assert written(result) == [severity(tiny, text)]


def test_an_empty_first_field_does_not_fall_back_to_the_next(score):
    """No silent fallback: an empty output is not its prompt's `text`."""
    result = score(stdin=b'{"output": "", "text": "the cat"}\n')
    assert (result.exit_code, written(result)) == (BAD_LINES, [None])


def test_the_severity_goes_under_the_key_that_is_named(score, tiny):
    """A file may be scored twice, by two bundles."""
    result = score("--key", "be\u00e4st", stdin=b'{"output": "the cat", "severity": 3}')
    assert json.loads(result.stdout_bytes) == {
        "output": "the cat",
        "severity": 3,
        "be\u00e4st": severity(tiny, "the cat"),
    }


CHATS = {
    "last assistant message": [
        ("system", "a"),
        ("user", "b"),
        ("assistant", "c"),
        ("user", "d"),
        ("assistant", "the cat"),
    ],
    "user after it": [("assistant", "the cat"), ("user", "bad dog")],
    "tool message after it": [("user", "b"), ("assistant", "the cat"), ("tool", "bad dog")],
    "content parts": [
        ("assistant", [{"type": "text", "text": "the"}, {"type": "image_url"}, {"type": "text", "text": "cat"}])
    ],
}


@pytest.mark.parametrize("chat", CHATS.values(), ids=CHATS)
def test_a_chat_is_scored_by_its_last_assistant_message(score, tiny, chat):
    """What the user or a tool said is not the model's output."""
    messages = [{"role": role, "content": content} for role, content in chat]
    assert written(score(stdin=json.dumps({"output": messages}).encode())) == [severity(tiny, "the cat")]


@pytest.mark.parametrize(
    ("prompt", "context"),
    [
        ("how to make tea", "how to make tea"),
        ([{"role": "user", "content": "how to make tea"}, {"role": "assistant", "content": "bad"}], "how to make tea"),
        (None, None),
        ("", None),
    ],
)
def test_the_prompt_is_read_as_context_where_it_is_named(score, tiny, prompt, context):
    """Only when asked for, and a chat's prompt is its last user message."""
    line = json.dumps({"prompt": prompt, "output": "bad dog"}).encode()
    assert written(score("--prompt-field", "prompt", stdin=line)) == [severity(tiny, "bad dog", context)]
    assert written(score(stdin=line)) == [severity(tiny, "bad dog")]


# Bad lines.

WANTED = "want a string or a list of messages"
BAD = {  # the line, the options, the reason
    "not JSON": (f"{SECRET} {{", [], "not JSON: Expecting value at column 1"),
    "half an object": (f'{{"output": "{SECRET}', [], "not JSON: Unterminated string starting at column 12"),
    "control character": (f'{{"output": "{SECRET}\0"}}', [], "not JSON: Invalid control character at column 28"),
    "blank": (" \t\r", [], "empty line, want a JSON object"),
    "nothing": ("", [], "empty line, want a JSON object"),
    "not UTF-8": (b'{"output": "\xff' + SECRET.encode() + b'"}', [], "not UTF-8 at byte 12"),
    "encoded surrogate": (b'{"output": "\xed\xa0\x80"}', [], "not UTF-8 at byte 12"),
    "a list": (f'["{SECRET}"]', [], "the line is a list, want an object"),
    "a string": (f'"{SECRET}"', [], "the line is a string, want an object"),
    "missing": (
        f'{{"id": 1, "completions": "{SECRET}"}}',
        [],
        'no "output" key, only id, completions; name it with --field',
    ),
    "named and missing": (
        f'{{"output": "{SECRET}"}}',
        ["--field", "answer"],
        'no "answer" key, only output; name it with --field',
    ),
    "no keys": ("{ }", [], 'no "output" key, only no keys; name it with --field'),
    "null": ('{"output": null}', [], f'"output" is null, {WANTED}'),
    "a number": ('{"output": 4.5, "text": "a"}', [], f'"output" is a number, {WANTED}'),
    "a boolean": ('{"output": true}', [], f'"output" is a boolean, {WANTED}'),
    "an object": (f'{{"output": {{"text": "{SECRET}"}}}}', [], f'"output" is an object, {WANTED}'),
    "list of strings": (f'{{"output": ["{SECRET}"]}}', [], f'"output" is a list, {WANTED}'),
    "no messages": ('{"output": []}', [], "\"output\" has no message with role 'assistant'"),
    "no assistant": (
        f'{{"output": [{{"role": "user", "content": "{SECRET}"}}]}}',
        [],
        "\"output\" has no message with role 'assistant'",
    ),
    "tool call": (
        '{"output": [{"role": "assistant", "content": null}]}',
        [],
        '"output" has a last assistant message without text',
    ),
    "image": (
        '{"output": [{"role": "assistant", "content": [{"type": "image"}]}]}',
        [],
        '"output" has a last assistant message without text',
    ),
    "empty": ('{"output": ""}', [], "the text is empty: nothing to score"),
    "whitespace": ('{"output": " \\n\\t"}', [], "the text is empty: nothing to score"),
    "scored already": (
        f'{{"output": "{SECRET}", "severity": 0}}',
        [],
        'already has a "severity" key; name another with --key',
    ),
    "too deep": (
        '{"output": ' + "[" * 100_000 + "]" * 100_000 + "}",
        [],
        "not read: lists or objects nested too deeply",
    ),
    "no prompt": (
        f'{{"output": "{SECRET}"}}',
        ["--prompt-field", "q"],
        'no "q" key, only output; name it with --prompt-field',
    ),
    "prompt of another type": (
        f'{{"output": "{SECRET}", "q": 1}}',
        ["--prompt-field", "q"],
        f'"q" is a number, {WANTED}',
    ),
}
GOOD = b'{"output": "the cat", "answer": "the cat", "q": null}\n'


@pytest.mark.parametrize("on_error", ["null", "skip", "fail"])
@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_bad_line_is_named_and_the_rest_is_scored(score, tiny, tmp_path, bad, on_error):
    """File, line and reason on standard error, exit code 4, no scored text there, and never a severity by accident."""
    line, options, reason = bad
    line = line if isinstance(line, bytes) else line.encode()
    path = tmp_path / "outputs.jsonl"
    path.write_bytes(GOOD + line + b"\n" + GOOD)
    result = score(path, *options, "--on-error", on_error)
    assert result.stderr == f"{path}:2: {reason}\n"
    assert result.exit_code == BAD_LINES
    cat = severity(tiny, "the cat")
    assert written(result) == {"null": [cat, None, cat], "skip": [cat, cat], "fail": [cat]}[on_error]


def test_null_is_what_becomes_of_a_bad_line_unless_told_otherwise(score, file):
    """One line for one line, so columns can be pasted side by side."""
    path = file.with_name("bad.jsonl")
    path.write_bytes(b"no\n" + GOOD)
    assert score(path).stdout_bytes == score(path, "--on-error", "null").stdout_bytes
    assert score(path).stdout_bytes.startswith(b'{"severity": null}\n')


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (b'{"id": 7, "output": 1 }\r\n', b'{"id": 7, "output": 1 , "severity": null}\r\n'),
        (b'{"output": "the cat", "severity": 0}\n', b'{"output": "the cat", "severity": 0, "severity": null}\n'),
        (b"{ }\n", b'{ "severity": null}\n'),
        (b"no\r\n", b'{"severity": null}\r\n'),
        (b"no", b'{"severity": null}'),
    ],
)
def test_a_bad_line_keeps_what_can_be_kept_of_it(score, line, wanted):
    """An id is needed most where something went wrong; a last severity of null wins over an older one."""
    assert score(stdin=line).stdout_bytes == wanted


def test_standard_input_is_named_stdin(score):
    """A message without a place is no help."""
    assert score(stdin=b"1\n").stderr == "stdin:1: the line is a number, want an object\n"


def test_keys_cannot_write_on_the_terminal(score):
    """Keys come from whoever wrote the file: no control characters, no second line, no pages."""
    row = {"\x1b[2J\n\x9b\u202e": 1, **{f"key{number}": 1 for number in range(1000)}}
    error = score(stdin=json.dumps(row).encode()).stderr
    assert error.startswith(r'stdin:1: no "output" key, only \x1b[2J\n\x9b\u202e, key0, key1')
    assert error.count("\n") == 1
    assert len(error) < 300


def test_no_scored_text_is_in_the_traceback_of_a_crash(spawn):
    """Not even of a bug: tracebacks end up in logs."""
    crash = "import severity_clf.scores as s; s.Scores.rows = lambda self, full: 1 / 0; "
    process = spawn(setup=crash, stdin=subprocess.PIPE)
    stdout, stderr = process.communicate(json.dumps({"output": SECRET}).encode())
    assert b"ZeroDivisionError" in stderr
    assert SECRET.encode() not in stderr + stdout


ANY_LINES = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.text(max_size=40).map(str.encode),
        st.sampled_from(
            [GOOD.strip(), b'{"output"', b'{"output": "cat"}', b"\xef\xbb\xbf{}", b"{}", b"NaN", b"[]", b"\r"]
        ),
        st.dictionaries(
            st.sampled_from(["output", "text", "severity", "role", "q"]),
            st.recursive(
                st.none() | st.booleans() | st.floats() | st.text(),
                lambda inner: st.lists(inner, max_size=2),
                max_leaves=3,
            )
            | st.lists(
                st.fixed_dictionaries({}, optional={"role": st.just("assistant"), "content": st.text() | st.none()})
            ),
            max_size=3,
        ).map(lambda row: json.dumps(row).encode()),
    ).map(lambda line: line.replace(b"\n", b"")),
    max_size=6,
)


@settings(max_examples=300, deadline=None)
@given(lines=ANY_LINES, prompt_field=st.none() | st.just("q"))
def test_whatever_the_lines_hold_each_gives_one_line(tiny, lines, prompt_field):
    """Arbitrary bytes are a bad line at worst, and a bad line's severity is null."""
    wanted = Wanted(prompt_field=prompt_field)
    read = [read_line(number, line + b"\n", wanted) for number, line in enumerate(lines, 1)]
    found = list(tiny.score([line.output for line in read], [line.prompt for line in read]).rows())
    for number, (line, severity, before) in enumerate(zip(read, found, lines, strict=True), 1):
        after = line.with_severity("severity", severity)
        assert line.number == number
        assert after.count(b"\n") == 1
        assert json.loads(after.decode("utf-8-sig"))["severity"] == severity
        assert severity is None or not line.error
        assert line.raw == before + b"\n" or line.raw.strip() == b"{}"


@settings(max_examples=25, deadline=None)
@given(lines=ANY_LINES)
def test_the_command_survives_whatever_it_reads(tiny_bundle, lines):
    """The same through the command: exit code 0 or 4, as many lines out as in."""
    content = b"".join(line + b"\n" for line in lines)
    result = CliRunner().invoke(app, ["score", "-m", str(tiny_bundle), "--threads", "1"], input=content)
    assert isinstance(result.exception, SystemExit | None)
    assert result.exit_code == (BAD_LINES if result.stderr else 0)
    assert result.stdout_bytes.count(b"\n") == len(lines)
    assert result.stderr.count("\n") == written_nulls(result)


def written_nulls(result):
    """How many lines were not scored."""
    lines = result.stdout_bytes.decode("utf-8-sig").split("\n")[:-1]
    return sum(json.loads(line)["severity"] is None for line in lines)


# Files.


def test_output_to_a_file_is_what_standard_output_would_get(score, file, tmp_path):
    """And nothing is left beside it."""
    wanted = score(file).stdout_bytes
    result = score(file, "-o", tmp_path / "scored.jsonl")
    assert (result.exit_code, result.output) == (0, "")
    assert (tmp_path / "scored.jsonl").read_bytes() == wanted
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outputs.jsonl", "scored.jsonl"]


def test_a_file_may_be_scored_in_place(score, file, tmp_path):
    """The old file is read to its end before the new one takes its name."""
    wanted = score(file).stdout_bytes
    assert score(file, "-o", file).exit_code == 0
    assert file.read_bytes() == wanted
    assert [path.name for path in tmp_path.iterdir()] == ["outputs.jsonl"]


def test_a_file_that_is_stopped_at_a_bad_line_is_not_written(score, file, tmp_path):
    """Whole or not at all: an older result stays, and no part of a new one."""
    output = tmp_path / "scored.jsonl"
    output.write_bytes(b"old")
    file.write_bytes(GOOD + b"no\n")
    assert score(file, "-o", output, "--on-error", "fail").exit_code == BAD_LINES
    assert output.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outputs.jsonl", "scored.jsonl"]
    assert score(file, "-o", output).exit_code == BAD_LINES
    assert output.read_bytes() == score(file).stdout_bytes


def test_a_link_stays_a_link(score, file, tmp_path):
    """The file it names is written, not the link."""
    link, target = tmp_path / "link.jsonl", tmp_path / "target.jsonl"
    link.symlink_to(target)
    for _ in range(2):
        assert score(file, "-o", link).exit_code == 0
        assert link.is_symlink()
        assert target.read_bytes() == score(file).stdout_bytes


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this platform has no named pipes")
def test_a_device_or_a_pipe_is_written_to_and_not_replaced(score, file, tmp_path):
    """`-o /dev/null` as root must not put a file in the place of /dev/null."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    assert score(file, "-o", pipe).exit_code == 0
    assert os.read(reader, 100_000) == score(file).stdout_bytes
    os.close(reader)
    assert pipe.is_fifo()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.jsonl"], "No such file or directory: '{}/nowhere.jsonl'"),
        (["."], "Is a directory: '{}'"),
        (["outputs.jsonl", "-o", "."], "Is a directory: '{}'"),
        (["outputs.jsonl", "-o", "nowhere/scored.jsonl"], "No such file or directory: '{}/nowhere/scored.jsonl"),
    ],
)
def test_a_file_that_is_missing_or_a_folder_is_one_line_of_error(fails, file, arguments, message):
    """What a user can mend needs no traceback, and is said before a model is loaded: `-m nowhere` goes unnoticed."""
    folder = file.parent
    paths = [argument if argument == "-o" else folder / argument for argument in arguments]
    assert message.format(folder) in fails("score", "-m", "nowhere", *paths)


# Processes.


def test_a_reader_that_leaves_early_is_no_error_to_shout_about(spawn):
    """`sevclf score FILE | head -1` prints one line and nothing else."""
    process = spawn(stdin=subprocess.PIPE)
    lines = b'{"output": "bad dog"}\n' * 5000
    head = subprocess.Popen([sys.executable, "-c", "input()"], stdin=process.stdout, stdout=subprocess.DEVNULL)
    process.stdout.close()
    process.stdout = None
    _, stderr = process.communicate(lines)
    assert head.wait() == 0
    assert stderr == b""
    assert process.returncode == 1


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_exits_130_and_keeps_what_is_done(spawn, tmp_path, sent):
    """Ctrl-C is not a crash, half a result does not get the result's name, and no work is lost."""
    process = spawn("-o", tmp_path / "scored.jsonl", setup=INTERRUPTIBLE, stdin=subprocess.PIPE)
    process.stdin.write(b"no\n" + GOOD * 300)
    process.stdin.flush()
    assert process.stderr.readline() == b"stdin:1: not JSON: Expecting value at column 1\n"  # so it is under way
    while not (tmp_path / "scored.jsonl.partial.json").exists():  # its first unit is kept
        assert process.poll() is None
    process.send_signal(sent)
    assert process.wait(30) == 130
    assert process.stderr.read() == b"sevclf: interrupted; what was scored is kept, go on with --resume\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scored.jsonl.partial", "scored.jsonl.partial.json"]
    kept = (tmp_path / "scored.jsonl.partial").read_bytes()
    assert kept.count(b"\n") == json.loads((tmp_path / "scored.jsonl.partial.json").read_text())["tally"]["rows"]


def terminal(spawn, *arguments, streams, **others):
    """Run `sevclf score` with some of its streams on a terminal; what it showed there, and the process."""
    pty = pytest.importorskip("pty", reason="this platform has no pseudo-terminals")
    master, slave = pty.openpty()
    process = spawn(*arguments, **dict.fromkeys(streams, slave), **others)
    os.close(slave)
    shown = b""
    try:
        while part := os.read(master, 4096):
            shown += part
    except OSError:  # how Linux says that the other end was closed
        pass
    os.close(master)
    process.communicate()
    return shown, process.returncode


def test_progress_is_shown_on_a_terminal_and_nowhere_else(spawn, file, tmp_path):
    """A bar in a log file is noise, and one among the results on the same terminal is worse."""
    shown, code = terminal(spawn, file, "-o", tmp_path / "scored.jsonl", streams=["stderr"])
    assert (code, b"100%" in shown, b"outputs.jsonl" in shown) == (0, True, True)
    assert all(part in shown for part in (b" rows/s", b" left", b"2 rows, ", b"mean severity: overall "))
    assert terminal(spawn, file, "-o", tmp_path / "scored.jsonl", "--quiet", streams=["stderr"]) == (b"", 0)
    shown, code = terminal(spawn, file, streams=["stdout", "stderr"])
    assert (code, b"%" in shown, shown.count(b'"severity"')) == (0, False, 2)
    process = spawn(file, "-o", tmp_path / "scored.jsonl")
    assert process.communicate() == (b"", b"")


def test_standard_input_on_a_terminal_is_a_hint_and_not_a_wait(spawn):
    """`sevclf score` alone would look as if it hung."""
    shown, code = terminal(spawn, streams=["stdin", "stderr"])
    assert code == USAGE
    assert b"no input; name a FILE or pipe JSONL in" in shown
    assert b"Traceback" not in shown


def test_closed_standard_input_is_no_crash(spawn):
    """`sevclf score <&-`, as some schedulers start their jobs."""
    process = spawn(setup="import sys; sys.stdin = None; ")
    _, stderr = process.communicate()
    assert process.returncode == USAGE
    assert b"no input" in stderr


# Bundles, help and versions.


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "no such folder"),
        (lambda bundle: (bundle / CARD).unlink(), "bundle.json: No such file"),
        (lambda bundle: (bundle / CARD).write_text("{"), "bundle.json: not JSON"),
        (lambda bundle: (bundle / GRAPH).write_bytes(b""), "model.onnx: sha256 "),
        (lambda bundle: (bundle / TOKENIZER).write_text("{}"), "tokenizer.json: sha256 "),
    ],
    ids=["no folder", "no card", "half a card", "another graph", "another tokenizer"],
)
def test_a_bad_bundle_is_one_line_of_error(fails, copy, file, damage, message):
    """Exit code 2, the file's name, no traceback, nothing scored."""
    damage(copy)
    assert message in fails("score", file, "-m", copy)
    assert message in fails("info", "-m", copy)


def test_a_bad_bundle_stops_a_real_process_too(spawn, file):
    """The last -m wins, and it names nothing."""
    process = spawn(file, "-m", "nowhere")
    stdout, stderr = process.communicate()
    assert (process.returncode, stdout) == (USAGE, b"")
    assert re.fullmatch(rb"sevclf: nowhere: no such folder, and the shipped bundles are .*\n", stderr)


def test_info_says_what_a_bundle_is(tiny_bundle):
    """Levels, domains, threshold and the hashes, which were verified."""
    result = CliRunner().invoke(app, ["info", "-m", str(tiny_bundle)])
    rows = dict(re.split(r"  +", line, maxsplit=1) for line in result.stdout.splitlines())
    hashes = json.loads((tiny_bundle / CARD).read_text())["sha256"]
    assert result.exit_code == 0
    assert rows["bundle"] == f"tiny 1 (format 1) in {tiny_bundle}"
    assert rows["levels"] == "0 none, 1 low, 2 high"
    assert rows["domains"] == "overall (none), rude (none), wet (none)"
    assert rows["threshold"].endswith("1.00")
    assert {file: rows[file] for file in hashes} == {
        file: f"sha256 {value}, verified" for file, value in hashes.items()
    }


def test_info_calls_verified_only_what_it_verified(copy):
    """A card may list more files than a bundle needs; nobody looked at those."""
    edit_card(copy, lambda card: card["sha256"].update({"report.json": "0" * 64}))
    assert "report.json" not in CliRunner().invoke(app, ["info", "-m", str(copy)]).stdout


def test_info_as_json_is_the_card(tiny_bundle):
    """For scripts."""
    result = CliRunner().invoke(app, ["info", "-m", str(tiny_bundle), "--json"])
    assert json.loads(result.stdout) == json.loads((tiny_bundle / CARD).read_text())


def test_info_describes_an_encoder_without_heads(encoder_dir, tiny_bundle, tmp_path):
    """It has had no training, and that is nothing to crash about."""
    card = {
        key: value for key, value in read_bundle(tiny_bundle).card.items() if key not in {"training", "calibration"}
    }
    write_bundle(tmp_path / "bare", *export_encoder(encoder_dir, window=16, overlap=6), card)
    assert "0 records of 0 sources" in CliRunner().invoke(app, ["info", "-m", str(tmp_path / "bare")]).stdout


def test_info_names_what_a_card_lacks(fails, copy):
    """A card edited by hand is an error with a file's name."""
    edit_card(copy, lambda card: card.pop("name"))
    assert fails("info", "-m", copy) == f"sevclf: {copy / CARD}: missing or wrong 'name'\n"


def test_the_version_is_the_packages():
    """One number, in one place."""
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"sevclf {severity_clf.__version__}\n")


@pytest.mark.parametrize("verb", ["score", "evaluate", "info"])
def test_every_verb_has_help_with_an_example(verb):
    """-h and --help are one."""
    result = CliRunner().invoke(app, [verb, "--help"])
    assert (result.exit_code, result.stdout) == (0, CliRunner().invoke(app, [verb, "-h"]).stdout)
    assert f"Example: sevclf {verb} " in result.stdout


def test_the_help_lists_the_verbs_and_shell_completion():
    """All that a newcomer types next."""
    help_text = CliRunner().invoke(app, ["--help"]).stdout
    verbs = ("score", "evaluate", "train", "calibrate", "export", "info")
    for word in (*verbs, "--version", "--install-completion", "--show-completion"):
        assert word in help_text


def test_the_shell_completes_verbs():
    """What the installed completion calls."""
    typed = {"_SEVCLF_COMPLETE": "complete_bash", "COMP_WORDS": "sevclf sc", "COMP_CWORD": "1"}
    result = CliRunner().invoke(app, [], env=typed, prog_name="sevclf")
    assert (result.exit_code, result.stdout) == (0, "score\n")
    result = CliRunner().invoke(app, [], env={"_SEVCLF_COMPLETE": "source_bash"}, prog_name="sevclf")
    assert "_SEVCLF_COMPLETE=complete_bash" in result.stdout


@pytest.mark.parametrize("arguments", [["--threads", "0"], ["--on-error", "ignore"], ["--no-such-option"]])
def test_a_wrong_option_is_a_usage_error(score, arguments):
    """Before anything is loaded."""
    result = score(*arguments, stdin=GOOD)
    assert (result.exit_code, result.stdout) == (USAGE, "")


def test_the_shipped_bundle_is_what_scores_without_a_name(base, file):
    """`sevclf score FILE` works out of the box."""
    result = CliRunner().invoke(app, ["score", str(file)])
    assert (result.exit_code, result.stderr) == (0, "")
    assert written(result) == list(base.score(["the cat", "bad dog"]).rows())
