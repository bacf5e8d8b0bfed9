"""What does a process leave behind when it is killed, or when the power fails? strace kills it, records it, replays it.

For any child of a :class:`~tests.index.nursery.Nursery` that writes below a folder ``root``, which exists, and says a
line for all that it has acknowledged:

    recording = record(child(), root)             # every change it makes to files, in order; root is then as it was
    killed(child(), when)                         # for when in recording.kills(): dies before that system call
    for state in recording.power_cuts(step):      # what the disk may hold if the power fails after that many changes
        state.write(somewhere)

Only what one thread of one process does is followed.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random

from tests.index.nursery import Child, Ended

CHANGES = (
    "write", "pwrite64", "fsync", "fdatasync", "ftruncate", "rename", "renameat", "renameat2", "unlink", "unlinkat",
    "mkdir", "mkdirat", "rmdir", "link", "linkat",
)  # fmt: skip
OPENINGS = ("openat", "lseek")
NEVER = ("writev", "pwritev", "fallocate", "copy_file_range", "sendfile", "msync", "creat", "open", "truncate")
"""What would change files in ways that are not replayed; met on a file below the root, they are an error."""

_CALL = re.compile(r"^\d+ +(\w+)\((.*)\) += (-?\d+)")
_DESCRIPTOR = re.compile(r"^(AT_FDCWD|-?\d+)(?:<([^>]*)>(?:\(deleted\))?)?$")


@cache
def why_not() -> str | None:
    """Why processes cannot be traced here; None if they can."""
    if shutil.which("strace") is None:
        return "needs strace (apt-get install strace)"
    tried = ["strace", "-f", "-o", os.devnull, "true"]
    done = subprocess.run(tried, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else f"strace cannot trace here: {done.stderr.strip()[-200:]}"


@dataclass(frozen=True)
class Call:
    """A system call; ``result`` is negative if it failed."""

    name: str
    arguments: list[str]  # as strace shows them
    result: int

    def text(self, position: int) -> bytes:
        """A string argument."""
        return _bytes(self.arguments[position].strip('"'))

    def path(self, position: int) -> Path:
        """A path argument, or the one of a descriptor."""
        argument = self.arguments[position]
        found = _DESCRIPTOR.match(argument)
        return Path(os.fsdecode(_bytes(found[2] or "") if found else _bytes(argument.strip('"'))))

    def descriptor(self, position: int = 0) -> int:
        """A descriptor argument."""
        return int(self.arguments[position].partition("<")[0])


@dataclass(frozen=True)
class Kill:
    """Just before the ``count``-th call of this name."""

    name: str
    count: int


def killed(child: Child, when: Kill) -> Ended:
    """Run a child that is killed with SIGKILL as it enters a system call."""
    with _traced(child, ["-e", f"trace={when.name}", "-e", f"inject={when.name}:signal=SIGKILL:when={when.count}"]):
        return child.ended()


def record(child: Child, root: Path) -> "Recording":
    """Run a child to its end and note what it changes; afterwards what is below ``root`` is as it was before."""
    before = _Disk.of(root)
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "log"
        trace = ",".join((*CHANGES, *OPENINGS, *NEVER))
        with _traced(child, ["-y", "-xx", "-s", "100000000", "-e", f"trace={trace}"], log):
            assert not child.ended().signal
        calls = [call for line in log.read_text("ascii").splitlines() if (call := _call(line))]
    recording = Recording(root, before, calls)
    after = _Disk.of(root)
    assert recording.disk_after(len(calls)).files() == after.files(), "the recording misses something"
    shutil.rmtree(root)
    State(before, "").write(root)
    return recording


@contextmanager
def _traced(child: Child, options: list[str], log: Path = Path(os.devnull)) -> Iterator[None]:
    """Let a child go once strace follows it; on leaving this, strace has ended."""
    command = ["strace", "-f", "-p", str(child.pid), "-o", str(log), *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
        assert strace.stderr is not None
        said = strace.stderr.readline()
        child.go()
        assert "attached" in said, said
        yield
        strace.communicate()


def _call(line: str) -> Call | None:
    found = _CALL.match(line)
    if found is None:
        assert "unfinished" not in line, f"two threads at once: {line[:200]}"
        return None
    name, arguments, result = found[1], found[2].split(", "), int(found[3])
    return Call(name, arguments, result)


def _bytes(shown: str) -> bytes:
    return bytes.fromhex(shown.replace("\\x", "")) if shown else b""


@dataclass
class _File:
    content: bytes = b""
    durable: bytes = b""  # what the disk holds for certain


@dataclass
class _Folder:
    names: dict[str, "_File | _Folder"] = field(default_factory=dict)
    durable: dict[str, "_File | _Folder"] = field(default_factory=dict)


class _Disk:
    """Files and folders below a root: what a process sees of them, and what is sure to outlive a power cut."""

    def __init__(self, root: Path) -> None:
        self.root, self.top = root, _Folder()
        self._open: dict[int, tuple[_File | _Folder, int]] = {}

    @classmethod
    def of(cls, root: Path) -> "_Disk":
        """What is on the real disk, all of it durable."""
        disk = cls(root)
        disk.top = cls._read(root)
        return disk

    @classmethod
    def _read(cls, path: Path) -> _Folder:
        names: dict[str, _File | _Folder] = {}
        for child in sorted(path.iterdir()):
            names[child.name] = cls._read(child) if child.is_dir() else _File(child.read_bytes(), child.read_bytes())
        return _Folder(names, dict(names))

    def files(self) -> dict[str, bytes | None]:
        """Everything, as the process sees it, by path; None for a folder. What is only mapped memory is left out."""
        found: dict[str, bytes | None] = {}
        pending = [("", self.top)]
        while pending:
            prefix, folder = pending.pop()
            for name, node in folder.names.items():
                if isinstance(node, _Folder):
                    found[prefix + name] = None
                    pending.append((f"{prefix}{name}/", node))
                elif not name.endswith("-shm"):
                    found[prefix + name] = node.content
        return found

    def holds(self, path: Path) -> bool:
        return path.is_relative_to(self.root) and path != self.root

    def _parent(self, path: Path) -> _Folder:
        node = self.top
        for name in path.parent.relative_to(self.root).parts:
            child = node.names[name]
            assert isinstance(child, _Folder)
            node = child
        return node

    def apply(self, call: Call) -> bool:
        """Do as the call did; False if it changed nothing below the root."""
        name = call.name
        if call.result < 0:
            return False
        if name == "openat":
            return self._opened(call)
        if name in ("write", "pwrite64", "fsync", "fdatasync", "ftruncate", "lseek", *NEVER):
            return self._with_descriptor(call)
        positions = {"renameat": (0, 1, 2, 3), "renameat2": (0, 1, 2, 3), "linkat": (0, 1, 2, 3)}.get(name)
        if positions:
            paths = [
                call.path(positions[0]) / call.path(positions[1]),
                call.path(positions[2]) / call.path(positions[3]),
            ]
        elif name in ("rename", "link"):
            paths = [call.path(0), call.path(1)]
        else:
            paths = [call.path(0) / call.path(1) if name in ("unlinkat", "mkdirat") else call.path(0)]
        if not self.holds(paths[0]):
            return False
        source = self._parent(paths[0])
        if name.startswith("mkdir"):
            source.names[paths[0].name] = _Folder()
        elif name.startswith("link"):
            self._parent(paths[1]).names[paths[1].name] = source.names[paths[0].name]
        elif name.startswith("rename"):
            self._parent(paths[1]).names[paths[1].name] = source.names.pop(paths[0].name)
        else:
            del source.names[paths[0].name]
        return True

    def _opened(self, call: Call) -> bool:
        path = call.path(0) / call.path(1)
        self._open.pop(call.result, None)
        if not path.is_relative_to(self.root):
            return False
        if path == self.root:
            self._open[call.result] = (self.top, 0)
            return False
        flags = call.arguments[2].split("|")
        if "O_TMPFILE" in flags:  # in that folder, under no name: nothing is left of it
            self._open[call.result] = (_File(), 0)
            return False
        parent = self._parent(path)
        changed = path.name not in parent.names or "O_TRUNC" in flags
        node = parent.names.setdefault(path.name, _File())
        if isinstance(node, _File) and "O_TRUNC" in flags:
            node.content = b""
        at_end = isinstance(node, _File) and "O_APPEND" in flags
        self._open[call.result] = (node, len(node.content) if at_end and isinstance(node, _File) else 0)
        return changed

    def _with_descriptor(self, call: Call) -> bool:
        descriptor = call.descriptor()
        path = call.path(0)
        if descriptor not in self._open or not path.is_relative_to(self.root):
            return False
        assert call.name not in NEVER, f"{call.name} is not replayed: {path}"
        node, offset = self._open[descriptor]
        if isinstance(node, _Folder):
            if call.name in ("fsync", "fdatasync"):
                node.durable = dict(node.names)
            return call.name != "lseek"
        if call.name == "lseek":
            self._open[descriptor] = (node, call.result)
            return False
        if call.name in ("fsync", "fdatasync"):
            node.durable = node.content
        elif call.name == "ftruncate":
            size = int(call.arguments[1], 0)
            node.content = node.content[:size].ljust(size, b"\0")
        else:
            data = call.text(1)[: call.result]
            if call.name == "pwrite64":
                offset = int(call.arguments[3], 0)
            else:
                self._open[descriptor] = (node, offset + len(data))
            node.content = node.content[:offset].ljust(offset, b"\0") + data + node.content[offset + len(data) :]
        return True


@dataclass(frozen=True)
class State:
    """What a disk holds after a power cut."""

    disk: _Disk
    kind: str

    def write(self, folder: Path) -> None:
        """Put it into a folder, which is made."""
        self._write(self.disk.top, folder)

    def _write(self, node: _File | _Folder, path: Path) -> None:
        if isinstance(node, _File):
            path.write_bytes(node.content)
            return
        path.mkdir()
        for name, child in node.names.items():
            self._write(child, path / name)


@dataclass(frozen=True)
class Recording:
    """What a command did to the files below a root, call by call."""

    root: Path
    before: _Disk
    calls: list[Call]

    def kills(self) -> list[Kill]:
        """Every point just before a call that changes something, in order."""
        counted: Counter[str] = Counter()
        found = []
        disk = deepcopy(self.before)
        for call in self.calls:
            counted[call.name] += 1
            if disk.apply(call) and call.name in CHANGES:
                found.append(Kill(call.name, counted[call.name]))
        return found

    def steps(self) -> list[int]:
        """How many calls have been made after each one that changes something."""
        disk = deepcopy(self.before)
        return [number for number, call in enumerate(self.calls, 1) if disk.apply(call)]

    def said(self, step: int) -> list[str]:
        """The lines that were acknowledged on standard output within the first ``step`` calls."""
        written = [call for call in self.calls[:step] if call.name == "write" and call.descriptor() == 1]
        return b"".join(call.text(1)[: call.result] for call in written).decode().splitlines()

    def disk_after(self, step: int) -> _Disk:
        """What the process sees after its first ``step`` calls."""
        disk = deepcopy(self.before)
        for call in self.calls[:step]:
            disk.apply(call)
        return disk

    def power_cuts(self, step: int, seed: int = 0) -> Iterator[State]:
        """Disks as the power may leave them after the first ``step`` calls.

        The strictest keeps only what was fsynced, names and contents; another keeps all names, as a journaling file
        system does, over contents that were never written (the file is there, and empty); the last keeps part of them.
        """
        yield State(_cut(self.disk_after(step), all_names=False), "nothing that was not fsynced")
        yield State(_cut(self.disk_after(step), all_names=True), "names without contents")
        yield State(_cut(self.disk_after(step), all_names=True, some=Random(seed * 100_003 + step)), "some contents")


def _cut(disk: _Disk, all_names: bool, some: Random | None = None) -> _Disk:
    """The disk, cut down to what outlives the power."""
    pending: list[_File | _Folder] = [disk.top]
    seen: set[int] = set()
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, _Folder):
            if not all_names:
                node.names = node.durable
            pending += node.names.values()
        elif some is None:
            node.content = node.durable
        else:
            kept = some.randint(0, len(node.content))
            torn = node.content[:kept] + node.durable[kept:]
            node.content = node.durable if node.durable == node.content else some.choice([node.durable, torn])
    return disk
