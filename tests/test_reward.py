"""The reward: what cannot be judged is at the bottom, and nothing is lost between processes, threads and hosts."""

import asyncio
import json
import math
import multiprocessing
import os
import pickle
import shutil
import threading

import numpy as np
import pytest
from conftest import ROOT, make_bundle
from hypothesis import given
from hypothesis import strategies as st

from severity_clf import BundleError, SafetyReward
from severity_clf.reward import COMBINE, Gate, Hinge, Lagrangian, is_refusal

GOOD, BAD = "the cat sat on a mat", "bad dog and worse"
KIND = "To boil an egg, put it into boiling water for seven minutes."
RUDE = "You are an idiot and everybody hates you."
TOOLS_ONLY = [{"role": "assistant", "content": None, "tool_calls": [{}]}, {"role": "tool", "content": "good day"}]
UNSCORABLE = [
    None,
    "",
    " \n",
    [],
    TOOLS_ONLY,
    [{"role": "assistant", "content": None}],
    [{"role": "user", "content": "a"}],
]
COMBINERS = [
    *COMBINE,
    Gate(0.9, fail=-2.0),
    Hinge(0.3, cost=7.0),
    Lagrangian(multiplier=100.0),
    Lagrangian(multiplier=0.001),
]
unit = st.floats(0, 1)


def ones(completions, **columns):
    """As helpful as can be."""
    return [1.0] * len(completions)


@pytest.fixture(scope="module")
def reward(tiny_bundle):
    """Helpfulness from a column named `quality`."""
    return SafetyReward(tiny_bundle, helpfulness="quality")


def combined(which):
    """A combination by name or as given."""
    return COMBINE[which]() if isinstance(which, str) else which


@pytest.mark.parametrize("which", COMBINERS, ids=str)
@given(low=st.tuples(unit, unit), more=st.tuples(unit, unit))
def test_no_combination_falls_in_helpfulness_or_safety(which, low, more):
    """So h = 0 and s = 0, what is given to what cannot be judged, is the worst reward of each."""
    combine = combined(which)
    high = [min(1.0, a + b) for a, b in zip(low, more, strict=True)]
    worse, better, worst = combine(np.array([low[0], high[0], 0.0]), np.array([low[1], high[1], 0.0]))
    assert worst <= worse <= better + 1e-12


@pytest.mark.parametrize("which", COMBINERS, ids=str)
def test_a_completion_that_cannot_be_scored_gets_the_worst_reward_and_is_counted(tiny_bundle, which):
    """However helpful it is said to be, and whatever the combination."""
    reward = SafetyReward(tiny_bundle, helpfulness=ones, combine=combined(which))
    worst = float(reward.combine(np.zeros(1), np.zeros(1))[0])
    rewards = reward([*UNSCORABLE, GOOD, BAD])
    assert rewards[: len(UNSCORABLE)] == [worst] * len(UNSCORABLE)
    assert min(rewards) == worst
    assert reward.counts == {"completions": len(UNSCORABLE) + 2, "unscorable": len(UNSCORABLE), "unhelped": 0}


@pytest.mark.parametrize("which", COMBINERS, ids=str)
@pytest.mark.parametrize("nothing", [None, math.nan, np.float32("nan")])
def test_unknown_helpfulness_gets_the_worst_reward_and_is_counted(tiny_bundle, which, nothing):
    """NaN compares as neither more nor less, and trainers skip it: never a way to the top."""
    reward = SafetyReward(tiny_bundle, helpfulness="quality", combine=combined(which))
    worst = float(reward.combine(np.zeros(1), np.zeros(1))[0])
    rewards = reward([GOOD, GOOD], quality=[nothing, 1.0])
    assert rewards[0] == worst == min(rewards)
    assert reward.counts["unhelped"] == 1


def test_the_product_is_helpfulness_times_safety(tiny, reward):
    """To the last digit that float32 safety has."""
    assert reward([GOOD, BAD], quality=[0.5, 1]) == pytest.approx(tiny.score([GOOD, BAD]).safety * [0.5, 1], rel=1e-6)
    assert reward([], quality=[]) == []


def test_combinations_are_what_their_names_say():
    """Worked by hand."""
    h, s = np.array([1.0, 0.8, 0.2]), np.array([0.2, 0.5, 0.9])
    assert COMBINE["product"]()(h, s) == pytest.approx([0.2, 0.4, 0.18])
    assert Gate(0.5, fail=-1)(h, s).tolist() == [-1, 0.8, 0.2]
    assert Hinge(0.6, cost=2)(h, s) == pytest.approx([0.2, 0.6, 0.2])
    assert Lagrangian(multiplier=3)(h, s) == pytest.approx([(1 - 2.4) / 4, (0.8 - 1.5) / 4, (0.2 - 0.3) / 4])
    assert COMBINE["safety"]()(h, s).tolist() == s.tolist()


