"""Load a bundle and score outputs with it. The only file that names onnxruntime or tokenizers.

A long output is read in overlapping windows and its worst window counts; what it says in an encoding is read in the
place of the encoded form (see `decode`). Every window is a run of its own, unpadded, on one single-threaded session
shared by a pool of threads: int8 activations are scaled per run, so a window that shared its run with others would
score differently among other neighbours.

A thread takes a few texts at a time, cuts them into windows and runs them, so that some are tokenised while others are
scored; the further windows of long texts are shared out among all threads. Texts are taken from their source as threads
need them, and results come in order. Idle threads sleep.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from tokenizers import Encoding, Tokenizer, normalizers

from severity_clf.bundle import GRAPH, TOKENIZER, BundleError, find_bundle, read_bundle
from severity_clf.cpus import usable_cpus
from severity_clf.decode import decoded
from severity_clf.plain import DROPPED, STEPS, is_plain
from severity_clf.scores import Scores

Float = npt.NDArray[np.float32]
Results = list[npt.NDArray[Any]]  # the graph's outputs for one window, [1, ...] each
Pair = tuple[str | None, str | None]  # output, prompt
BLOCK = 256  # outputs whose scores are handed out together
PIECE, PIECE_CHARACTERS = 16, 4096  # what a thread takes at a time: so many texts, begun within so many characters
AHEAD = 4  # pieces for each thread that are read from the source before the first of them is handed out
SHARE = 2  # further windows of long texts that a thread takes at a time
SHORT = 1000  # characters of a plain text that is nearly sure to fit in one window
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


@dataclass(frozen=True, slots=True)
class _Piece:
    """Consecutive texts and their windows.

    Attributes:
        start, end: the indices of the first text and of the one after the last.
        text, spans: as in `Windows`, as lists.
        results: what each window's run gave.
        rest: runs of windows at the end that are not in `results` yet.
    """

    start: int
    end: int
    text: list[int]
    spans: list[tuple[int, int]]
    results: list[Results]
    rest: list[Future[list[Results]]]

    def whole(self) -> _Piece:
        """The same with all results, once they are there."""
        for future in self.rest:
            self.results.extend(future.result())
        self.rest.clear()
        return self


def load(model: str | os.PathLike[str] = "base", *, threads: int | None = None) -> SeverityModel:
    """Load a shipped bundle by name, or any bundle by path.

    Args:
        model: a shipped bundle's name, such as `"base"`, or the path of a bundle.
        threads: windows scored side by side; by default, the CPUs that this process may use: no more than its
            container's quota, nor than OMP_NUM_THREADS, which launchers of several processes set.

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
        self.threads = threads or usable_cpus()
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
            self._shortcut = _shortcut(self._tokenizer)
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
        self._outputs = [name for name in ("embedding", "buckets", "exceed") if name in names]
        shapes = {output.name: output.shape[1:] for output in self._session.get_outputs() if output.name != "buckets"}
        shape = shapes.get("exceed")
        wanted = [len(self.taxonomy.domains), self.taxonomy.top]
        if shape not in (None, wanted):
            raise BundleError(f"{self._path / GRAPH}: exceed is {shape}, the taxonomy in bundle.json wants {wanted}")
        self._none = {name: np.empty((0, *shape), np.float32) for name, shape in shapes.items()}
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
        self._check_heads()
        shape = (len(outputs), len(self.taxonomy.domains))
        exceed = np.empty((*shape, self.taxonomy.top), np.float32)
        spans = np.empty((*shape, 2), np.int32)
        row = 0
        for block in self._scored(zip(outputs, prompts, strict=True), BLOCK, len(outputs)):
            exceed[row : row + len(block)], spans[row : row + len(block)] = block.exceed, block.spans
            row += len(block)
        return Scores(self.taxonomy, exceed, spans, self._threshold, self._conformal)

    def stream(
        self, outputs: Iterable[str | None], prompts: Iterable[str | None] | None = None, *, size: int = BLOCK
    ) -> Iterator[Scores]:
        """Severity of outputs that are too many to hold, or not there yet, in blocks.

            for scores in model.stream(outputs):
                keep(scores.safety)

        Every row is what `score` gives. Work goes on between blocks, and stops when the iterator is closed or left to
        the garbage collector. Outputs and prompts are read side by side: of one source, make two with `itertools.tee`.

        Args:
            outputs, prompts: as for `score`, and as long as they like. At most `size` outputs, and 64 more for each
                thread, are read before their scores are handed out, fewer where they are long.
            size: outputs in a block; only the last has fewer.

        Yields:
            The scores of the next `size` outputs, in order.

        Raises:
            TypeError, ValueError, BundleError: as `score`, and whatever the iterables raise. What is wrong with a text
                is raised in its place, after the scores of all before it; all else at once.
        """
        self._check_heads()
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        context = repeat(None) if prompts is None else _checked("prompts", prompts)
        pairs = _paired(_checked("outputs", outputs), context, endless=prompts is None)
        return self._streamed(pairs, size)

    def windows(self, outputs: Iterable[str | None], prompts: Iterable[str | None] | None = None) -> Windows:
        """What `score` is made of: every window of every output, with its place, embedding and probabilities.

        Raises:
            TypeError, ValueError: as `score`.
        """
        outputs, prompts = _texts(outputs, prompts)
        pieces = list(self._pieces(zip(outputs, prompts, strict=True), self._outputs, BLOCK, len(outputs)))
        return Windows(
            np.array([text for piece in pieces for text in piece.text], np.intp),
            _spans(pieces),
            self._joined(pieces, "embedding", 0),
            [results[1][0] for piece in pieces for results in piece.results],
            self._joined(pieces, "exceed", 2) if "exceed" in self._outputs else None,
        )

    def tokens(
        self, outputs: Iterable[str | None], prompts: Iterable[str | None] | None = None
    ) -> Iterator[list[list[int]]]:
        """The token ids of each output's windows, as the graph reads them; none for a text that cannot be scored.

        Raises:
            TypeError, ValueError: as `score`.
        """
        outputs, prompts = _texts(outputs, prompts)
        for output, prompt in zip(outputs, prompts, strict=True):
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

    def _check_heads(self) -> None:
        if "exceed" not in self._outputs:
            raise BundleError(f"{self._path / GRAPH}: an encoder without heads cannot score; fit heads first")

    def _streamed(self, pairs: Iterator[Pair], size: int) -> Iterator[Scores]:
        failure: list[Exception] = []
        yield from self._scored(_until_failure(pairs, failure), size)
        if failure:
            raise failure[0]

    def _scored(self, pairs: Iterator[Pair], size: int, total: int | None = None) -> Iterator[Scores]:
        """The scores of `size` texts at a time; the last block has fewer."""
        pieces: list[_Piece] = []
        for piece in self._pieces(pairs, ["exceed"], size, total):
            pieces.append(piece)
            if piece.end % size == 0:
                yield self._block(pieces)
                pieces = []
        if pieces:
            yield self._block(pieces)

    def _block(self, pieces: list[_Piece]) -> Scores:
        start, end = pieces[0].start, pieces[-1].end
        shape = (end - start, len(self.taxonomy.domains))
        exceed = np.full((*shape, self.taxonomy.top), np.nan, np.float32)
        spans = np.zeros((*shape, 2), np.int32)
        text = np.array([text for piece in pieces for text in piece.text], np.intp) - start
        if len(text):
            first = np.flatnonzero(np.diff(text, prepend=-1))
            exceed[text[first]], spans[text[first]] = _worst(self._joined(pieces, "exceed", 0), _spans(pieces), first)
        return Scores(self.taxonomy, exceed, spans, self._threshold, self._conformal)

    def _joined(self, pieces: list[_Piece], name: str, at: int) -> Float:
        """One output of every window's run, float32 [window, ...]."""
        return np.concatenate([self._none[name], *(results[at] for piece in pieces for results in piece.results)])

    def _pieces(self, pairs: Iterator[Pair], names: list[str], size: int, total: int | None = None) -> Iterator[_Piece]:
        """All texts' windows and what the graph gives for them, in order, a few texts at a time.

        Args:
            pairs: at most AHEAD pieces for each thread are read ahead.
            names: the graph's outputs to give.
            size: no piece lies across a multiple of it.
            total: how many texts there are, if that is known: then the last pieces are small, and all threads end at
                nearly the same time.
        """
        if os.getpid() != self._pid:  # forked: the pool's threads and perhaps a held lock of the session stayed behind
            self._open()
        stop = threading.Event()
        batches = _batches(pairs, size, total, self.threads)
        if self._pool is None:
            yield from (self._run(start, batch, names, stop) for start, batch in batches)
            return
        waiting: deque[Future[_Piece]] = deque()
        try:
            for start, batch in batches:
                waiting.append(self._pool.submit(self._run, start, batch, names, stop))
                if len(waiting) > AHEAD * self.threads:
                    yield waiting.popleft().result().whole()
            while waiting:
                yield waiting.popleft().result().whole()
        finally:
            stop.set()
            for future in waiting:
                future.cancel()

    def _run(self, start: int, batch: list[Pair], names: list[str], stop: threading.Event) -> _Piece:
        """Cut some texts, and run as many windows as there are texts; the rest is for whichever thread is free."""
        text: list[int] = []
        spans: list[tuple[int, int]] = []
        tokens: list[list[int]] = []
        for index, (output, prompt) in enumerate(batch, start):
            for ids, span in self._tokenize(output, prompt):
                text.append(index)
                spans.append(span)
                tokens.append(ids)
        own = len(batch) if self._pool else len(tokens)
        rest = [
            self._pool.submit(self._run_windows, tokens[at : at + SHARE], names, stop)
            for at in range(own, len(tokens), SHARE)
            if self._pool and not stop.is_set()
        ]
        return _Piece(start, start + len(batch), text, spans, self._run_windows(tokens[:own], names, stop), rest)

    def _run_windows(self, tokens: list[list[int]], names: list[str], stop: threading.Event) -> list[Results]:
        """The named outputs of each window's run; none any more once nobody waits for them."""
        return [
            self._session.run(names, {"input_ids": np.array([ids], np.int64)}) for ids in tokens if not stop.is_set()
        ]

    def _tokenize(self, output: str | None, prompt: str | None) -> Iterator[tuple[list[int], tuple[int, int]]]:
        """Token ids and character span of each window: `[CLS] output [SEP]`, then `prompt [SEP]` if there is one.

        The output is read as decoded; spans are those of the output as given.
        """
        if output is None:
            return
        context: list[int] = []
        if prompt:
            whole = self._encode(prompt, special=False)
            # The end of a prompt asks; its last window holds at least the overlap, which is no shorter than the budget.
            context = (whole.overflowing or [whole])[-1].ids[-self._prompt_tokens :]
        hidden = decoded(output, self._vocabulary)
        for ids, span in self._cut(hidden.text if hidden else output):
            yield ids + context + ids[-1:] if context else ids, hidden.span(*span) if hidden else span

    def _cut(self, text: str) -> Iterator[tuple[list[int], tuple[int, int]]]:
        """Token ids, with [CLS] and [SEP], and character span of each window that has a token."""
        if self._shortcut and len(text) <= SHORT and is_plain(text):
            (whole,) = self._shortcut.encode_batch_fast([text])  # without offsets, which the text itself tells
            if not whole.overflowing:
                if len(whole.ids) > 2:
                    yield whole.ids, (len(text) - len(text.lstrip(DROPPED)), len(text.rstrip(DROPPED)))
                return
        whole = self._encode(text)
        for window in (whole, *whole.overflowing):
            ids = window.ids
            if len(ids) > 2:  # more than [CLS] and [SEP]
                first, last = window.token_to_chars(1), window.token_to_chars(len(ids) - 2)
                assert first and last
                yield ids, (first[0], last[1])

    def _encode(self, text: str, special: bool = True) -> Encoding:
        """A batch of one is encoded in this thread, as `encode` does, but without keeping all others from running."""
        tokenizer = self._shortcut if self._shortcut and is_plain(text) else self._tokenizer
        return tokenizer.encode_batch([_utf8(text)], add_special_tokens=special)[0]


