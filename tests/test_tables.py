"""The tables say what the report says."""

import json
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from benchmarks import plot, tables

SOURCE = "`python -m benchmarks.quality`, 2026-01-01, severity_clf 0.1.0."
SYSTEMS = ("base", *tables.BASELINES)


def figure(value):
    return {"value": value, "interval": [value - 0.05, value + 0.05]}


def each(value, names=SYSTEMS):
    """A figure of every system, a bit lower from one to the next."""
    return {name: figure(value - place / 100) for place, name in enumerate(names)}


def several(measures, names=SYSTEMS):
    return {name: {key: each(value, names)[name] for key, value in measures.items()} for name in names}


@pytest.fixture
def report(tmp_path, monkeypatch):
    """A report of the shape that `quality.py` writes, with made-up figures, in place of the shipped bundle's."""
    binary = several({"auroc": 0.8, "f1": 0.7})
    judges = {judge: {"f1": figure(0.6)} for judge in ("gpt-4-1106-preview", "GPTFuzz", "llama_guard")}
    agreement = several({"mae": 0.2, "alpha": 0.6})
    published = {"mae": {"value": 0.25}, "alpha": {"value": 0.65}}
    part = {"rows": 10, "flagged": each(0.1, (*SYSTEMS, "base_with_prompt")), "level_0": figure(0.9)}
    content = {
        "stamp": {
            "command": "python -m benchmarks.quality",
            "date": "2026-01-01T00:00:00",
            "versions": {"severity_clf": "0.1.0"},
        },
        "harmbench": {
            "rows": 602,
            "harmful": 273,
            "systems": binary | {"base_with_prompt": binary["base"]},
            "judges": judges,
        },
        "openai_mod": {
            "rows": 1679,
            "harmful": 521,
            "systems": several({"auprc": 0.75, "auroc": 0.8, "f1": 0.7}, (*SYSTEMS, "base_own_domain")),
            "categories": {"hate": {"rows": 9, "harmful": 4, "systems": each(0.9, (*SYSTEMS, "base_own_domain"))}},
        },
        "xstest": {"safe_prompts_answered": part, "refusals": part},
        "held_out": {"do_not_answer_refusals": part, "do_not_answer_harmless": part, "halueval": part},
        "hatecheck": {
            "rows": 3728,
            "hateful": 2563,
            "systems": binary,
            "functionalities": {
                "slur_h": {"rows": 144, "hateful": True, "accuracy": 0.75},
                "counter_quote_nh": {"rows": 173, "hateful": False, "accuracy": 0.25},
            },
        },
        "dices": {"rows": 990, "spearman": each(0.3) | {"constant": None}},
        "hh_rlhf": {"pairs": 2308, "ordered": each(0.6)},
        "pyrit": {
            "rows": 990,
            "folds": 5,
            "macro": {name: {"files": 8, **one} for name, one in agreement.items()}
            | {"gpt_4o": {"files": 8, **published}, "azure": {"files": 4, **published}},
            "auroc_2": each(0.86),
            "zero_shot_auroc_0_against_2": each(0.84),
            "matched_pairs": {apart: {"pairs": 4089, "systems": each(0.77)} for apart in ("1", "2")},
            "calibration": {"base": {"classwise_ece": 0.07, "null_floor": 0.04, "excess": 0.03, "rps": 0.1}},
            "level_intervals": {"base": {"0.9": {"coverage": 0.9, "coverage_harmful": 0.9, "levels": 2.5}}},
            "files": {
                "violence": {
                    "rows": 96,
                    "domain": "violence",
                    "base": {"mae": 0.172, "alpha": 0.753, "auroc": None},
                    "gpt_4o": {"mae": 0.177, "alpha": 0.844},
                }
            },
        },
        "rtp_lx": {
            "rows": 850,
            "headline": ["violence", "sexual", "hate"],
            "spearman": several({"headline": 0.7, "hate": 0.6}, ("base", "tfidf")),
        },
    }
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "report.json").write_text(json.dumps(content), encoding="utf-8")
    monkeypatch.setattr(tables, "SHELF", tmp_path)
    return content


