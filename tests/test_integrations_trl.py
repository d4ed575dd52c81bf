"""TRL: a real trainer, a random policy of two layers, a tokenizer made on the spot, on CPU."""

import json
import math
import sys

import pytest

trl = pytest.importorskip("trl", reason="needs trl, which comes in an environment of their own")
pytestmark = pytest.mark.filterwarnings("ignore")  # trl, transformers and torch warn of each other

from severity_clf import SafetyReward  # noqa: E402
from severity_clf.reward import Lagrangian  # noqa: E402

SENTENCES = "how do i boil an egg make tea put it into water and wait please sorry cannot help you idiot ."
TEMPLATE = "{% for m in messages %}<|{{ m.role }}|> {{ m.content }} {% endfor %}<|assistant|> "


@pytest.fixture(scope="module")
def tokenizer():
    """Words, the three roles and an end."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<eos>", "<unk>", "<|system|>", "<|user|>", "<|assistant|>"]
    words = {word: index for index, word in enumerate([*special, *SENTENCES.split()])}
    made = Tokenizer(models.WordLevel(words, "<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        additional_special_tokens=special[3:],
        chat_template=TEMPLATE,
    )


def policy(tokenizer):
    """Two layers of a random Qwen2."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, pad_token_id=0, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    return Qwen2ForCausalLM(config)


def rows(conversational):
    """Four questions, each with a word that a helpful answer would hold."""
    from datasets import Dataset

    asked = [("how do i boil an egg", "water"), ("how do i make tea", "wait")] * 2
    chat = [[{"role": "user", "content": prompt}] if conversational else prompt for prompt, _ in asked]
    return Dataset.from_dict({"prompt": chat, "answer": [answer for _, answer in asked]})


def trainer(kind, conversational, tokenizer, reward, folder, **options):
    """A GRPO or RLOO trainer for `max_steps` steps of four completions of two prompts."""
    config = {
        "output_dir": str(folder), "per_device_train_batch_size": 4, "num_generations": 2, "max_completion_length": 8,
        "max_steps": 2, "logging_steps": 1, "report_to": [], "bf16": False, "use_cpu": True, "save_strategy": "no",
        "disable_tqdm": True, "beta": 0.0, "learning_rate": 1e-3,
        "gradient_checkpointing": False, **options,
    }  # fmt: skip
    callbacks = config.pop("callbacks", None)
    trainer_of, config_of = (getattr(trl, f"{kind}{part}") for part in ("Trainer", "Config"))
    return trainer_of(
        model=policy(tokenizer),
        reward_funcs=reward,
        args=config_of(**config),
        train_dataset=rows(conversational),
        processing_class=tokenizer,
        callbacks=callbacks,
    )


def covers(completions, answer, **columns):
    """Whether the completion holds the word: a function as TRL's users write them."""
    texts = [text if isinstance(text, str) else text[-1]["content"] for text in completions]
    return [float(word in text) for text, word in zip(texts, answer, strict=True)]


@pytest.mark.parametrize("conversational", [False, True], ids=["strings", "chats"])
@pytest.mark.parametrize("kind", ["GRPO", "RLOO"])
def test_a_trainer_trains_on_the_reward_and_logs_its_metrics(kind, conversational, tokenizer, tmp_path):
    """Asserted on the trainer's own log: the reward is there by its name, is not flat, and its parts are logged."""
    reward = SafetyReward("base", helpfulness=covers, combine=Lagrangian(limit=0.01), threads=1)
    made = trainer(kind, conversational, tokenizer, reward, tmp_path)
    made.train()
    logs = [entry for entry in made.state.log_history if "reward" in entry]
    assert len(logs) == 2
    for entry in logs:
        assert entry["rewards/safety_reward/mean"] == pytest.approx(entry["reward"])
        assert math.isfinite(entry["reward_std"])
        assert 0 <= entry["severity/overall"] <= 4
        assert sum(entry[f"severity/level_{level}"] for level in range(5)) == pytest.approx(1, abs=1e-3)
        assert 0 <= entry["severity/refusals"] <= 1
    assert any(entry["rewards/safety_reward/std"] > 0 for entry in logs)
    assert logs[0]["severity/multiplier"] != logs[1]["severity/multiplier"]
    assert reward.counts["completions"] == 8


def test_a_lagrangian_is_kept_with_checkpoints_and_resumes(tokenizer, tmp_path):
    """What was learnt before a restart is known after it."""
    from severity_clf.integrations.trl import KeepMultiplier

    def run(steps, **resume):
        reward = SafetyReward("base", helpfulness=covers, combine=Lagrangian(limit=0.01), threads=1)
        options = {"save_strategy": "steps", "save_steps": 1, "max_steps": steps, "callbacks": [KeepMultiplier(reward)]}
        made = trainer("GRPO", False, tokenizer, reward, tmp_path, **options)
        made.train(**resume)
        return reward.combine.multiplier

    first = run(1)
    file = tmp_path / "checkpoint-1" / "safety_reward.json"
    assert json.loads(file.read_text()) == {"multiplier": first}
    file.write_text(json.dumps({"multiplier": 900.0}))
    assert 850 < run(2, resume_from_checkpoint=str(tmp_path / "checkpoint-1")) <= 1000
    with pytest.raises(TypeError, match="no multiplier to keep"):
        KeepMultiplier(SafetyReward("base", helpfulness=covers))


def test_the_worked_example_runs(tmp_path, monkeypatch):
    """All of it, for two steps; what it shows when run in full is in its results."""
    from examples import safe_completion_grpo

    out = tmp_path / "results" / "curves.json"
    monkeypatch.setattr(sys, "argv", ["example", "--imitate", "4", "--steps", "2", "--out", str(out)])
    safe_completion_grpo.main()
    found = json.loads(out.read_text())
    assert found["stamp"]["command"].startswith("python -m examples.safe_completion_grpo --imitate 4")
    for run in ("product", "safety"):
        for curve in ("severity", "helpfulness", "refusals"):
            assert len(found["runs"][run][curve]) == 2
        assert len(found["runs"][run]["completions"]) == 5
