"""How fast is scoring, against what a user would write alone, the computing of published guards, and the machine?

    python -m benchmarks.speed --data DATA           # ten minutes on two idle cores
    python -m benchmarks.speed --data DATA --quick   # a minute or two, to see that it runs; its figures mean little

One run, one process, everybody by turns on the same texts with the same number of threads; `contenders.py` says who
they are. A cell is a length of text, a batch (texts handed over in one call) and a number of threads. In each of its
rounds every contender goes through the same texts, once or more, and what counts is the ratio within a round. A call
that would take longer than `Plan.limit` is left out, and says so. Tokens are those of the texts, counted once by base's
tokenizer, without special tokens, whoever reads them.

Then: the machine's own limits (products of matrices, the tokenizer) and our share of them; the cost of one text of 20
to 100,000 tokens and of 100 to 1,000,000 texts, with the memory; fresh processes from start to first score.

Not measured: quality (`benchmarks/quality.py`; peers' heads are fitted on noise), GPUs, other runtimes of
sentence-transformers, a cold disk (the first process of each kind is not counted). Megabytes are 10^6 bytes. Nothing
here fails because a machine is slow. Needs `severity_clf[bench]`.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated, Any

import joblib
import numpy as np
import onnx
import typer
from tokenizers import Tokenizer, normalizers

from benchmarks import results
from benchmarks.contenders import ENCODER, PEER_TOKENS, READS, TEMPLATE, TITLES, WHAT, Contenders, timed, use_threads
from benchmarks.products import product_peak
from severity_clf import SeverityModel
from severity_clf.bundle import CARD, GRAPH, Bundle, find_bundle, read_bundle, shelf
from severity_clf.fit.graph import encoder_weights
from training import sources

SOURCES = ("harmbench_cls_val", "xstest", "pyrit", "halueval_general")  # answers of language models, short to very long
EXAMPLES = results.ROOT / "examples" / "outputs.jsonl"
PACKAGES = ("torch", "sentence-transformers", "transformers", "scikit-learn")
START = time.monotonic()
PASS = 6  # texts that single calls go through, all of them by everybody: of `natural`, short and long ones
SHORT_TOKENS = 20  # of the texts that are scored by the million
HELLO = "I can't help with that, but here is what you can do instead."

# Each child prints a score, then its import time and its peak memory.
COLD_OURS = """
import time
start = time.perf_counter()
import severity_clf
imported = time.perf_counter()
print(severity_clf.load({model!r}).score([{text!r}]).overall[0], flush=True)
"""
COLD_PEER = """
import time
start = time.perf_counter()
import joblib
from sentence_transformers import SentenceTransformer
from sklearn.linear_model import LogisticRegression
imported = time.perf_counter()
embedding = SentenceTransformer({encoder!r}, device="cpu").encode([{text!r}], show_progress_bar=False)
print([head.predict_proba(embedding)[0].tolist() for head in joblib.load({heads!r})], flush=True)
"""
COLD_REPORT = """
import json
from benchmarks.memory import peak
print(json.dumps({"import_seconds": imported - start, "peak_megabytes": peak()}))
"""
Rounds = dict[str, list[float]]  # of each contender, seconds by round


@dataclass(frozen=True)
class Plan:
    """How much is measured: all of it, or enough to see that it runs."""

    lengths: Sequence[int] = (20, 128, 512, 2000)
    batches: Sequence[int] = (1, 32, 256)
    rounds: int = 3
    slot: float = 0.1  # seconds of calls that a contender makes in a round, if one call is quicker than that
    limit: float = 1.0  # seconds; a longer call is left out
    headline_texts: int = 100
    headline_rounds: int = 3
    tried: Sequence[int] = (1, 8, 32, 128)  # batch sizes of sentence-transformers
    trial_texts: int = 32
    one_text: Sequence[int] = (20, 200, 2000, 20_000, 100_000)  # tokens
    texts: int = 1_000_000
    budget: float = 120.0  # seconds that the longest run of texts may take
    cold_runs: int = 3
    pool: int = 256  # texts of each kind


FULL = Plan()
QUICK = Plan(
    lengths=(20, 512),
    batches=(1, 32),
    rounds=2,
    slot=0.05,
    limit=0.5,
    headline_texts=16,
    headline_rounds=2,
    tried=(1, 32),
    trial_texts=16,
    one_text=(20, 2000, 20_000),
    texts=10_000,
    budget=20.0,
    cold_runs=1,
    pool=32,
)


@dataclass(frozen=True)
class Texts:
    """Texts of one kind, and the number of tokens of each."""

    name: str
    texts: Sequence[str]
    tokens: Sequence[int]

    @classmethod
    def of(cls, name: str, texts: Sequence[str], tokenizer: Tokenizer) -> Texts:
        """With their tokens counted."""
        return cls(name, texts, [token_count(tokenizer, text) for text in texts])

    def spread(self, count: int) -> Texts:
        """So many of them, evenly over their lengths, in their order; over again where there are fewer."""
        order = sorted(range(len(self.texts)), key=self.tokens.__getitem__)
        at = [int((place + 0.5) * len(order) / count) for place in range(count)]
        chosen = sorted(order[one] for one in at) if count <= len(order) else list(islice(cycle(order), count))
        return Texts(self.name, [self.texts[one] for one in chosen], [self.tokens[one] for one in chosen])

    def describe(self) -> dict[str, Any]:
        """Sizes, and how much of it a peer with a window of 256 tokens never reads."""
        return {
            "texts": len(self.texts),
            "tokens": sum(self.tokens),
            "tokens_a_text": {"median": statistics.median(self.tokens), "max": max(self.tokens)},
            "tokens_beyond_256": sum(max(0, tokens - PEER_TOKENS + 2) for tokens in self.tokens),
        }


class Bench:
    """The contenders at one number of threads, and what is known of how quick they are."""

    def __init__(self, plan: Plan, contenders: dict[str, Callable[[Sequence[str]], object]], threads: int) -> None:
        self.plan, self.contenders, self.threads = plan, contenders, threads
        self._pace: dict[str, float] = {}  # seconds a token, the best seen

    def cell(
        self,
        load: Texts,
        batch: int,
        names: Sequence[str] | None = None,
        rounds: int | None = None,
        limit: float | None = None,
    ) -> dict[str, Any]:
        """Everybody by turns on the same batches, in whole passes over them; whose call would be too long is left out.

        Args:
            load: texts to take batches from, over and over.
            batch: texts in a call.
            names, rounds, limit: contenders, rounds and seconds, where they are not all, and the plan's.
        """
        rounds, limit = rounds or self.plan.rounds, limit or self.plan.limit
        chosen = load.spread(batch * max(1, min(PASS, len(load.texts)) // batch))
        batches = [chosen.texts[start : start + batch] for start in range(0, len(chosen.texts), batch)]
        took: dict[str, list[list[float]]] = {}
        systems: dict[str, Any] = {}
        passes: dict[str, int] = {}
        for name in names or self.contenders:
            tokens = sum(_read(name, count) for count in chosen.tokens[:batch])
            expected = self._pace.get(name, 0.0) * tokens
            if expected > limit:
                systems[name] = {"left_out_seconds": figure(expected)}
                continue
            first = timed(partial(self.contenders[name], batches[0]))  # the first call allocates, and tells the pace
            self._pace[name] = min(self._pace.get(name, first / tokens), first / tokens)
            passes[name] = max(1, int(self.plan.slot / first / len(batches)))
            took[name] = []
        for number in range(rounds):
            turn = number % max(1, len(took))  # a different one begins
            for name in [*took][turn:] + [*took][:turn]:
                turns = batches * passes[name]
                took[name].append([timed(partial(self.contenders[name], texts)) for texts in turns])
        for name, by_round in took.items():
            every = [one for calls in by_round for one in calls]
            systems[name] = {
                "calls": len(every),
                "rounds": [figure(statistics.mean(calls)) for calls in by_round],  # seconds a call
                "p50_milliseconds": figure(1000 * statistics.median(every)),
                "p99_milliseconds": figure(1000 * float(np.percentile(every, 99))) if len(every) >= 100 else None,
            }
        return {
            "texts": load.name,
            "tokens_a_text": figure(statistics.mean(chosen.tokens)),
            "batch": batch,
            "threads": self.threads,
            "systems": {name: systems[name] for name in names or self.contenders},
        }


def _read(name: str, tokens: int) -> int:
    """How many tokens a contender reads of a text of so many."""
    return min(tokens, READS.get(name, tokens)) + (TEMPLATE if name == "decoder" else 2)


def read_texts(data: Path | None, count: int) -> list[str]:
    """Real outputs of language models: the same ones every time, as many of each source; without data, the examples."""
    if data is None:
        with EXAMPLES.open(encoding="utf-8") as lines:
            return list(islice(cycle([json.loads(line)["output"] for line in lines]), count))
    loaders = {**sources.TRAIN, **sources.GRADED, **sources.BENCH}
    texts: list[list[str]] = []
    for name in SOURCES:
        records = sorted(loaders[name](data), key=lambda record: hashlib.sha256(record.id.encode()).digest())
        outputs = (record.output.encode("utf-8", "ignore").decode() for record in records)
        texts.append([output for output in outputs if output.strip()])
    return [text for row in zip(*texts, strict=False) for text in row][:count]


def token_count(tokenizer: Tokenizer, text: str) -> int:
    """Tokens of a text, special tokens excluded."""
    return len(tokenizer.encode(text, add_special_tokens=False).ids)


def cut(tokenizer: Tokenizer, text: str, room: int) -> str:
    """Keep as much of the text's beginning as fits into so many tokens."""
    while len(offsets := tokenizer.encode(text, add_special_tokens=False).offsets) > room:
        text = text[: offsets[room - 1][1]]
    return text


