"""In which order do files become durable, and visible? Written down as it happens."""

from pathlib import Path

import pytest


class Journal:
    """Records every fsync, rename and replace by name, and can fail at one of them as a full disk does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fail_at: int | None = None) -> None:
        self.steps: list[str] = []
        self._fail_at = fail_at
        for module in ("durable", "generations", "shards", "snapshot", "sources"):
            monkeypatch.setattr(f"index.{module}.fsync", lambda path: self.note("fsync", path))
        for name in ("rename", "replace"):
            monkeypatch.setattr(Path, name, self.noting(name, getattr(Path, name)))

    def note(self, step: str, path: Path) -> None:
        if len(self.steps) == self._fail_at:
            self.steps.append("failed")
            raise OSError(28, "No space left on device")
        self.steps.append(f"{step} {path.name}")

    def noting(self, step: str, original):
        def noted(path: Path, target: Path) -> Path:
            self.note(step, path)
            return original(path, target)

        return noted
