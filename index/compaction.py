"""How do changes become part of a generation? Written out row by row, with vectors that are already there."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.asked import keep
from index.columns import write_columns
from index.documents import Documents, DocumentsWriter
from index.finish import SearchWanted, make_search, write_manifest
from index.generations import CANDIDATES_FILE, DOCUMENTS_FILE, EMBEDDINGS_FILE, METADATA_FILE
from index.headers import write_embeddings_header
from index.manifest import EncoderIdentity, GenerationManifest, IndexFault, RecipeFault
from index.nearest import HeadVectors
from index.recall import Aim
from index.recipes import choose_or_least
from index.view import View

log = logging.getLogger("dse")

ROWS_PER_PART = 4096


def fold(
    view: View,
    home: Path,
    encoder: EncoderIdentity,
    dims: int,
    vectors: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    aim: Aim,
    head: HeadVectors | None = None,
) -> GenerationManifest:
    """Write the documents of a view as a generation: what a build from the same documents would write.

    Args:
        view: what it will hold. A recipe that was named is kept while it suits the rows, else one is chosen for them.
        home: a folder to fill; files of an earlier attempt in it are replaced.
        encoder: whose vectors they are.
        dims: their width.
        vectors: (rows, dims) the vectors of some rows of the view.
        aim: what its search is tuned to and proven by (:func:`index.asked.aim_after`).
        head: that FAISS ranks by, if it does so in the view.

    Raises:
        IndexFault: it cannot be built, proven or written.
    """
    check_ranking(view.manifest, head)
    ranked_by = view.manifest.head
    started = time.monotonic()
    rows = view.rows()
    (home / DOCUMENTS_FILE).unlink(missing_ok=True)
    with DocumentsWriter(home / DOCUMENTS_FILE) as writer, (home / EMBEDDINGS_FILE).open("wb") as file:
        write_embeddings_header(file, len(rows), dims)
        for start in range(0, len(rows), ROWS_PER_PART):
            part = rows[start : start + ROWS_PER_PART]
            writer.append(view.documents(part))
            file.write(np.ascontiguousarray(vectors(part), "<f4").tobytes())
    return _finish(home, view, encoder, SearchWanted(aim=aim, head=None if ranked_by is None else head), started)


def check_ranking(manifest: GenerationManifest, head: HeadVectors | None) -> None:
    """Is there a head for an index that FAISS ranks by one?

    Raises:
        IndexFault: there is none.
    """
    if manifest.head is not None and head is None:
        raise IndexFault(
            f"FAISS ranks this index by the head of {manifest.head.name} ({manifest.head.digest}), and none that it "
            "could rank by is at hand; give the bundle that has it (--bundle), or build the index again"
        )


def _finish(
    home: Path, view: View, encoder: EncoderIdentity, wanted: SearchWanted, started: float
) -> GenerationManifest:
    embeddings = np.load(home / EMBEDDINGS_FILE, mmap_mode="r", allow_pickle=False)
    write_columns(home / METADATA_FILE, Documents(home / DOCUMENTS_FILE).metadata())
    before, path = view.manifest, home / CANDIDATES_FILE
    if len(embeddings):
        facts, measured = _searched(embeddings, path, before, wanted)
    else:  # what was wanted is kept for when there are rows again
        facts, measured = make_search(embeddings, path, before.named, wanted)
        facts |= {"memory": before.memory, "proof": before.proof}
    keep(home, wanted.aim)
    if "build" in before.measured:  # whose work folder may still be there, and is done with
        measured["build"] = before.measured["build"]
    return write_manifest(home, encoder, facts, view.through, measured, started)


def _searched(
    embeddings: NDArray[np.float32], path: Path, before: GenerationManifest, wanted: SearchWanted
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The search of a generation after another: by the recipe that was named, or by one for as many rows as there are.

    A named recipe may suit the rows no longer: so few cannot be put into so many lists, or cannot train codes. Then,
    rather than that deletes keep an index from ever being compacted, one is chosen; the next compaction tries again.
    """
    if before.named is not None:
        try:
            facts, measured = make_search(embeddings, path, before.named, wanted)
            return facts | {"memory": before.memory}, measured
        except RecipeFault as fault:
            log.warning("%s is left for now, and a recipe chosen by the number of documents: %s", before.named, fault)
    rows, dims = embeddings.shape
    chosen = choose_or_least(rows, wanted.width(dims), before.memory).recipe
    facts, measured = make_search(embeddings, path, chosen, wanted)
    return facts | {"named": before.named, "memory": before.memory}, measured
