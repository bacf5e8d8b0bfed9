"""How is a live index copied? A generation, and the change log as it was at one moment after."""

import shutil
from contextlib import closing
from pathlib import Path

from index.changes import CHANGES_FILE, ChangeLog
from index.durable import fsync
from index.generations import CURRENT, GENERATIONS, PARTIAL, current_name
from index.live import LiveIndex
from index.manifest import GenerationManifest, IndexFault
from index.view import View


def snapshot(folder: Path, target: Path) -> View:
    """Copy an index as it is at one moment to a new folder, while it is searched, changed and compacted.

    The copy is opened and checked before it gets its name.

    Raises:
        IndexFault: not an index, damaged, or the target exists or cannot be written.
    """
    current_name(folder)  # before anything is made
    if target.exists():
        raise IndexFault(f"{target} exists; give a name that is free, or remove it")
    partial = target.with_name(target.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        while not _copied(folder, partial):
            shutil.rmtree(partial)
        with LiveIndex.open(partial, None) as copy:
            view = copy.view()
        for path in [*sorted(partial.rglob("*")), partial]:
            fsync(path)
        partial.rename(target)
        fsync(target.parent)
    except OSError as error:
        raise IndexFault(f"{folder} cannot be copied to {target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return view


def _copied(folder: Path, target: Path) -> bool:
    """Whether generation and log are of one time; they are not if another generation was published between the two."""
    name = current_name(folder)
    home = folder / GENERATIONS / name
    try:
        manifest = GenerationManifest.read(home)
        shutil.copytree(home, target / GENERATIONS / name)
    except (OSError, shutil.Error, IndexFault):
        if current_name(folder) == name:
            raise
        (target / GENERATIONS).mkdir(parents=True, exist_ok=True)
        return False
    (target / CURRENT).write_text(name + "\n", "utf-8")
    through = manifest.changes_through
    if (folder / CHANGES_FILE).exists():
        with closing(ChangeLog(folder / CHANGES_FILE, writable=False)) as log:
            log.copy(target / CHANGES_FILE)
        return current_name(folder) == name
    if through:  # of a replica, that has no log: the copy gets one that goes on where the generation ends
        ChangeLog.create(target / CHANGES_FILE, through)
    return True