def test_a_function_may_combine(tiny_bundle):
    """One that gives something else than one finite number a completion is refused."""
    assert SafetyReward(tiny_bundle, helpfulness=ones, combine=lambda h, s: h + s)([GOOD])[0] > 1
    with pytest.raises(ValueError, match=r"combine gave \(\) rewards, want \(2,\) finite ones"):
        SafetyReward(tiny_bundle, helpfulness=ones, combine=lambda h, s: s.sum())([GOOD, BAD])


def test_safety_is_made_from_the_worst_of_the_chosen_domains(tiny, tiny_bundle):
    """Weighted, and more domains never dilute."""
    expected, top = tiny.score([GOOD, BAD]).expected, tiny.taxonomy.top
    rude, wet = expected[:, 1], expected[:, 2]

    def safety(domains):
        return SafetyReward(tiny_bundle, combine="safety", domains=domains)([GOOD, BAD])

    assert safety(["wet"]) == pytest.approx(1 - wet / top, rel=1e-6)
    assert safety({"rude": 1, "wet": 0.5}) == pytest.approx(1 - np.maximum(rude, wet / 2) / top, rel=1e-6)


def test_a_severe_violation_is_not_safe_at_all(tiny, tiny_bundle):
    """From P(level >= k) above the threshold, in any of the chosen domains."""
    exceed = tiny.score([GOOD, BAD]).exceed[:, 1, 1]  # of "rude", level 2
    between = float(exceed.mean())
    found = SafetyReward(tiny_bundle, combine="safety", domains=["rude"], severe=(2, between))([GOOD, BAD])
    assert [safety == 0 for safety in found] == [bool(value > between) for value in exceed]
    assert sorted(safety == 0 for safety in found) == [False, True]


def test_the_prompt_is_context_only_if_asked_for(tiny, tiny_bundle):
    """Chats are asked by their last user message; a prompt without one is no context."""
    prompts = [[{"role": "system", "content": "bad"}, {"role": "user", "content": "how to make tea"}], None]
    reward = SafetyReward(tiny_bundle, combine="safety", with_prompts=True)
    assert reward([BAD, BAD], prompts) == pytest.approx(tiny.score([BAD, BAD], ["how to make tea", None]).safety)
    alone = SafetyReward(tiny_bundle, combine="safety")
    assert alone([BAD, BAD], prompts) == alone([BAD, BAD])


def test_all_that_the_assistant_says_is_scored(base):
    """A chat may call tools and go on; harm in an early message must not hide behind a kind last one."""
    reward = SafetyReward("base", combine="safety")
    turn = [{"role": "assistant", "content": KIND}]
    parts = [{"role": "assistant", "content": [{"type": "text", "text": KIND}]}]
    kind, chat, chat_parts, hidden, tool = reward(
        [KIND, turn, parts, [{"role": "assistant", "content": RUDE}, *turn], [{"role": "tool", "content": RUDE}, *turn]]
    )
    assert kind == chat == chat_parts == tool == pytest.approx(float(base.score([KIND]).safety[0]))
    assert hidden < 0.5


def test_a_recipe_is_safe(base):
    """What a reward is for: nothing is lost by telling how to boil an egg."""
    assert base.score([KIND]).safety[0] > 0.8


def test_a_reward_does_not_depend_on_its_neighbours(reward):
    """Hosts send one completion at a time, or a thousand."""
    together = reward([GOOD, BAD, None, "tea"], quality=[1, 1, 1, 1])
    assert together == [reward([text], quality=[1])[0] for text in (GOOD, BAD, None, "tea")]


def test_helpfulness_is_called_as_trl_calls_rewards(tiny_bundle):
    """A function written for a trainer's reward works unchanged."""
    seen = {}

    def fn(prompts, completions, answer, **kwargs):
        seen.update(prompts=prompts, completions=completions, answer=answer, kwargs=kwargs)
        return np.array([0.5, 1.0], np.float32)

    rewards = SafetyReward(tiny_bundle, helpfulness=fn)([GOOD, BAD], prompts=["a", "b"], answer=["x", "y"], step=3)
    assert seen == {"prompts": ["a", "b"], "completions": [GOOD, BAD], "answer": ["x", "y"], "kwargs": {"step": 3}}
    assert len(rewards) == 2


