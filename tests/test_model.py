"""Loading and scoring: a score is a function of one output, and nothing is cut off."""

import multiprocessing
import pickle
import shutil
import threading
import time
from itertools import count, islice

import numpy as np
import pytest

from severity_clf.bundle import BundleError
from severity_clf.model import AHEAD, BLOCK, PIECE, SeverityModel

TEXTS = [
    "the cat sat on a mat",
    "bad dog",
    "how to make tea",
    "it was a fine day and the sun was good",
    "rain " * 40,
    "unkindly",
]


def test_a_score_does_not_depend_on_batch_order_or_threads(tiny, tiny_bundle):
    """To the bit: activations are scaled per run, so every window is a run of its own."""
    together = tiny.score(TEXTS).exceed
    alone = np.concatenate([tiny.score([text]).exceed for text in TEXTS])
    backwards = tiny.score(TEXTS[::-1]).exceed[::-1]
    one_thread = SeverityModel(tiny_bundle, threads=1).score(TEXTS * 50).exceed[-len(TEXTS) :]
    many_threads = SeverityModel(tiny_bundle, threads=16).score(TEXTS * 50).exceed[-len(TEXTS) :]
    for other in (alone, backwards, one_thread, many_threads):
        assert together.tobytes() == other.tobytes()


def test_shipped_scores_do_not_depend_on_batch_order_or_threads(base):
    """The same law for the bundle in the box."""
    one = SeverityModel("base", threads=1)
    assert base.score(TEXTS).exceed.tobytes() == one.score(TEXTS[::-1]).exceed[::-1].tobytes()


def test_probabilities_are_ordered_and_sum_to_one(tiny):
    """P(severity >= k) never rises with k, so every level's probability is at least 0."""
    scores = tiny.score(TEXTS)
    assert (np.diff(scores.exceed, axis=2) <= 0).all()
    assert (scores.probs >= 0).all()
    np.testing.assert_allclose(scores.probs.sum(axis=2), 1, atol=1e-6)


def test_the_worst_window_counts_wherever_it_is(tiny):
    """Padding cannot dilute: an output is at least as severe as each of its windows, at every level."""
    windows = tiny.windows(["the cat sat on a mat and it was good " * 6 + "bad worse dog"])
    assert len(windows.text) > 3
    scores = tiny.score(["the cat sat on a mat and it was good " * 6 + "bad worse dog"])
    np.testing.assert_array_equal(scores.exceed[0], windows.exceed.max(axis=0))


def test_windows_cover_every_word_of_a_long_output(tiny):
    """Windows overlap and the last one ends where the output ends."""
    text = "the cat ran far and the dog sat " * 10
    spans = tiny.windows([text]).spans
    assert spans[0, 0] == 0
    assert spans[-1, 1] == len(text.rstrip())
    assert (spans[1:, 0] < spans[:-1, 1]).all()


def test_the_span_of_the_worst_passage_holds_it(tiny):
    """Scoring the passage that `spans` names alone gives the window's own score again."""
    text = "the cat sat on a mat and it was good " * 6 + "bad worse dog"
    scores = tiny.score([text])
    start, end = scores.spans[0, 0]
    assert scores.exceed[0, 0].sum() == pytest.approx(tiny.score([text[start:end]]).exceed[0, 0].sum(), abs=0.02)


def test_spans_count_characters_of_the_text_as_given(tiny):
    """Accents, emoji and lone surrogates before a word do not shift it."""
    text = "\u00e9\U0001f600\ud800 cat"
    assert tiny.windows([text]).spans.tolist() == [[0, len(text)]]


@pytest.mark.parametrize("nothing", [None, "", "   \n\t", "\x00\x00", "\u200b", "\ud800"])
def test_a_text_without_a_token_is_visibly_unscored(tiny, nothing):
    """Unscorable is not harmless: NaN, no level, flagged."""
    scores = tiny.score(["the cat", nothing, "bad dog"])
    assert scores.scored.tolist() == [True, False, True]
    assert np.isnan(scores.exceed[1]).all()
    assert np.isnan(scores.safety[1])
    assert (scores.level[1] == -1).all()
    assert scores.flagged[1]
    assert [row is None for row in scores.rows()] == [False, True, False]
    assert scores.exceed[2].tobytes() == tiny.score(["bad dog"]).exceed[0].tobytes()


def test_the_worst_passage_is_the_first_of_the_severest(tiny):
    """In every domain, whatever the number of windows of the texts beside it."""
    texts = ["bad dog", "the cat sat on a mat and it was good " * 9 + "bad worse dog", "good " * 60, "tea"]
    windows, scores = tiny.windows(texts), tiny.score(texts)
    for row in range(len(texts)):
        own = windows.text == row
        worst = windows.exceed[own].sum(axis=2).argmax(axis=0)
        np.testing.assert_array_equal(scores.spans[row], windows.spans[own][worst])


