"""Upkeep: a compaction that fails is tried again, and not at once; and one that is left behind is no failure."""

import asyncio
import subprocess
import sys
import threading
import time

import pytest

from app.upkeep import Upkeep, abandonable, goes_on
from index.manifest import IndexFault
from tests.waiting import until


class Folded:
    """A view of an index that others keep changing."""

    name, pending = "000002", 1

    def __len__(self) -> int:
        return 5


class FailsOnce:
    """An index whose first compaction fails; it notes when each began."""

    def __init__(self, fault: Exception) -> None:
        self.began: list[float] = []
        self._fault = fault

    def view(self) -> Folded:
        return Folded()

    def compact(self) -> Folded:
        self.began.append(time.monotonic())
        if len(self.began) == 1:
            raise self._fault
        return Folded()


def test_what_may_be_left_behind_is_known_while_it_goes_on() -> None:
    done = threading.Event()

    async def scenario() -> None:
        asked = asyncio.ensure_future(abandonable(lambda: done.wait(60)))
        await asyncio.sleep(0)
        assert goes_on()
        done.set()
        assert await asked

    assert not goes_on()
    asyncio.run(scenario())
    until(lambda: not goes_on())


LEFT = """
import asyncio, sys, threading, time
import faiss, numpy as np
from app.upkeep import abandonable
from scripts.serve import _leave
rows = np.random.default_rng(0).standard_normal((20_000, 64), np.float32)
async def cut_off():
    work = asyncio.ensure_future(abandonable(lambda: faiss.Kmeans(64, 200, niter=100_000).train(rows)))
    await asyncio.wait([work], timeout=0.5)
asyncio.run(cut_off())
try:
    sys.exit(int(sys.argv[1]))
finally:
    print("the end")
    _leave(sys.exception())
"""


@pytest.mark.parametrize("code", [0, 3])
def test_a_process_ends_as_it_was_told_though_work_is_left_inside_faiss(code: int) -> None:
    """Python 3.11 aborts where it ends such a thread."""
    ended = subprocess.run([sys.executable, "-c", LEFT, str(code)], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (code, "the end\n"), ended.stderr


@pytest.mark.parametrize("fault", [IndexFault("another process is writing"), ArithmeticError("not finite")])
def test_a_compaction_that_fails_is_tried_again_after_a_pause(
    fault: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("app.upkeep.SECONDS_AFTER_A_FAULT", 0.5)
    index = FailsOnce(fault)
    with Upkeep(index, 1, seconds=0.001):  # type: ignore[arg-type]
        until(lambda: len(index.began) > 1)
    assert index.began[1] - index.began[0] >= 0.5
    assert "not compacted" in caplog.text
    assert str(fault) in caplog.text
