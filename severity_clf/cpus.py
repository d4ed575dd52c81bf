"""How many CPUs this process should use: what it may run on, what its container grants, what its host asks for.

A container's CPU quota is not in the affinity mask: one of two CPUs on a machine of 64 sees all 64, and as many threads
would be put to sleep by the kernel in the middle of their work.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path


def usable_cpus(root: Path = Path("/"), environ: Mapping[str, str] = os.environ) -> int:
    """The smallest of three, at least 1: the affinity, the cgroup's quota rounded up, and OMP_NUM_THREADS.

    OMP_NUM_THREADS is how launchers tell each of their processes its share: `torchrun` sets it to 1.

    Args:
        root: the folder that holds `proc` and `sys`.
        environ: where OMP_NUM_THREADS may be; of a list, the first counts, and what is no number does not.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    limits = [float(asked)] if asked.isdecimal() and int(asked) else []
    return max(1, math.ceil(min([cpus, *limits, *_quotas(root)])))


def _quotas(root: Path) -> Iterator[float]:
    """CPUs that the process's control group, version 1 or 2, and those around it grant; nothing where none limits."""
    cgroups = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            for group in _outwards(cgroups, path):
                yield from _ratio(*_read(group / "cpu.max").split())
        elif "cpu" in controllers.split(","):
            for group in (*_outwards(cgroups / controllers, path), *_outwards(cgroups / "cpu", path)):
                yield from _ratio(*(_read(group / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")))


def _outwards(mount: Path, path: str) -> Iterator[Path]:
    """A group's folder and those around it. In a container, `path` may be the host's; the mount itself is then seen."""
    inner = mount / path.lstrip("/")
    yield inner
    if inner != mount:
        yield from (group for group in inner.parents if group.is_relative_to(mount))


def _ratio(quota: str = "", period: str = "") -> Iterator[float]:
    if quota.isdecimal() and period.isdecimal() and int(quota) and int(period):  # "max" or -1: no limit
        yield int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):  # another system, or a group out of sight
        return ""
