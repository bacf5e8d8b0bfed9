"""What is done with a whole index, in a folder or in a Milvus: build, rebuild, copy, describe, verify."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.asked import aim_after
from index.build import Encode, finish
from index.build import build as build_folder
from index.contract import IndexView
from index.documents import Document
from index.finish import SearchWanted
from index.generations import GENERATIONS, current_name, last_change, new_generation
from index.live import LiveIndex
from index.location import Location, MilvusAccess, MilvusAddress
from index.manifest import EncoderIdentity, GenerationManifest, IndexFault
from index.nearest import HeadVectors
from index.opening import require_extra
from index.rebuild import rebuild as rebuild_folder
from index.recall import Scores
from index.snapshot import snapshot as snapshot_folder
from index.view import View

ROWS_PER_PART = 1024


def build_at(place: Location, access: MilvusAccess, work: Path | None, **wanted: Any) -> tuple[str, GenerationManifest]:
    """Build an index; the name of its generation, and its manifest.

    Args:
        place: of the index.
        access: how a Milvus is reached.
        work: where what is on its way to Milvus is kept; None: beside, under the index's name.
        wanted: as :func:`index.build.build` takes it, but for the folder.

    Raises:
        SourceError, IndexFault: as for :func:`index.build.build`.
    """
    if isinstance(place, Path):
        manifest = build_folder(folder=place, **wanted)
        return current_name(place), manifest
    require_extra()
    from index.milvus_build import build
    from index.milvus_collections import live_at
    from index.milvus_server import Server

    with Server(place, access) as server:
        manifest = build(server=server, work=work or _work(place), **wanted)
        return live_at(server).name(place), manifest


def rebuild_at(
    place: Location,
    access: MilvusAccess,
    work: Path | None,
    encode: Encode,
    dims: int,
    encoder: EncoderIdentity,
    head: HeadVectors | None,
    progress: Callable[[int, int], None],
    scores: Scores | None = None,
) -> IndexView:
    """Embed an index's own texts again; what it is afterwards.

    Raises:
        IndexFault: as for :func:`index.rebuild.rebuild`.
    """
    if isinstance(place, Path):
        return rebuild_folder(place, encode, dims, encoder, head, progress, scores)
    require_extra()
    from index.milvus_build import rebuild
    from index.milvus_server import Server

    with Server(place, access) as server:
        rebuild(server, encode, dims, encoder, work or _work(place), progress, scores)
        return _counted(server)


def copy_between(
    place: Location, target: Location, access: MilvusAccess, work: Path | None, stage: Callable[[str], None]
) -> IndexView:
    """Copy an index: from folder to folder, from a folder into Milvus, or out of it; what the copy is.

    Raises:
        IndexFault: it cannot be read, or the copy cannot be written.
    """
    if isinstance(place, Path):
        if isinstance(target, Path):
            return snapshot_folder(place, target)
        return _into_milvus(place, target, access, work, stage)
    if isinstance(target, Path):
        return _out_of_milvus(place, target, access, stage)
    raise IndexFault("an index is not copied from Milvus to Milvus here: that is what its own backups are for")


def facts_at(place: Location, access: MilvusAccess) -> tuple[str, GenerationManifest, int]:
    """The live generation's name and manifest, and how many changes are not yet in it; Milvus folds them in by itself.

    Raises:
        IndexFault: not an index.
    """
    if isinstance(place, Path):
        name = current_name(place)
        facts = GenerationManifest.read(place / GENERATIONS / name)
        return name, facts, last_change(place) - facts.changes_through
    require_extra()
    from index.milvus_collections import count, live_at, load
    from index.milvus_server import Server

    with Server(place, access) as server:
        live = live_at(server)
        load(server, live.collection)
        documents = count(server, live.collection)
    return live.name(place), live.manifest.model_copy(update={"documents": documents}), 0


def verify_at(place: Location, access: MilvusAccess) -> tuple[str, int, int]:
    """See that an index is whole: the generation's name, how many documents it holds, and the changes since.

    Raises:
        IndexFault: it is not.
    """
    if isinstance(place, Path):
        with LiveIndex.open(place, None) as index:
            view = index.view()
        return view.name, len(view.generation), view.pending
    require_extra()
    from index.milvus_build import verify
    from index.milvus_server import Server

    with Server(place, access) as server:
        live, count = verify(server)
    return live.name(place), count, 0


def _into_milvus(
    folder: Path, target: MilvusAddress, access: MilvusAccess, work: Path | None, stage: Callable[[str], None]
) -> IndexView:
    require_extra()
    from index.milvus_build import copy_into
    from index.milvus_server import Server

    with LiveIndex.open(folder, None) as index, Server(target, access) as server:
        view = index.view()
        aim = aim_after(view.manifest, folder / GENERATIONS / view.name)
        copy_into(server, _parts(view), view.manifest, aim, work or _work(target), stage)
        return _counted(server)


def _out_of_milvus(place: MilvusAddress, folder: Path, access: MilvusAccess, stage: Callable[[str], None]) -> IndexView:
    require_extra()
    from index.milvus_build import stage_documents
    from index.milvus_collections import live_at, load, scan, vectors_of
    from index.milvus_rows import STORED, VECTOR, document_of
    from index.milvus_server import Server

    if folder.exists():
        raise IndexFault(f"{folder} exists; give a name that is free, or remove it")
    with Server(place, access) as server, new_generation(folder) as home:
        live = live_at(server)
        load(server, live.collection)
        stage("copying documents")
        parts = scan(server, live.collection, (VECTOR, *STORED))
        dims = live.manifest.dims
        stage_documents(home, (([*map(document_of, rows)], vectors_of(rows, dims)) for rows in parts), dims)
        wanted = SearchWanted(aim=aim_after(live.manifest, None))
        finish(home, None, wanted, live.manifest.encoder, {}, time.monotonic(), stage=stage)
    with LiveIndex.open(folder, None) as copy:
        return copy.view()


def _parts(view: View) -> Iterator[tuple[Sequence[Document], NDArray[np.float32]]]:
    rows = view.rows()
    for start in range(0, len(rows), ROWS_PER_PART):
        part = rows[start : start + ROWS_PER_PART]
        yield view.documents(part), view.embeddings(part)


def _counted(server: Any) -> IndexView:
    from index.milvus import MilvusView
    from index.milvus_collections import count, live_at

    live = live_at(server)
    return MilvusView(server, live, count(server, live.collection))


def _work(place: MilvusAddress) -> Path:
    return Path(f"{place.name}.build")