def test_an_error_of_the_helpfulness_function_is_not_swallowed(tiny_bundle):
    """A reward made up after an error would train on it."""

    def broken(**kwargs):
        raise RuntimeError("the judge is down")

    with pytest.raises(RuntimeError, match="the judge is down"):
        SafetyReward(tiny_bundle, helpfulness=broken)([GOOD])


@pytest.mark.parametrize(
    ("quality", "error", "match"),
    [
        ([0.5], ValueError, "got 2 completions and 1 helpfulness values; want one for each"),
        ([0.5, 7.5], ValueError, r"helpfulness\[1\] is 7.5, want a number from 0 to 1; scale it"),
        ([0.5, -0.1], ValueError, r"helpfulness\[1\] is -0.1"),
        ([0.5, math.inf], ValueError, r"helpfulness\[1\] is inf"),
        ([0.5, "1"], TypeError, r"helpfulness\[1\] is a string, want a number"),
        ([0.5, [1]], TypeError, r"helpfulness\[1\] is a list, want a number"),
        ("11", TypeError, "helpfulness must be a list with one entry a completion, got one str"),
        (0.5, TypeError, "helpfulness must be a list with one entry a completion, got one float"),
    ],
)
def test_helpfulness_that_makes_no_sense_is_an_error(reward, quality, error, match):
    """The message says where and what."""
    with pytest.raises(error, match=match):
        reward([GOOD, BAD], quality=quality)


def test_rounding_errors_are_no_errors(reward):
    """A mean of float32s may be 1.0000001."""
    assert reward([GOOD, GOOD], quality=[1.0000001, 1]) == reward([GOOD, GOOD], quality=[True, np.float32(1)])


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ((GOOD,), TypeError, "completions must be a list with one entry a completion, got one str"),
        (([GOOD], "why"), TypeError, "prompts must be a list with one entry a completion, got one str"),
        (([GOOD, BAD], ["why"]), ValueError, "got 2 completions and 1 prompts"),
        (([GOOD, 3],), TypeError, r"completions\[1\] is a number, want a string, a list of messages or None"),
        (([{"role": "assistant", "content": GOOD}],), TypeError, r"completions\[0\] is an object"),
        (([[GOOD]],), TypeError, r"completions\[0\] is a list, want"),
    ],
)
def test_arguments_that_make_no_sense_are_errors(reward, arguments, error, match):
    """Before anything is scored; texts are not quoted."""
    with pytest.raises(error, match=match) as caught:
        reward(*arguments, quality=[1] * 2)
    assert GOOD not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({}, 'helpfulness is missing.*combine="safety"'),
        ({"combine": "gate"}, "helpfulness is missing"),
        ({"combine": "sum"}, "combine is 'sum', want one of product, gate, hinge, lagrangian, safety"),
        ({"domains": []}, r"domains is \[\], want a list of names"),
        ({"domains": "rude"}, "domains is 'rude', want a list of names"),
        ({"domains": ["hat"]}, "domains names 'hat', the bundle has overall, rude, wet"),
        ({"domains": {"rude": 0}}, "the weight of rude is 0, want above 0 and at most 1"),
        ({"domains": {"rude": math.nan}}, "the weight of rude is nan"),
        ({"severe": (3, 0.5)}, "severe's level is 3, want a whole number from 1 to 2"),
        ({"threads": 0}, "threads is 0, want at least 1"),
        ({"severe": (2, 1.0)}, "severe's probability is 1.0, want at least 0 and below 1"),
    ],
)
def test_options_that_make_no_sense_are_refused_at_once(tiny_bundle, options, match):
    """Not in a worker, an hour later."""
    extra = {} if "helpfulness is missing" in match else {"helpfulness": ones}
    with pytest.raises(ValueError, match=match):
        SafetyReward(tiny_bundle, **extra, **options)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Gate(0), "threshold is 0, want above 0"),
        (lambda: Gate(fail=0.1), "fail is 0.1, want at most 0: harm must not be worth more than a refusal"),
        (lambda: Hinge(1.5), "threshold is 1.5"),
        (lambda: Hinge(cost=0), "cost is 0, want above 0"),
        (lambda: Lagrangian(limit=0), "limit is 0, want between 0 and 1"),
        (lambda: Lagrangian(rate=-1), "rate is -1, want above 0"),
        (lambda: Lagrangian(multiplier=0), "multiplier is 0, want from 0.001 to 1000"),
        (lambda: Lagrangian().load_state_dict({"multiplier": math.nan}), "multiplier is nan"),
    ],
)
def test_combinations_that_would_reward_harm_cannot_be_made(make, match):
    """A gate that pays for failing is a bug of sign."""
    with pytest.raises(ValueError, match=match):
        make()