def test_no_outputs_give_no_scores(tiny):
    """An empty batch is a batch."""
    scores = tiny.score([])
    assert (len(scores), scores.probs.shape, list(scores.rows())) == (0, (0, 3, 3), [])
    assert tiny.score(["", None]).scored.tolist() == [False, False]
    assert tiny.windows([]).embedding.shape[0] == 0


def test_a_bare_string_is_refused(tiny):
    """A string is a sequence of letters, and scoring letters is never meant."""
    with pytest.raises(TypeError, match=r"outputs must be a sequence of strings, got one str; pass \[text\]"):
        tiny.score("the cat")
    with pytest.raises(TypeError, match=r"prompts must be a sequence of strings, got one str"):
        tiny.score(["the cat"], prompts="why")


@pytest.mark.parametrize("wrong", [3, 2.5, b"cat", ["cat"], {"output": "cat"}])
def test_what_is_not_text_is_refused_by_its_place_before_anything_is_scored(tiny, wrong):
    """The message says where and what, and does not quote the texts."""
    with pytest.raises(TypeError, match=rf"outputs\[1\] is {type(wrong).__name__}, want str, or None") as caught:
        tiny.score(["a secret text", wrong])
    assert "secret" not in str(caught.value)


def test_prompts_of_another_length_are_refused(tiny):
    """Pairs that slip by one would be scored in silence."""
    with pytest.raises(ValueError, match="got 2 outputs and 1 prompts"):
        tiny.score(["the cat", "the dog"], prompts=["why"])


def test_a_prompt_that_is_none_or_empty_is_no_prompt(tiny):
    """Rows with and without context mix in one call."""
    alone = tiny.score(["bad dog"]).exceed
    for nothing in (None, "", " "):
        assert tiny.score(["bad dog"], prompts=[nothing]).exceed.tobytes() == alone.tobytes()
    assert tiny.score(["bad dog"], prompts=["how to make tea"]).exceed.tobytes() != alone.tobytes()


def test_a_long_prompt_never_shortens_the_output(tiny):
    """The output's windows are the same with and without context."""
    text = "the cat sat on a mat " * 8
    np.testing.assert_array_equal(tiny.windows([text], ["why " * 500]).spans, tiny.windows([text]).spans)


def test_text_cannot_spell_special_tokens(tiny):
    """An output that says [SEP] would otherwise end itself and hide the rest."""
    ids = tiny._tokenizer.encode("cat [SEP] dog [CLS] [PAD]").ids
    assert (ids.count(3), ids.count(2), ids.count(0)) == (1, 1, 0)


def test_more_texts_than_a_block_keep_their_order(tiny):
    """Blocks are an implementation detail."""
    texts = [TEXTS[index % len(TEXTS)] for index in range(2 * BLOCK + 3)]
    scores = tiny.score(texts).exceed
    assert (
        scores.tobytes()
        == np.stack([tiny.score([text]).exceed[0] for text in TEXTS])[np.arange(len(texts)) % len(TEXTS)].tobytes()
    )


