"""The teacher's answers, written once: a file of logits keyed by pair id and content digest."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from model.faults import TrainingFault
from model.training.pairs import Pair
from model.training.signal import Signal

FORMAT = 1
ROWS_PER_WRITE = 512


class LogitsError(TrainingFault):
    """A logits file that does not answer for the pairs at hand; the message names the first of them."""


class RawScorer(Protocol):
    """What labelling asks of a teacher."""

    signal: Signal

    def raw_scores(self, pairs: Sequence[Pair]) -> NDArray[np.float64]:
        """(pairs, members) what each member says; (pairs, outputs, members) where it answers several logits."""
        ...


@dataclass(frozen=True)
class _Row:
    digest: str
    logit: float | list[float]  # one for each output, where there are several


class TeacherLogits:
    """A logits file, read: look-ups are by pair id and refuse a pair whose text has changed."""

    def __init__(self, path: Path, signal: Signal, rows: dict[str, _Row]) -> None:
        self.signal, self._path, self._rows = signal, path, rows

    @classmethod
    def load(cls, path: Path) -> "TeacherLogits":
        """Read a file that :func:`label` wrote.

        Raises:
            LogitsError: it is missing, or a line of it is not what ``label`` writes.
        """
        try:
            signal, rows, _ = _read(path)
        except OSError as error:
            raise LogitsError(f"{path}: {error.strerror}; run dse teacher label") from error
        return cls(path, signal, rows)

    def of(self, pairs: Sequence[Pair]) -> NDArray[np.float64]:
        """(pairs,) the logit of each pair, or (pairs, outputs), whatever the order they come in.

        Raises:
            LogitsError: a pair was never labelled, or its text is no longer the one that was.
        """
        if missing := [pair for pair in pairs if pair.id not in self._rows]:
            raise LogitsError(
                f"{self._path} has no logit for {len(missing)} of {len(pairs)} pairs, first {missing[0].id}; "
                "run dse teacher label on this recipe"
            )
        for pair in pairs:
            if (labelled := self._rows[pair.id].digest) != pair.digest:
                raise LogitsError(
                    f"pair {pair.id} was altered after {self._path} was written: labelled {labelled[:12]}, now "
                    f"{pair.digest[:12]}; run dse teacher label into a new file"
                )
        logits = [self._rows[pair.id].logit for pair in pairs]
        if len({np.shape(logit) for logit in logits}) > 1:
            raise LogitsError(f"{self._path} has logits of unlike shapes; run dse teacher label into a new file")
        return np.array(logits)


def label(
    teacher: RawScorer,
    pairs: Sequence[Pair],
    path: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> TeacherLogits:
    """Write the teacher's logit of every pair to ``path``; pairs already in it are not asked again.

    The first line names the signal, its members and their digests; each further line is one pair. A torn last line,
    left by a process that was killed, is dropped.

    Raises:
        LogitsError: the file was written by another teacher, or holds another text under one of these ids.
    """
    header = {"format": FORMAT, "signal": teacher.signal.as_json()}
    if path.exists():
        found, rows, intact = _read(path)
        if found != teacher.signal:
            raise LogitsError(f"{path} was written by {found.name} with other members; label into a new file")
        with path.open("r+b") as file:
            file.truncate(intact)
    else:
        rows = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(header) + "\n", "utf-8")
    labelled = TeacherLogits(path, teacher.signal, rows)
    labelled.of([pair for pair in pairs if pair.id in rows])  # refuses an altered pair
    waiting = list({pair.id: pair for pair in pairs if pair.id not in rows}.values())  # two sets may read one file
    waiting.sort(key=lambda pair: len(pair.left) + len(pair.right))
    with path.open("a", encoding="utf-8") as file:
        for start in range(0, len(waiting), ROWS_PER_WRITE):
            batch = waiting[start : start + ROWS_PER_WRITE]
            raw = teacher.raw_scores(batch)
            for pair, logit, members in zip(batch, teacher.signal.logits(raw), raw, strict=True):
                row = {"pair": pair.id, "digest": pair.digest, "logit": logit.tolist()}
                file.write(json.dumps(row | {"members": members.tolist()}) + "\n")
                rows[pair.id] = _Row(pair.digest, logit.tolist())
            file.flush()
            progress(start + len(batch), len(waiting))
    return labelled


def _logit(value: Any) -> float | list[float]:
    """What a line may hold: a number, or one for each output."""
    numbers = value if isinstance(value, list) and value else [value]
    if not all(isinstance(number, (int, float)) and math.isfinite(number) for number in numbers):
        raise ValueError(f"the logit is {value!r}, no finite number")
    return [float(number) for number in value] if isinstance(value, list) else float(value)


def _read(path: Path) -> tuple[Signal, dict[str, _Row], int]:
    """The signal of the first line, rows by pair id, and how many bytes are whole lines."""
    signal: Signal | None = None
    rows: dict[str, _Row] = {}
    intact = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                break
            try:
                entry = json.loads(line)
                if signal is None:
                    if entry["format"] != FORMAT:
                        raise LogitsError(f"{path} is of format {entry['format']}, not {FORMAT}; label into a new file")
                    signal = Signal.from_json(entry["signal"])
                else:
                    rows[entry["pair"]] = _Row(entry["digest"], _logit(entry["logit"]))
            except (ValueError, KeyError, TypeError) as error:
                raise LogitsError(f"{path}:{number}: not a line of a logits file ({error})") from error
            intact += len(line)
    if signal is None:
        raise LogitsError(f"{path}: empty; remove it and run dse teacher label")
    return signal, rows, intact
