"""A report says what the labels tell and no more, with its uncertainty, and quotes nobody."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import ROOT, WORDS
from typer.testing import CliRunner

import severity_clf as sc
from severity_clf import metrics
from severity_clf.bundle import read_bundle, write_bundle
from severity_clf.cli import USAGE, app, main
from severity_clf.fit.conformal import fit_conformal
from severity_clf.fit.export import export_encoder

RNG = np.random.default_rng(0)
TEXTS = [" ".join(RNG.choice(WORDS, 6)) for _ in range(60)]
NOISE = RNG.integers(-1, 2, len(TEXTS))
ROUNDS = 40


@pytest.fixture(scope="module")
def scores(tiny):
    """The tiny bundle's scores of all texts."""
    return tiny.score(TEXTS)


@pytest.fixture(scope="module")
def graded(scores):
    """Exact labels of `overall`: the bundle's own median level, one off here and there."""
    levels = np.clip(scores.level[:, 0] + NOISE, 0, 2).tolist()
    return [
        sc.Record(f"r{n}", text, {"overall": (level, level)}, f"g{n // 2}")
        for n, (text, level) in enumerate(zip(TEXTS, levels, strict=True))
    ]


@pytest.fixture(scope="module")
def report(tiny, graded):
    """Of the graded records."""
    return sc.evaluate(tiny, graded, rounds=ROUNDS)


def only(report):
    """The report of the one domain."""
    [domain] = report.domains
    return domain


def test_figures_are_those_of_the_metrics(report, scores, graded):
    """Each is one call of a function that has tests of its own."""
    level = np.array([record.labels["overall"][0] for record in graded])
    labels, expected, probs = np.stack([level, level], axis=1), scores.overall, scores.probs[:, 0]
    found = {key: estimate.value for key, estimate in only(report).estimates.items()}
    assert found == pytest.approx(
        {
            "auroc": metrics.auroc(expected, level > 0),
            "average_precision": metrics.average_precision(expected, level > 0),
            "precision": metrics.precision(scores.flagged, level > 0),
            "recall": metrics.recall(scores.flagged, level > 0),
            "f1": metrics.f1(scores.flagged, level > 0),
            "mae": metrics.mae(expected, level),
            "macro_mae": metrics.macro_mae(expected, level),
            "alpha": metrics.krippendorff_alpha(np.stack([level, scores.level[:, 0]])),
            "spearman": metrics.spearman(expected, level),
            "rps": metrics.rps(probs, level),
            "classwise_ece": metrics.classwise_ece(probs, labels),
            "smooth_ece": metrics.smooth_ece(1 - probs[:, 0], level > 0),
        }
    )
    assert (only(report).n, only(report).harmless, only(report).harmful) == (60, (level == 0).sum(), (level > 0).sum())


def test_intervals_are_those_of_the_bootstrap_over_groups(report, scores, graded):
    """Rows of one group are drawn together."""
    level = np.array([record.labels["overall"][0] for record in graded])
    groups = np.array([record.group for record in graded])
    wanted = metrics.bootstrap(metrics.mae, scores.overall, level, groups=groups, rounds=ROUNDS)
    assert only(report).estimates["mae"].interval == pytest.approx(wanted)
    assert wanted != metrics.bootstrap(metrics.mae, scores.overall, level, rounds=ROUNDS)


def test_one_group_has_no_interval(tiny, graded):
    """A spread cannot be told from one."""
    found = sc.evaluate(tiny, [replace(record, group="one") for record in graded], rounds=ROUNDS)
    assert only(found).estimates["auroc"].interval is None
    assert "0." in found.text()
    assert "AUROC" in found.html()


def test_calibration_stands_beside_its_floor(report):
    """A calibration error alone means nothing at this n."""
    for key in ("classwise_ece", "smooth_ece"):
        assert 0 < only(report).estimates[key].floor < 0.5