def _shortcut(tokenizer: Tokenizer) -> Tokenizer | None:
    """The same tokenizer without the steps that leave plain texts as they are; None if it has other ones."""
    steps = json.loads(tokenizer.normalizer.__getstate__()) if tokenizer.normalizer else {}
    *first, own = steps.get("normalizers") or [{}]
    known = hashlib.sha256(json.dumps(first, sort_keys=True).encode()).hexdigest() == STEPS
    if not known or own.pop("type") != "BertNormalizer":
        return None
    cut = tokenizer.truncation
    if not cut or tokenizer.padding or tokenizer.get_added_tokens_decoder():
        return None
    shortcut = Tokenizer(tokenizer.model)  # which is shared
    shortcut.normalizer = normalizers.BertNormalizer(**own)
    shortcut.pre_tokenizer, shortcut.post_processor = tokenizer.pre_tokenizer, tokenizer.post_processor
    shortcut.enable_truncation(**cut)
    return shortcut


def _utf8(text: str) -> str:
    """The text with lone surrogates, which have no UTF-8 form, replaced one for one."""
    return _SURROGATE.sub("\ufffd", text)


def _texts(
    outputs: Iterable[str | None], prompts: Iterable[str | None] | None
) -> tuple[list[str | None], list[str | None]]:
    """Both as lists of one length, or the error that says what is wrong with them."""
    texts = list(_checked("outputs", outputs))
    if prompts is None:
        return texts, [None] * len(texts)
    context = list(_checked("prompts", prompts))
    if len(texts) != len(context):
        raise ValueError(f"got {len(texts)} outputs and {len(context)} prompts; want one prompt for each output")
    return texts, context


