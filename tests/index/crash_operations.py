"""What is done to an index while it is killed. Each says a line for every step that it has acknowledged."""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np

from index.live import LiveIndex
from index.manifest import EncoderIdentity
from index.rebuild import rebuild
from tests.index import crash_build
from tests.index.lettered import HALVED, build_letters, embed, embed_halves, open_live, upsert

Texts = dict[str, str]

OLD: Texts = {"a": "listen", "b": "silent", "c": "stone", "d": "notes", "e": "banana"}
ADDED: list[Texts] = [{"f": "tinsel", "a": "google"}, {"g": "onset"}, {"f": "cabana", "h": "x" * 5000}]
DELETED = [["a"], ["b", "nobody", "e"], ["c"]]


def say(line: str = "done") -> None:
    os.write(1, line.encode() + b"\n")


def build(source: str, index: str) -> None:
    crash_build.build(Path(source), Path(index), crash_build.Letters(), crash_build.Aloud())
    say("published")


def add(index: str) -> None:
    with open_live(Path(index)) as live:
        for texts in ADDED:
            upsert(live, texts)
            say()


def delete(index: str) -> None:
    with open_live(Path(index)) as live:
        for ids in DELETED:
            live.delete(ids)
            say()


def compact(index: str) -> None:
    with open_live(Path(index)) as live:
        live.compact()
        say()


def rebuild_halved(index: str) -> None:
    rebuild(Path(index), embed_halves, 13, HALVED)
    say()


def reload(index: str) -> None:
    """What another handle writes and publishes is taken up, and gone on from."""
    with open_live(Path(index)) as live, open_live(Path(index)) as other:
        upsert(other, ADDED[0])
        say()
        other.compact()
        say()
        live.reload()
        say()
        upsert(live, ADDED[1])
        say()


def history(index: str, seed: str) -> None:
    """Random steps, each announced before it is taken, until killed."""
    rng = random.Random(int(seed))
    with open_live(Path(index)) as live:
        say(json.dumps(["ready"]))
        while True:
            ids = rng.sample([f"id{n}" for n in range(20)], rng.randint(1, 4))
            kind = rng.random()
            if kind < 0.6:
                texts = {id_: "".join(rng.choices("abcdef", k=5)) for id_ in ids}
                say(json.dumps(["upsert", texts]))
                upsert(live, texts)
            elif kind < 0.85:
                say(json.dumps(["delete", ids]))
                live.delete(ids)
            else:
                say(json.dumps(["compact", None]))
                live.compact()
            say(json.dumps(["done"]))


def one_word(root: str, synced: str) -> None:
    """A file is written beside its name and renamed, as some programs do: perhaps without an fsync."""
    with (Path(root) / "a.partial").open("wb") as file:
        file.write(b"word")
        file.flush()
        if synced == "True":
            os.fsync(file.fileno())
    (Path(root) / "a.partial").replace(Path(root) / "a")
    say()


OPERATIONS: dict[str, Callable[..., None]] = {
    "build": build,
    "add": add,
    "delete": delete,
    "compact": compact,
    "rebuild": rebuild_halved,
    "reload": reload,
    "history": history,
    "one word": one_word,
}


def after(texts: Texts, step: Texts | list[str] | None) -> Texts:
    """Texts by id in the order of rows after an upsert, the delete of ids, or nothing."""
    left = {id_: text for id_, text in texts.items() if step is None or id_ not in step}
    return left | step if isinstance(step, dict) else left


class Prepared:
    """An index as an operation is to find it."""

    @staticmethod
    def fresh(folder: Path) -> Texts:
        """A generation, nothing else."""
        build_letters(folder, OLD)
        return OLD

    @staticmethod
    def changed(folder: Path) -> Texts:
        """Compacted before, with changes since."""
        texts = Prepared.fresh(folder)
        with open_live(folder) as live:
            for step in ({"before": "before"}, {"d": "melon", "z": "lemon"}):
                upsert(live, step)
                texts = after(texts, step)
                live.compact()
            upsert(live, {"since": "since", "c": "apple"})
            live.delete(["z"])
        return after(after(texts, {"since": "since", "c": "apple"}), ["z"])


def open_any(folder: Path) -> LiveIndex:
    return LiveIndex.open(folder, None, writable=True)


def embed_as(encoder: EncoderIdentity) -> Callable[[list[str]], np.ndarray]:
    return embed_halves if encoder == HALVED else embed
