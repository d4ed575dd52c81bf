"""What does it cost to score a corpus, beyond scoring its texts?

    python -m benchmarks.corpus --data DATA --model base --rows 1000000 --workers 1 --workers 2

Short real outputs (at most 200 characters, repeated up to the number of rows) are written to a Parquet file. Then two
fresh processes, one after the other: `model.score` alone, on the same texts in memory, and `sevclf score` from Parquet
to Parquet, whose memory is sampled. Both leave out loading the model; the CPU time of the whole process is given, too,
since a machine that does other work stretches the clock and not the CPU time. With `--workers`, the file is cut into
shards that are scored with Ray by as many processes, and compared with the local engine's rows.

A model's figures replace its older ones in the result file; other models' stay. Megabytes are 10^6 bytes. Not measured:
a cold disk, a network. Needs `severity_clf[dev]`, and `severity_clf[ray]` for `--workers`.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated, Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from benchmarks import results
from severity_clf.bundle import GRAPH, find_bundle, read_bundle
from training import sources

SOURCES = ("halueval_general", "do_not_answer", "xstest", "diasafety", "dices_990")
LONGEST = 200  # characters of an output that counts as short
SAMPLE_SECONDS = 0.05
SHARDS_A_WORKER = 4
ALONE = """
import sys, time, json
import pyarrow.parquet as pq
import severity_clf
texts = pq.read_table(sys.argv[1])["output"].to_pylist()
model = severity_clf.load(sys.argv[2], threads=int(sys.argv[3]))
model.score(texts[:64])
start = time.perf_counter()
model.score(texts)
print(json.dumps({"seconds": time.perf_counter() - start}))
"""
COMMAND = "from severity_clf.cli import main; main()"


def short_outputs(data: Path, rows: int) -> list[str]:
    """Real outputs of language models, none longer than `LONGEST`; the same ones every time."""
    loaders = {**sources.TRAIN, **sources.GRADED, **sources.BENCH}
    found = {record.output for name in SOURCES for record in loaders[name](data)}
    short = [text for text in found if text.strip() and len(text) <= LONGEST and text.isprintable()]
    short.sort(key=lambda text: hashlib.sha256(text.encode()).digest())
    return list(islice(cycle(short), rows))


def child(arguments: list[str]) -> dict[str, Any]:
    """Run a process to its end: what it printed, its seconds, CPU seconds and peak of resident memory."""
    start = time.perf_counter()
    peak = cpu = 0.0
    with subprocess.Popen([sys.executable, "-c", *arguments], cwd=results.ROOT, stdout=subprocess.PIPE) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                peak = max(peak, watched.memory_info().rss / 1e6)
                times = watched.cpu_times()
            except psutil.NoSuchProcess:
                break
            cpu = times.user + times.system
            time.sleep(SAMPLE_SECONDS)
        assert process.stdout is not None
        printed = process.stdout.read().decode()
    if process.returncode not in {0, 4}:  # rows that cannot be scored are no failure of the benchmark
        raise RuntimeError(f"a child ended with exit code {process.returncode}; what it said stands above")
    took = time.perf_counter() - start
    return {"printed": printed, "process_seconds": took, "cpu_seconds": cpu, "peak_megabytes": round(peak, 1)}


def measure_local(folder: Path, file: Path, model: Path, threads: int) -> dict[str, Any]:
    """`model.score` alone, then the command, on one file."""
    alone = child([ALONE, str(file), str(model), str(threads)])
    alone["seconds"] = json.loads(alone.pop("printed"))["seconds"]
    arguments = [COMMAND, "score", str(file), "-o", str(folder / "scored.parquet"), "-m", str(model)]
    arguments += ["--threads", str(threads), "--summary-json", str(folder / "summary.json"), "--quiet"]
    command = child(arguments)
    del command["printed"]
    summary = results.read(folder / "summary.json")
    command |= {"seconds": summary["seconds"], "rows_per_second": summary["rows_per_second"]}
    return {
        "threads": threads,
        "rows": summary["rows"],
        "megabytes_in": round(file.stat().st_size / 1e6, 1),
        "megabytes_out": round((folder / "scored.parquet").stat().st_size / 1e6, 1),
        "alone": alone,
        "command": command,
        "times_alone": round(command["seconds"] / alone["seconds"], 3),
        "times_alone_cpu": round(command["cpu_seconds"] / alone["cpu_seconds"], 3),
    }


def measure_ray(folder: Path, file: Path, model: Path, workers: int) -> dict[str, Any]:
    """The same rows in shards, side by side; `equal` says whether they are the local engine's, bit for bit."""
    import ray

    from severity_clf.integrations.ray import score_files

    table = pq.read_table(file)
    shards, inputs = folder / f"in{workers}", workers * SHARDS_A_WORKER
    shards.mkdir()
    step = -(-len(table) // inputs)
    for number in range(inputs):
        pq.write_table(table.slice(number * step, step), shards / f"{number:03}.parquet")
    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
    try:
        summary = score_files(f"{shards}/*.parquet", f"{folder}/out{workers}/", model, workers=workers)
    finally:
        ray.shutdown()
    scored = pa.concat_tables(pq.read_table(path) for path in sorted((folder / f"out{workers}").glob("*.parquet")))
    return {
        "workers": workers,
        "shards": inputs,
        "seconds": summary.seconds,
        "rows_per_second": summary.rows_per_second,
        "equal": scored.equals(pq.read_table(folder / "scored.parquet")),
    }


def main(
    data: Annotated[Path, typer.Option(help="Folder of the raw data sets, with train/ and bench/.")],
    model: Annotated[str, typer.Option("-m", "--model", help="A shipped bundle's name, or a bundle's path.")] = "base",
    rows: Annotated[int, typer.Option(help="Outputs to score.", min=256)] = 1_000_000,
    threads: Annotated[int | None, typer.Option(help="Of the local engine. [default: the CPUs at hand]")] = None,
    workers: Annotated[list[int] | None, typer.Option(help="Measure Ray with so many, too; repeatable.")] = None,
    out: Annotated[Path, typer.Option(help="The JSON to write.")] = results.FOLDER / "corpus.json",
) -> None:
    """Measure the command against `model.score` alone, its memory, and Ray."""
    stamp = results.stamp(results.command_line("benchmarks.corpus"), ("pyarrow", "ray") if workers else ("pyarrow",))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    bundle = read_bundle(find_bundle(model))
    texts = short_outputs(data, rows)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "outputs.parquet"
        pq.write_table(pa.table({"id": range(rows), "output": texts}), file)
        path = bundle.path.resolve()
        local = measure_local(folder, file, path, threads or results.cores())
        run = {
            "stamp": stamp,
            "version": bundle.card["version"],
            "sha256": bundle.card["sha256"][GRAPH],
            "texts": len(set(texts)),
            "characters": round(sum(map(len, texts)) / rows, 1),
            "sources": SOURCES,
            "local": local,
            "ray": [],
        }
        found = results.read(out) if out.exists() else {"models": {}}
        found["models"][bundle.card["name"]] = run
        results.write(out, found)  # what is measured is kept, whatever becomes of the rest
        for count in workers or []:
            run["ray"].append(measure_ray(folder, file, path, count))
            results.write(out, found)
    print(json.dumps(run, indent=2) + f"\nwritten to {out}")


if __name__ == "__main__":
    typer.run(main)
