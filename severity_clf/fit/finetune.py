"""Tune the whole encoder together with the n-gram table and all heads, on interval labels. Needs the extra `finetune`.

The model is the graph's, in torch: the same windows from the same tokenizer, the same n-gram buckets, the same three
questions (see `heads`), the worst window of each text at every level. What comes out is a sentence-transformers
directory with `heads.npz` beside the weights, ready for `export_encoder` and `with_heads`. Nothing here quantises or
calibrates: that happens on the exported graph. Nothing else imports this file.

Loss of a text, averaged over a batch by weight, in nats:

    -log P(low <= overall <= high)                      where its overall label says anything
  - sum over its labelled domains of log P(low <= domain <= high)
  - log softmax(relevance)[the domains it is filed under]

A source's strictness is an offset of its harm and grade latents, learnt under an L2 penalty and dropped afterwards.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import nn
from torch.nn import functional

from severity_clf.bundle import read_bundle, write_bundle
from severity_clf.fit.export import OVERLAP_TOKENS, WINDOW_TOKENS, export_encoder
from severity_clf.fit.graph import BUCKETS, gram_buckets, pooling_of
from severity_clf.fit.heads import NEVER, Heads
from severity_clf.model import SeverityModel
from severity_clf.records import Record, label_array
from severity_clf.taxonomy import Taxonomy

HEADS = "heads.npz"
CHECKPOINT = "checkpoint.pt"
RATES = {"encoder": 1e-4, "heads": 2e-3, "table": 5e-3}  # peak learning rates of AdamW
WARM_UP = 0.06  # share of the steps over which they rise, before they fall to 0
SOURCE_PENALTY = 0.1  # L2 on the sources' offsets
DROP = 0.1  # share of tokens and of n-grams that a step does not see: the regulariser, since dropout halves CPU speed
SHARE = 8  # texts of a step that a thread of a CPU takes at once: twice 8 were quicker than 16
POOL = 64  # batches that are sorted by length together: little padding, and still mixed


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Windows of a few texts.

    Attributes:
        ids: int64 [window, token], padded with 0.
        mask: bool [window, token].
        grams: int64 [window, gram], padded with the empty row.
        text: int64 [window], the text each belongs to.
        rows: int64 [n], the records.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    grams: torch.Tensor
    text: torch.Tensor
    rows: torch.Tensor

    def to(self, device: str) -> Batch:
        """The batch on a device."""
        return Batch(*(getattr(self, name).to(device) for name in Batch.__slots__))

    def parts(self, size: int) -> Iterator[Batch]:
        """The batch in parts of at most so many texts, whose windows are padded to the longest of theirs."""
        for start in range(0, len(self.rows), size):
            here = (self.text >= start) & (self.text < start + size)
            longest = int(self.mask[here].sum(dim=1).max())
            ids, mask = self.ids[here, :longest], self.mask[here, :longest]
            yield Batch(ids, mask, self.grams[here], self.text[here] - start, self.rows[start : start + size])


class Net(nn.Module):  # type: ignore[misc]  # torch may not be there to be checked against
    """The encoder and the heads, from token ids to P(severity >= level)."""

    def __init__(
        self, encoder: nn.Module, domains: int, top: int, sources: int, sep: int, pooling: str = "mean"
    ) -> None:
        super().__init__()
        self.encoder, self.sep, self.pooling = encoder, sep, pooling
        latents = domains + 1
        dim = encoder.config.hidden_size
        self.weight = nn.Parameter(0.02 * torch.randn(dim, latents))
        self.table = nn.Parameter(torch.zeros(BUCKETS + 1, latents))  # the last row is no n-gram
        self.first = nn.Parameter(torch.tensor([0.0, -1.0] + [1.0] * (domains - 1)))
        self.steps = nn.Parameter(torch.full((latents, top - 1), -2.0))
        with torch.no_grad():
            self.steps[:2] = 0.0
        self.offset = nn.Parameter(torch.zeros(sources, 2))  # the first belongs to no source and stays 0

    def thresholds(self) -> torch.Tensor:
        """[latent, level-1]: harm's are all one, the grade's first is never in the way."""
        top = self.steps.shape[1] + 1
        sorted_ = torch.cat([self.first[:, None], self.first[:, None] + self.steps.exp().cumsum(dim=1)], dim=1)
        harm = self.first[:1, None].expand(1, top)
        grade = torch.cat([self.first.new_full((1, 1), NEVER), sorted_[1:2, : top - 1]], dim=1)
        return torch.cat([harm, grade, sorted_[2:]])

    def latents(self, ids: torch.Tensor, mask: torch.Tensor, grams: torch.Tensor) -> torch.Tensor:
        """Float [window, latent] of int64 ids [window, token], bool mask, int64 grams [window, gram]."""
        is_sep = ids == self.sep
        segment = (is_sep.cumsum(dim=1) - is_sep.long()).clamp(max=1)
        hidden = self.encoder(input_ids=ids, attention_mask=mask, token_type_ids=segment).last_hidden_state
        text = ((segment == 0) & mask)[..., None]
        if self.pooling == "cls":
            pooled = hidden[:, 0].float()
        elif self.pooling == "max":
            pooled = hidden.float().masked_fill(~text, -torch.inf).amax(dim=1)
        else:
            pooled = (hidden.float() * text).sum(dim=1)
        count = (grams < BUCKETS).sum(dim=1, keepdim=True).clamp(min=1)
        lexical = functional.embedding_bag(grams, self.table, mode="sum", padding_idx=BUCKETS) / count.sqrt()
        return functional.normalize(pooled, dim=1) @ self.weight + lexical

    def exceed(self, latent: torch.Tensor) -> torch.Tensor:
        """P(severity >= k), [window, domain, level-1]."""
        each = torch.sigmoid(latent[..., None] - self.thresholds())
        overall = each[:, :1] * each[:, 1:2]
        return torch.cat([overall, overall * each[:, 2:]], dim=1)


def tuned_heads(directory: Path) -> Heads:
    """The heads that `finetune` left in its directory, the table rounded to int8, not calibrated."""
    with np.load(directory / HEADS) as arrays:
        return Heads.rounded(arrays["weight"], arrays["table"][:BUCKETS], arrays["threshold"])


def loss_of(exceed: torch.Tensor, relevance: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The loss of some texts, added up by weight (see the module).

    Args:
        exceed: [n, domain, level-1].
        relevance: [n, domain-1], latents less their first thresholds, of the most harmful window.
        labels: int64 [n, domain, 2].
        weights: [n], each text's share of the step.
    """
    top = exceed.shape[2]
    bounded = functional.pad(exceed, (1, 0), value=1.0)
    bounded = functional.pad(bounded, (0, 1), value=0.0)
    low, high = labels[..., :1], labels[..., 1:] + 1
    nats = -(bounded.gather(2, low) - bounded.gather(2, high))[..., 0].clamp(min=1e-6).log()  # [n, domain]
    known = ((labels[..., 0] > 0) | (labels[..., 1] < top)).float()
    # Where the whole output is harmless every domain is, and saying so once more for each adds nothing.
    told = known[:, 1:] * (labels[:, :1, 1] > 0)
    total = nats[:, 0] * known[:, 0] + (nats[:, 1:] * told).sum(dim=1)
    if relevance.shape[1]:
        filed = labels[:, 1:, 0] > 0
        chosen = relevance.masked_fill(~filed & filed.any(dim=1, keepdim=True), -torch.inf)
        total = total + relevance.logsumexp(dim=1) - chosen.logsumexp(dim=1)
    return (weights * total).sum()