def texts_of(tokenizer: Tokenizer, outputs: Sequence[str], tokens: int, count: int) -> Texts:
    """Texts of so many tokens: outputs cut, and where one is too short, joined with those that follow it."""
    made: list[str] = []
    rest = cycle(outputs)
    while len(made) < count:
        text = next(rest)
        while token_count(tokenizer, text) < tokens:
            text += "\n\n" + "\n\n".join(islice(rest, 1 + tokens // 500))
        made.append(cut(tokenizer, text, tokens))
    return Texts.of(str(tokens), made, tokenizer)


def figure(value: float) -> float:
    """Four significant digits: more would be noise."""
    return float(f"{value:.4g}")


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": figure(statistics.median(values)), "min": figure(min(values)), "max": figure(max(values))}


def by_turns(runs: dict[str, Callable[[], object]], rounds: int) -> Rounds:
    """Seconds of each, one after the other in every round; the first round is not counted."""
    took = [{name: timed(run) for name, run in runs.items()} for _ in range(rounds + 1)][1:]
    return {name: [one[name] for one in took] for name in runs}


def best_batch(
    contenders: Contenders, texts: Sequence[str], tried: Sequence[int], threads: int
) -> tuple[int, dict[str, Any]]:
    """Find the batch size at which sentence-transformers is quickest; also the texts a second that each size gave."""
    use_threads(threads)
    took = by_turns({str(size): partial(contenders.user.score, texts, size) for size in tried}, 2)
    speed = {size: figure(len(texts) / min(trials)) for size, trials in took.items()}
    best = max(speed, key=speed.__getitem__)
    return int(best), {"chosen": int(best), "texts_per_s": speed}


def _peak(int8: bool, threads: int, rounds: int) -> dict[str, Any]:
    rates, shape = product_peak(int8, threads, rounds)
    return {"billion_operations_per_s": spread(rates), "shape": "x".join(map(str, shape))}


def encoder_operations(model: SeverityModel, texts: Sequence[str]) -> int | None:
    """Operations in the encoder's products, attention's too, over all windows; None for a static encoder."""
    try:
        _, config = encoder_weights(onnx.load(model.path / GRAPH))
    except ValueError:
        return None
    dim, wide, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    lengths = [len(ids) for windows in model.tokens(texts) for ids in windows]
    return int(sum(layers * (2 * n * (4 * dim * dim + 2 * dim * wide) + 4 * n * n * dim) for n in lengths))


def share(bundle: Bundle, load: Texts, peaks: dict[str, Any], threads: int, rounds: int) -> dict[str, Any]:
    """How near a bundle comes to the machine's limits, as a whole and, on one thread, in its parts."""
    use_threads(threads)
    model = SeverityModel(bundle.path, threads=threads)
    tokenizer, plain = (Tokenizer.from_str(bundle.tokenizer) for _ in range(2))
    plain.normalizer = normalizers.BertNormalizer(lowercase=True)
    texts = list(load.texts)
    runs: dict[str, Callable[[], object]] = {
        "score": lambda: model.score(texts),
        "encode_batch": lambda: tokenizer.encode_batch(texts),
        "plain": lambda: plain.encode_batch(texts),
    }
    if threads == 1:  # side by side, parts do not add up
        runs["cut"] = lambda: sum(len(windows) for windows in model.tokens(texts))
    took = by_turns(runs, rounds)
    found: dict[str, Any] = {
        "score_texts_per_s": spread([len(texts) / one for one in took["score"]]),
        "tokenizer_texts_per_s": spread([len(texts) / one for one in took["encode_batch"]]),
        "tokenizer_tokens_per_s": spread([sum(load.tokens) / one for one in took["encode_batch"]]),
        "normaliser_share_of_tokenizer": spread([1 - part for part in _parts(took["plain"], took["encode_batch"])]),
        "score_share_of_tokenizer_peak": spread(_parts(took["encode_batch"], took["score"])),
    }
    inference = None
    if threads == 1:
        inference = [score - cut for score, cut in zip(took["score"], took["cut"], strict=True)]
        found["tokens_share_of_time"] = spread(_parts(took["cut"], took["score"]))
        found["inference_share_of_time"] = spread(_parts(inference, took["score"]))
    operations = encoder_operations(model, texts)
    if operations:
        for kind, peak in peaks.items():
            least = operations / peak[str(threads)]["billion_operations_per_s"]["median"] / 1e9  # seconds
            found[f"score_share_of_{kind}_peak"] = spread([least / one for one in took["score"]])
            if inference:
                found[f"inference_share_of_{kind}_peak"] = spread([least / one for one in inference])
    return found


def _parts(part: Sequence[float], whole: Sequence[float]) -> list[float]:
    """A share, round by round."""
    return [one / other for one, other in zip(part, whole, strict=True)]


def one_text(bundles: Sequence[Bundle], outputs: Sequence[str], tokenizer: Tokenizer, plan: Plan) -> dict[str, Any]:
    """The cost of one text against its length, all threads; and the power of the length that it grows with."""
    models = {bundle.card["name"]: SeverityModel(bundle.path) for bundle in bundles}
    found: dict[str, Any] = {name: {"threads": model.threads, "points": []} for name, model in models.items()}
    for tokens in plan.one_text:
        load = texts_of(tokenizer, outputs, tokens, 1)
        bench = Bench(plan, {name: model.score for name, model in models.items()}, results.cores())
        for name, one in bench.cell(load, 1, limit=plan.budget)["systems"].items():
            found[name]["points"].append({"tokens": load.tokens[0], "seconds": spread(one["rounds"])})
    for one in found.values():
        longer = [point for point in one["points"] if point["tokens"] >= 2000]
        one["power"] = power([(point["tokens"], point["seconds"]["median"]) for point in longer])
    return found


def power(points: Sequence[tuple[float, float]]) -> float | None:
    """The slope of the logarithms, 1 where cost is in proportion; None for a single point."""
    if len(points) < 2:
        return None
    sizes, costs = np.log(np.array(points)).T
    return figure(float(np.polyfit(sizes, costs, 1)[0]))


def many_texts(bundle: Bundle, texts: Sequence[str], plan: Plan, budget: float) -> dict[str, Any]:
    """The cost of many short texts, in a process of its own (`benchmarks.scale`), and the memory of that process."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "texts.json"
        file.write_text(json.dumps(list(texts)), encoding="utf-8")
        command = [sys.executable, "-m", "benchmarks.scale", str(bundle.path.resolve()), str(file)]
        command += ["--threads", str(results.cores()), "--most", str(plan.texts), "--budget", str(budget)]
        done = subprocess.run(command, cwd=results.ROOT, stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    points = [(run["texts"], run["seconds"]) for run in found["runs"]]
    found["power"] = power(points[1:])  # the first run is too short to say much
    return found


def cold_start(bundles: Sequence[Bundle], heads: Sequence[Any], runs: int) -> dict[str, Any]:
    """Fresh processes, by turns, from their start to the first score printed."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "heads.joblib"
        joblib.dump(heads, file)
        code = {
            bundle.card["name"]: COLD_OURS.format(model=str(bundle.path.resolve()), text=HELLO) for bundle in bundles
        }
        code["user"] = COLD_PEER.format(encoder=str(ENCODER), text=HELLO, heads=str(file))
        done = [{name: fresh_process(script + COLD_REPORT) for name, script in code.items()} for _ in range(runs + 1)]
    keys = ("first_score_seconds", "import_seconds", "peak_megabytes")
    systems = {name: {key: [figure(run[name][key]) for run in done[1:]] for key in keys} for name in code}
    return {"runs": runs, "systems": systems}


def fresh_process(script: str) -> dict[str, float]:
    """Run one child, timed from outside until its first line arrives."""
    quiet = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}  # nobody waits for a network
    command = [sys.executable, "-c", script]
    start = time.perf_counter()
    with subprocess.Popen(command, cwd=results.ROOT, env=quiet, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        first = child.stdout.readline()
        took = time.perf_counter() - start
        rest = child.stdout.read()
    if child.returncode != 0 or not first:
        raise RuntimeError(f"a cold start ended with exit code {child.returncode}; what it said stands above")
    return {"first_score_seconds": took, **json.loads(rest)}


def limits(bundles: Sequence[Bundle], load: Texts, plan: Plan) -> dict[str, Any]:
    """What the machine can do at most, and our share of it."""
    counts = sorted({1, results.cores()})
    peaks = {
        kind: {str(threads): _peak(kind == "int8", threads, plan.rounds) for threads in counts}
        for kind in ("int8", "float32")
    }
    ours = {
        bundle.card["name"]: {str(threads): share(bundle, load, peaks, threads, plan.rounds) for threads in counts}
        for bundle in bundles
    }
    return {"texts": load.name, "products": peaks, "bundles": ours}


def compare(
    contenders: Contenders, loads: dict[str, Texts], ours: Sequence[str], plan: Plan
) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """The batch sizes of sentence-transformers, the headline cells and the whole grid, at one thread and at all."""
    batches, headline, grid = {}, [], []
    for threads in sorted({1, results.cores()}):
        some = loads["natural"].texts[: plan.trial_texts]
        batch, batches[str(threads)] = best_batch(contenders, some, plan.tried, threads)
        bench = Bench(plan, contenders.at(threads, batch), threads)
        for name in ("equal", "natural"):
            say(f"{name} texts, threads {threads}")
            count, names = plan.headline_texts, (*ours, "user")
            load = Texts(name, loads[name].texts[:count], loads[name].tokens[:count])
            headline.append(bench.cell(load, count, names, plan.headline_rounds, limit=float("inf")))
        for name in (*map(str, plan.lengths), "natural"):
            for size in plan.batches:
                say(f"texts {name}, batch {size}, threads {threads}")
                grid.append(bench.cell(loads[name], size))
    return batches, headline, grid


def say(what: str, start: float = time.monotonic()) -> None:  # the start of the run
    """What is being measured, and when."""
    print(f"{time.monotonic() - start:6.0f} s  {what}", flush=True)


def main(
    data: Annotated[Path | None, typer.Option(help="Raw data sets. [default: the examples, repeated]")] = None,
    model: Annotated[
        list[str] | None, typer.Option("-m", "--model", help="Bundles, the first of them base. [default: all shipped]")
    ] = None,
    out: Annotated[Path, typer.Option(help="The JSON to write.")] = results.FOLDER / "speed.json",
    quick: Annotated[bool, typer.Option("--quick", help="See that it runs, in a minute or two.")] = False,
    whole_million: Annotated[
        bool, typer.Option("--whole-million", help="Let every bundle score a million texts, twelve minutes more.")
    ] = False,
) -> None:
    """Measure scoring against its peers and the machine. About ten minutes on two idle cores."""
    plan = QUICK if quick else FULL
    stamp = results.stamp(results.command_line("benchmarks.speed"), PACKAGES)
    shipped = sorted(path.parent.name for path in shelf().glob(f"*/{CARD}"))
    bundles = [read_bundle(find_bundle(name)) for name in model or shipped]
    ours = [bundle.card["name"] for bundle in bundles]
    tokenizer = Tokenizer.from_str(bundles[0].tokenizer)
    tokenizer.no_truncation()
    say("reading the texts")
    outputs = read_texts(data, 16 * plan.pool)
    natural = Texts.of("natural", outputs[: plan.pool], tokenizer)
    loads = {str(tokens): texts_of(tokenizer, outputs, tokens, plan.pool) for tokens in plan.lengths}
    loads["natural"] = natural
    loads["equal"] = Texts.of("equal", [cut(tokenizer, text, PEER_TOKENS - 2) for text in natural.texts], tokenizer)
    short = texts_of(tokenizer, outputs, SHORT_TOKENS, 4 * plan.pool)

    say("many texts, in processes of their own")
    budget = float("inf") if whole_million else plan.budget
    many = {bundle.card["name"]: many_texts(bundle, short.texts, plan, budget) for bundle in bundles}
    say("the machine's limits")
    machine = limits(bundles, natural, plan)
    say("one text, short to very long")
    longer = one_text(bundles, outputs, tokenizer, plan)
    say("loading the peers")
    contenders = Contenders(bundles, tokenizer, outputs)
    say("cold starts")
    cold = cold_start(bundles, contenders.heads, plan.cold_runs)
    batches, headline, grid = compare(contenders, loads, ours, plan)
    say("done")

    here = [name for name in TITLES if name not in contenders.absent]
    found = {
        "stamp": stamp,
        "minutes": round((time.monotonic() - START) / 60, 1),
        "bundles": {
            bundle.card["name"]: {"version": bundle.card["version"], "sha256": bundle.card["sha256"][GRAPH]}
            for bundle in bundles
        },
        "peers": {name: {"title": TITLES[name], "what": WHAT[name]} for name in here},
        "absent": contenders.absent,
        "guards": contenders.types,
        "user_batch_size": batches,
        "sources": ", ".join(SOURCES) if data else f"{EXAMPLES.relative_to(results.ROOT).as_posix()}, repeated",
        "limit_seconds": plan.limit,
        "texts": {name: load.describe() for name, load in loads.items()},
        "headline": headline,
        "grid": grid,
        "machine": machine,
        "one_text": longer,
        "many_texts": many,
        "cold_start": cold,
    }
    results.write(out, found)
    say(f"written to {out}; python -m benchmarks.tables lays it out")


if __name__ == "__main__":
    typer.run(main)