def test_the_confusion_counts_labels_by_the_level_given(tiny, scores, graded, report):
    """Rows are what the label says; a bundle that is judged by its own answers is on the diagonal."""
    table = np.array(only(report).confusion)
    for true in range(3):
        assert table[true].sum() == sum(record.labels["overall"] == (true, true) for record in graded)
    own = [
        replace(record, labels={"overall": (level, level)})
        for record, level in zip(graded, scores.level[:, 0].tolist(), strict=True)
    ]
    itself = only(sc.evaluate(tiny, own, rounds=2))
    assert itself.confusion == np.diag(np.bincount(scores.level[:, 0], minlength=3)).tolist()
    assert itself.estimates["alpha"].value == 1


def test_curves_count_every_row_once(report, scores):
    """Reliability, distributions and the trade-off are of the same rows."""
    domain = only(report)
    assert sum(domain.reliability["count"]) == 60
    assert sum(sum(group["counts"]) for group in domain.severity) == 60
    assert [group["label"] for group in domain.severity] == [[0, 0], [1, 1], [2, 2]]
    at = domain.trade_off["threshold"].index(1.0)
    assert domain.threshold == 1.0
    assert domain.trade_off["flagged"][at] == scores.flagged.mean()
    assert domain.trade_off["precision"][at] == domain.estimates["precision"].value
    assert domain.trade_off["recall"][at] == domain.estimates["recall"].value
    assert (domain.trade_off["flagged"][0], domain.trade_off["recall"][0]) == (1, 1)


def test_the_worst_rows_are_those_farthest_from_their_label(report, scores, graded):
    """By id, worst first; a label that is an interval is missed only beyond its ends."""
    level = np.array([record.labels["overall"][0] for record in graded])
    off = np.abs(scores.overall - level)
    worst = only(report).worst
    assert [row["id"] for row in worst] == [f"r{n}" for n in np.argsort(-off, kind="stable")[: len(worst)]]
    assert [row["off"] for row in worst] == pytest.approx(np.sort(off)[::-1][: len(worst)])


def test_an_interval_is_missed_only_beyond_its_ends(tiny, scores, graded):
    """[0, 1] is right up to 1."""
    wide = only(sc.evaluate(tiny, [replace(record, labels={"overall": (0, 1)}) for record in graded], rounds=2))
    missed = scores.overall > 1
    assert len(wide.worst) == min(missed.sum(), 25)
    assert wide.worst[0]["off"] == pytest.approx(float(scores.overall.max()) - 1)


def test_yes_or_no_labels_judge_no_level(tiny, graded):
    """The zeros among them are exact, and alone they would make every level look easy."""
    binary = [
        replace(record, labels={"overall": (0, 0) if record.labels["overall"][1] == 0 else (1, 2)}) for record in graded
    ]
    found = only(sc.evaluate(tiny, binary, rounds=2)).estimates
    for key in ("mae", "macro_mae", "alpha", "spearman", "rps"):
        assert np.isnan(found[key].value)
    for key in ("auroc", "average_precision", "f1", "classwise_ece", "smooth_ece"):
        assert not np.isnan(found[key].value)


def test_an_undecided_label_takes_no_part_in_yes_or_no(tiny, graded, report):
    """[0, 1] is neither harmless nor harmful, and no level either."""
    more = [*graded, *(sc.Record(f"u{n}", text, {"overall": (0, 1)}, f"u{n}") for n, text in enumerate(TEXTS[:9]))]
    domain = only(sc.evaluate(tiny, more, rounds=2))
    assert (domain.n, domain.harmless + domain.harmful) == (69, 60)
    for key in ("auroc", "average_precision", "f1", "mae", "alpha", "rps", "smooth_ece"):
        assert domain.estimates[key].value == only(report).estimates[key].value


def test_only_domains_that_a_record_names_are_judged(tiny, graded):
    """A row that is harmless overall is harmless everywhere, but nobody asked about `wet`."""
    named = [*graded, sc.Record("rude", "bad dog", {"rude": (1, 2)}, "rude")]
    found = sc.evaluate(tiny, named, rounds=2)
    assert [domain.name for domain in found.domains] == ["overall", "rude"]
    rude = found.domains[1]
    zeros = sum(record.labels["overall"] == (0, 0) for record in graded)
    assert (rude.harmless, rude.harmful) == (zeros, 1)
    assert "f1" not in rude.estimates  # the threshold is about overall
    assert rude.threshold is None


