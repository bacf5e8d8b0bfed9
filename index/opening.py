"""How is an index opened, wherever it lies?"""

from pathlib import Path
from typing import overload

from index.contract import Index
from index.generations import live_manifest
from index.live import LiveIndex
from index.location import Location, MilvusAccess
from index.manifest import EncoderIdentity, GenerationManifest, IndexFault, Verify
from index.nearest import HeadVectors

DEFAULT_ACCESS = MilvusAccess()


@overload
def open_any(
    location: Path,
    encoder: EncoderIdentity | None,
    writable: bool = False,
    head: HeadVectors | None = None,
    verify: Verify = "full",
    access: MilvusAccess = DEFAULT_ACCESS,
) -> LiveIndex: ...
@overload
def open_any(
    location: Location,
    encoder: EncoderIdentity | None,
    writable: bool = False,
    head: HeadVectors | None = None,
    verify: Verify = "full",
    access: MilvusAccess = DEFAULT_ACCESS,
) -> Index: ...
def open_any(
    location: Location,
    encoder: EncoderIdentity | None,
    writable: bool = False,
    head: HeadVectors | None = None,
    verify: Verify = "full",
    access: MilvusAccess = DEFAULT_ACCESS,
) -> Index:
    """The index at a location, with every change so far.

    Args:
        location: a folder, or the address of an index in a Milvus.
        encoder: what embeds the queries; None where nothing is embedded.
        writable: may it be changed?
        head: that will be served, if FAISS can rank by it.
        verify: how a folder's files are compared with their manifest.
        access: how a Milvus is reached.

    Raises:
        IndexFault: not an index, built with another encoder, damaged, or out of reach.
    """
    if isinstance(location, Path):
        return LiveIndex.open(location, encoder, writable, head=head, verify=verify)
    require_extra()
    from index.milvus import MilvusIndex

    return MilvusIndex.open(location, encoder, access, writable)


def manifest_at(location: Location, access: MilvusAccess = DEFAULT_ACCESS) -> GenerationManifest | None:
    """The manifest of the live generation; None if there is none to read, be it that a server is out of reach."""
    if isinstance(location, Path):
        return live_manifest(location)
    require_extra()
    from index.milvus import read_live

    try:
        return read_live(location, access).manifest
    except IndexFault:
        return None


def require_extra() -> None:
    """See that what speaks to Milvus is installed.

    Raises:
        IndexFault: it is not.
    """
    try:
        import pymilvus  # noqa: F401
    except ImportError as error:
        raise IndexFault("an index in Milvus needs the extra: pip install '.[milvus]' (in DSE's folder)") from error