class Corpus:
    """Records as windows of token ids, with and without their prompts, cut by the encoder's own bundle."""

    def __init__(self, model: SeverityModel, graph: onnx.ModelProto, records: Sequence[Record]) -> None:
        outputs = [record.output for record in records]
        self.bare = list(model.tokens(outputs))
        self.asked = list(model.tokens(outputs, [record.prompt for record in records]))
        rows = gram_buckets(graph, [ids for windows in self.bare for ids in windows])
        self.grams = [[next(rows) for _ in windows] for windows in self.bare]

    def batches(self, size: int, windows: int, prompts: float, rng: np.random.Generator) -> Iterator[Batch]:
        """One epoch: every text that has a window once, in batches of like length, in random order.

        Args:
            size: texts in a batch.
            windows: at most so many windows of a text: the first, and others by chance.
            prompts: share of the texts that are read with their prompt.
            rng: decides all that is left to chance.
        """
        chosen = {}
        for row in rng.permutation(len(self.bare)).tolist():
            if count := len(self.bare[row]):
                others = rng.permutation(np.arange(1, count))[: windows - 1].tolist()
                form = self.asked if rng.random() < prompts else self.bare
                chosen[row] = [(form[row][at], self.grams[row][at]) for at in (0, *sorted(others))]
        order = list(chosen)
        batches = []
        for start in range(0, len(order), size * POOL):
            pool = sorted(order[start : start + size * POOL], key=lambda row: sum(len(ids) for ids, _ in chosen[row]))
            batches += [pool[at : at + size] for at in range(0, len(pool), size)]
        for number in rng.permutation(len(batches)):
            yield _batch(batches[number], [chosen[row] for row in batches[number]])


