"""What is the most memory that this process held, since it was last asked to forget?"""

import ctypes
from pathlib import Path

STATUS, FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def forget_peak() -> None:
    """Begin anew to note the most memory that this process held.

    What it freed, but its allocator keeps for later, is given back first: work that takes it up again would seem to
    need none.
    """
    if not FORGET.exists():
        return
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # of the GNU C library
        trim(0)
    FORGET.write_text("5")


def peak_mib() -> float | None:
    """The most memory that this process held; None where the system does not tell (it is Linux that does)."""
    # not getrusage: its figure survives exec, and would be that of the process which started this one
    lines = STATUS.read_text().splitlines() if STATUS.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), None)


def beside(before: float | None) -> float | None:
    """How much more the process held since it held ``before``; None where the system does not tell."""
    now = peak_mib()
    return None if before is None or now is None else round(now - before, 1)
