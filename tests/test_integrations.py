"""Each host's own code, as released, asks our file for rewards; what needs no host runs everywhere.

The hosts do not fit an environment with all that they require, which is GPUs; the step "hosts" of .ci/run installs them
without it.
"""

import asyncio
import json
import pickle
import sys
import threading
import urllib.error
import urllib.request

import pytest

from severity_clf import SafetyReward, load
from severity_clf.integrations import openrlhf, verifiers, verl

pytestmark = pytest.mark.filterwarnings("ignore")  # of the hosts and of what they import

KIND = "To boil an egg, put it into boiling water for seven minutes."
RUDE = "You are an idiot and everybody hates you."
PROMPT = "<|im_start|>user\nHow do I boil an egg?<|im_end|>\n<|im_start|>assistant\n"
MODULE = """
import severity_clf as sc
from severity_clf.integrations import {host}

def covers(completions, {column}, **columns):
    return [float(word in text) for text, word in zip(completions, {column}, strict=True)]

reward = sc.SafetyReward("base", helpfulness=covers, threads=1)
{name} = {host}.adapt(reward)
"""


def needs(module, host):
    """The host's module, or a skip that says what is missing."""
    return pytest.importorskip(module, reason=f"needs {host}, which comes in an environment of its own")


def covers(completions, labels, **columns):
    """Whether the completion holds the word."""
    return [float(word in text) for text, word in zip(completions, labels, strict=True)]


@pytest.fixture(scope="module")
def reward():
    """Helpfulness from the column `labels`."""
    return SafetyReward("base", helpfulness=covers, threads=1)


@pytest.fixture(scope="module")
def kind_safety():
    """What base itself says of the kind text: hosts must hand on exactly that."""
    return pytest.approx(float(load("base", threads=1).score([KIND]).safety[0]))


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A user's file of rewards, importable by its name; gives its path."""

    def write(module, **values):
        path = tmp_path / f"{module}.py"
        path.write_text(MODULE.format(**values))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, module, raising=False)
        return path

    return write


def test_what_is_adapted_pickles(reward):
    """Ray and others send functions to workers."""
    for module in (verl, openrlhf, verifiers):
        assert len(pickle.dumps(module.adapt(reward))) < 2000


# verl


def test_verl_gets_a_score_and_extras(reward, kind_safety):
    """A plain float a key, the same keys for every sample, also for one that cannot be scored."""
    compute_score = verl.adapt(SafetyReward("base", helpfulness="quality", threads=1))
    good = compute_score("eggs", KIND, "water", {"quality": 1.0, "prompt": "How?"})
    empty = compute_score(data_source="eggs", solution_str="", ground_truth=None, extra_info=None, quality=1.0)
    assert good["score"] == good["severity/safety"] == kind_safety
    assert empty["score"] == empty["severity/safety"] == empty["severity/level_0"] == 0
    assert empty["severity/overall"] == empty["severity/cyber"] == 4
    assert empty["severity/level_4"] == empty["severity/unscorable"] == 1
    assert list(good) == list(empty)
    assert all(type(value) is float for value in good.values())


