"""How do changes become part of a generation? Written out row by row, with vectors that are already there."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.candidates import CandidateIndex
from index.documents import DocumentsWriter
from index.generations import CANDIDATES_FILE, DOCUMENTS_FILE, EMBEDDINGS_FILE, FILES
from index.manifest import MANIFEST, EncoderIdentity, GenerationManifest, sha256_of
from index.view import View

ROWS_PER_PART = 4096


def fold(
    view: View,
    home: Path,
    encoder: EncoderIdentity,
    dims: int,
    vectors: Callable[[NDArray[np.int64]], NDArray[np.float32]],
) -> GenerationManifest:
    """Write the documents of a view as a generation: what a build from the same documents would write.

    Args:
        view: what it will hold; its recipe is kept.
        home: a folder to fill; files of an earlier attempt in it are replaced.
        encoder: whose vectors they are.
        dims: their width.
        vectors: (rows, dims) the vectors of some rows of the view.

    Raises:
        IndexFault: it cannot be built or written.
    """
    started = time.monotonic()
    rows = view.rows()
    (home / DOCUMENTS_FILE).unlink(missing_ok=True)
    with DocumentsWriter(home / DOCUMENTS_FILE) as writer, (home / EMBEDDINGS_FILE).open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (len(rows), dims)})
        for start in range(0, len(rows), ROWS_PER_PART):
            part = rows[start : start + ROWS_PER_PART]
            writer.append(view.documents(part))
            file.write(np.ascontiguousarray(vectors(part), "<f4").tobytes())
    return _finish(home, view, encoder, started)


def _finish(home: Path, view: View, encoder: EncoderIdentity, started: float) -> GenerationManifest:
    embeddings = np.load(home / EMBEDDINGS_FILE, mmap_mode="r", allow_pickle=False)
    # Without a row there is nothing to train a recipe on. It is kept for the generation that has rows again.
    CandidateIndex.build(embeddings, view.manifest.recipe if len(embeddings) else "Flat").save(home / CANDIDATES_FILE)
    manifest = GenerationManifest(
        documents=len(embeddings),
        dims=embeddings.shape[1],
        recipe=view.manifest.recipe,
        encoder=encoder,
        files={name: sha256_of(home / name) for name in FILES},
        changes_through=view.through,
        measured={
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - started, 2),
        },
    )
    (home / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", "utf-8")
    return manifest
