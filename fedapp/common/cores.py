"""How many cores this process may use, which on clusters and in containers is fewer than the machine has."""

import math
import os
from pathlib import Path

__all__ = ["allowed_cores"]

CGROUPS, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def allowed_cores(root: Path = CGROUPS, own: Path = OWN) -> int:
    """Cores of this process's affinity mask, or as many as its control group's CPU quota pays for, rounded up: the
    fewer of both, and at least one. Where the system has neither, all cores of the machine."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for folder in _folders(root, own) if (quota := _quota(folder)) is not None]
    return max(1, min([affinity, *(math.ceil(quota) for quota in quotas)]))


def _folders(root: Path, own: Path) -> list[Path]:
    """Where the kernel tells the quotas that hold for this process: its own control group's, and all above it."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return [root]
    found = {root}
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers or "cpu" in controllers.split(","):  # version 2, and version 1
            group = root / controllers / path.lstrip("/")
            found |= {folder for folder in (group, *group.parents) if folder.is_relative_to(root)}
    return sorted(found)


def _quota(folder: Path) -> float | None:
    """In cores; None where there is no limit."""
    try:
        if (file := folder / "cpu.max").exists():
            quota, period = file.read_text(encoding="utf-8").split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text(encoding="utf-8").strip()
            period = (folder / "cpu.cfs_period_us").read_text(encoding="utf-8").strip()
        cores = float(quota) / float(period)
    except (OSError, ValueError):  # "max" is no number
        return None
    return cores if cores > 0 else None
