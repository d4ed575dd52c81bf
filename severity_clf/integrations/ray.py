"""Score with Ray: many processes of one thread, on one machine or many.

`score_dataset` is a step of a Ray Data pipeline, block by block, from wherever Ray reads to wherever it writes.
`score_files` is `sevclf score --engine ray`: shard by shard, so that each keeps its name, an interrupted one goes on
where it was, and finished ones are not scored again; the shards must be on a file system that all machines see.

A process that dies is started again by Ray, and its block or shard given to another.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

try:
    import ray.data
except ModuleNotFoundError as error:
    message = "severity_clf.integrations.ray needs ray[data]; install it with: pip install 'severity-clf[ray]'"
    raise ModuleNotFoundError(message, name=error.name) from None

from severity_clf.corpus import (
    Name,
    Options,
    RowError,
    Run,
    Summary,
    check_fresh,
    input_files,
    join_errors,
    score_table,
    shards,
)
from severity_clf.formats import CorpusError
from severity_clf.jsonl import Wanted
from severity_clf.model import BLOCK, SeverityModel, load
from severity_clf.sinks import Tally


def score_dataset(
    dataset: Any,
    model: Name = "base",
    *,
    field: str | None = None,
    prompt_field: str | None = None,
    key: str = "severity",
    full: bool = False,
    workers: int | None = None,
    batch_size: int = BLOCK,
) -> Any:
    """A Ray dataset with the flat columns of its rows' severity; nothing runs until it is read or written.

        score_dataset(ray.data.read_parquet("s3://bucket/outputs")).write_parquet("s3://bucket/scored")

    Args:
        dataset: rows with a column of texts.
        model: a shipped bundle's name, or a bundle's path, which each worker must see.
        field, prompt_field, key, full: as in `severity_clf.score_file`.
        workers: the most processes; by default, as many as the cluster has CPUs left for.
        batch_size: rows given to a worker at a time.
    """
    arguments = {"model": _name(model), "field": field, "prompt_field": prompt_field, "key": key, "full": full}
    return dataset.map_batches(
        _Scorer,
        fn_constructor_kwargs=arguments,
        batch_format="pyarrow",
        batch_size=batch_size,
        # Not all at once: actors hold their CPUs, and a cluster full of them has none left to read with.
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers),
        num_cpus=1,
    )


def score_files(
    inputs: Name | Sequence[Name],
    output: Name,
    model: Name = "base",
    *,
    field: str | None = None,
    prompt_field: str | None = None,
    key: str = "severity",
    full: bool = False,
    on_error: str = "null",
    input_format: str | None = None,
    output_format: str | None = None,
    errors_file: Name | None = None,
    fail_over: str | None = None,
    resume: bool = False,
    workers: int | None = None,
) -> Summary:
    """Score each input into a file of a folder, the shards side by side; the same bytes as `score_file` writes.

    Args:
        inputs, output, model: as in `severity_clf.score_file`, the output always a folder.
        field, prompt_field, key, full, on_error, input_format, output_format, errors_file, fail_over, resume: likewise.
        workers: processes; by default one for each CPU of the cluster, and no more than there are shards.

    Raises:
        OSError, CorpusError, BundleError: as `score_file`.
        CorpusError, RowError: a shard cannot be scored; the message says why, and all others are done.
    """
    options = Options(Wanted(field, prompt_field, key), full, on_error, input_format, output_format, fail_over)
    errors = None if errors_file is None else Path(errors_file)
    files = [path.resolve() for path in input_files(inputs)]  # a worker may stand in another folder
    runs = shards(files, Path(output).resolve(), options, errors is not None)
    check_fresh(runs, resume)
    name = _name(model)
    load(name, threads=1)  # a bundle that cannot be read is found out here
    start = time.perf_counter()
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    workers = min(workers or int(ray.cluster_resources().get("CPU", 1)), len(runs))
    jobs = ray.data.from_items([{"run": number} for number in range(len(runs))], override_num_blocks=len(runs))
    done = jobs.map_batches(
        _ShardScorer,
        fn_constructor_kwargs={"model": name, "runs": runs},
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=1,
    ).take_all()
    bad = [one for one in done if one["error"]]
    if bad:
        kind = RowError if all(one["stopped"] for one in bad) else CorpusError
        raise kind(f"{len(bad)} of {len(runs)} shards are not scored, the first because of: {bad[0]['error']}")
    tally = Tally()
    for one in sorted(done, key=lambda one: one["run"]):
        tally += Tally(one["rows"], one["errors"], one["flagged"], one["over"], one["sums"], one["done_before"])
    join_errors(runs, errors)
    return Summary.of(tally, fail_over is not None, time.perf_counter() - start)


class _Scorer:
    """One process's model, on one thread: processes are what runs side by side."""

    def __init__(self, model: str, **options: Any) -> None:
        self._model, self._options = load(model, threads=1), options

    def __call__(self, batch: Any) -> Any:
        return score_table(batch, self._model, **self._options)


class _ShardScorer:
    """Scores whole shards. A shard that its worker has left half done, because it died, is gone on with."""

    def __init__(self, model: str, runs: list[Run]) -> None:
        self._model, self._runs = load(model, threads=1), runs

    def _load(self) -> SeverityModel:
        return self._model

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        number = int(batch["run"][0])
        tally, error, stopped = Tally(), "", False
        try:
            tally, _ = self._runs[number].go(self._load, resume=True)
        except (CorpusError, OSError) as problem:  # the other shards are not to suffer from it
            error, stopped = str(problem), isinstance(problem, RowError)
        found = {"run": number, "error": error, "stopped": stopped, **tally.to_dict()}
        return {name: [value] for name, value in found.items()}


def _name(model: Name) -> str:
    """A bundle's path as each worker finds it."""
    path = Path(model)
    return str(path.resolve()) if path.is_dir() else os.fspath(model)