def test_the_order_of_the_records_is_nobodys_business(tiny, graded, report):
    """The same figures, whatever stands first."""
    found = sc.evaluate(tiny, graded[::-1], rounds=ROUNDS)
    assert {key: one.value for key, one in only(found).estimates.items()} == pytest.approx(
        {key: one.value for key, one in only(report).estimates.items()}
    )
    assert only(found).confusion == only(report).confusion


def test_weights_are_for_fitting_and_do_not_count_here(tiny, graded, report):
    """A figure is about the rows that were given."""
    found = sc.evaluate(tiny, [replace(record, weight=n) for n, record in enumerate(graded)], rounds=ROUNDS)
    assert only(found).estimates == only(report).estimates


def test_what_could_not_be_scored_is_named_and_in_no_figure(tiny, graded, report):
    """Unscorable is not harmless, and not harmful either: it is visible."""
    found = sc.evaluate(tiny, [*graded, sc.Record("blank", " ", {"overall": (2, 2)}, "x")], rounds=2)
    assert found.records["unscored"] == ["blank"]
    assert (found.records["n"], only(found).n) == (61, 60)
    assert only(found).estimates["mae"].value == only(report).estimates["mae"].value
    assert "not scored, and in no figure above: 'blank'" in found.text()
    assert "blank" in found.html()
    assert "not scored" not in report.text()


def test_prompts_are_read_where_they_are_asked_for(tiny, graded, report):
    """And the report says so."""
    asked = [replace(record, prompt="how to make tea") for record in graded]
    assert only(sc.evaluate(tiny, asked, rounds=ROUNDS)).estimates == only(report).estimates
    found = sc.evaluate(tiny, asked, prompts=True, rounds=2)
    assert only(found).estimates["mae"].value != only(report).estimates["mae"].value
    assert found.records["prompts"] is True
    assert "with prompts" in found.text()
    assert "with their prompts" in found.html()


def test_progress_counts_every_record(tiny, graded):
    """In blocks, so that a bar moves."""
    seen = []
    sc.evaluate(tiny, graded * 5, rounds=1, progress=seen.append)
    assert sum(seen) == 300
    assert len(seen) > 1


def test_level_intervals_are_judged_where_the_bundle_has_them(with_table, graded, report):
    """Coverage and size at 90%; a bundle without a table has neither."""
    assert "coverage" not in only(report).estimates
    found = only(sc.evaluate(sc.load(with_table), graded, rounds=2)).estimates
    sets = sc.load(with_table).score(TEXTS).interval(0.1)[:, 0]
    labels = np.array([record.labels["overall"] for record in graded])
    assert found["coverage"].value == metrics.coverage(sets, labels) >= 0.9
    harmful = labels[:, 0] > 0
    assert found["harmful_coverage"].value == metrics.coverage(sets[harmful], labels[harmful]) >= 0.9
    assert found["set_size"].value == metrics.mean_size(sets) < 3


@pytest.fixture(scope="module")
def with_table(tiny_bundle, tmp_path_factory, graded, scores):
    """The tiny bundle with a conformal table of the same rows."""
    labels = np.tile(np.array([0, 2], np.int8), (60, 3, 1))
    labels[:, 0] = [record.labels["overall"] for record in graded]
    bundle = read_bundle(tiny_bundle)
    path = tmp_path_factory.mktemp("bundles") / "with_table"
    card = {**bundle.card, "conformal": fit_conformal(scores.exceed, labels, bundle.taxonomy.names)}
    write_bundle(path, bundle.graph.read_bytes(), bundle.tokenizer, card)
    return path


# What is written.


