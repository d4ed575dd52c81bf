"""Load a bundle and score outputs with it. The only file that names onnxruntime or tokenizers.

A long output is read in overlapping windows and its worst window counts; what it says in an encoding is read in the
place of the encoded form (see `decode`). Every window is a run of its own, unpadded, on one single-threaded session
shared by a pool of threads: int8 activations are scaled per run, so a window that shared its run with others would
score differently among other neighbours.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from tokenizers import Tokenizer

from severity_clf.bundle import GRAPH, TOKENIZER, BundleError, find_bundle, read_bundle
from severity_clf.decode import decoded
from severity_clf.scores import Scores

Float = npt.NDArray[np.float32]
BLOCK = 256  # texts tokenised and held in memory at a time
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """What the graph gives for each window of some texts.

    Attributes:
        text: int [window], the index of the text each window belongs to; a text that cannot be scored has no window.
        spans: int32 [window, 2], where the window starts and ends, in characters of its output; of a decoded passage,
            where its encoded form does.
        embedding: float32 [window, dim], of unit length.
        buckets: one int array a window, rows of the n-gram table; a number that reaches the table's size is no n-gram.
        exceed: float32 [window, domain, level-1], or None for a bundle without heads.
    """

    text: npt.NDArray[np.intp]
    spans: npt.NDArray[np.int32]
    embedding: Float
    buckets: list[npt.NDArray[np.int64]]
    exceed: Float | None

    @property
    def first(self) -> npt.NDArray[np.intp]:
        """int, the index of the first window of each text that has one."""
        return np.flatnonzero(np.diff(self.text, prepend=-1))


def load(model: str | os.PathLike[str] = "base", *, threads: int | None = None) -> SeverityModel:
    """Load a shipped bundle by name, or any bundle by path.

    Args:
        model: a shipped bundle's name, such as `"base"`, or the path of a bundle.
        threads: windows scored side by side; by default, the number of CPUs this process may use.

    Raises:
        BundleError: the bundle is missing, damaged or of another format; the message names the file.
    """
    return SeverityModel(model, threads=threads)


class SeverityModel:
    """A loaded bundle. Safe to share between threads, to pickle, and to use after a fork.

    Attributes:
        taxonomy: the levels and domains it scores.
        card: the content of `bundle.json`.
        threads: windows scored side by side.
    """

    def __init__(self, model: str | os.PathLike[str] = "base", *, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}")
        self._path = find_bundle(model).resolve()  # a worker that unpickles it may stand in another folder
        self.threads = threads or _cpus()
        self._open()

    def _open(self) -> None:
        bundle = read_bundle(self._path)
        self.card, self.taxonomy = bundle.card, bundle.taxonomy
        self._threshold, self._conformal = bundle.threshold, bundle.conformal
        self._prompt_tokens = int(bundle.card["prompt_tokens"])
        try:
            self._tokenizer = Tokenizer.from_str(bundle.tokenizer)
            self._vocabulary = self._tokenizer.get_vocab()
            # Truncation is what cuts windows: without it, long outputs would run past the encoder's positions.
            cut = self._tokenizer.truncation
            if not cut or cut["stride"] < self._prompt_tokens:
                raise ValueError(f"windows must overlap by at least the {self._prompt_tokens} tokens of a prompt")
        except Exception as error:  # tokenizers raises bare Exception
            raise BundleError(
                f"{self._path / TOKENIZER}: {type(error).__name__}: {error}; export the bundle again"
            ) from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(bundle.graph), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own types share no other base
            raise BundleError(
                f"{self._path / GRAPH}: {type(error).__name__}: {error}; export the bundle again"
            ) from None
        names = [output.name for output in self._session.get_outputs()]
        # Graphs used to take a mask, which has been all ones ever since windows run alone.
        self._masked = any(value.name == "attention_mask" for value in self._session.get_inputs())
        self._outputs = [name for name in ("embedding", "buckets", "exceed") if name in names]
        shape = next((output.shape[1:] for output in self._session.get_outputs() if output.name == "exceed"), None)
        wanted = [len(self.taxonomy.domains), self.taxonomy.top]
        if shape not in (None, wanted):
            raise BundleError(f"{self._path / GRAPH}: exceed is {shape}, the taxonomy in bundle.json wants {wanted}")
        self._pool = ThreadPoolExecutor(self.threads, "sevclf") if self.threads > 1 else None
        self._pid = os.getpid()

    # A path, not a session: sessions and thread pools cannot be pickled.
    def __getstate__(self) -> dict[str, Any]:
        return {"path": self._path, "threads": self.threads, "sha256": self.card["sha256"]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._path, self.threads = state["path"], state["threads"]
        self._open()
        if self.card["sha256"] != state["sha256"]:
            raise BundleError(f"{self._path}: the bundle changed after this model was pickled; load it again")

    @property
    def path(self) -> Path:
        """The bundle's folder."""
        return self._path

    def __repr__(self) -> str:
        return f"SeverityModel({str(self._path)!r}, threads={self.threads})"

    def score(self, outputs: Iterable[str | None], prompts: Iterable[str | None] | None = None) -> Scores:
        """Severity of each output in every domain.

        Args:
            outputs: what the model wrote; None and texts without a single token cannot be scored (see `Scores`).
            prompts: what it was asked, as context; None, or one for each output, None where there is none.

        Raises:
            TypeError: `outputs` or `prompts` is a bare string, or holds something that is neither str nor None.
            ValueError: `prompts` has another length than `outputs`.
            BundleError: the bundle has no heads.
        """
        outputs, prompts = _texts(outputs, prompts)
        if "exceed" not in self._outputs:
            raise BundleError(f"{self._path / GRAPH}: an encoder without heads cannot score; fit heads first")
        shape = (len(outputs), len(self.taxonomy.domains))
        exceed = np.full((*shape, self.taxonomy.top), np.nan, np.float32)
        spans = np.zeros((*shape, 2), np.int32)
        for windows in self._blocks(outputs, prompts):
            if not len(windows.text):
                continue
            assert windows.exceed is not None
            first = windows.first
            rows = windows.text[first]
            exceed[rows] = np.maximum.reduceat(windows.exceed, first)
            severity = windows.exceed.sum(axis=2)  # [window, domain]
            for row, start, stop in zip(rows, first, np.append(first[1:], len(severity)), strict=True):
                spans[row] = windows.spans[start + severity[start:stop].argmax(axis=0)]
        return Scores(self.taxonomy, exceed, spans, self._threshold, self._conformal)

    def windows(self, outputs: Iterable[str | None], prompts: Iterable[str | None] | None = None) -> Windows:
        """What `score` is made of: every window of every output, with its place, embedding and probabilities.

        Raises:
            TypeError, ValueError: as `score`.
        """
        outputs, prompts = _texts(outputs, prompts)
        blocks = list(self._blocks(outputs, prompts))
        return Windows(
            np.concatenate([block.text for block in blocks]),
            np.concatenate([block.spans for block in blocks]),
            np.concatenate([block.embedding for block in blocks]),
            list(chain.from_iterable(block.buckets for block in blocks)),
            np.concatenate([block.exceed for block in blocks]) if "exceed" in self._outputs else None,
        )

    def tokens(
        self, outputs: Iterable[str | None], prompts: Iterable[str | None] | None = None
    ) -> Iterator[list[list[int]]]:
        """The token ids of each output's windows, as the graph reads them; none for a text that cannot be scored.

        Raises:
            TypeError, ValueError: as `score`.
        """
        outputs, prompts = _texts(outputs, prompts)
        for output, prompt in zip(outputs, prompts or [None] * len(outputs), strict=True):
            yield [ids for ids, _ in self._tokenize(output, prompt)]

    def embed(
        self, outputs: Iterable[str | None], prompts: Iterable[str | None] | None = None
    ) -> tuple[Float, npt.NDArray[np.intp]]:
        """The encoder's view of each window: float32 [window, dim], and int [window], the text each belongs to.

        Raises:
            TypeError, ValueError: as `score`.
        """
        windows = self.windows(outputs, prompts)
        return windows.embedding, windows.text

    def _blocks(self, outputs: Sequence[str | None], prompts: Sequence[str | None] | None) -> Iterator[Windows]:
        if os.getpid() != self._pid:  # forked: the pool's threads and perhaps a held lock of the session stayed behind
            self._open()
        prompts = prompts or [None] * len(outputs)
        for start in range(0, len(outputs) or 1, BLOCK):  # no outputs give one block of no windows
            yield self._run(start, outputs[start : start + BLOCK], prompts[start : start + BLOCK])

    def _run(self, start: int, outputs: Sequence[str | None], prompts: Sequence[str | None]) -> Windows:
        text: list[int] = []
        spans: list[tuple[int, int]] = []
        tokens: list[list[int]] = []
        for index, (output, prompt) in enumerate(zip(outputs, prompts, strict=True), start):
            for ids, span in self._tokenize(output, prompt):
                text.append(index)
                spans.append(span)
                tokens.append(ids)
        run = self._pool.map if self._pool else map
        results = list(run(self._run_window, tokens))
        embedding, buckets, *exceed = zip(*results, strict=True) if results else [()] * len(self._outputs)
        dim = self._session.get_outputs()[0].shape[1]
        return Windows(
            np.array(text, np.intp),
            np.array(spans, np.int32).reshape(len(spans), 2),
            np.array(embedding, np.float32).reshape(len(spans), dim),
            list(buckets),
            np.array(exceed[0], np.float32).reshape(len(spans), len(self.taxonomy.domains), self.taxonomy.top)
            if exceed
            else None,
        )

    def _run_window(self, ids: list[int]) -> list[npt.NDArray[Any]]:
        input_ids = np.array([ids], np.int64)
        feed = {"input_ids": input_ids}
        if self._masked:
            feed["attention_mask"] = np.ones_like(input_ids)
        results = self._session.run(self._outputs, feed)
        return [result[0] for result in results]

    def _tokenize(self, output: str | None, prompt: str | None) -> Iterator[tuple[list[int], tuple[int, int]]]:
        """Token ids and character span of each window: `[CLS] output [SEP]`, then `prompt [SEP]` if there is one.

        The output is read as decoded; spans are those of the output as given.
        """
        if output is None:
            return
        context: list[int] = []
        if prompt:
            whole = self._tokenizer.encode(_utf8(prompt), add_special_tokens=False)
            # The end of a prompt asks; its last window holds at least the overlap, which is no shorter than the budget.
            context = (whole.overflowing or [whole])[-1].ids[-self._prompt_tokens :]
        hidden = decoded(output, self._vocabulary)
        for ids, span in self._cut(hidden.text if hidden else output):
            yield ids + context + ids[-1:] if context else ids, hidden.span(*span) if hidden else span

    def _cut(self, text: str) -> Iterator[tuple[list[int], tuple[int, int]]]:
        """Token ids, with [CLS] and [SEP], and character span of each window that has a token."""
        whole = self._tokenizer.encode(_utf8(text))
        for window in (whole, *whole.overflowing):
            ids, offsets = window.ids, window.offsets
            if len(ids) > 2:  # more than [CLS] and [SEP]
                yield ids, (offsets[1][0], offsets[-2][1])


def _utf8(text: str) -> str:
    """The text with lone surrogates, which have no UTF-8 form, replaced one for one."""
    return _SURROGATE.sub("\ufffd", text)


def _texts(
    outputs: Iterable[str | None], prompts: Iterable[str | None] | None
) -> tuple[list[str | None], list[str | None] | None]:
    """Both as lists, or the error that says what is wrong with them."""
    lists: list[list[str | None]] = []
    for name, texts in (("outputs", outputs), ("prompts", prompts if prompts is not None else ())):
        if isinstance(texts, (str, bytes, Mapping)) or not isinstance(texts, Iterable):
            raise TypeError(f"{name} must be a sequence of strings, got one {type(texts).__name__}; pass [text]")
        lists.append(list(texts))
        for index, text in enumerate(lists[-1]):
            if not isinstance(text, str) and text is not None:
                raise TypeError(f"{name}[{index}] is {type(text).__name__}, want str, or None for no text")
    if prompts is None:
        return lists[0], None
    if len(lists[0]) != len(lists[1]):
        raise ValueError(f"got {len(lists[0])} outputs and {len(lists[1])} prompts; want one prompt for each output")
    return lists[0], lists[1]


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
