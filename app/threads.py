"""How many threads may this process use? What the container allows, not what the machine has."""

import math
import os
from pathlib import Path

CGROUP_V2 = Path("/sys/fs/cgroup/cpu.max")
CGROUP_V1 = (Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us"))


def thread_budget(cpu_max: Path = CGROUP_V2, version_1: tuple[Path, Path] = CGROUP_V1) -> int:
    """CPUs this process may run on, or its cgroup's quota where that is less; at least 1."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        said = cpu_max.read_text().split() if cpu_max.exists() else [file.read_text() for file in version_1]
        quota, period = map(int, said)
    except (OSError, ValueError):  # no cgroup, or its quota is "max"
        return usable
    return max(1, min(usable, math.ceil(quota / period))) if quota > 0 else usable  # version 1 says -1 for none


def limit_native_threads(threads: int) -> None:
    """Tell OpenMP and OpenBLAS, before they are first loaded: at run time FAISS's own setting comes too late."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
        os.environ[name] = str(threads)
    # A thread that spins while it waits takes the CPU from the other libraries of the process. FAISS's can be told not
    # to; numpy's cannot, and what a search multiplies there is too little for two threads anyhow.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


def asked_threads() -> int:
    """``DSE_THREADS`` where it is a number (a bad one is refused with the other settings), else the budget."""
    asked = os.environ.get("DSE_THREADS", "")
    return int(asked) if asked.isdecimal() and int(asked) > 0 else thread_budget()