def _batch(rows: list[int], texts: list[list[tuple[list[int], npt.NDArray[np.int64]]]]) -> Batch:
    windows = [window for text in texts for window in text]
    ids = np.zeros((len(windows), max(len(tokens) for tokens, _ in windows)), np.int64)
    grams = np.full((len(windows), max(len(row) for _, row in windows)), BUCKETS, np.int64)
    mask = np.zeros(ids.shape, bool)
    for number, (tokens, row) in enumerate(windows):
        ids[number, : len(tokens)], mask[number, : len(tokens)] = tokens, True
        grams[number, : len(row)] = row
    text = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    return Batch(*(torch.from_numpy(array) for array in (ids, mask, grams, text, np.array(rows))))


def masked(batch: Batch, mask: int, special: torch.Tensor) -> Batch:
    """The batch with a share DROP of its words masked and of its n-grams left out."""
    word = ~torch.isin(batch.ids, special)
    ids = batch.ids.masked_fill(word & (torch.rand(batch.ids.shape) < DROP).to(word.device), mask)
    gone = (torch.rand(batch.grams.shape) < DROP).to(word.device)
    return replace(batch, ids=ids, grams=batch.grams.masked_fill(gone, BUCKETS))


def forward(net: Net, batch: Batch, offset: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`by_text` of what the net says of a batch."""
    device = batch.ids.device.type
    fast = device == "cuda" or torch.cpu.get_capabilities().get("avx512_bf16", False)  # elsewhere bf16 is emulated
    with torch.autocast(device, torch.bfloat16, enabled=fast):
        latent = net.latents(batch.ids, batch.mask, batch.grams)
    return by_text(net, latent.float(), batch, offset)


def by_text(net: Net, latent: torch.Tensor, batch: Batch, offset: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each text, exceed [n, domain, level-1], its worst window's at every level, and relevance [n, domain-1].

    Args:
        net: whose thresholds tell levels apart.
        latent: float [window, latent].
        batch: which text each window is of.
        offset: [n, 2], the strictness of each text's source.
    """
    device = latent.device
    latent = latent + functional.pad(offset[batch.text], (0, latent.shape[1] - 2))
    by_window = net.exceed(latent)
    n = len(batch.rows)
    at = batch.text[:, None, None].expand_as(by_window)
    exceed = torch.zeros(n, *by_window.shape[1:], device=device).scatter_reduce(0, at, by_window, "amax")
    severity = by_window[:, 0].detach().sum(dim=1)
    most = torch.zeros(n, device=device).scatter_reduce(0, batch.text, severity, "amax")
    worst = (severity == most[batch.text]).float()[:, None]  # ties share
    count = torch.zeros(n, 1, device=device).index_add(0, batch.text, worst)
    relevance = torch.zeros(n, latent.shape[1] - 2, device=device)
    relevance = relevance.index_add(0, batch.text, worst * (latent[:, 2:] - net.first[2:])) / count
    return exceed, relevance


def shares(weights: torch.Tensor) -> torch.Tensor:
    """Each text's share of a step's weight, [n]; 0 for all where nothing counts."""
    return weights / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)


def backward(
    net: Net, parts: Sequence[Batch], labels: torch.Tensor, weights: torch.Tensor, sources: torch.Tensor
) -> float:
    """Add to the gradients those of a step's mean loss, one part at a time.

    Args:
        net: to be tuned.
        parts: of the step.
        labels: int64 [n, domain, 2], of all records.
        weights: float [n].
        sources: int64 [n], the row of the net's offsets; 0 has none.

    Returns:
        the loss in nats, without the penalty on offsets.
    """
    rows, mean = torch.cat([part.rows for part in parts]).cpu(), 0.0
    each = shares(weights[rows]).split([len(part.rows) for part in parts])
    for part, share in zip(parts, each, strict=True):
        at, device = part.rows.cpu(), part.ids.device
        offset = functional.embedding(sources[at].to(device), net.offset, padding_idx=0)
        exceed, relevance = forward(net, part, offset)
        loss = loss_of(exceed, relevance, labels[at].to(device), share.to(device))
        (loss + SOURCE_PENALTY * (offset**2).sum() / len(rows)).backward()
        mean += loss.item()
    return mean


