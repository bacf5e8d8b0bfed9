"""Upkeep: a compaction that fails is tried again, and not at once."""

import time

import pytest

from app.upkeep import Upkeep
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