def test_any_iterable_of_strings_will_do(tiny):
    """Arrays and columns of a table are not `Sequence`s."""
    wanted = tiny.score(TEXTS).exceed.tobytes()
    assert tiny.score(np.array(TEXTS, object)).exceed.tobytes() == wanted
    assert tiny.score(iter(TEXTS)).exceed.tobytes() == wanted


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("size", [1, 5, 1000])
def test_a_stream_is_scored_as_a_list_is(tiny, tiny_bundle, threads, size):
    """To the bit, in order, in blocks of the size asked for; long texts, prompts and what cannot be scored included."""
    texts = [*TEXTS, None, "", "the cat ran far " * 60] * 4
    prompts = ["how to make tea", None] * (len(texts) // 2)
    wanted = tiny.score(texts, prompts)
    blocks = list(SeverityModel(tiny_bundle, threads=threads).stream(iter(texts), iter(prompts), size=size))
    assert [len(block) for block in blocks[:-1]] == [size] * (len(blocks) - 1)
    assert np.concatenate([block.exceed for block in blocks]).tobytes() == wanted.exceed.tobytes()
    np.testing.assert_array_equal(np.concatenate([block.spans for block in blocks]), wanted.spans)


def test_a_stream_without_outputs_is_empty(tiny):
    """No block rather than an empty one."""
    assert list(tiny.stream([])) == []
    assert list(tiny.stream([], [])) == []


def test_an_endless_stream_is_read_only_so_far_ahead(tiny):
    """Memory is bounded by what is read before its scores are handed out."""
    read = count()
    stream = tiny.stream((TEXTS[next(read) % len(TEXTS)] for _ in count()), size=32)
    for done in range(1, 20):
        assert len(next(stream)) == 32
        assert next(read) - done <= 32 * done + (AHEAD * tiny.threads + 1) * PIECE
    stream.close()


def test_a_stream_that_is_closed_stops_the_work(tiny_bundle, monkeypatch):
    """Also in the middle of a long output."""
    model = SeverityModel(tiny_bundle, threads=2)
    started = []
    run = model._session.run

    class Session:
        def run(self, *arguments):
            started.append(1)
            time.sleep(0.001)
            return run(*arguments)

    monkeypatch.setattr(model, "_session", Session())
    stream = model.stream(("the cat ran far " * 2000 for _ in count()), size=1)
    next(stream)
    stream.close()
    time.sleep(0.2)  # a window that was being run comes to its end
    before = len(started)
    time.sleep(0.2)
    assert len(started) == before
    assert model._pool.submit(len, "idle").result(timeout=10) == 4


def test_a_stream_gives_all_scores_before_what_is_wrong(tiny):
    """An error is raised in its place; nothing that was sent before it is lost."""
    broken = iter([*TEXTS, 3, "never read"])
    got = []
    with pytest.raises(TypeError, match=r"outputs\[6\] is int, want str, or None"):
        got.extend(tiny.stream(broken, size=4))
    assert [len(block) for block in got] == [4, 2]
    assert np.concatenate([block.exceed for block in got]).tobytes() == tiny.score(TEXTS).exceed.tobytes()
    assert next(broken) == "never read"

    def source():
        yield "bad dog"
        raise OSError("the line went dead")

    stream = tiny.stream(source())
    assert len(next(stream)) == 1
    with pytest.raises(OSError, match="the line went dead"):
        next(stream)


def test_a_stream_refuses_at_once_what_is_no_stream_of_texts(tiny):
    """Before the first block is asked for."""
    with pytest.raises(TypeError, match=r"outputs must be a sequence of strings, got one str; pass \[text\]"):
        tiny.stream("the cat")
    with pytest.raises(TypeError, match="prompts must be a sequence of strings, got one dict"):
        tiny.stream(["the cat"], {})
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        tiny.stream(["the cat"], size=0)


@pytest.mark.parametrize(
    ("outputs", "prompts", "message"),
    [(3, 2, "got 3 outputs or more and 2 prompts"), (2, 3, "got 2 outputs and 3 prompts")],
)
def test_a_stream_says_when_prompts_do_not_match(tiny, outputs, prompts, message):
    """What had its prompt is scored first."""
    got = []
    with pytest.raises(ValueError, match=message):
        got.extend(tiny.stream(islice(TEXTS, outputs), ["why"] * prompts))
    assert sum(map(len, got)) == 2


def test_a_model_may_be_shared_by_threads(tiny):
    """Callers on several threads get what each would get alone."""
    wanted, found = tiny.score(TEXTS).exceed.tobytes(), []
    workers = [threading.Thread(target=lambda: found.append(tiny.score(TEXTS).exceed.tobytes())) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == [wanted] * 8


def test_a_pickled_model_scores_the_same(tiny):
    """Trainers pickle scorers into workers; sessions cannot be pickled, paths can."""
    state = pickle.dumps(tiny)
    assert len(state) < 1000
    assert pickle.loads(state).score(TEXTS).exceed.tobytes() == tiny.score(TEXTS).exceed.tobytes()


def test_a_pickled_model_refuses_another_bundle(encoder_dir, tmp_path):
    """Scores of one run must not come from two models."""
    from conftest import make_bundle

    path = make_bundle(encoder_dir, tmp_path / "bundle")
    state = pickle.dumps(SeverityModel(path))
    shutil.rmtree(path)
    make_bundle(encoder_dir, path, int8=False)
    with pytest.raises(BundleError, match="changed after this model was pickled"):
        pickle.loads(state)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this platform cannot fork")
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning"
)  # Python 3.12 warns of forks among threads, which is the point here
def test_a_model_works_after_a_fork(tiny):
    """Threads do not survive a fork; the child starts its own."""
    wanted = tiny.score(TEXTS).exceed.tobytes()
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(_score_in_child, [tiny] * 4) == [wanted] * 4
        assert pool.map(_score_inherited, range(4)) == [wanted] * 4
    assert tiny.score(TEXTS).exceed.tobytes() == wanted


INHERITED = {}


@pytest.fixture(autouse=True)
def inherited(tiny):
    """What a forked child finds in its memory, without pickling."""
    INHERITED["tiny"] = tiny


def _score_in_child(model):
    return model.score(TEXTS).exceed.tobytes()


def _score_inherited(_):
    (block,) = INHERITED["tiny"].stream(TEXTS)
    assert block.exceed.tobytes() == INHERITED["tiny"].score(TEXTS).exceed.tobytes()
    return block.exceed.tobytes()


def test_a_megabyte_and_a_hundred_thousand_texts_are_scored(tiny):
    """Long and many are ordinary."""
    long = "the cat sat on a mat and it was good " * 28_000
    assert len(long) > 1_000_000
    scores = tiny.score([long])
    assert scores.scored.all()
    many = tiny.score(["bad dog"] * 100_000)
    assert (many.exceed == many.exceed[0]).all()


def test_threads_must_be_positive(tiny_bundle):
    """Zero threads score nothing."""
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        SeverityModel(tiny_bundle, threads=0)