def finetune(
    encoder: Path,
    records: Sequence[Record],
    taxonomy: Taxonomy,
    out: Path,
    *,
    epochs: int = 2,
    batch: int = 16,
    windows: int = 2,
    prompts: float = 0.3,
    rates: Mapping[str, float] = RATES,
    offsets: Collection[str] = (),
    layers: Sequence[int] | None = None,
    window: int = WINDOW_TOKENS,
    overlap: int = OVERLAP_TOKENS,
    prompt_tokens: int = OVERLAP_TOKENS,
    checkpoint_minutes: float = 5.0,
    seed: int = 0,
) -> None:
    """Tune an encoder on labelled records; a run that was cut off goes on from its last checkpoint.

    Args:
        encoder: a sentence-transformers directory with BERT weights, pooled as it says; heads of an earlier run are
            taken up.
        records: what to learn, each as often as there are epochs, times its weight.
        taxonomy: names the domains and levels of their labels.
        out: the sentence-transformers directory to write.
        epochs: passes over the records.
        batch: texts in a step.
        windows: at most so many windows of a text in one epoch.
        prompts: share of the texts that are read with their prompt.
        rates: peak learning rates of the encoder, the heads and the n-gram table.
        offsets: the sources whose strictness is told apart; it takes labels of both kinds to tell.
        layers: which of the encoder's layers to keep; None keeps all.
        window, overlap: as `export_encoder`.
        prompt_tokens: of a prompt, so many of its last tokens are read.
        checkpoint_minutes: between two checkpoints.
        seed: of everything left to chance.

    Raises:
        ValueError: no records, or labels that the taxonomy refuses.
        FileExistsError: `out` holds a finished run.
    """
    from tqdm.auto import tqdm

    if not records:
        raise ValueError("no records to tune the encoder on")
    if (out / HEADS).exists():
        raise FileExistsError(f"{out}: holds a finished run; name another folder")
    labels = torch.from_numpy(label_array(records, taxonomy).astype(np.int64))
    torch.manual_seed(seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    work = out.with_name(f".{out.name}.work")
    shutil.copytree(encoder, work / "encoder", dirs_exist_ok=True)
    card = {"name": "encoder", "version": "0", "taxonomy": taxonomy.to_dict(), "thresholds": {"overall": 1.0}}
    exported = export_encoder(work / "encoder", window=window, overlap=overlap)
    write_bundle(work / "bundle", *exported, {**card, "prompt_tokens": prompt_tokens})
    corpus = Corpus(SeverityModel(work / "bundle"), onnx.load(read_bundle(work / "bundle").graph), records)
    bert = _bert(encoder, layers)
    names = ["", *sorted(offsets)]
    source = torch.tensor([names.index(record.source) if record.source in offsets else 0 for record in records])
    weight = torch.tensor([record.weight for record in records], dtype=torch.float32)
    vocabulary = json.loads((encoder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    special = torch.tensor([vocabulary[token] for token in ("[PAD]", "[CLS]", "[SEP]")], device=device)
    net = Net(bert, len(taxonomy.domains), taxonomy.top, len(names), vocabulary["[SEP]"], pooling_of(encoder))
    if (encoder / HEADS).exists():
        take_up(net, encoder / HEADS)
    net.to(device).train()
    optimizer = _optimizer(net, rates)
    total = epochs * math.ceil(sum(bool(windows) for windows in corpus.bare) / batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step, total))
    done = _resume(work / CHECKPOINT, net, optimizer, schedule, total)
    share = batch if device == "cuda" else SHARE * torch.get_num_threads()
    saved, mean, step = time.monotonic(), 0.0, 0
    with tqdm(total=total, initial=done, desc="tuning", unit="step", mininterval=1.0) as bar:
        for epoch in range(epochs):
            for rows in corpus.batches(batch, windows, prompts, np.random.default_rng([seed, epoch])):
                step += 1
                if step <= done:
                    continue
                optimizer.zero_grad()
                parts = [masked(part.to(device), vocabulary["[MASK]"], special) for part in rows.parts(share)]
                loss = backward(net, parts, labels, weight, source)
                nn.utils.clip_grad_norm_(net.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                mean += (loss - mean) / min(step - done, 100)
                bar.set_postfix(loss=f"{mean:.3f}", refresh=False)
                bar.update()
                if time.monotonic() - saved > 60 * checkpoint_minutes:
                    saved = time.monotonic()
                    _save(work / CHECKPOINT, net, optimizer, schedule, step, total)
    _finish(net.cpu(), work, out)


def _bert(encoder: Path, layers: Sequence[int] | None) -> Any:
    """The encoder in torch, its word embeddings frozen."""
    from transformers import AttentionInterface, AttentionMaskInterface, AutoModel
    from transformers.masking_utils import sdpa_mask

    still: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # see DROP
    if not torch.cuda.is_available():
        AttentionInterface.register("short", _attention)
        AttentionMaskInterface.register("short", sdpa_mask)
        still["attn_implementation"] = "short"
    bert = AutoModel.from_pretrained(encoder, add_pooling_layer=False, **still)
    if layers is not None:
        bert.encoder.layer = nn.ModuleList([bert.encoder.layer[layer] for layer in layers])
        bert.config.num_hidden_layers = len(layers)
    bert.embeddings.word_embeddings.requires_grad_(False)
    return bert


def _attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float = 1.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention for windows of some hundred tokens, its softmax in the type of its inputs: [n, token, head, dim].

    On CPU it is quicker than torch's fused kernel, whose backward pass is slow there.
    """
    with torch.autocast(query.device.type, enabled=False):  # which would have the softmax in float32
        score = (query * scaling) @ key.transpose(2, 3)
        if attention_mask is not None:
            score = score + torch.zeros_like(attention_mask, dtype=score.dtype).masked_fill(
                ~attention_mask, torch.finfo(score.dtype).min
            )
        return (score.softmax(dim=-1) @ value).transpose(1, 2).contiguous(), None


def _optimizer(net: Net, rates: Mapping[str, float]) -> torch.optim.Optimizer:
    tuned = [parameter for parameter in net.encoder.parameters() if parameter.requires_grad]
    heads = [net.weight, net.first, net.steps, net.offset]
    return torch.optim.AdamW(
        [
            {"params": tuned, "lr": rates["encoder"], "weight_decay": 0.01},
            {"params": heads, "lr": rates["heads"], "weight_decay": 0.0},
            {"params": [net.table], "lr": rates["table"], "weight_decay": 0.0},
        ]
    )


def rate_at(step: int, total: int) -> float:
    """Share of the peak learning rate: linear up, then linear down to 0."""
    rise = max(1, int(WARM_UP * total))
    return min((step + 1) / rise, max(0.0, (total - step) / max(1, total - rise)))


def take_up(net: Net, path: Path) -> None:
    """Start from the heads of an earlier run, if they are for the same domains and levels."""
    with np.load(path) as arrays:
        for name in ("weight", "table", "first", "steps"):
            parameter = getattr(net, name)
            if arrays[name].shape != parameter.shape:
                raise ValueError(
                    f"{path}: {name} is {arrays[name].shape}, this taxonomy wants {tuple(parameter.shape)}"
                )
            parameter.data.copy_(torch.from_numpy(arrays[name]))


def _save(path: Path, net: Net, optimizer: Any, schedule: Any, step: int, total: int) -> None:
    state = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
    fresh = path.with_suffix(".new")
    torch.save({**state, "torch": torch.get_rng_state(), "step": step, "total": total}, fresh)
    fresh.replace(path)


def _resume(path: Path, net: Net, optimizer: Any, schedule: Any, total: int) -> int:
    """The number of steps done by a run that was cut off."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    if state["total"] != total:
        raise ValueError(f"{path}: is of a run of {state['total']} steps, not {total}; delete its folder to start anew")
    net.load_state_dict(state["net"])
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    torch.set_rng_state(state["torch"])
    return int(state["step"])


def _finish(net: Net, work: Path, out: Path) -> None:
    """Put the tuned weights in place of the encoder's, the heads beside them, and the directory under its name."""
    from safetensors.torch import save_file

    folder = work / "encoder"
    save_file(
        {name: value.contiguous() for name, value in net.encoder.state_dict().items()}, folder / "model.safetensors"
    )
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["num_hidden_layers"] = net.encoder.config.num_hidden_layers
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    arrays = {name: getattr(net, name).detach().numpy() for name in ("weight", "table", "first", "steps")}
    np.savez(folder / HEADS, threshold=net.thresholds().detach().numpy(), **arrays)
    folder.rename(out)
    shutil.rmtree(work)