def test_the_report_is_plain_json_and_says_what_it_is_about(report, tiny):
    """Hashes of the bundle and of the records, the date and the versions: enough to doubt it."""
    plain = report.to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["bundle"]["sha256"] == tiny.card["sha256"]
    assert re.fullmatch(r"[0-9a-f]{64}", plain["records"]["sha256"])
    assert re.match(r"\d{4}-\d\d-\d\dT", plain["run"]["date"])
    assert plain["run"]["versions"]["numpy"] == np.__version__


@pytest.mark.parametrize(
    "change", [{"output": "the dog"}, {"labels": {"overall": (0, 1)}}, {"prompt": "tea"}, {"group": "x"}, {"id": "x"}]
)
def test_the_hash_of_the_records_changes_with_any_of_them(tiny, graded, report, change):
    """And with nothing else."""
    again = sc.evaluate(tiny, list(graded), rounds=1)
    assert again.records["sha256"] == report.records["sha256"]
    other = sc.evaluate(tiny, [replace(graded[0], **change), *graded[1:]], rounds=1)
    assert other.records["sha256"] != report.records["sha256"]


def test_what_is_unknown_is_null_and_a_dash(tiny):
    """One class has no AUROC, and JSON has no NaN."""
    found = sc.evaluate(tiny, [sc.Record("a", "the cat", {"overall": (0, 0)}, "a")], rounds=2)
    assert found.to_dict()["domains"][0]["estimates"]["auroc"] == {"value": None, "interval": None, "floor": None}
    assert re.search(r"^overall +1 +0 +0\.\d+ ", found.text(), re.M)  # calibration alone: AUROC has no column
    more = [sc.Record("a", "the cat", {"overall": (0, 0)}, "a"), sc.Record("b", "the cat", {"rude": (1, 2)}, "b")]
    assert re.search(r"^rude +2 +1 +0\.\d+", sc.evaluate(tiny, more, rounds=2).text(), re.M)
    assert "no label names a level" not in found.html()
    undecided = sc.evaluate(tiny, [sc.Record("a", "the cat", {"overall": (0, 1)}, "a")], rounds=2)
    assert "no label names a level" in undecided.html()
    assert "no label says whether a row is harmful" in undecided.html()


def test_no_text_of_a_record_is_in_any_form_of_the_report(tiny, graded):
    """Reports are passed on, and harmful rows must not be."""
    secret = [replace(record, output=f"zyx {record.output}", prompt="wvu") for record in graded]
    found = sc.evaluate(tiny, secret, prompts=True, rounds=2)
    for form in (found.text(), found.html(), json.dumps(found.to_dict()), repr(found)):
        assert "zyx" not in form
        assert "wvu" not in form


def test_the_table_has_a_row_for_each_domain(report):
    """Heads, figures and the threshold's own line."""
    lines = report.text().splitlines()
    assert lines[0] == "tiny 1 on 60 records in 30 groups"
    assert lines[2].split()[:4] == ["domain", "n", "harmful", "AUROC"]
    assert re.match(r"overall +60 +\d+ +0\.\d{3} \[0\.\d{3}, 0\.\d{3}\] ", lines[3])
    assert re.match(r"overall, flagged from 1\.00: precision 0\.\d+ \[.*\], recall .*, F1 ", lines[5])
    assert max(map(len, lines)) <= 140


def svgs(page):
    """Every plot of a page, parsed: broken markup is an error here."""
    return [ElementTree.fromstring(found) for found in re.findall(r"<svg.*?</svg>", page, re.S)]


def test_the_page_is_whole_in_itself(report):
    """It can be mailed: no script, nothing fetched, and light and dark in the style."""
    page = report.html()
    assert page.startswith("<!doctype html>")
    assert not re.search(r"<script|<link|<img|@import|url\(|https?:", page)
    assert "prefers-color-scheme: dark" in page
    assert [plot.get("aria-label") for plot in svgs(page)] == [
        "Reliability curve",
        "Confusion of the labelled and the given level",
        "Distribution of expected severity by label",
        "Precision, recall and share flagged by threshold",
    ]


