"""What may a benchmark change? A copy of the index, which is gone afterwards; never the index it was given."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from index.documents import Document
from index.live import LiveIndex
from index.snapshot import snapshot
from index.view import View
from scripts.console import BadInput
from scripts.use_commands import read_queries

DOCUMENTS_PER_TRANSACTION = 1024
SAMPLED_QUERIES = 1000


@contextmanager
def scratch_copy(folder: Path, within: Path | None) -> Iterator[Path]:
    """A copy of an index, to be changed at will.

    Args:
        folder: the index, which stays as it is.
        within: where to make it; None: where the system keeps temporary files.

    Raises:
        BadInput: there is no such place.
    """
    try:
        place = tempfile.TemporaryDirectory(prefix="dse-benchmark-", dir=within)
    except OSError as error:
        raise BadInput(f"--scratch {within}: {error.strerror}; give a folder that can be written") from error
    with place as made:
        copy = Path(made) / "index"
        snapshot(folder, copy)
        yield copy


def sampled(view: View, count: int, seed: int) -> list[Document]:
    """Documents of an index, drawn without repeats; all of them if there are no more."""
    rows = view.rows()
    return view.documents(np.random.default_rng(seed).permutation(rows)[:count])


def queries_of(path: Path | None, view: View) -> tuple[list[str], str]:
    """What to ask, and where it is from: the lines of a file, else the texts of some documents.

    Raises:
        BadInput: the file cannot be read, or there is no document to ask with.
    """
    if path is not None:
        return read_queries(path), path.name
    texts = [document.text for document in sampled(view, SAMPLED_QUERIES, seed=0)]
    if not texts:
        raise BadInput("the index holds no document; add some, or give --queries FILE")
    return texts, "documents"


def change(index: LiveIndex, count: int) -> None:
    """Make so many changes: one third each new documents, documents replaced, and documents deleted.

    Texts and vectors are those of other documents, so nothing is embedded for it.

    Raises:
        BadInput: the index has too few documents to be changed so often.
    """
    view = index.view()
    rows = np.random.default_rng(1).permutation(view.rows())
    if count > len(rows):
        raise BadInput(f"the index has {len(rows):,} documents; give --changes as many or fewer")
    new, replaced = count - 2 * (count // 3), count // 3
    sources = np.roll(rows, 1)[: new + replaced]  # no document is replaced by itself
    targets = [document.id for document in view.documents(rows[new:count])]
    ids = [f"benchmark/{number}" for number in range(new)] + targets[:replaced]
    for start in range(0, len(ids), DOCUMENTS_PER_TRANSACTION):
        part = slice(start, start + DOCUMENTS_PER_TRANSACTION)
        documents = [
            Document(id_, source.text, source.metadata)
            for id_, source in zip(ids[part], view.documents(sources[part]), strict=True)
        ]
        index.upsert(documents, view.embeddings(sources[part]))
    if targets[replaced:]:
        index.delete(targets[replaced:])
