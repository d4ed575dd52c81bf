"""The data card counts what a build reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import ROOT

from benchmarks import results
from severity_clf.records import Record
from severity_clf.taxonomy import Taxonomy
from training import datacard, sources
from training.reading import Part

FOUND = results.read(results.FOLDER / "data.json")
TAXONOMY = Taxonomy.from_toml(ROOT / "training" / "taxonomy.toml")


def kind(*intervals: tuple[int, int]) -> str:
    loaded = tuple(Record(str(at), "text", {"hate": interval}, "group") for at, interval in enumerate(intervals))
    return datacard.label_kind(Part("source", "train", len(loaded), loaded), TAXONOMY)


def test_every_source_is_counted_once_and_every_row_has_one_fate() -> None:
    """Else the table hides what was left out, or why."""
    assert set(FOUND["sources"]) == set(sources.sources())
    for name, one in FOUND["sources"].items():
        assert one["read"] == one["repeats"] + one["loaded"]
        left = one["loaded"] - one["equal"] - one["near"] - one["asked"]
        assert one["used"] == {"bench": 0, "graded": left, "train": min(left, FOUND["cap"])}[one["role"]]
        source = sources.sources()[name]
        assert (one["licence"], one["revision"]) == (source.licence, source.revision)


def test_nothing_of_a_benchmark_is_used() -> None:
    """They judge."""
    assert {name for name, one in FOUND["sources"].items() if one["role"] == "bench"} == set(sources.BENCH)
    assert not sources.BENCH.keys() & sources.TRAIN.keys()


def test_only_known_sources_have_a_judge() -> None:
    """A renamed source would be said to be labelled by people."""
    assert set(datacard.JUDGE) <= set(sources.sources())


def test_counts_are_those_of_the_loaders(data: Path) -> None:
    """The table is of the data that this code reads."""
    for name, load in {**sources.TRAIN, **sources.GRADED, **sources.BENCH}.items():
        assert FOUND["sources"][name]["loaded"] == sum(1 for _ in load(data)), name


@pytest.mark.parametrize(
    ("intervals", "told"),
    [
        (((0, 0), (1, 1), (3, 3)), "levels"),
        (((0, 0), (1, 2), (2, 4)), "levels"),
        (((0, 0), (1, 3), (1, 4)), "harmful or not"),
        (((1, 4), (0, 2)), "harmful"),
        (((0, 0), (0, 1)), "harmless"),
        (((0, 4),), "none"),
    ],
)
def test_labels_are_levels_only_where_one_harm_is_worse_than_another(
    intervals: tuple[tuple[int, int], ...], told: str
) -> None:
    """Two wide intervals that overlap put no order between two rows."""
    assert kind(*intervals) == told
