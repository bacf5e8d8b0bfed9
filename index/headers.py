"""Do the files say of themselves what the manifest says of them? Asked before anything is allocated for them."""

import struct
from pathlib import Path
from tokenize import TokenError
from typing import BinaryIO

import numpy as np

from index.manifest import RESTORE, GenerationManifest, IndexFault

_FAISS = struct.Struct("<4siq")  # kind, dimensions, rows: every FAISS index begins so
_SQLITE = b"SQLite format 3\0"


def check_candidates(path: Path, manifest: GenerationManifest, width: int | None) -> None:
    """Compare the beginning of a FAISS file with the manifest.

    Args:
        path: the file.
        manifest: what it must agree with.
        width: of the vectors that FAISS holds; None: not known, without the head that they are for.

    Raises:
        IndexFault: it is of other dimensions, or of another number of rows.
    """
    with path.open("rb") as file:
        beginning = file.read(_FAISS.size)
    if len(beginning) < _FAISS.size:
        raise IndexFault(f"{path} is cut off after {len(beginning)} bytes; {RESTORE}")
    _, dims, rows = _FAISS.unpack(beginning)
    expected = dims if width is None else width
    if (rows, dims) != (manifest.documents, expected):
        raise IndexFault(
            f"{path} has been altered: it says {rows:,} rows of {dims}, the manifest {manifest.documents:,} of "
            f"{expected}; {RESTORE}"
        )


def write_embeddings_header(file: BinaryIO, rows: int, dims: int) -> None:
    """Begin an .npy file of (rows, dims) float32; as long for any number of rows that fits into memory."""
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (rows, dims)})


def check_embeddings(path: Path, manifest: GenerationManifest) -> None:
    """Compare the header and the size of an .npy file with the manifest.

    Raises:
        IndexFault: it is no .npy file, of another shape or kind of number, or longer or shorter than it says.
    """
    try:
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            shape, by_column, kind = np.lib.format.read_array_header_1_0(file)
            expected = file.tell() + manifest.documents * manifest.dims * 4
    except (ValueError, TokenError) as error:  # numpy reads an old header by Python's own rules
        raise IndexFault(f"{path} has been altered: {error}; {RESTORE}") from error
    actual = path.stat().st_size
    if (shape, by_column, kind.str) != ((manifest.documents, manifest.dims), False, "<f4") or actual != expected:
        raise IndexFault(
            f"{path} has been altered: {shape} of {kind.str} in {actual:,} bytes, the manifest says "
            f"{(manifest.documents, manifest.dims)} of <f4, which are {expected:,}; {RESTORE}"
        )


def check_documents(path: Path) -> None:
    """Compare the header of an SQLite file with its size.

    Raises:
        IndexFault: it is no SQLite file, or has not as many pages as it says.
    """
    with path.open("rb") as file:
        beginning = file.read(100)
    pages = 0
    if len(beginning) == 100 and beginning.startswith(_SQLITE):
        page = int.from_bytes(beginning[16:18], "big")  # 1 stands for 65,536, which has no place in two bytes
        pages = (65_536 if page == 1 else page) * int.from_bytes(beginning[28:32], "big")
    if not pages or pages != path.stat().st_size:
        raise IndexFault(
            f"{path} has been altered: {path.stat().st_size:,} bytes, where it speaks of {pages:,}; {RESTORE}"
        )
