"""From labelled rows to a bundle: what is fitted, what is said of it, and what is refused before any of it."""

import json
import shutil
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
from conftest import TAXONOMY, WORDS
from typer.testing import CliRunner

from severity_clf.bundle import CARD, BundleError, read_bundle
from severity_clf.cli import USAGE, app, main
from severity_clf.fit import train as module
from severity_clf.fit.crossfit import FOLDS
from severity_clf.fit.export import export_bundle
from severity_clf.fit.train import evidence, labelled, recalibrate, survey, train
from severity_clf.metrics import mae
from severity_clf.model import SeverityModel
from severity_clf.records import Record, RecordError, label_array, read_records
from severity_clf.taxonomy import Domain, Level, Taxonomy

N = 240


def taxonomy_of(levels, *domains):
    """Names are enough."""
    return Taxonomy(
        tuple(Level(f"level{number}", "") for number in range(levels)),
        tuple(Domain(name, "") for name in ("overall", *domains)),
    )


def text_of(rng, words, mark):
    """Some words, and the same one several times: how often is the level."""
    return " ".join(rng.permutation([*rng.choice(words, 4), *mark]))


def rows_of(levels=3, seed=0, n=N):
    """Rows that say how bad a day was, about rain or not: mild, and learnable from words."""
    rng = np.random.default_rng(seed)
    for index in range(n):
        level, wet = int(rng.integers(0, levels)), bool(rng.integers(0, 2))
        mark = [["good"], ["bad"], ["worse", "worse"], ["worse", "bad"], ["worse", "unkindly"]][level]
        output = text_of(rng, ["the", "cat", "sat", "on", "mat", "day"], mark + ["rain"] * (2 * wet))
        labels = {"overall": level, "wet": level if wet else 0}
        yield {"id": f"row{index}", "output": output, "labels": labels, "group": f"group{index // 2}"}


