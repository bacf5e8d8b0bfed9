"""From embeddings to a search that is proven: the step of a build after encoding."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.asked import ASKED_FILES
from index.candidates import CandidateIndex
from index.generations import EMBEDDINGS_FILE, FILES
from index.manifest import MANIFEST, EncoderIdentity, GenerationManifest, IndexFault, sha256_of
from index.nearest import HeadVectors, NearestSearch
from index.recall import Aim, prove
from index.recipes import Plan, choose, plan, untrained


@dataclass(frozen=True)
class SearchWanted:
    """How an index is to be searched, whatever its recipe; a recipe of None is chosen by rows and memory."""

    memory: int | None = None
    """Bytes that making the FAISS index may take; None: as many as it needs."""
    aim: Aim = field(default_factory=Aim)
    head: HeadVectors | None = None
    """By whose score FAISS is to rank; None: by the inner product of the embeddings."""

    def check(self, recipe: str | None, dims: int) -> None:
        """Refuse what cannot be built, before anything is embedded for it.

        Raises:
            IndexFault: not a recipe for embeddings of this width.
        """
        if recipe is not None:
            untrained(recipe, self.width(dims))

    def width(self, dims: int) -> int:
        """Of the vectors that FAISS holds."""
        return dims if self.head is None else self.head.width(dims)

    def plan(self, recipe: str | None, rows: int, dims: int) -> Plan:
        """The recipe for so many rows, and what it takes.

        Raises:
            IndexFault: it does not fit into the memory.
        """
        width = self.width(dims)
        if recipe is None:
            return choose(rows, width, self.memory)
        wanted = plan(recipe, rows, width)
        if self.memory is not None and wanted.build_bytes > self.memory:
            raise IndexFault(
                f"{wanted}, which is more than --memory {self.memory}; give {wanted.build_bytes} or more, or leave "
                "--recipe out and have one chosen that fits"
            )
        return wanted


AS_IT_COMES = SearchWanted()
"""Any memory, the usual recall, ranked by similarity."""


def make_search(
    embeddings: NDArray[np.float32],
    path: Path,
    recipe: str | None = None,
    wanted: SearchWanted = AS_IT_COMES,
    stage: Callable[[str], None] = lambda words: None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Build the FAISS index of some embeddings, tune it, prove it, and write it to a file.

    Args:
        embeddings: (rows, dim), perhaps memory-mapped. Without a row there is nothing to choose, nor to prove.
        path: of the FAISS file.
        recipe: a FAISS ``index_factory`` string; None: chosen by rows and memory.
        wanted: how it is to be searched.
        stage: told what is being done.

    Returns:
        What a manifest says of it, and what was measured of it, which is another each time.

    Raises:
        IndexFault: it does not fit into the memory, or cannot be written.
        RecipeFault: it cannot be built, or is not proven; another recipe might.
    """
    facts: dict[str, Any] = {
        "named": recipe,
        "memory": wanted.memory,
        "depth": wanted.aim.depth,
        "head": None if wanted.head is None else wanted.head.identity,
    }
    transform = (lambda rows: rows) if wanted.head is None else wanted.head.candidates
    if not len(embeddings):
        CandidateIndex.build(embeddings, "Flat", transform).save(path)
        return facts | {"recipe": "Flat"}, {}
    planned = wanted.plan(recipe, *embeddings.shape)
    stage(f"building {planned}")
    candidates = CandidateIndex.build(embeddings, planned.recipe, transform)
    candidates.save(path)
    nearest = NearestSearch(candidates, embeddings, wanted.head)
    proven = prove(nearest, planned.recipe, path.stat().st_size, wanted.aim, stage)
    facts |= {
        "recipe": planned.recipe,
        "search": dict(proven.tuning.search),
        "refine": proven.tuning.refine,
        "depth": proven.depth,
        "proof": proven.proof,
    }
    return facts, {"search_milliseconds": asdict(proven.milliseconds)}


def write_manifest(
    home: Path,
    encoder: EncoderIdentity,
    facts: dict[str, Any],
    changes_through: int,
    measured: dict[str, Any],
    started: float,
) -> GenerationManifest:
    """Describe the files of a generation, all of which are there; with this it is complete.

    Args:
        home: the folder they are in, as :func:`~index.generations.new_generation` gives it.
        encoder: what made the embeddings.
        facts: what :func:`make_search` says of the search.
        changes_through: the last change that the documents hold, or replace.
        measured: what else to remember of this run.
        started: by ``time.monotonic()``.
    """
    documents, dims = np.load(home / EMBEDDINGS_FILE, mmap_mode="r", allow_pickle=False).shape
    files = [home / name for name in FILES] + [path for name in ASKED_FILES if (path := home / name).exists()]
    manifest = GenerationManifest(
        documents=documents,
        dims=dims,
        encoder=encoder,
        files={path.name: sha256_of(path) for path in files},
        sizes={path.name: path.stat().st_size for path in files},
        **facts,
        changes_through=changes_through,
        measured={
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - started, 2),
        }
        | measured,
    )
    (home / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", "utf-8")
    return manifest