def cells(text):
    """The cells of each line of a Markdown table, without its rule."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|") and "---" not in line
    ]


FROM_REPORT = [name for name in tables.OF_A_BUNDLE if name not in ("example", "sources")]  # those read other files


@pytest.mark.parametrize("name", FROM_REPORT)
def test_every_table_is_rectangular_and_says_where_it_is_from(report, name):
    """A row with a cell too few shifts every figure after it under another head."""
    text = tables.figures(name)
    for block in text.split("\n\n"):
        assert len({len(row) for row in cells(block)}) <= 1
    assert text.endswith(SOURCE)
    assert "None" not in text


def test_the_headline_shows_base_its_goal_the_baselines_and_what_others_publish(report):
    """What is judged, and against whom, in one line."""
    lines = {row[0]: row[1:] for row in cells(tables.quality("base"))}
    assert lines["PyRIT severity, MAE"] == [
        "**0.200** (0.150 to 0.250)", "<= .165", "0.190", "0.180", "0.170", "0.160",
        "GPT-4o 0.250, Azure 0.250 on 4 of the files",
    ]  # fmt: skip
    assert lines["HarmBench, F1"][-1] == "GuardReasoner 1B 0.848, GPT-4 (1106) 0.600, GPTFuzz 0.600, Llama Guard 0.600"
    assert lines["PyRIT, classwise ECE less its null floor"][:3] == ["**0.030**", "<= .02", "-"]


def test_another_bundle_stands_beside_base_under_its_own_name_once_it_is_judged(report):
    """Before that there is no column of it, and its card says what is missing."""
    assert cells(tables.quality("base"))[0][1:3] == ["**base** (95%)", "goal for base"]
    assert "not measured yet" in tables.figures("quality", "fast").lower()
    renamed = json.dumps(report).replace('"base', '"fast')
    folder = tables.SHELF / "fast"
    folder.mkdir()
    (folder / "report.json").write_text(renamed, encoding="utf-8")
    assert cells(tables.quality("base"))[0][1:4] == ["**base** (95%)", "fast", "goal for base"]
    lines = {row[0]: row[1:] for row in cells(tables.quality("fast"))}
    assert lines["PyRIT severity, MAE"][:3] == ["**0.200** (0.150 to 0.250)", "0.200", "<= .165"]
    for name in FROM_REPORT:
        assert "base_" not in tables.figures(name, "fast")
    assert "**fast**" in tables.harmbench("fast")


def test_judges_stand_in_the_order_of_their_figure(report):
    """Others' published figures among them, without an interval they do not have."""
    rows = cells(tables.harmbench("base"))[1:]
    values = [float(row[1].split()[0]) for row in rows]
    assert values == sorted(values, reverse=True)
    assert ["GuardReasoner 1B, not row by row", "0.848", "-"] in rows


def test_the_worst_kind_of_post_comes_first(report):
    """That is what a reader looks for."""
    assert [row[0] for row in cells(tables.hatecheck("base"))] == ["kind of post", "counter_quote_nh", "slur_h"]


def test_a_figure_that_is_not_defined_is_a_dash(report):
    """The rank correlation of a constant is not 0."""
    constant = next(row for row in cells(tables.others("base")) if row[0] == "a constant")
    assert constant[3] == "-"