@pytest.fixture
def write(tmp_path):
    """Write rows as JSONL."""

    def run(rows, name="rows.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return run


@pytest.fixture
def records(write):
    """240 rows in 120 groups, graded overall and in one domain."""
    return read_records(write(rows_of()))


@pytest.fixture
def sevclf(tiny_bundle):
    """Run a verb on the tiny bundle, in this process."""

    def run(verb, *arguments):
        return CliRunner().invoke(app, [verb, *map(str, arguments), "-m", str(tiny_bundle)])

    return run


@pytest.fixture
def fails(capsys, monkeypatch, tiny_bundle, tmp_path):
    """Run `main`, and give its last line of error; nothing may have been written."""

    def run(*arguments):
        before = sorted(tmp_path.rglob("*"))
        arguments = [*arguments] if "-m" in arguments else [*arguments, "-m", tiny_bundle]
        monkeypatch.setattr(sys, "argv", ["sevclf", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        assert caught.value.code == USAGE
        assert sorted(tmp_path.rglob("*")) == before
        return " ".join(capsys.readouterr().err.replace("\u2502", "").split())

    return run


# The fit.


def test_a_bundle_from_rows_scores_like_them(records, tiny, tmp_path):
    """From words that it has seen to levels of rows that it has not; every figure is of rows held out."""
    taxonomy = labelled(records, TAXONOMY)
    fitted = train(records, taxonomy, tiny)
    fitted.write(tmp_path / "mine")
    model = SeverityModel(tmp_path / "mine", threads=1)
    assert model.taxonomy.names == ("overall", "wet")
    assert [domain.evidence for domain in model.taxonomy.domains] == ["graded", "graded"]
    fresh = list(rows_of(seed=1))
    scores = model.score([row["output"] for row in fresh])
    truth = np.array([list(row["labels"].values()) for row in fresh])
    held_out = fitted.report["held_out"]["domains"]
    for index, name in enumerate(model.taxonomy.names):
        found = mae(scores.expected[:, index], truth[:, index])
        assert found < 0.6 * held_out[name]["mae_constant"]
        assert held_out[name]["mae"] == pytest.approx(found, abs=0.12)
        assert held_out[name]["auroc"] > 0.9
    assert np.mean(scores.flagged == (truth[:, 0] > 0)) > 0.9
    assert scores.interval(0.2).shape == (N, 2, 2)
    card = read_bundle(tmp_path / "mine").card
    assert (card["name"], card["training"]["records"], card["training"]["groups"]) == ("mine", N, N // 2)
    report = json.loads((tmp_path / "mine" / "report.json").read_text())
    assert report["sha256"]["model.onnx"] == card["sha256"]["model.onnx"]


def test_labels_that_mean_nothing_look_like_nothing(records, tiny):
    """No figure is of rows that had a say in it: shuffled labels cannot be told, however well they were learnt."""
    rng = np.random.default_rng(0)
    shuffled = [
        replace(record, labels=records[other].labels, group=record.id)
        for record, other in zip(records, rng.permutation(N), strict=True)
    ]
    figures = train(shuffled, labelled(records, TAXONOMY), tiny).report["held_out"]
    for row in figures["domains"].values():
        assert row["auroc"] == pytest.approx(0.5, abs=0.12)
        assert row["mae"] > 0.85 * row["mae_constant"]


@pytest.mark.parametrize("levels", [2, 3, 5])
@pytest.mark.parametrize("domains", [("wet",), ()], ids=["domain", "overall only"])
def test_any_scale_and_any_domains_are_fitted(tiny, write, tmp_path, levels, domains):
    """Harmful or not; none to extreme; one number a row, or one a domain."""
    rows = [{**row, "labels": {name: row["labels"][name] for name in ("overall", *domains)}} for row in rows_of(levels)]
    taxonomy = taxonomy_of(levels, *domains)
    fitted = train(read_records(write(rows), taxonomy), taxonomy, tiny)
    fitted.write(tmp_path / "mine")
    exceed = SeverityModel(tmp_path / "mine", threads=1).score(["worse day", "good day"]).exceed
    assert exceed.shape == (2, 1 + len(domains), levels - 1)
    assert exceed[0, 0, 0] > exceed[1, 0, 0]
    assert fitted.report["held_out"]["domains"]["overall"]["mae"] < 0.7 * (levels - 1) / 2


def test_yes_or_no_labels_borrow_the_grade_and_say_so(records, tiny, encoder_dir, tmp_path):
    """From the bundle's own heads if it has some; else every level is as probable, and the card says that."""
    yes_or_no = [
        replace(record, labels={"overall": (1, 2) if record.labels["overall"][0] else (0, 0)}) for record in records
    ]
    taxonomy = labelled(yes_or_no, TAXONOMY)
    assert "how bad a harmful output is will be a guess" in " ".join(survey(yes_or_no, taxonomy).warnings)
    lent = train(yes_or_no, taxonomy, tiny)
    assert lent.card["taxonomy"]["domains"][0]["evidence"] == "binary"
    assert lent.report["held_out"]["domains"]["overall"]["mae"] is None  # exact labels are all 0
    assert lent.card["training"]["grade"] == "lent by the heads that the encoder's bundle had"
    export_bundle(encoder_dir, tmp_path / "bare", TAXONOMY, window=16, overlap=6)
    alone = train(yes_or_no, taxonomy, SeverityModel(tmp_path / "bare", threads=1))
    assert alone.card["training"]["grade"] == "none: levels above 0 are equally probable"
    alone.write(tmp_path / "mine")
    exceed = SeverityModel(tmp_path / "mine", threads=1).score(["worse day"]).exceed[0, 0]
    assert exceed[1] == pytest.approx(exceed[0] / 2, rel=1e-4)


def test_the_same_rows_give_the_same_bundle_on_any_number_of_processes(records, tiny_bundle, monkeypatch):
    """To the byte, or a result could not be repeated."""
    taxonomy = labelled(records, TAXONOMY)
    one = train(records, taxonomy, SeverityModel(tiny_bundle, threads=1))
    monkeypatch.setattr(module, "PARALLEL", 0)
    two = train(records, taxonomy, SeverityModel(tiny_bundle, threads=2))
    assert one == two


def test_embeddings_are_computed_once_for_one_graph_and_one_text(records, tiny, monkeypatch, tmp_path):
    """A second run with other options reads them from the cache, and gives what it would give without."""
    taxonomy, cache = labelled(records, TAXONOMY), tmp_path / "cache"
    wanted = train(records, taxonomy, tiny, cache=cache)
    monkeypatch.setattr(SeverityModel, "windows", None)
    assert train(records, taxonomy, tiny, cache=cache) == wanted
    assert train(records, taxonomy, tiny, cache=cache, false_flags=0.1).card != wanted.card
    with pytest.raises(TypeError):
        train([replace(records[0], output="dog"), *records[1:]], taxonomy, tiny, cache=cache)


def test_prompts_are_read_where_they_are_wanted(records, tiny):
    """What only the prompt tells is not known without it."""
    apart = [
        replace(record, output="the cat", prompt=prompt, labels={"overall": record.labels["overall"]})
        for record in records
        for prompt in [("good", "bad", "worse worse")[record.labels["overall"][0]]]
    ]
    taxonomy = labelled(apart, TAXONOMY)
    blind, told = (
        train(apart, taxonomy, tiny, prompts=prompts).report["held_out"]["domains"]["overall"]["auroc"]
        for prompts in (False, True)
    )
    assert blind == pytest.approx(0.5, abs=0.15)
    assert told > blind + 0.1


def test_a_wanted_rate_of_false_flags_is_kept_on_held_out_rows(records, tiny):
    """The rule is in the card, the outcome in the report."""
    fitted = train(records, labelled(records, TAXONOMY), tiny, false_flags=0.05)
    assert fitted.report["held_out"]["flag"]["false_flags"] <= 0.12
    assert "flags at most 5.0% of held-out harmless rows" in fitted.card["calibration"]["threshold"]


def test_progress_is_told_of_every_step(records, tiny):
    """From nothing to all, in two stages."""
    steps = []
    train(records, labelled(records, TAXONOMY), tiny, progress=lambda *step: steps.append(step))
    assert steps == [("embedding", N, N), *(("fitting", done, FOLDS + 1) for done in range(1, FOLDS + 2))]


# Calibration.


def test_a_bundle_is_calibrated_to_other_rows(records, tiny, tiny_bundle, tmp_path):
    """Random heads are too sure of themselves; what they look at stays, and an unlabelled domain, too."""
    fitted = recalibrate(records, tiny)
    before, after = (fitted.report[key]["domains"]["overall"]["log_loss"] for key in ("before", "held_out"))
    assert after < before - 0.05
    fitted.write(tmp_path / "mine")
    model = SeverityModel(tmp_path / "mine", threads=1)
    assert model.taxonomy == tiny.taxonomy
    graphs = [module.heads_of(module.onnx.load(read_bundle(path).graph)) for path in (tiny_bundle, tmp_path / "mine")]
    np.testing.assert_array_equal(graphs[0].table, graphs[1].table)
    rude = 1 + TAXONOMY.names.index("rude")
    np.testing.assert_array_equal(graphs[0].weight[:, rude], graphs[1].weight[:, rude])
    np.testing.assert_allclose(graphs[0].threshold[rude], graphs[1].threshold[rude], rtol=1e-6)


def test_the_licence_of_the_weights_goes_with_them(records, tiny_bundle, tmp_path):
    """Whoever passes a bundle on passes them on."""
    source = shutil.copytree(tiny_bundle, tmp_path / "source")
    (source / "LICENSE").write_text("as it was")
    for fitted in (
        train(records, labelled(records, TAXONOMY), SeverityModel(source, threads=1)),
        recalibrate(records, SeverityModel(source, threads=1)),
    ):
        fitted.write(tmp_path / "mine")
        assert (tmp_path / "mine" / "LICENSE").read_text() == "as it was"


def test_calibration_on_a_bundles_own_rows_is_refused(records, tiny, tmp_path):
    """It would believe what it learnt by heart."""
    train(records, labelled(records, TAXONOMY), tiny).write(tmp_path / "mine")
    with pytest.raises(
        RecordError, match="these are the very rows that the bundle was trained on; calibrate on others"
    ):
        recalibrate(records, SeverityModel(tmp_path / "mine", threads=1))


def test_an_encoder_has_nothing_to_calibrate(records, encoder_dir, tmp_path):
    """Heads first."""
    export_bundle(encoder_dir, tmp_path / "bare", TAXONOMY, window=16, overlap=6)
    with pytest.raises(
        BundleError, match=r"model\.onnx: an encoder without heads has nothing to calibrate; train heads"
    ):
        recalibrate(records, SeverityModel(tmp_path / "bare", threads=1))


# What rows tell.


def labels_of(*rows):
    """int8 [n, domain, 2] of rows in the tiny taxonomy."""
    return label_array([Record("", "", row, "") for row in rows], TAXONOMY)


def test_evidence_is_what_the_labels_tell_apart():
    """Two labels above 0, one wholly above the other; or harmful and not; or nothing."""
    none, yes, high, low = {"overall": (0, 0)}, {"overall": (1, 2)}, {"overall": (2, 2)}, {"overall": (1, 1)}
    assert evidence(labels_of(none, yes))[0] == "binary"
    assert evidence(labels_of(none, high))[0] == "binary"
    assert evidence(labels_of(none, low, high))[0] == "graded"
    assert evidence(labels_of(yes, high))[0] == "none"
    assert evidence(labels_of({"overall": (0, 0)}, {"overall": (2, 2), "wet": (1, 2)})) == ["binary", "none", "binary"]


def warned(*rows):
    """All warnings about some rows among the usual ones."""
    usual = [Record(f"usual{i}", f"day {i}", {"overall": (i % 3, i % 3)}, f"usual{i}") for i in range(300)]
    rows = [*usual, *rows]
    return survey(rows, labelled(rows, TAXONOMY)).warnings


def test_rows_without_a_flaw_need_no_warning():
    """Or nobody would read them."""
    assert warned() == ()


def test_flaws_of_rows_are_warned_of():
    """What a fit can live with, and its user should know."""
    one = Record("one", "the cat", {"overall": (0, 0)}, "one", prompt="tea")
    contrary = replace(one, id="two", labels={"overall": (2, 2)}, group="two")
    told = warned(one, contrary)
    assert "1 texts have labels that contradict each other, the first in the records 'one' and 'two'" in told
    assert "1 texts are in more than one group: held-out figures will be too good" in told
    assert "1 prompts are in more than one group: held-out figures will be too good; group by prompt" in told
    assert warned(replace(one, labels={})) == ("1 rows do not tell harmful from harmless and are not used for that",)
    assert warned(replace(one, labels={"overall": (2, 2), "wet": (1, 2)})) == (
        "wet: only 1 rows above level 0; want 20 or more",
    )
    few = [Record(str(i), f"day {i}", {"overall": (i % 2 * 2, i % 2 * 2)}, str(i % 3)) for i in range(30)]
    told = survey(few, labelled(few, TAXONOMY)).warnings
    assert told[:2] == (
        "only 30 rows tell harmful from harmless; want 200 or more",
        "only 3 groups; want 20 or more",
    )


GOOD = {"output": "the cat", "labels": {"overall": 0}}
BAD = {"output": "bad dog", "labels": {"overall": 2}}
REFUSED = {
    "off the scale": (
        [GOOD, {**BAD, "labels": {"overall": 3}}],
        "rows.jsonl:2: overall: label [3, 3] must satisfy 0 <=",
    ),
    "lowest last": (
        [GOOD, {**BAD, "labels": {"overall": [2, 1]}}],
        'rows.jsonl:2: "labels": overall is [2, 1], want the',
    ),
    "unknown domain": ([GOOD, {**BAD, "labels": {"dry": 1}}], "rows.jsonl:2: unknown domain 'dry'; this taxonomy has"),
    "empty": ([], "rows.jsonl: no rows; want one JSON object a line"),
    "one level": (
        [GOOD, {**BAD, "labels": {"overall": 2, "wet": 1}}, {**BAD, "labels": {"overall": [1, 2], "wet": [1, 2]}}][1:],
        "domain 'overall' has one level only: every label allows level 2; add rows of another",
    ),
    "one level of a domain": (
        [{**GOOD, "labels": {"overall": [0, 2], "wet": 0}}, {**BAD, "labels": {"overall": 2}}, GOOD],
        "domain 'wet' has one level only: every label allows level 0; add rows of another level",
    ),
    "nothing harmless": (
        [BAD, {**GOOD, "labels": {"overall": 1}}],
        "no row is known to be harmless, at overall level 0; label overall, and add such rows",
    ),
    "no weight": ([{**GOOD, "weight": 0}, {**BAD, "weight": 0}], "every row has weight 0; weight some"),
    "one group": (
        [{**GOOD, "group": "a"}, {**BAD, "group": "a"}],
        "all rows are in the group 'a', and nothing can be held out; want 2 or more",
    ),
}


@pytest.mark.parametrize("verb", ["train", "calibrate"])
@pytest.mark.parametrize(("rows", "message"), REFUSED.values(), ids=REFUSED)
def test_rows_that_cannot_be_fitted_are_one_line_of_error(fails, write, tmp_path, verb, rows, message):
    """What and where, exit code 2, and nothing is written."""
    assert message in fails(verb, write(rows), "-o", tmp_path / "mine")


def test_a_domain_without_labels_is_refused_where_it_was_asked_for(fails, write, tmp_path):
    """A taxonomy of one's own is meant as it is written; the bundle's is cut to what is labelled."""
    toml = tmp_path / "own.toml"
    toml.write_text("".join(f'[[levels]]\nname="{name}"\ndescription=""\n' for name in ("no", "yes")))
    with toml.open("a") as stream:
        stream.write("".join(f'[[domains]]\nname="{name}"\ndescription=""\n' for name in ("overall", "dry")))
    rows = write([GOOD, {**BAD, "labels": {"overall": 1}}])
    wanted = "domain 'dry' has no label; label some rows, or leave it out of the taxonomy"
    assert wanted in fails("train", rows, "-o", tmp_path / "mine", "--taxonomy", toml)
    toml.write_text("levels = 3")
    assert "own.toml: " in fails("train", rows, "-o", tmp_path / "mine", "--taxonomy", toml)


def test_harmful_rows_of_one_group_cannot_be_held_out(fails, write, tmp_path):
    """Heads without that group would know of no harm."""
    rows = [{**BAD, "group": "a"}, {**BAD, "output": "worse dog", "group": "a"}, GOOD, {**GOOD, "output": "good cat"}]
    wanted = "all harmful rows are in one fold, since they are in so few groups; want more groups of them"
    assert wanted in fails("train", write(rows), "-o", tmp_path / "mine")


def test_zero_and_one_on_a_longer_scale_are_asked_about(records, tiny):
    """1 of 2 is a level like any other, and most who write it mean harmful."""
    ones = [replace(record, labels={"overall": (min(record.labels["overall"][0], 1),) * 2}) for record in records]
    told = survey(ones, labelled(ones, TAXONOMY)).warnings[0]
    assert told.startswith("every harmful row is at overall level 1 of 2, and so will every output be; ")
    assert "label it [1, 2], or use a taxonomy of two levels" in told
    fitted = train(ones, labelled(ones, TAXONOMY), tiny)
    assert fitted.card["training"]["grade"] == "labels"


def test_an_output_without_a_token_is_named(records, tiny):
    """Nothing to read is nothing to learn from."""
    with pytest.raises(RecordError, match="record 'row3': not one token to read in its output; drop the row"):
        train([*records[:3], replace(records[3], output="\u200b"), *records[4:]], labelled(records, TAXONOMY), tiny)


def test_a_group_on_both_sides_of_a_split_is_refused(fails, write, tmp_path):
    """Also the same text; not the same line number."""
    rows = [*rows_of()]
    train_on, one = write(rows), {**rows[0], "output": "dog"}
    test = write([one], "test.jsonl")
    wanted = "group 'group0' is on both sides of the split, in record 'row1' to fit on and record 'row0' to test on"
    assert wanted in fails("train", train_on, "-o", tmp_path / "mine", "--test", test)
    test = write([{**one, "group": "other", "output": rows[0]["output"]}], "test.jsonl")
    wanted = "record 'row0' to test on has the text of record 'row0' to fit on; keep it on one side of the split"
    assert wanted in fails("train", train_on, "-o", tmp_path / "mine", "--test", test)


@pytest.mark.parametrize("verb", ["train", "calibrate", "export"])
def test_a_folder_that_is_no_bundle_is_refused_before_any_work(verb, encoder_dir, tmp_path, capsys, monkeypatch):
    """Before the rows are even read."""
    (tmp_path / "mine").mkdir()
    source = encoder_dir if verb == "export" else "nowhere.jsonl"
    monkeypatch.setattr(sys, "argv", ["sevclf", verb, str(source), "-o", str(tmp_path / "mine")])
    with pytest.raises(SystemExit, match=str(USAGE)):
        main()
    assert capsys.readouterr().err == f"sevclf: {tmp_path}/mine: exists and is not a bundle; name another folder\n"
    assert list((tmp_path / "mine").iterdir()) == []


# The command.


def test_train_says_what_it_was_given_and_what_came_of_it(sevclf, write, tmp_path):
    """Counts before, held-out figures and those of the test rows after, and what to type next."""
    rows = [*rows_of(), {"id": "x", "output": "good cat", "labels": {"overall": [0, 1]}}]
    test = write(({**row, "group": f"test{row['group']}"} for row in rows_of(seed=9, n=60)), "test.jsonl")
    result = sevclf("train", write(rows), "-o", tmp_path / "mine", "--test", test)
    assert result.exit_code == 0, result.output
    before, after = result.stdout.split("\nheld out, 241 rows\n")
    assert before.splitlines()[0] == "241 rows in 121 groups"
    assert ", [0, 1]: 1, 1: " in before
    assert "\ntest rows, 60 rows\n" in after
    assert f"wrote {tmp_path}/mine; next: sevclf score -m {tmp_path}/mine FILE" in after
    assert result.stderr.startswith("warning: 1 rows do not tell harmful from harmless")
    scored = CliRunner().invoke(app, ["score", "-m", str(tmp_path / "mine")], input='{"output": "worse day"}\n')
    assert json.loads(scored.stdout)["severity"]["flagged"]
    info = CliRunner().invoke(app, ["info", "-m", str(tmp_path / "mine")]).stdout
    assert "overall (graded), wet (graded)" in info
    again = sevclf("train", write(rows), "-o", tmp_path / "mine", "--seed", 1)
    assert again.exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "rows.jsonl", "test.jsonl"]


def test_calibrate_says_how_it_was_and_how_it_is(sevclf, write, tmp_path):
    """Both of the same rows."""
    result = sevclf("calibrate", write(rows_of()), "-o", tmp_path / "mine", "--false-flags", 0.1)
    assert result.exit_code == 0, result.output
    assert "\nas the bundle was, 240 rows\n" in result.stdout
    assert "\nheld out, 240 rows\n" in result.stdout
    assert (tmp_path / "mine" / CARD).is_file()


def test_export_gives_what_train_takes(encoder_dir, write, tmp_path):
    """Another encoder under the same heads; `score` with it alone says what is missing."""
    bare, mine = str(tmp_path / "bare"), str(tmp_path / "mine")
    result = CliRunner().invoke(app, ["export", str(encoder_dir), "-o", bare, "--window", "16", "--overlap", "6"])
    assert result.exit_code == 0, result.output
    assert f"next: sevclf train RECORDS -m {bare} -o D" in result.stdout
    score = CliRunner().invoke(app, ["score", "-m", bare], input='{"output": "cat"}')
    assert isinstance(score.exception, BundleError)
    # The shipped bundle's scale has five levels: rows up to 2 leave two of them without a row.
    rows = write({**row, "labels": {"overall": row["labels"]["overall"]}} for row in rows_of())
    result = CliRunner().invoke(app, ["train", str(rows), "-m", bare, "-o", mine])
    assert result.exit_code == 0, result.output
    assert "warning: overall: no row is exactly at level 3, 4" in result.stderr


def test_export_of_another_architecture_is_a_usage_error(encoder_dir, tmp_path):
    """With what is supported, and nothing is written."""
    folder = shutil.copytree(encoder_dir, tmp_path / "encoder")
    (folder / "config.json").write_text('{"model_type": "roberta"}')
    result = CliRunner().invoke(app, ["export", str(folder), "-o", str(tmp_path / "mine")])
    assert result.exit_code == USAGE
    assert "want a bert encoder with gelu" in " ".join(result.stderr.split())
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("verb", ["train", "calibrate", "export"])
def test_every_fitting_verb_has_help_with_an_example(verb):
    """And names its output."""
    result = CliRunner().invoke(app, [verb, "--help"])
    assert f"Example: sevclf {verb} " in result.stdout


# Fine-tuning, with a stand-in for torch.


@pytest.fixture
def tuner(monkeypatch):
    """A `finetune` that gives the encoder back as it was, and remembers what it was asked."""
    calls = []

    def finetune(encoder, records, taxonomy, out, **options):
        calls.append((encoder, records, taxonomy, options))
        shutil.copytree(encoder, out)
        np.savez(out / "heads.npz")

    monkeypatch.setattr(module, "find_spec", lambda name: True)
    stand_in = types.SimpleNamespace(finetune=finetune)
    monkeypatch.setitem(sys.modules, "severity_clf.fit.finetune", stand_in)
    return calls


def test_without_torch_finetune_says_what_to_install(fails, monkeypatch, write, tmp_path):
    """Before anything is written."""
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    wanted = "--finetune needs torch, sentence_transformers; install it with: pip install 'severity-clf[finetune]'"
    assert wanted in fails("train", write(rows_of()), "-o", tmp_path / "mine", "--finetune")


def test_an_encoder_is_tuned_on_some_groups_and_judged_by_the_others(sevclf, tuner, write, tmp_path):
    """It starts from the bundle's own weights; its rows are no held-out rows, and a finished run is not repeated."""
    rows = write(rows_of())
    for epochs in (3, 3, 4):
        result = sevclf("train", rows, "-o", tmp_path / "mine", "--finetune", "--epochs", epochs)
        assert result.exit_code == 0, result.output
    as_served = {"window": 16, "overlap": 6, "prompt_tokens": 4}  # windows are tuned as the bundle cuts them
    wanted = [{**as_served, "epochs": 3, "seed": 0}, {**as_served, "epochs": 4, "seed": 0}]
    assert [options for *_, options in tuner] == wanted
    encoder, seen, taxonomy, _ = tuner[0]
    assert (encoder / "model.safetensors").is_file()
    assert taxonomy.names == ("overall", "wet")
    held = {record.group for record in read_records(rows)} - {record.group for record in seen}
    report = json.loads((tmp_path / "mine" / "report.json").read_text())
    assert report["held_out"]["records"] == N - len(seen) == 2 * len(held)
    assert N / 6 < N - len(seen) < N / 4
    card = read_bundle(tmp_path / "mine").card
    assert card["encoder"] == {"source": "random", "tuned": f"end to end on {len(seen)} records"}


def test_an_encoder_may_be_named_to_start_from(sevclf, tuner, write, encoder_dir, tmp_path, fails):
    """Only for tuning, and only if it is one."""
    rows = write(rows_of())
    result = sevclf("train", rows, "-o", tmp_path / "mine", "--finetune", "--encoder", encoder_dir)
    assert result.exit_code == 0, result.output
    assert tuner[0][0] == encoder_dir
    assert "--encoder is for --finetune" in fails("train", rows, "-o", tmp_path / "other", "--encoder", encoder_dir)
    wanted = f"{tmp_path}: no config.json; want a sentence-transformers folder"
    assert wanted in fails("train", rows, "-o", tmp_path / "other", "--finetune", "--encoder", tmp_path)


def test_the_words_of_these_tests_are_in_the_tiny_vocabulary():
    """Or all of it would be [UNK]."""
    words = {word for row in rows_of(5) for word in row["output"].split()} - {"unkindly"}
    assert words <= set(WORDS)