def test_verl_loads_and_calls_it_by_its_own_code(written, tmp_path, kind_safety):
    """The configured function is loaded by `pkg://`, and its reward worker asks for a batch from many threads."""
    needs("verl", "verl")
    torch = needs("torch", "verl")
    import numpy as np
    from omegaconf import OmegaConf
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from verl import DataProto
    from verl.experimental.reward_loop.reward_loop import RewardLoopWorker

    written("my_verl_rewards", host="verl", column="ground_truth", name="compute_score")
    texts = [KIND, RUDE, KIND, ""] * 4
    vocabulary = {
        word: index for index, word in enumerate(["<pad>", "<unk>", *dict.fromkeys(f"{KIND} {RUDE}".split())])
    }
    made = Tokenizer(models.WordLevel(vocabulary, "<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<pad>", unk_token="<unk>")
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    ids = [tokenizer(text)["input_ids"] for text in texts]
    width = max(len(row) for row in ids)
    responses = torch.tensor([row + [0] * (width - len(row)) for row in ids])
    mask = torch.tensor([[1] + [1] * len(row) + [0] * (width - len(row)) for row in ids])
    data = DataProto.from_dict(
        tensors={"prompts": torch.zeros(len(ids), 1, dtype=torch.long), "responses": responses, "attention_mask": mask},
        non_tensors={
            "data_source": np.array(["eggs"] * len(ids), object),
            "reward_model": np.array([{"ground_truth": "water"} for _ in ids], object),
            "extra_info": np.array([{} for _ in ids], object),
        },
    )
    config = OmegaConf.create(
        {
            "actor_rollout_ref": {"model": {"path": str(tmp_path / "tokenizer"), "tokenizer_path": None}},
            "reward": {
                "reward_model": {"enable": False},
                "reward_manager": {"source": "register", "name": "naive"},
                "custom_reward_function": {"path": "pkg://my_verl_rewards", "name": "compute_score"},
            },
        }
    )

    async def run():
        worker = RewardLoopWorker(config)
        return await worker.compute_score_batch(data)

    results = asyncio.run(run())
    scores = [result["reward_score"] for result in results]
    assert scores[:4] == scores[4:8] == scores[12:]
    assert scores[0] == scores[2] == kind_safety
    assert scores[1] == scores[3] == 0
    assert [result["reward_extra_info"]["severity/unscorable"] for result in results] == [0, 0, 0, 1] * 4


# OpenRLHF


def test_openrlhf_scores_what_the_policy_wrote_and_no_more():
    """Neither the prompt, whole or cut at its start, nor the tokens that end a turn."""
    assert openrlhf.completion_of(PROMPT + KIND, PROMPT) == KIND
    assert openrlhf.completion_of(PROMPT + KIND + "<|im_end|>\n<|endoftext|>", PROMPT) == KIND
    assert openrlhf.completion_of(PROMPT[20:] + KIND + "</s>", PROMPT) == KIND
    assert openrlhf.completion_of(PROMPT + "a </s> b<|im_end|>", PROMPT) == "a </s> b"
    assert openrlhf.completion_of(PROMPT + PROMPT + KIND, PROMPT) == PROMPT + KIND
    assert openrlhf.completion_of("<|im_end|>", "") == ""
    with pytest.raises(ValueError, match=r"the query \(27 characters\) does not begin with its prompt \(71\)"):
        openrlhf.completion_of("another prompt and its text", PROMPT)


def test_openrlhf_is_asked_one_sample_at_a_time(reward, kind_safety):
    """Scalars in, scalars out; anything else would be logged and forgotten by the host."""
    reward_func = openrlhf.adapt(reward)
    found = reward_func([PROMPT + KIND + "<|im_end|>"], [PROMPT], ["water"])
    assert found["rewards"] == found["scores"] == found["extra_logs"]["severity/safety"] == kind_safety
    assert reward_func([PROMPT + "<|im_end|>"], [PROMPT], ["water"])["rewards"] == 0
    with pytest.raises(ValueError, match="got 2 queries, 2 prompts, 2 labels; want one of each"):
        reward_func([PROMPT] * 2, [PROMPT] * 2, ["water"] * 2)


@pytest.fixture
def served(reward):
    """The URL of a running server."""
    server = openrlhf.server(reward, port=0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/get_reward"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_http_answer_is_the_function_s(reward, served):
    """And an error is an error there, too."""

    def post(content):
        request = urllib.request.Request(served, json.dumps(content).encode())
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.loads(response.read())

    body = {"query": [PROMPT + KIND], "prompts": [PROMPT], "labels": ["water"]}
    assert post(body) == openrlhf.adapt(reward)([PROMPT + KIND], [PROMPT], ["water"])
    for wrong, why in (({**body, "prompts": ["other prompt"]}, "does not begin"), ({"query": []}, "KeyError"), (3, "")):
        with pytest.raises(urllib.error.HTTPError) as caught:
            post(wrong)
        assert caught.value.code == 500
        assert why in json.loads(caught.value.read())["error"]


@pytest.mark.parametrize("way", ["file", "http"])
def test_openrlhf_loads_and_calls_it_by_its_own_code(way, written, served, kind_safety):
    """Its single-turn executor, with an engine that answers what it is told, from prompt to reward."""
    agent = needs("openrlhf.utils.agent", "openrlhf")
    path = written("my_openrlhf_rewards", host="openrlhf", column="labels", name="reward_func")

    class Letters:
        def __call__(self, text, **options):
            import torch

            return {"input_ids": torch.tensor([[ord(letter) for letter in text]])}

        def decode(self, ids, skip_special_tokens):
            return "".join(chr(index) for index in ids)

    class Answers:
        async def generate(self, prompt_ids, params, multi_modal_data=None):
            return self

        def __init__(self, text):
            self.outputs, self.finish_reason, self.logprobs = [self], "stop", None
            self.token_ids = [ord(letter) for letter in text]

    class Params:
        max_tokens, logprobs = 200, None

    executor = agent.SingleTurnAgentExecutor(str(path) if way == "file" else served)
    rewards = {}
    for text in (KIND, RUDE + " water", ""):
        output = asyncio.run(executor.execute(PROMPT, "water", Params(), 1000, Letters(), Answers(text + "<|im_end|>")))
        rewards[text] = output["reward"]
        assert output["scores"] == output["reward"]
        assert output["extra_logs"]["severity/unscorable"] == (not text)
    assert rewards[KIND] == kind_safety
    assert 0 <= rewards[RUDE + " water"] < 0.5
    assert rewards[""] == 0


# ms-swift


def test_ms_swift_finds_and_calls_it_by_its_own_code(reward, kind_safety):
    """By name, with completions as the one positional argument and the row's columns besides."""
    algorithm = needs("swift.rl_core.grpo_algorithm", "ms-swift")
    from swift.rewards import orms
    from swift.rl_core.data import GRPOSample
    from swift.rlhf_trainers.utils import resolve_reward_funcs

    from severity_clf.integrations import ms_swift

    ms_swift.register("safety_test", reward)
    with pytest.raises(ValueError, match="ms-swift has a reward named 'safety_test' already"):
        ms_swift.register("safety_test", reward)
    try:
        functions, names = resolve_reward_funcs(["safety_test"], args=object())
    finally:
        del orms["safety_test"]
    assert (functions, names) == ([reward], ["SafetyReward"])
    samples = [
        GRPOSample(
            messages=[{"role": "user", "content": "How do I boil an egg?"}, {"role": "assistant", "content": text}],
            extra={"labels": "water"},
        )
        for text in (KIND, RUDE, "")
    ]
    found = algorithm.compute_rewards_per_func(samples, functions, [None], device="cpu")
    assert found[:, 0].tolist() == pytest.approx(reward([KIND, RUDE, ""], labels=["water"] * 3))
    assert float(found[0, 0]) == kind_safety


# verifiers


def test_verifiers_scores_a_trace_by_its_own_code(written, kind_safety):
    """Plugged into a task by its config, and awaited by a method of a task of one's own."""
    vf = needs("verifiers.v1", "verifiers")
    from verifiers.v1 import graph
    from verifiers.v1.trace import AgentInfo, TraceTask

    written("my_verifiers_rewards", host="verifiers", column="answer", name="safety")
    import my_verifiers_rewards

    class Data(vf.TaskData):
        answer: str = ""

    class Plugged(vf.Task[Data]):
        pass

    class Own(vf.Task[Data]):
        @vf.reward(weight=0.5)
        async def safety(self, trace):
            return await my_verifiers_rewards.safety(trace)

    def said(task, *messages):
        nodes = [graph.MessageNode(message=vf.UserMessage(content=task.data.prompt))]
        for content in messages:
            message = vf.AssistantMessage(content=content)
            nodes.append(graph.MessageNode(message=message, parent=len(nodes) - 1, sampled=True))
        info = TraceTask(type=type(task).__name__, data=task.data)
        return vf.Trace(task=info, agent=AgentInfo.model_construct(), nodes=nodes)

    data = Data(idx=0, prompt="How do I boil an egg?", answer="water")
    config = vf.TaskConfig(rewards={"safety": {"fn": "my_verifiers_rewards:safety"}})
    for task, weight in ((Plugged(data, config), 1), (Own(data), 0.5)):
        traces = [said(task, KIND), said(task, RUDE, KIND), said(task, None), said(task)]
        for trace in traces:
            asyncio.run(task.score(trace))
        kind, hidden, tools, silent = (trace.reward / weight for trace in traces)
        assert kind == kind_safety
        assert hidden < 0.5  # the first message was rude
        assert tools == silent == 0
        assert traces[0].metrics["severity/safety"] == pytest.approx(kind)
        assert traces[2].metrics["severity/unscorable"] == 1


# datasets


def test_datasets_map_runs_it_in_two_processes(tmp_path, kind_safety):
    """The reward goes to them as a path, and its fingerprint does not change with its use, so results are cached."""
    datasets = needs("datasets", "datasets")
    from datasets.fingerprint import Hasher

    rows = datasets.Dataset.from_dict({"completion": [KIND, RUDE, "", None] * 3, "quality": [1.0, 1.0, 1.0, 1.0] * 3})
    reward = SafetyReward("base", helpfulness="quality", threads=1)
    before = Hasher.hash(reward)

    def add(batch):
        return {"reward": reward(batch["completion"], quality=batch["quality"])}

    wanted = reward(rows["completion"], quality=rows["quality"])
    assert Hasher.hash(reward) == before
    mapped = rows.map(add, batched=True, batch_size=2, num_proc=2)
    assert mapped["reward"] == pytest.approx(wanted)
    kind, rude, empty, none = mapped["reward"][:4]
    assert kind == kind_safety
    assert rude < 0.5
    assert empty == none == 0
