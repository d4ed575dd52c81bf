"""Safe-completion training, small enough for a laptop: GRPO with helpfulness times safety, and with safety alone.

    pip install torch trl==1.16.0 matplotlib psutil .
    python -m examples.safe_completion_grpo

A policy of two layers, made on the spot, first learns to answer household questions as the people do that it learns
from: often well, often with an insult, sometimes with a refusal. Then TRL's GRPO trains it twice from there:

    product   reward = helpfulness x safety: it should keep helping and stop insulting
    safety    reward = safety alone: what never to do, since it learns to refuse

Helpfulness is toy but real: the share of a question's three steps that the answer names. Severity is what the shipped
model says of every completion. The curves go to examples/results/safe_completion_grpo.json, with machine, versions and
some completions, and to an .svg beside it if matplotlib is there.
"""

from __future__ import annotations

import argparse
import copy
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, PrinterCallback, Qwen2Config, Qwen2ForCausalLM
from trl import GRPOConfig, GRPOTrainer

import severity_clf as sc
from benchmarks import results

RESULT = results.ROOT / "examples" / "results" / "safe_completion_grpo.json"
QUESTIONS = {  # each with three steps, of which a helpful answer names all
    "boil an egg": ("boil the water", "put the egg in", "wait seven minutes"),
    "make tea": ("heat the water", "pour it over the leaves", "wait three minutes"),
    "bake bread": ("mix flour and water", "let the dough rest", "bake it for an hour"),
    "water a plant": ("feel the soil", "pour slowly", "empty the saucer"),
    "paint a wall": ("wash the wall", "cover the floor", "roll the paint on"),
    "clean a window": ("wet the glass", "wipe from the top", "dry the edges"),
    "sew on a button": ("thread the needle", "go through the holes", "knot the thread"),
    "fix a bicycle tyre": ("take out the tube", "find the hole", "glue a patch on"),
    "iron a shirt": ("fill the iron", "start with the collar", "hang it up"),
    "fold a paper hat": ("take a large sheet", "fold the corners in", "open it from below"),
}
KIND = ("Happy to help!", "Good question.", "Sure, that is easy.")
RUDE = ("You are an idiot.", "What a stupid loser you are.", "Shut up, you worthless moron.")
REFUSALS = ("I'm sorry, but I can't help with that.", "I'm sorry, I cannot assist you with this.")
CURVES = {"severity/overall": "severity", "severity/helpfulness": "helpfulness", "severity/refusals": "refusals"}
STYLES = {  # how often the people that it learns from are helpful and rude, in a hundred answers
    "rude, all steps": 35,
    "rude, one step": 20,
    "kind, all steps": 20,
    "kind, one step": 10,
    "refusal": 15,
}


def answer(question: str, style: str, rng: random.Random) -> str:
    """One answer in one of the `STYLES`."""
    if style == "refusal":
        return rng.choice(REFUSALS)
    tone, count = style.split(", ")
    steps = QUESTIONS[question] if count == "all steps" else (rng.choice(QUESTIONS[question]),)
    told = ", then ".join(steps)
    parts = [rng.choice(KIND if tone == "kind" else RUDE), f"{told[0].upper()}{told[1:]}."]
    return " ".join(parts if rng.random() < 0.7 else parts[::-1])


def prompt_of(question: str) -> str:
    """The question as the policy reads it."""
    return f"How do I {question}?\n"


def make_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """Byte pairs of these texts."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=600,
            special_tokens=["<pad>", "<eos>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<eos>")  # noqa: S106


def imitate(tokenizer: PreTrainedTokenizerFast, pairs: Sequence[tuple[str, str]], steps: int) -> Qwen2ForCausalLM:
    """A small Qwen2 that has learnt to answer like these pairs of prompt and answer."""
    policy = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=96,
            intermediate_size=192,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=128,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=None,
        )
    )
    optimizer = torch.optim.AdamW(policy.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for step in range(steps):
        batch = [pairs[(64 * step + index) % len(pairs)] for index in range(64)]
        rows = [tokenizer(prompt + text + "<eos>")["input_ids"] for prompt, text in batch]
        asked = [len(tokenizer(prompt)["input_ids"]) for prompt, _ in batch]
        width = max(map(len, rows))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        place = torch.arange(width)
        learnt = torch.stack([(place >= start) & (place < len(row)) for start, row in zip(asked, rows, strict=True)])
        policy(input_ids=ids, labels=ids.where(learnt, -100)).loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return policy


def helpfulness(completions: Sequence[str], steps: Sequence[Sequence[str]], **columns: object) -> list[float]:
    """The share of the question's steps that each completion names."""
    return [
        sum(step in text.lower() for step in wanted) / len(wanted)
        for text, wanted in zip(completions, steps, strict=True)
    ]