def test_a_model_is_named_not_passed(tiny, tiny_bundle):
    """One way: what pickles is a path."""
    with pytest.raises(TypeError, match=r"model is SeverityModel, want the name or path of a bundle; pass model\.path"):
        SafetyReward(tiny, helpfulness=ones)
    with pytest.raises(BundleError, match="no/bundle"):
        SafetyReward("no/bundle", helpfulness=ones)
    assert SafetyReward(tiny.path, helpfulness=ones)([GOOD]) == SafetyReward(tiny_bundle, helpfulness=ones)([GOOD])


def test_a_lagrangian_learns_how_much_harm_must_cost(tiny_bundle):
    """The multiplier rises over the limit and falls under it, and stays in bounds."""
    lagrangian = Lagrangian(limit=0.2, rate=0.5, multiplier=2.0)
    lagrangian.update(np.array([0.5, 0.7]))  # mean cost 0.4
    assert lagrangian.multiplier == pytest.approx(2 * math.exp(0.5 * 0.2))
    lagrangian.update(np.array([1.0]))
    assert lagrangian.multiplier == pytest.approx(2)
    for _ in range(1000):
        lagrangian.update(np.zeros(1))
    assert lagrangian.multiplier == 1000
    reward = SafetyReward(tiny_bundle, helpfulness=ones, combine=Lagrangian(limit=0.01))
    reward([None, None])
    assert reward.combine.multiplier == pytest.approx(math.exp(0.5 * 0.99))  # what cannot be scored costs most
    before = reward.combine.multiplier
    assert reward([]) == []
    assert reward.combine.multiplier == before


def test_a_lagrangian_goes_on_where_it_stopped(tiny_bundle):
    """Through JSON, and through pickle."""
    reward = SafetyReward(tiny_bundle, helpfulness=ones, combine="lagrangian")
    reward([BAD, None])
    other = Lagrangian()
    other.load_state_dict(json.loads(json.dumps(reward.combine.state_dict())))
    assert other == reward.combine == pickle.loads(pickle.dumps(reward)).combine
    assert other.multiplier != 1
    with pytest.raises(KeyError, match="multiplier"):
        other.load_state_dict({})


def test_metrics_go_to_the_hook_of_the_host(tiny, tiny_bundle):
    """Per-domain means, the histogram of levels and rates; what cannot be scored counts as the top level, 2 here."""
    logged = {}
    reward = SafetyReward(tiny_bundle, helpfulness="quality", combine=Lagrangian(multiplier=2.0))
    completions = [GOOD, BAD, "Sorry, but I cannot help with that.", None]
    reward(completions, quality=[1, 0.5, None, 1], log_metric=logged.__setitem__)
    scores = tiny.score(completions[:3])
    means = (scores.expected.sum(axis=0) + 2) / 4
    assert [logged[f"severity/{name}"] for name in ("overall", "rude", "wet")] == pytest.approx(means)
    levels = [logged[f"severity/level_{level}"] for level in range(3)]
    assert levels == (np.bincount([*scores.level[:, 0], 2], minlength=3) / 4).tolist()
    names = ("helpfulness", "refusals", "unscorable", "unhelped")
    assert [logged[f"severity/{name}"] for name in names] == [(1 + 0.5) / 4, 0.25, 0.25, 0.25]
    assert logged["severity/safety"] == pytest.approx(scores.safety[:2].sum() / 4)
    assert logged["severity/multiplier"] == reward.combine.multiplier != 2
    assert all(type(value) is float and math.isfinite(value) for value in logged.values())


def test_metrics_of_nothing_are_not_logged(reward):
    """A mean over no completion is no number; one over an empty completion is."""
    logged = {}
    reward([], quality=[], log_metric=logged.__setitem__)
    assert logged == {}
    reward([None], quality=[1], log_metric=logged.__setitem__)
    assert logged["severity/unscorable"] == 1
    assert logged["severity/overall"] == 2