def _checked(name: str, texts: Iterable[str | None]) -> Iterator[str | None]:
    """The texts; what cannot hold texts is refused at once, what is no text when its turn comes."""
    if isinstance(texts, (str, bytes, Mapping)) or not isinstance(texts, Iterable):
        raise TypeError(f"{name} must be a sequence of strings, got one {type(texts).__name__}; pass [text]")

    def each() -> Iterator[str | None]:
        for index, text in enumerate(texts):
            if not isinstance(text, str) and text is not None:
                raise TypeError(f"{name}[{index}] is {type(text).__name__}, want str, or None for no text")
            yield text

    return each()


def _paired(outputs: Iterator[str | None], prompts: Iterator[str | None], endless: bool) -> Iterator[Pair]:
    """Each output with its prompt; prompts that are not endless must end together with the outputs."""
    nothing: Any = object()
    count = 0
    for count, output in enumerate(outputs, 1):
        prompt = next(prompts, nothing)
        if prompt is nothing:
            raise ValueError(f"got {count} outputs or more and {count - 1} prompts; want one prompt for each output")
        yield output, prompt
    if not endless and next(prompts, nothing) is not nothing:
        raise ValueError(f"got {count} outputs and {count + 1} prompts or more; want one prompt for each output")


def _until_failure(pairs: Iterator[Pair], failure: list[Exception]) -> Iterator[Pair]:
    """The pairs before the first that cannot be had; the reason is left in `failure`."""
    try:
        yield from pairs
    except Exception as error:
        failure.append(error)