def test_plots_stay_inside_their_frames(tiny, graded, report):
    """Whatever the labels: no coordinate is off the canvas or not a number."""
    mixed = [
        replace(record, labels={"overall": [(0, 0), (1, 2), (0, 1), (2, 2), (1, 1)][n % 5]})
        for n, record in enumerate(graded)
    ]
    for found in (report, sc.evaluate(tiny, mixed, rounds=2)):
        assert "nan" not in found.html()
        for plot in svgs(found.html()):
            for part in plot.iter():
                for side, most in (("x", 460), ("y", 300), ("cx", 460), ("cy", 300), ("x1", 460), ("y2", 300)):
                    assert 0 <= float(part.get(side, 0)) <= most, (plot.get("aria-label"), part.attrib)


def test_the_plot_of_the_confusion_shows_its_counts(report):
    """Row by row."""
    texts = [part.text for part in svgs(report.html())[1].iter("text")]
    numbers = [int(text) for text in texts if text.isdigit()][:9]
    assert numbers == [count for row in only(report).confusion for count in row]


def test_names_cannot_write_markup(tiny, graded):
    """Ids and sources come from whoever wrote the file."""
    evil = [replace(record, id=f"<b>{n}&", source="<script>x</script>") for n, record in enumerate(graded)]
    page = sc.evaluate(tiny, evil, rounds=1).html()
    assert "<script>" not in page
    assert "&lt;b&gt;" in page


# What cannot be evaluated.


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "no records to evaluate"),
        ([sc.Record("a", "the cat", {}, "a")], "no label in any of 1 records"),
        ([sc.Record("a", "the cat", {"loud": (0, 0)}, "a", "s")], "s a: unknown domain 'loud'"),
        ([sc.Record("a", "the cat", {"rude": (0, 3)}, "a", "s")], r"s a: rude: label \[0, 3\]"),
        ([sc.Record("a", "", {"rude": (0, 0)}, "a")], "none of 1 records with a label could be scored"),
        (
            [sc.Record("a", "", {"rude": (0, 0)}, "a"), sc.Record("b", "the cat", {}, "b")],
            "none of 2 records with a label could be scored",
        ),
        ([sc.Record("a", "the cat", {"overall": (0, 2)}, "a")], "no label in any of 1 records rules a level out"),
    ],
)
def test_what_cannot_be_evaluated_says_why(tiny, records, message):
    """And which record, where it is one."""
    with pytest.raises(sc.RecordError, match=message):
        sc.evaluate(tiny, records)


@pytest.fixture
def headless(encoder_dir, tiny_bundle, tmp_path):
    """An encoder bundle."""
    write_bundle(tmp_path / "bare", *export_encoder(encoder_dir, window=16, overlap=6), read_bundle(tiny_bundle).card)
    return tmp_path / "bare"


def test_a_bundle_without_heads_is_refused(headless, graded):
    """There is no default head."""
    with pytest.raises(sc.BundleError, match="without heads cannot score; fit heads first"):
        sc.evaluate(sc.load(headless), graded)


# The command.