def test_figures_of_one_completion_are_what_means_are_made_of(reward):
    """For hosts that ask for one at a time and take the means themselves."""
    judged = reward.judge([GOOD, None], quality=[0.5, 1])
    assert judged.row(0) == reward.judge([GOOD], quality=[0.5]).row(0)
    assert {name: (judged.row(0)[name] + judged.row(1)[name]) / 2 for name in judged.row(0)} == {
        name: pytest.approx(values.mean()) for name, values in judged.figures().items()
    }


def test_refusals_are_told_from_answers_in_the_examples():
    """Eight refusals, then answers of all kinds; one of each is taken for the other."""
    lines = (ROOT / "examples" / "outputs.jsonl").read_text(encoding="utf-8").splitlines()
    found = [is_refusal(json.loads(line)["output"]) for line in lines]
    assert sum(found[:8]) >= 7
    assert sum(found[8:]) <= 1
    assert not is_refusal("I am sorry to hear that. Here is what helps against a cold.")
    assert is_refusal("I\u2019m sorry, but I can\u2019t help with that.")


def test_the_model_is_loaded_when_first_called(tiny_bundle):
    """Trainers make rewards in processes that never score."""
    reward = SafetyReward(tiny_bundle, helpfulness=ones)
    assert reward._model is None
    reward([GOOD])
    assert reward._model is not None


def test_a_reward_pickles_as_a_path_used_or_not(tiny_bundle, tmp_path, monkeypatch):
    """The copy scores the same in another folder, has its own counts and keeps its name."""
    monkeypatch.chdir(tiny_bundle.parent)
    reward = SafetyReward(tiny_bundle.name, helpfulness=ones, combine="hinge", domains=["rude"], severe=(1, 0.9))
    assert reward.__name__ == "safety_reward"
    reward.__name__ = "mine"
    fresh = pickle.dumps(reward)
    wanted = reward([GOOD, BAD, None])
    used = pickle.dumps(reward)
    assert used == fresh
    assert len(used) < 2000
    monkeypatch.chdir(tmp_path)
    copy = pickle.loads(used)
    assert copy([GOOD, BAD, None]) == wanted
    assert (copy.__name__, copy.counts) == ("mine", {"completions": 3, "unscorable": 1, "unhelped": 0})


def test_a_reward_refuses_a_bundle_that_changed(encoder_dir, tmp_path):
    """Rewards of one run must not come from two models."""
    path = make_bundle(encoder_dir, tmp_path / "bundle")
    reward = SafetyReward(path, helpfulness=ones)
    shutil.rmtree(path)
    make_bundle(encoder_dir, path, int8=False)
    with pytest.raises(BundleError, match="changed after this reward was made"):
        reward([GOOD])


def test_a_reward_may_be_shared_by_threads(tiny_bundle):
    """From the first call on: one of them loads, and none is miscounted."""
    reward = SafetyReward(tiny_bundle, helpfulness=ones)
    found = []
    start = threading.Barrier(8)

    def work():
        start.wait()
        for _ in range(20):
            found.append(reward([GOOD, None, BAD]))

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == [SafetyReward(tiny_bundle, helpfulness=ones)([GOOD, None, BAD])] * 160
    assert reward.counts == {"completions": 480, "unscorable": 160, "unhelped": 0}


def test_a_reward_may_be_awaited_beside_others(tiny_bundle):
    """In a thread of its own, which onnxruntime leaves free to run."""
    reward = SafetyReward(tiny_bundle, helpfulness=ones)

    async def many():
        return await asyncio.gather(*(asyncio.to_thread(reward, [GOOD, BAD]) for _ in range(8)))

    assert asyncio.run(many()) == [reward([GOOD, BAD])] * 8


INHERITED = {}


def _reward_in_child(reward):
    return (reward or INHERITED["reward"])([GOOD, BAD, None], quality=[1, 1, 1])


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this platform cannot fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12 warns of forks among threads: the point here
def test_a_reward_works_after_a_fork_even_amid_a_call(reward):
    """The child has no threads, and the lock may have been held."""
    from severity_clf import reward as module

    wanted = reward([GOOD, BAD, None], quality=[1, 1, 1])
    INHERITED["reward"] = reward
    with module._lock, multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map_async(_reward_in_child, [reward, None] * 2).get(60) == [wanted] * 4
    assert reward([GOOD, BAD, None], quality=[1, 1, 1]) == wanted


def test_a_reward_works_in_a_spawned_process(reward):
    """As on platforms that do not fork."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map_async(_reward_in_child, [reward]).get(60) == [reward([GOOD, BAD, None], quality=[1, 1, 1])]
    assert os.getpid() == reward._pid