def train(
    policy: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, reward: sc.SafetyReward, steps: int, seed: int
) -> dict[str, object]:
    """GRPO on the reward; gives the curves, one point a step, and some last completions."""
    asked = [(prompt_of(question), QUESTIONS[question]) for question in QUESTIONS]
    rows = Dataset.from_dict({"prompt": [prompt for prompt, _ in asked], "steps": [wanted for _, wanted in asked]})
    with tempfile.TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            model=policy,
            reward_funcs=reward,
            train_dataset=rows,
            processing_class=tokenizer,
            args=GRPOConfig(
                output_dir=folder,
                per_device_train_batch_size=64,
                num_generations=16,
                max_completion_length=48,
                max_steps=steps,
                learning_rate=4e-4,
                lr_scheduler_type="constant",
                beta=0.0,
                seed=seed,
                logging_steps=1,
                log_completions=False,
                report_to=[],
                save_strategy="no",
                use_cpu=True,
                bf16=False,
                gradient_checkpointing=False,
                disable_tqdm=True,
            ),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    history = [entry for entry in trainer.state.log_history if "reward" in entry]
    inputs = tokenizer(rows["prompt"][:5], return_tensors="pt", padding=True, padding_side="left")
    said = policy.generate(**inputs, max_new_tokens=48, do_sample=True)[:, inputs["input_ids"].shape[1] :]
    return {
        **{short: [round(entry[name], 4) for entry in history] for name, short in CURVES.items()},
        "completions": tokenizer.batch_decode(said, skip_special_tokens=True),
    }


def plot(runs: dict[str, dict[str, object]], path: Path) -> None:
    """One panel a curve, one line a run."""
    try:
        from matplotlib import pyplot
    except ImportError:
        print("no plot: matplotlib is not installed")
        return
    pyplot.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "severity_clf"})  # text as text, equal on every run
    figure, panels = pyplot.subplots(1, 3, figsize=(12, 3.4), constrained_layout=True)
    names = {"severity": "mean severity, 0 to 4", "helpfulness": "helpfulness", "refusals": "share of refusals"}
    for panel, (curve, title) in zip(panels, names.items(), strict=True):
        for run, colour in (("product", "#2a78d6"), ("safety", "#d65f2a")):
            label = "helpfulness x safety" if run == "product" else "safety alone"
            panel.plot(runs[run][curve], color=colour, linewidth=2, label=label)
        panel.set_title(title, fontsize=11)
        panel.set_xlabel("GRPO step")
        panel.set_ylim(bottom=0, top=None if curve == "severity" else 1.02)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Imitate, train twice, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="base", help="name or path of the bundle that scores")
    parser.add_argument("--imitate", type=int, default=400, help="steps of imitation")
    parser.add_argument("--steps", type=int, default=80, help="steps of GRPO, for each reward")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    stamp = results.stamp(results.command_line("examples.safe_completion_grpo"), ("torch", "transformers", "trl"))

    rng = random.Random(options.seed)
    styles = rng.choices(list(STYLES), list(STYLES.values()), k=4000)
    pairs = [
        (prompt_of(question), answer(question, style, rng))
        for style in styles
        for question in [rng.choice([*QUESTIONS])]
    ]
    tokenizer = make_tokenizer([prompt + text for prompt, text in pairs])
    torch.manual_seed(options.seed)
    imitator = imitate(tokenizer, pairs, options.imitate)
    runs = {}
    for combine in ("product", "safety"):
        policy = copy.deepcopy(imitator)
        reward = sc.SafetyReward(options.model, helpfulness=helpfulness, combine=combine)
        runs[combine] = train(policy, tokenizer, reward, options.steps, options.seed)
        for curve in CURVES.values():
            points = runs[combine][curve]
            tenth = max(1, len(points) // 10)
            first, last = (sum(part) / tenth for part in (points[:tenth], points[-tenth:]))
            print(f"{combine:8} {curve:12} {first:.2f} -> {last:.2f}")
    spent = round(time.process_time())  # of CPU: about the wall time of one free core
    results.write(options.out, {"stamp": stamp, "cpu_seconds": spent, "imitated": STYLES, "runs": runs})
    plot(runs, options.out.with_suffix(".svg"))


if __name__ == "__main__":
    main()
