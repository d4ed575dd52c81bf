"""The default number of threads is what the process may really use."""

import os

import pytest

from severity_clf import model
from severity_clf.cpus import usable_cpus


def system(root, cgroup, files):
    """A made-up machine: the process's cgroup file, and what stands under /sys/fs/cgroup."""
    for name, text in {
        "proc/self/cgroup": cgroup,
        **{f"sys/fs/cgroup/{name}": text for name, text in files.items()},
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture(autouse=True)
def many(monkeypatch):
    """A machine of 64 CPUs."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64), raising=False)


@pytest.mark.parametrize(
    ("cgroup", "files", "wanted"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "10000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 64),
        ("0::/\n", {"cpu.max": "nonsense"}, 64),
        ("0::/\n", {}, 64),
        ("0::/a/b\n", {"cpu.max": "max 100000", "a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}, 3),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "100000 50000"}, 2),
        ("0::/host/path\n", {"cpu.max": "400000 100000"}, 4),
        ("4:memory:/x\n3:cpu,cpuacct:/x\n",
         {"cpu,cpuacct/x/cpu.cfs_quota_us": "250000\n", "cpu,cpuacct/x/cpu.cfs_period_us": "100000\n"}, 3),
        ("3:cpuacct,cpu:/host\n", {"cpu/cpu.cfs_quota_us": "500000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 5),
        ("3:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64),
        ("3:cpuset:/\n", {"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64),
    ],
)  # fmt: skip
def test_a_quota_counts_rounded_up(tmp_path, cgroup, files, wanted):
    """Both versions of control groups, groups inside groups, and a container that sees its host's path."""
    assert usable_cpus(system(tmp_path, cgroup, files), {}) == wanted


def test_a_system_without_control_groups_has_its_affinity(tmp_path):
    """Nothing to read is no limit."""
    assert usable_cpus(tmp_path, {}) == 64


@pytest.mark.parametrize(
    ("value", "wanted"), [("1", 1), ("3", 3), ("2,4", 2), ("100", 64), ("", 64), ("0", 64), ("-1", 64), ("all", 64)]
)
def test_a_launcher_may_ask_for_fewer(tmp_path, value, wanted):
    """What is no number of threads is not heeded, and nobody gets more than there is."""
    assert usable_cpus(tmp_path, {"OMP_NUM_THREADS": value}) == wanted


def test_a_model_takes_what_may_be_used(tiny_bundle, monkeypatch):
    """And what it is told, where it is told."""
    monkeypatch.setattr(model, "usable_cpus", lambda: 3)
    assert model.load(tiny_bundle).threads == 3
    assert model.load(tiny_bundle, threads=5).threads == 5
