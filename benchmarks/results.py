"""What every benchmark's result says about itself: when, with what command, on which machine, with which versions.

    results.write(path, {"stamp": results.stamp(results.command_line("benchmarks.speed"), packages=("torch",)), ...})

Results live in `benchmarks/results/*.json`, and the tables in the README are made from them. Host names, user names and
folders of the machine stay out.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil

import severity_clf
from severity_clf import metrics

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks" / "results"


def command_line(module: str) -> str:
    """Give the running command as another machine would type it: of an absolute path only the last name is kept."""
    arguments = [re.sub(r"(^|=)/\S*/(?=.)", r"\1", argument) for argument in sys.argv[1:]]
    return " ".join(["python", "-m", module, *arguments])


def stamp(command: str, packages: Sequence[str] = ()) -> dict[str, Any]:
    """Date, command, machine, versions and commit of a run.

    Args:
        command: what to type to run it again.
        packages: distributions the benchmark used beyond those that scoring needs.
    """
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command,
        "machine": {
            "cpu": _cpu(),
            "cores_usable": cores(),
            "ram_gigabytes": round(psutil.virtual_memory().total / 1e9, 1),
            "load_average_1min": round(psutil.getloadavg()[0], 2),  # above zero at the start: other work was running
            "platform": f"{platform.system()} {platform.machine()}",
        },
        "versions": {
            "python": platform.python_version(),
            "severity_clf": severity_clf.__version__,
            **{name: version(name) for name in ("numpy", "onnxruntime", "tokenizers", *packages)},
        },
        "commit": _commit(),
    }


def cores() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def figure(
    metric: Callable[..., float], *arrays: npt.NDArray[Any], groups: Sequence[str] | None = None
) -> dict[str, Any] | None:
    """A metric with the 95% interval over resampled groups; None where it is not defined."""
    value = metric(*arrays)
    if np.isnan(value):
        return None
    low, high = metrics.bootstrap(metric, *arrays, groups=None if groups is None else np.array(groups))
    return {"value": round(value, 4), "interval": [round(low, 4), round(high, 4)]}


def write(path: Path, results: Mapping[str, Any]) -> None:
    """Write one benchmark's results as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    """Results as `write` wrote them."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*:\s*(.+)$", info.read_text(encoding="utf-8"), re.M) if info.is_file() else []
    return names[0] if names else platform.processor() or platform.machine()


def _commit() -> str | None:
    """Short hash, `+dirty` where more than results differs from it; None outside a repository."""
    git = shutil.which("git")
    if git is None:
        return None

    def ask(*arguments: str) -> str | None:
        done = subprocess.run([git, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    commit = ask("rev-parse", "--short", "HEAD")
    changed = ask("status", "--porcelain", "--", ".", f":!{FOLDER.relative_to(ROOT).as_posix()}")
    return f"{commit}+dirty" if commit and changed else commit
