"""The most memory that work took is told whether or not the process had held it before."""

import ctypes

import pytest

from scripts.studies.memory import STATUS, beside, forget_peak, peak_mib

BLOCKS, BLOCK = 600, 100_000


@pytest.mark.skipif(
    not (STATUS.exists() and hasattr(ctypes.CDLL(None), "malloc_trim")), reason="needs Linux and the GNU C library"
)
def test_work_that_takes_up_what_was_freed_is_counted_again() -> None:
    pins = []
    told = []
    for _ in range(3):
        forget_peak()
        before = peak_mib()
        blocks = [bytearray(b"x" * BLOCK) for _ in range(BLOCKS)]
        told.append(beside(before))
        pins.append(bytearray(b"x" * BLOCK))  # behind the blocks: what is freed before it stays the process's
        blocks.clear()
    for mib in told:
        assert mib is not None
        assert BLOCKS * BLOCK / 2**20 * 0.9 < mib < BLOCKS * BLOCK / 2**20 * 1.3