def _batches(pairs: Iterator[Pair], size: int, total: int | None, threads: int) -> Iterator[tuple[int, list[Pair]]]:
    """What a thread takes at a time, with the index of its first text; see `SeverityModel._pieces`."""
    start, batch, characters = 0, [], 0
    for index, pair in enumerate(pairs):
        batch.append(pair)
        characters += len(pair[0] or "") + len(pair[1] or "")
        left = PIECE if total is None else (total - start) // (4 * threads)
        if len(batch) >= min(PIECE, left) or characters >= PIECE_CHARACTERS or (index + 1) % size == 0:
            yield start, batch
            start, batch, characters = index + 1, [], 0
    if batch:
        yield start, batch


def _spans(pieces: list[_Piece]) -> npt.NDArray[np.int32]:
    """int32 [window, 2]."""
    return np.array([span for piece in pieces for span in piece.spans], np.int32).reshape(-1, 2)


def _worst(
    exceed: Float, spans: npt.NDArray[np.int32], first: npt.NDArray[np.intp]
) -> tuple[Float, npt.NDArray[np.int32]]:
    """Of windows, [text, domain, level-1] the highest at every level, and [text, domain, 2] where the severest is.

    Args:
        exceed: float32 [window, domain, level-1].
        spans: int32 [window, 2].
        first: int [text], the index of each text's first window.
    """
    severity = exceed.sum(axis=2)  # [window, domain]
    highest = np.repeat(np.maximum.reduceat(severity, first), np.diff(first, append=len(severity)), axis=0)
    places = np.where(severity == highest, np.arange(len(severity))[:, None], len(severity))
    return np.maximum.reduceat(exceed, first), spans[np.minimum.reduceat(places, first)]