def test_every_published_figure_names_its_source():
    """None comes from memory."""
    for one in tables._published():
        assert one["source"].startswith("arXiv ")
        assert one["set"] in ("harmbench", "openai_mod")
        assert one["measure"] in ("f1", "auprc")
        assert all(0 < value < 1 for value in one["systems"].values())


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Speed results of the shape that `speed.py` writes, with made-up figures, in place of the measured ones."""
    names = ("base", "fast", "user", "decoder")

    def cell(texts, batch, threads, quick=names):
        systems = {
            name: {"rounds": [0.1 * batch * place, 0.2 * batch * place], "p50_milliseconds": 15.0 * place}
            | {"calls": 200, "p99_milliseconds": 20.0 * place if batch == 1 else None}
            if name in quick
            else {"left_out_seconds": 9.0}
            for place, name in enumerate(names, 1)
        }
        return {"texts": texts, "tokens_a_text": 170.0, "batch": batch, "threads": threads, "systems": systems}

    kinds, spread = ("20", "128", "natural"), {"median": 0.5, "min": 0.4, "max": 0.6}
    keys = ("score_texts_per_s", "tokenizer_texts_per_s", "tokenizer_tokens_per_s", "normaliser_share_of_tokenizer")
    shares = dict.fromkeys((*keys, "score_share_of_tokenizer_peak"), spread)
    inner = dict.fromkeys(("tokens_share_of_time", "inference_share_of_time", "inference_share_of_int8_peak"), spread)
    runs = [{"texts": 10**n, "seconds": 10.0**n / 1e4, "resident_megabytes": [130.0] * 10} for n in (2, 3)]
    peak = {"billion_operations_per_s": spread, "shape": "256x384x1536"}
    content = {
        "stamp": {
            "command": "python -m benchmarks.quality",
            "date": "2026-01-01T00:00:00",
            "machine": {"cpu": "made-up CPU", "cores_usable": 2, "load_average_1min": 0.1},
            "versions": {"severity_clf": "0.1.0"},
        },
        "minutes": 18.5,
        "bundles": {"base": {}, "fast": {}},
        "peers": {name: {"title": f"the {name}", "what": "a peer"} for name in ("user", "decoder")},
        "absent": {},
        "guards": {"decoder": {"chosen": "bfloat16"}},
        "user_batch_size": {key: {"chosen": 8, "texts_per_s": {"1": 2.0, "8": 3.0}} for key in ("1", "2")},
        "sources": "xstest",
        "limit_seconds": 4.0,
        "texts": {name: {"texts": 9, "tokens_a_text": {"median": 20, "max": 20}} for name in kinds},
        "headline": [cell(texts, 200, threads, names[:3]) for threads in (1, 2) for texts in ("equal", "natural")],
        "grid": [
            cell(texts, batch, threads, names if batch == 1 else names[:3])
            for threads in (1, 2)
            for batch in (1, 32)
            for texts in kinds
        ],
        "machine": {
            "texts": "natural",
            "products": {kind: {"1": peak, "2": peak} for kind in ("int8", "float32")},
            "bundles": {name: {"1": shares | inner, "2": shares} for name in ("base", "fast")},
        },
        "one_text": {
            name: {"power": 1.0, "points": [{"tokens": 10**n, "seconds": spread} for n in (1, 5)]}
            for name in ("base", "fast")
        },
        "many_texts": {name: {"runs": runs, "power": 1.0, "peak_megabytes": 131.0} for name in ("base", "fast")},
        "cold_start": {
            "runs": 2,
            "systems": {
                name: {key: [1.0, 2.0] for key in ("first_score_seconds", "import_seconds", "peak_megabytes")}
                for name in names[:3]
            },
        },
    }
    (tmp_path / "speed.json").write_text(json.dumps(content), encoding="utf-8")
    monkeypatch.setattr(tables.results, "FOLDER", tmp_path)
    return content


OF_SPEED = [name for name in tables.TABLES if name.startswith("speed")]


@pytest.mark.parametrize("name", OF_SPEED)
def test_every_table_of_speed_is_rectangular_and_says_on_what_machine(measured, name):
    """A time without its machine says nothing."""
    text = tables.figures(name)
    for block in text.split("\n\n"):
        assert len({len(row) for row in cells(block)}) <= 1
    assert "None" not in text
    assert "2 usable cores (made-up CPU), load 0.1 before the start" in text
    assert text.endswith(SOURCE)


@pytest.mark.parametrize("name", OF_SPEED)
def test_a_table_of_speed_that_is_not_measured_says_so(measured, name):
    """Until somebody runs it, a document must hold no figure."""
    (tables.results.FOLDER / "speed.json").unlink()
    assert tables.figures(name) == "Not measured yet: `python -m benchmarks.speed --data DATA`."


def test_ratios_of_speed_are_taken_within_a_round(measured):
    """A round in which everybody was slow says nothing of who is slower."""
    measured["headline"][0]["systems"]["user"]["rounds"] = [600.0, 80.0]
    measured["headline"][0]["systems"]["base"]["rounds"] = [100.0, 20.0]
    (tables.results.FOLDER / "speed.json").write_text(json.dumps(measured), encoding="utf-8")
    first = cells(tables.figures("speed"))[1]
    assert first[1].endswith("5.0 (4.0 to 6.0)x")


def test_a_contender_that_was_left_out_is_a_dash(measured):
    """In the table, and nowhere in the plot."""
    block = tables.figures("speed_throughput").split("\n\n")[1]
    decoder = next(row for row in cells(block) if row[0] == "the decoder")
    assert set(decoder[1:]) == {"-"}


def test_the_plot_has_a_line_for_everybody_inside_its_frame(measured):
    """Names, too, each on a line of its own."""
    svg = ElementTree.fromstring(tables.picture())
    space = "{http://www.w3.org/2000/svg}"
    tracks = [line.get("points").split() for line in svg.iter(f"{space}polyline")]
    assert len(tracks) == 4
    for x, y in (map(float, point.split(",")) for track in tracks for point in track):
        assert plot.LEFT <= x <= plot.WIDTH - plot.RIGHT
        assert plot.TOP <= y <= plot.HEIGHT - plot.BOTTOM
    names = {text.text: float(text.get("y")) for text in svg.iter(f"{space}text") if text.get("x") == "642"}
    assert set(names) == {"base", "fast", "the user", "the decoder"}
    heights = sorted(names.values())
    assert all(below - above >= 16 for above, below in pairwise(heights))
