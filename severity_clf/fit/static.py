"""Train a static encoder with the n-gram table and all heads, on interval labels and on what a teacher says.

Its tokens are looked up and added; none attends to another, only neighbours meet:

    bag       = sum of bag[token] over the output's words / sqrt(their number)
    asked     = the same over the prompt's words, 0 without a prompt
    pair      = highest left[word] + right[next word], or 0 if that is lower
    embedding = out . relu(mix . (bag, asked, pair)), scaled to unit length

Heads, n-gram table, windows and the loss of labels are those of `finetune`. A teacher adds, for each text, the
cross-entropy of its levels in every domain. What comes out is a directory for `graph.static_graph`, which rounds the
tables to int8, with `heads.npz` beside the weights. Only the recipe imports this file. Needs the extra `finetune`.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import nn
from torch.nn import functional

from severity_clf.bundle import read_bundle
from severity_clf.fit.finetune import (
    HEADS,
    SOURCE_PENALTY,
    Batch,
    Corpus,
    Net,
    by_text,
    loss_of,
    rate_at,
    shares,
    take_up,
)
from severity_clf.fit.graph import BUCKETS
from severity_clf.model import SeverityModel
from severity_clf.records import Record, label_array
from severity_clf.taxonomy import Taxonomy

RATES = {"tokens": 1e-3, "mix": 1e-3, "heads": 2e-3, "table": 5e-3}  # peak learning rates of Adam
DROP = {"words": 0.2, "grams": 0.1}
BETAS = (0.9, 0.98)
OVERALL, DOMAIN = 1.0, 0.3  # what a teacher's levels weigh, overall and in each other domain, beside a label's 1
RARE = 1e-3  # a word of this share of all words starts with half the weight of one never seen


@dataclass(frozen=True, slots=True)
class Size:
    """How wide a static encoder is: the bag's vectors, the pairs', the hidden layer and the embedding."""

    bag: int = 192
    pair: int = 64
    hidden: int = 256
    dim: int = 128


class Static(nn.Module):  # type: ignore[misc]  # torch may not be there to be checked against
    """The encoder of the module's four lines. Its one table holds bag, left and right side by side."""

    def __init__(self, words: int, size: Size) -> None:
        super().__init__()
        self.size, self.config = size, SimpleNamespace(hidden_size=size.dim)
        self.tokens = nn.Parameter(torch.zeros(words, size.bag + 2 * size.pair))
        self.mix = nn.Linear(2 * size.bag + size.pair, size.hidden)
        self.out = nn.Linear(size.hidden, size.dim)

    def forward(self, ids: torch.Tensor, text: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        """Float [window, dim] of int64 ids [window, token] and which of them are words of the output and the prompt."""
        bag, left, right = functional.embedding(ids, self.tokens, sparse=True).split(
            [self.size.bag, self.size.pair, self.size.pair], dim=2
        )
        kinds = torch.stack([text, prompt], dim=1).float()  # [window, 2, token]
        bags = kinds @ bag / kinds.sum(dim=2, keepdim=True).clamp(min=1).sqrt()
        pairs = (left[:, :-1] + right[:, 1:]) * (text[:, :-1] & text[:, 1:])[..., None]
        features = torch.cat([bags.flatten(1), pairs.amax(dim=1).relu()], dim=1)
        return functional.normalize(self.out(self.mix(features).relu()), dim=1)


class StaticNet(Net):
    """The static encoder and the heads, from token ids to P(severity >= level)."""

    def __init__(self, encoder: Static, domains: int, top: int, sources: int, cls: int, sep: int) -> None:
        super().__init__(encoder, domains, top, sources, sep)
        self.cls = cls

    def latents(self, ids: torch.Tensor, mask: torch.Tensor, grams: torch.Tensor) -> torch.Tensor:
        """As `Net.latents`; a word that the mask leaves out is not there."""
        is_sep = ids == self.sep
        second = (is_sep.cumsum(dim=1) - is_sep.long()) > 0
        word = mask & ~is_sep & (ids != self.cls)
        embedding = self.encoder(ids, word & ~second, word & second)
        count = (grams < BUCKETS).sum(dim=1, keepdim=True).clamp(min=1)
        lexical = functional.embedding_bag(grams, self.table, mode="sum", padding_idx=BUCKETS) / count.sqrt()
        return embedding @ self.weight + lexical


def start_static(encoder: Path, words: npt.NDArray[np.integer], size: Size, out: Path) -> None:
    """Write a static encoder to start from: the principal components of a BERT encoder's word embeddings.

    Args:
        encoder: a sentence-transformers directory.
        words: int [token], those of the texts to learn, to tell frequent words by.
        size: `bag` at most the encoder's width.
        out: the directory to write.
    """
    from safetensors.numpy import load_file

    stored = {name.removeprefix("bert."): value for name, value in load_file(encoder / "model.safetensors").items()}
    known = stored["embeddings.word_embeddings.weight"].astype(np.float32)
    known -= known.mean(axis=0)
    main = known @ np.linalg.svd(known.T @ known)[0]  # the widest directions first
    share = np.bincount(words, minlength=len(known)) / len(words)
    rng = np.random.default_rng(0)
    parts = [main[:, : size.bag], *(known @ rng.normal(size=(len(known.T), size.pair)) for _ in range(2))]
    parts = [0.1 * part / part.std() for part in parts]
    parts[0] *= (RARE / (RARE + share))[:, None]
    torch.manual_seed(0)
    net = Static(len(known), size)
    net.tokens.data = torch.from_numpy(np.concatenate(parts, axis=1).astype(np.float32))
    out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(encoder / "tokenizer.json", out / "tokenizer.json")
    _write(net, out)


def train_static(
    start: Path,
    model: SeverityModel,
    records: Sequence[Record],
    taught: npt.NDArray[np.float32] | None,
    taxonomy: Taxonomy,
    out: Path,
    *,
    epochs: int = 4,
    batch: int = 64,
    windows: int = 2,
    prompts: float = 0.3,
    rates: Mapping[str, float] = RATES,
    drop: Mapping[str, float] = DROP,
    offsets: Collection[str] = (),
    seed: int = 0,
) -> None:
    """Train a static encoder and its heads.

    Args:
        start: the directory to start from; heads beside it are taken up.
        model: any bundle with the windows, tokenizer and n-grams to train for.
        records: what to learn, each as often as there are epochs.
        taught: float [n, domain, level-1], what a teacher says of each record, NaN where it was not asked; None for no
            teacher.
        taxonomy: names the domains and levels of the labels.
        out: the directory to write.
        epochs: passes over the records.
        batch: texts in a step.
        windows: at most so many windows of a text in one epoch.
        prompts: share of the texts that are read with their prompt.
        rates: peak learning rates of the token table, the layers above, the heads and the n-gram table.
        drop: shares of the words and of the n-grams that a step does not see.
        offsets: the sources whose strictness is told apart, as in `finetune`; a teacher has none.
        seed: of everything left to chance.

    Raises:
        ValueError: no records, or labels that the taxonomy refuses.
        FileExistsError: `out` is there.
    """
    from tqdm.auto import tqdm

    if not records:
        raise ValueError("no records to train the static encoder on")
    if out.exists():
        raise FileExistsError(f"{out}: is there; name another folder")
    torch.manual_seed(seed)
    corpus = Corpus(model, onnx.load(read_bundle(model.path).graph), records)
    labels = torch.from_numpy(label_array(records, taxonomy).astype(np.int64))
    weight = torch.tensor([record.weight for record in records], dtype=torch.float32)
    names = ["", *sorted(offsets)]
    source = torch.tensor([names.index(record.source) if record.source in offsets else 0 for record in records])
    teacher = torch.full((*labels.shape[:2], taxonomy.top), torch.nan) if taught is None else torch.from_numpy(taught)
    net = _read(start, taxonomy, len(names))
    steps = epochs * math.ceil(sum(bool(windows) for windows in corpus.bare) / batch)
    dense = [parameter for name, parameter in net.named_parameters() if name != "encoder.tokens"]
    optimizers = _optimizers(net, rates)
    schedules = [torch.optim.lr_scheduler.LambdaLR(one, lambda step: rate_at(step, steps)) for one in optimizers]
    with tqdm(total=steps, desc=out.name, unit="step", mininterval=1.0) as bar:
        for epoch in range(epochs):
            for rows in corpus.batches(batch, windows, prompts, np.random.default_rng([seed, epoch])):
                part = _dropped(rows, drop)
                offset = functional.embedding(source[rows.rows], net.offset, padding_idx=0)
                latent = net.latents(part.ids, part.mask, part.grams)
                loss = loss_of(*by_text(net, latent, part, offset), labels[rows.rows], shares(weight[rows.rows]))
                said, _ = by_text(net, latent, part, torch.zeros_like(offset))
                loss = loss + taught_loss(said, teacher[rows.rows])
                for one in optimizers:
                    one.zero_grad()
                (loss + SOURCE_PENALTY * (offset**2).sum(dim=1).mean()).backward()
                nn.utils.clip_grad_norm_(dense, 1.0)
                for one in (*optimizers, *schedules):
                    one.step()
                bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
                bar.update()
    work = out.with_name(f".{out.name}.work")
    shutil.copytree(start, work, dirs_exist_ok=True)
    _write(net.encoder, work)
    arrays = {name: getattr(net, name).detach().numpy() for name in ("weight", "table", "first", "steps")}
    np.savez(work / HEADS, threshold=net.thresholds().detach().numpy(), **arrays)
    work.rename(out)


def taught_loss(exceed: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """The cross-entropy of the teacher's levels, in nats, summed over domains by weight, averaged over the texts.

    Args:
        exceed: [n, domain, level-1].
        teacher: the same; a text that it was not asked of is NaN.
    """
    asked = ~teacher[:, 0, 0].isnan()
    nats = -(_levels(teacher[asked]) * _levels(exceed[asked]).clamp(min=1e-6).log()).sum(dim=2)  # [n, domain]
    return (OVERALL * nats[:, 0] + DOMAIN * nats[:, 1:].sum(dim=1)).sum() / len(teacher)


def _levels(exceed: torch.Tensor) -> torch.Tensor:
    """The probability of each level, [n, domain, level]."""
    bounded = functional.pad(functional.pad(exceed, (1, 0), value=1.0), (0, 1), value=0.0)
    return bounded[..., :-1] - bounded[..., 1:]


def _dropped(batch: Batch, drop: Mapping[str, float]) -> Batch:
    """The batch with some of its words and n-grams left out."""
    kept = torch.rand(batch.ids.shape) >= drop["words"]
    gone = torch.rand(batch.grams.shape) < drop["grams"]
    return replace(batch, mask=batch.mask & kept, grams=batch.grams.masked_fill(gone, BUCKETS))


def _optimizers(net: StaticNet, rates: Mapping[str, float]) -> list[torch.optim.Optimizer]:
    """One for the token table, of which a batch touches few rows, and one for all else."""
    groups = [
        {"params": [*net.encoder.mix.parameters(), *net.encoder.out.parameters()], "lr": rates["mix"]},
        {"params": [net.weight, net.first, net.steps, net.offset], "lr": rates["heads"], "weight_decay": 0.0},
        {"params": [net.table], "lr": rates["table"], "weight_decay": 0.0},
    ]
    return [
        torch.optim.SparseAdam([net.encoder.tokens], lr=rates["tokens"], betas=BETAS),
        torch.optim.AdamW(groups, betas=BETAS),
    ]


def _read(directory: Path, taxonomy: Taxonomy, sources: int) -> StaticNet:
    """The net of a directory, with its heads if it has some."""
    from safetensors.torch import load_file

    stored = load_file(directory / "model.safetensors")
    vocabulary = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    size = Size(stored["bag"].shape[1], stored["left"].shape[1], *reversed(stored["out.weight"].shape))
    encoder = Static(len(vocabulary), size)
    stored["tokens"] = torch.cat([stored.pop(name) for name in ("bag", "left", "right")], dim=1)
    encoder.load_state_dict(stored)
    special = vocabulary["[CLS]"], vocabulary["[SEP]"]
    net = StaticNet(encoder, len(taxonomy.domains), taxonomy.top, sources, *special)
    if (directory / HEADS).exists():
        take_up(net, directory / HEADS)
    return net


def _write(encoder: Static, directory: Path) -> None:
    """The encoder's weights and `config.json`; the table in its three parts."""
    from safetensors.torch import save_file

    state = encoder.state_dict()
    parts = state.pop("tokens").split([encoder.size.bag, encoder.size.pair, encoder.size.pair], dim=1)
    state |= dict(zip(("bag", "left", "right"), parts, strict=True))
    save_file({name: value.contiguous() for name, value in state.items()}, directory / "model.safetensors")
    config = {"model_type": "static", "hidden_size": encoder.size.dim}
    (directory / "config.json").write_text(json.dumps(config) + "\n", encoding="utf-8")
