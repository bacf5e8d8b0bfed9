"""How do changes become part of a generation? Written out row by row, with vectors that are already there."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.candidates import CandidateIndex
from index.columns import write_columns
from index.documents import Documents, DocumentsWriter
from index.finish import SearchWanted, make_search, write_manifest
from index.generations import CANDIDATES_FILE, DOCUMENTS_FILE, EMBEDDINGS_FILE, METADATA_FILE
from index.manifest import EncoderIdentity, GenerationManifest, IndexFault
from index.nearest import HeadVectors
from index.recall import Aim
from index.view import View

ROWS_PER_PART = 4096


def fold(
    view: View,
    home: Path,
    encoder: EncoderIdentity,
    dims: int,
    vectors: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    head: HeadVectors | None = None,
) -> GenerationManifest:
    """Write the documents of a view as a generation: what a build from the same documents would write.

    Its search is tuned and proven again, to the target that was proven before, by documents.

    Args:
        view: what it will hold; its recipe is kept.
        home: a folder to fill; files of an earlier attempt in it are replaced.
        encoder: whose vectors they are.
        dims: their width.
        vectors: (rows, dims) the vectors of some rows of the view.
        head: that FAISS ranks by, if it does so in the view.

    Raises:
        IndexFault: it cannot be built, proven or written.
    """
    ranked_by = view.manifest.head
    if ranked_by is not None and head is None:
        raise IndexFault(
            f"FAISS ranks this index by the head of {ranked_by.name} ({ranked_by.digest}), which is not at hand; give "
            "the bundle that has it (--bundle), or build the index again"
        )
    started = time.monotonic()
    rows = view.rows()
    (home / DOCUMENTS_FILE).unlink(missing_ok=True)
    with DocumentsWriter(home / DOCUMENTS_FILE) as writer, (home / EMBEDDINGS_FILE).open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (len(rows), dims)})
        for start in range(0, len(rows), ROWS_PER_PART):
            part = rows[start : start + ROWS_PER_PART]
            writer.append(view.documents(part))
            file.write(np.ascontiguousarray(vectors(part), "<f4").tobytes())
    return _finish(home, view, encoder, None if ranked_by is None else head, started)


def _finish(
    home: Path, view: View, encoder: EncoderIdentity, head: HeadVectors | None, started: float
) -> GenerationManifest:
    embeddings = np.load(home / EMBEDDINGS_FILE, mmap_mode="r", allow_pickle=False)
    write_columns(home / METADATA_FILE, Documents(home / DOCUMENTS_FILE).metadata())
    recipe, proof = view.manifest.recipe, view.manifest.proof
    if len(embeddings):
        aim = Aim() if proof is None else Aim(target=proof.target, k=proof.k)
        facts, measured = make_search(embeddings, home / CANDIDATES_FILE, recipe, SearchWanted(aim=aim, head=head))
    else:
        # Without a row there is nothing to train a recipe on. It is kept for the generation that has rows again.
        CandidateIndex.build(embeddings, "Flat").save(home / CANDIDATES_FILE)
        facts, measured = {"recipe": recipe, "proof": proof, "head": None if head is None else head.identity}, {}
    return write_manifest(home, encoder, facts | {"depth": view.manifest.depth}, view.through, measured, started)
