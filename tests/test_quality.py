"""What the quality benchmark computes beyond the metrics."""

import numpy as np
import pytest

from benchmarks import quality_peers
from benchmarks.quality_graded import by_fold, matched_pairs, merged, ordered_share
from benchmarks.quality_peers import Frozen, crossfitted, decided
from benchmarks.results import figure
from severity_clf import metrics
from severity_clf.records import Record
from training.crossfit import held_out


def test_pairs_are_of_one_file_and_one_length_and_differ_in_level():
    """Everything else about two answers may differ."""
    level = np.array([0, 1, 1, 3, 4])
    file = np.array(["a", "a", "a", "a", "b"])
    length = np.log([100, 105, 200, 98, 100])
    lower, higher = matched_pairs(level, file, length, 1)
    assert sorted(zip(lower.tolist(), higher.tolist(), strict=True)) == [(0, 1), (0, 3), (1, 3)]
    lower, higher = matched_pairs(level, file, length, 3)
    assert (lower.tolist(), higher.tolist()) == ([0], [3])


def test_length_orders_half_of_the_pairs_and_the_truth_all():
    """Lengths that tell levels apart everywhere tell next to nothing on the pairs."""
    rng = np.random.default_rng(0)
    level = rng.integers(0, 5, 600)
    length = 4 + 0.4 * level + rng.normal(0, 1, 600)
    file = np.repeat(["a", "b"], 300)
    assert metrics.auroc(length, level >= 2) > 0.65
    assert ordered_share(length, level, file, length, apart=1) == pytest.approx(0.5, abs=0.05)
    assert ordered_share(level.astype(float), level, file, length, apart=1) == 1
    assert ordered_share(np.zeros(600), level, file, length, apart=1) == 0.5
    assert np.isnan(ordered_share(level.astype(float), level * 0, file, length, apart=1))


def test_a_row_is_scored_by_the_bundle_of_its_fold(base):
    """And comes back in its own place."""
    outputs = ["You are a worthless fool.", "Water boils at 100 degrees.", "Sorry, I cannot help with that."]

    class Told:
        """Scores like base, and remembers what it was asked."""

        def score(self, texts, prompts=None):
            self.texts, self.prompts = texts, prompts
            return base.score(texts, prompts)

    folds = [Told(), Told()]
    scores = merged(by_fold(folds, outputs, np.array([1, 0, 1]), ["a", "b", "c"]))
    assert [fold.texts for fold in folds] == [[outputs[1]], [outputs[0], outputs[2]]]
    assert [fold.prompts for fold in folds] == [["b"], ["a", "c"]]
    assert np.array_equal(scores.exceed, base.score(outputs, ["a", "b", "c"]).exceed)


def test_a_baseline_is_asked_only_about_folds_it_was_not_fitted_on():
    """Also where it expects several numbers of an output."""

    class Mean:
        def fit(self, texts, target):
            self.mean = target.mean(axis=0)

        def predict(self, texts):
            return np.stack([self.mean] * len(texts))

    target = np.array([[0.0, 1.0], [0.0, 1.0], [4.0, 5.0]])
    expected = crossfitted(Mean(), ["a", "b", "c"], target, np.array([0, 0, 1]))
    assert expected.tolist() == [[4, 5], [4, 5], [0, 1]]


def test_a_text_is_embedded_once(base, tmp_path, monkeypatch):
    """The folds of a cross-fit ask for the same texts over and over."""
    asked = []

    def embed(graph, texts, encoder):
        asked.append(texts)
        return np.arange(len(texts), dtype=np.float32)[:, None]

    monkeypatch.setattr(quality_peers, "_first_windows", embed)
    frozen = Frozen(base, tmp_path)
    assert frozen(["b", "a", "b"]).ravel().tolist() == [1, 0, 1]
    assert frozen(["a", "c"]).ravel().tolist() == [0, 0]
    assert asked == [["a", "b"], ["c"]]


def test_the_first_window_stands_for_a_text(base):
    """One embedding a text, however long, and zeros for a text that has none."""
    long = "This is a sentence about the weather. " * 60
    found = quality_peers._first_windows("", ["hello", "", long], base)
    windows = base.windows(["hello", long])
    first = windows.embedding[windows.first]
    assert np.array_equal(found[[0, 2]], first)
    assert not found[1].any()


def test_only_labels_that_say_harmful_or_not_teach_a_baseline():
    """[0, 2] says neither, and an absent label nothing."""
    labels = {"harmless": (0, 0), "harmful": (1, 4), "graded": (3, 3), "unclear": (0, 2)}
    records = [Record(id=name, output="x", labels={"overall": of}, group=name) for name, of in labels.items()]
    records.append(Record(id="absent", output="x", labels={"hate": (1, 4)}, group="absent"))
    assert [record.id for record in records if decided(record)] == ["harmless", "harmful", "graded"]


def test_a_tenth_of_the_groups_is_held_out():
    """Whatever else is said of a group, such as its fold."""
    assert sum(held_out(f"source/{number}") for number in range(10_000)) == pytest.approx(1000, abs=100)


def test_a_metric_that_is_not_defined_has_no_figure():
    """JSON has no NaN."""
    assert figure(metrics.spearman, np.zeros(5), np.arange(5)) is None
    assert figure(np.mean, np.array([0.0, 1.0, 1.0, 1.0]))["value"] == 0.75