@pytest.fixture
def file(tmp_path, graded):
    """The graded records on disk."""
    path = tmp_path / "labelled.jsonl"
    rows = [
        {"id": one.id, "output": one.output, "labels": {"overall": one.labels["overall"][0]}, "group": one.group}
        for one in graded
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def run(tiny_bundle):
    """Run `sevclf evaluate` on the tiny bundle, in this process."""
    return lambda *arguments: CliRunner().invoke(app, ["evaluate", "-m", str(tiny_bundle), *map(str, arguments)])


@pytest.fixture
def fails(capfd, monkeypatch):
    """Run `main` and return the one line it leaves on standard error on its way out with exit code 2."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["sevclf", "evaluate", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        stdout, stderr = capfd.readouterr()
        assert (caught.value.code, stdout, stderr.count("\n")) == (USAGE, "", 1)
        return stderr

    return run


def without_date(plain):
    """A report's content, less when it was made."""
    return {**plain, "run": {**plain["run"], "date": ""}}


def test_the_command_prints_the_table_and_writes_what_it_is_asked_to(run, file, tiny, graded, tmp_path):
    """The same report as the function's, in three forms."""
    report = sc.evaluate(tiny, graded)
    result = run(file, "--json", tmp_path / "report.json", "--html", tmp_path / "report.html")
    assert (result.exit_code, result.stderr, result.stdout) == (0, "", report.text())
    written = json.loads((tmp_path / "report.json").read_text())
    assert without_date(written) == without_date(report.to_dict())
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == report.html()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labelled.jsonl", "report.html", "report.json"]


def test_json_on_standard_output_is_nothing_but_json(run, file):
    """For a pipe."""
    assert json.loads(run(file, "--json", "-").stdout)["records"]["n"] == 60


def test_the_command_reads_prompts_where_it_is_told(run, file):
    """Rows without one are read alone."""
    assert "with prompts" in run(file, "--prompts").stdout


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "labelled.jsonl: no rows"),
        ('{"output": "the cat"}\n', 'labelled.jsonl:1: no "labels" key'),
        (
            '{"output": "the cat", "labels": {"overall": 1}}\n{"output": "a", "labels": {"loud": 1}}\n',
            "labelled.jsonl:2: unknown domain 'loud'",
        ),
        ('{"output": "the cat", "labels": {"overall": 3}}\n', "labelled.jsonl:1: overall: label [3, 3]"),
        ('{"output": "the cat", "labels": {}}\n', "no label in any of 1 records"),
    ],
)
def test_rows_that_cannot_be_evaluated_are_one_line_of_error(fails, tiny_bundle, file, tmp_path, content, message):
    """With file, line and field; an older report stays, and no part of a new one."""
    file.write_text(content)
    (tmp_path / "report.html").write_text("old")
    assert message in fails(
        file, "-m", tiny_bundle, "--html", tmp_path / "report.html", "--json", tmp_path / "new.json"
    )
    assert (tmp_path / "report.html").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labelled.jsonl", "report.html"]


def test_a_bundle_that_cannot_score_is_one_line_of_error(fails, headless, file, tmp_path):
    """Nothing is half-written."""
    assert "without heads cannot score" in fails(file, "-m", headless, "--json", tmp_path / "report.json")
    assert "no such folder" in fails(file, "-m", tmp_path / "nowhere")
    assert not (tmp_path / "report.json").exists()


def test_files_that_cannot_be_read_or_written_are_one_line_of_error(fails, tiny_bundle, file, tmp_path):
    """Before rows are scored."""
    assert "No such file" in fails(tmp_path / "nowhere.jsonl", "-m", tiny_bundle)
    assert "No such file" in fails(file, "-m", tiny_bundle, "--json", tmp_path / "nowhere" / "report.json")


@pytest.mark.parametrize(
    "options", [["--json", "labelled.jsonl"], ["--json", "x", "--html", "x"], ["--html", "./labelled.jsonl"]]
)
def test_labels_are_never_overwritten_by_their_report(run, file, monkeypatch, tmp_path, options):
    """They may have cost months."""
    monkeypatch.chdir(tmp_path)
    before = file.read_bytes()
    result = run("labelled.jsonl", *options)
    assert (result.exit_code, "different files" in result.stderr) == (USAGE, True)
    assert [path.name for path in tmp_path.iterdir()] == ["labelled.jsonl"]
    assert file.read_bytes() == before


def test_evaluating_needs_no_extra(tiny_bundle, file, tmp_path):
    """A report with plots comes out of the core install: none of the heavy packages is loaded."""
    heavy = ["torch", "sklearn", "scipy", "onnx", "joblib", "safetensors", "matplotlib"]
    code = f"import sys; sys.modules.update(dict.fromkeys({heavy})); from severity_clf.cli import main; main()"
    command = [
        sys.executable,
        "-c",
        code,
        "evaluate",
        str(file),
        "-m",
        str(tiny_bundle),
        "--html",
        str(tmp_path / "r.html"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "overall" in done.stdout
