"""On a real local Ray with two workers: the local engine's scores, and nothing lost or doubled when one is killed."""

import os
import shutil
import signal
from pathlib import Path
from threading import Event, Thread

import pytest

import severity_clf as sc

ray = pytest.importorskip("ray", reason="needs pip install 'severity-clf[ray]'")
if not Path("/proc/self/fd").exists():
    pytest.skip("needs /proc, to find the worker to kill", allow_module_level=True)
pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
pytestmark = pytest.mark.filterwarnings("default")  # Ray's own
SHARDS, ROWS = 4, 1500


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """A real one, on this machine."""
    os.environ["RAY_DATA_USE_DATASOURCE_V2"] = "0"  # the newer reader of 2.60 hangs where few cores are busy
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False)  # one more, to read with
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()


@pytest.fixture
def inputs(tmp_path):
    """Shards of rows that all differ; every hundredth cannot be scored."""
    folder = tmp_path / "in"
    folder.mkdir()
    for shard in range(SHARDS):
        numbers = range(shard * ROWS, (shard + 1) * ROWS)
        texts = [f"the cat {'sat on a mat ' * (number % 7)}{number}" if number % 100 else "" for number in numbers]
        pq.write_table(pa.table({"id": numbers, "output": texts}), folder / f"{shard}.parquet")
    return folder


@pytest.fixture
def wanted(inputs, tiny, tmp_path):
    """What the local engine makes of them."""
    summary = sc.score_file(f"{inputs}/*.parquet", f"{tmp_path}/wanted/", tiny, errors_file=tmp_path / "wanted.jsonl")
    return tmp_path / "wanted", summary


def same(folder, other):
    """Equal files, byte for byte, and no others."""
    names = sorted(path.name for path in other.glob("*.parquet"))
    assert len(names) == SHARDS
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == names
    return all((folder / name).read_bytes() == (other / name).read_bytes() for name in names)


def kill_one(folder, killed, over):
    """kill -9 the first process of Ray's that holds a partial file in the folder."""
    while not killed and not over.wait(0.01):
        if not any(folder.glob("*.partial")):
            continue
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if b"ray::" not in (process / "cmdline").read_bytes():
                    continue
                held = [str(link.readlink()) for link in (process / "fd").iterdir()]
            except OSError:  # it has ended
                continue
            if any(name.startswith(str(folder)) and name.endswith(".partial") for name in held):
                os.kill(int(process.name), signal.SIGKILL)
                killed.append(int(process.name))
                return


def test_shards_are_the_local_engines_also_when_a_worker_is_killed_in_mid_run(inputs, wanted, tiny_bundle, tmp_path):
    """kill -9 of one of two workers while it scores: its shard goes on elsewhere, nothing is lost or doubled."""
    from severity_clf.integrations.ray import score_files

    out, killed, over = tmp_path / "out", [], Event()
    killer = Thread(target=kill_one, args=(out, killed, over))
    killer.start()
    errors = tmp_path / "errors.jsonl"
    summary = score_files(f"{inputs}/*.parquet", f"{out}/", tiny_bundle, workers=2, errors_file=errors)
    over.set()
    killer.join()
    folder, local = wanted
    assert len(killed) == 1
    assert same(out, folder)
    assert errors.read_bytes() == (tmp_path / "wanted.jsonl").read_bytes()
    timed = {"seconds", "rows_per_second"}
    found, other = summary.to_dict(), local.to_dict()
    assert {name: found[name] for name in found.keys() - timed} == {name: other[name] for name in other.keys() - timed}


def test_a_restart_skips_finished_shards(inputs, wanted, tiny_bundle, tmp_path):
    """What is there is not scored again; what is not, is."""
    from severity_clf.integrations.ray import score_files

    folder, _ = wanted
    out = shutil.copytree(folder, tmp_path / "out")
    (out / "3.parquet").unlink()
    (out / "2.parquet").write_bytes(b"mark")
    summary = score_files(
        f"{inputs}/*.parquet", f"{out}/", tiny_bundle, workers=2, resume=True, errors_file=tmp_path / "e"
    )
    assert summary.rows == SHARDS * ROWS
    assert (out / "2.parquet").read_bytes() == b"mark"
    assert (out / "3.parquet").read_bytes() == (folder / "3.parquet").read_bytes()


def test_a_shard_that_cannot_be_read_does_not_stop_the_others(inputs, tiny_bundle, tmp_path):
    """It is named at the end."""
    from severity_clf.integrations.ray import score_files

    (inputs / "2.parquet").write_bytes(b"no")
    with pytest.raises(
        sc.CorpusError, match=r"1 of 4 shards are not scored, the first because of: .*2\.parquet: no Parquet"
    ):
        score_files(f"{inputs}/*.parquet", f"{tmp_path}/out/", tiny_bundle, workers=2)
    assert len(list((tmp_path / "out").glob("*.parquet"))) == SHARDS - 1


def test_a_dataset_gets_the_local_engines_scores(inputs, wanted, tiny_bundle):
    """Row for row, to the bit."""
    from severity_clf.integrations.ray import score_dataset

    dataset = score_dataset(ray.data.read_parquet(str(inputs)), tiny_bundle, workers=2)
    found = pa.Table.from_pylist(sorted(dataset.take_all(), key=lambda row: row["id"]))
    local = pa.concat_tables(pq.read_table(path) for path in sorted(wanted[0].glob("*.parquet")))
    assert found.cast(local.schema).equals(local)


def test_the_command_scores_with_ray(inputs, wanted, tiny_bundle, tmp_path):
    """`--engine ray` is the same run."""
    from typer.testing import CliRunner

    from severity_clf.cli import BAD_LINES, USAGE, app

    options = ["score", "-m", str(tiny_bundle), "--engine", "ray", "--workers", "2", f"{inputs}/*.parquet"]
    result = CliRunner().invoke(app, [*options, "-o", f"{tmp_path}/out/", "--errors-file", str(tmp_path / "e")])
    assert result.exit_code == BAD_LINES
    assert same(tmp_path / "out", wanted[0])
    assert CliRunner().invoke(app, [*options, "-o", str(tmp_path / "out")]).exit_code == USAGE
