"""How is a document a row of a Milvus collection, and a generation a collection?"""

import json
import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymilvus import CollectionSchema, DataType, MilvusClient

from index.candidates import MOST_EFFORT_IN_A_GRAPH, Dial
from index.documents import Document
from index.manifest import IndexFault, RecipeFault
from index.milvus_terms import TERM_CHARACTERS, Terms, terms_of
from index.narrowed import GROWTH
from index.recipes import FLAT_ROWS, untrained

KEY, ID, TEXT, METADATA, DIGEST, VECTOR, TERMS, BOUNDS = (
    "key", "id", "text", "metadata", "digest", "vector", "terms", "bounds",
)  # fmt: skip
STORED = (ID, TEXT, METADATA)
"""What makes a document again."""

DIGEST_BYTES, DIGEST_CHARACTERS = 16, 22
MOST_BYTES = 65_535
"""Of a string, as Milvus keeps it, and of what a document brings for filters."""
MOST_TERMS = 4096
MOST_FOUND = 16_384
"""Candidates that one search of Milvus can bring."""

MANIFEST_PROPERTY, SEALED_PROPERTY = "dse.manifest", "dse.sealed"
METRIC = "IP"
LINKS_CONSIDERED = 200
"""Of each row while a graph is made (efConstruction)."""


def collection_of(name: str, number: int) -> str:
    """A collection for a generation of an index; of two builds at once, each has its own."""
    return f"{name}_g{number:06d}_{secrets.token_hex(4)}"


def number_of(name: str, collection: str) -> int | None:
    """Which generation of an index a collection is; None: it is none of it."""
    found = re.fullmatch(re.escape(name) + r"_g(\d{6,})_[0-9a-f]{8}", collection)
    return int(found[1]) if found else None


def schema(dims: int) -> CollectionSchema:
    """The fields of a generation. Rows are found by a digest of their id, which no id can break out of."""
    made = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    made.add_field(KEY, DataType.VARCHAR, is_primary=True, max_length=DIGEST_CHARACTERS)
    for name in STORED:
        made.add_field(name, DataType.VARCHAR, max_length=MOST_BYTES)
    made.add_field(DIGEST, DataType.VARCHAR, max_length=DIGEST_CHARACTERS)
    made.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=dims)
    made.add_field(
        TERMS, DataType.ARRAY, element_type=DataType.VARCHAR, max_capacity=MOST_TERMS, max_length=TERM_CHARACTERS
    )
    made.add_field(BOUNDS, DataType.JSON)
    return made


def key_of(id_: str) -> str:
    """A row's primary key."""
    return _digest(id_)


def check_size(document: Document) -> None:
    """See that Milvus can keep a document.

    Raises:
        IndexFault: a part of it is larger than Milvus keeps; the message names the document and the part.
    """
    _metadata(document)


def _metadata(document: Document) -> tuple[str, Terms]:
    """A document's metadata as JSON, and what they bring for filters, none of it larger than Milvus keeps."""
    metadata, filtered = json_of(document), terms_of(document.metadata)
    sizes = {
        "id": len(document.id.encode()),
        "text": len(document.text.encode()),
        "metadata": len(metadata.encode()),
        "what its metadata brings for filters": len(json.dumps(filtered.bounds)),
    }
    for what, size in sizes.items():
        if size > MOST_BYTES:
            raise IndexFault(
                f"document {document.id[:100]!r}: its {what} of {size:,} bytes is larger than the {MOST_BYTES:,} that "
                "Milvus keeps; shorten it, or keep the index in a folder"
            )
    if len(filtered.terms) > MOST_TERMS:
        raise IndexFault(
            f"document {document.id[:100]!r}: its metadata holds {len(filtered.terms):,} paths and values, more than "
            f"the {MOST_TERMS:,} that Milvus keeps of a document; drop some, or keep the index in a folder"
        )
    return metadata, filtered


def row_of(document: Document, vector: NDArray[np.float32]) -> dict[str, Any]:
    """A document and its (dim,) embedding as a row.

    Raises:
        IndexFault: as for :func:`check_size`.
    """
    metadata, filtered = _metadata(document)
    return {
        KEY: key_of(document.id),
        ID: document.id,
        TEXT: document.text,
        METADATA: metadata,
        DIGEST: digest_of(document),
        VECTOR: np.ascontiguousarray(vector, np.float32),
        TERMS: filtered.terms,
        BOUNDS: filtered.bounds,
    }


def document_of(row: Mapping[str, Any]) -> Document:
    """The document that a row holds."""
    return Document(row[ID], row[TEXT], json.loads(row[METADATA]))


def digest_of(document: Document) -> str:
    """Of all that a document says; its vector follows from that, and from the encoder."""
    return _digest(document.id, document.text, json_of(document))


def json_of(document: Document) -> str:
    """Its metadata, as it is kept."""
    return json.dumps(document.metadata, ensure_ascii=False, separators=(",", ":"))


def keys_in(keys: Iterable[str]) -> str:
    """The rows of some keys, as Milvus reads it."""
    return f"{KEY} in [" + ", ".join(f'"{key}"' for key in keys) + "]"


def _digest(*parts: str) -> str:
    digest = blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        content = part.encode()
        digest.update(len(content).to_bytes(8, "little") + content)
    return urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()


@dataclass(frozen=True)
class IndexKind:
    """A recipe, as Milvus knows it."""

    recipe: str
    index_type: str
    params: Mapping[str, Any]
    dial: Dial | None
    exact: bool

    def efforts(self, search: Mapping[str, int], depth: int) -> Iterator[dict[str, Any]]:
        """What Milvus is given with one search for ``depth`` rows, and with the next where it brings fewer than exist.

        It was tuned for a few of the nearest of all: so few lists may hold fewer, and so few steps along links meet
        fewer that a filter lets through.
        """
        # A graph is refused a search for more rows than it keeps in view.
        params = {name: max(value, depth) if name == "ef" else value for name, value in search.items()}
        yield {"metric_type": METRIC, "params": params}
        while self.dial is not None and params.get(self.dial.name, 1) < self.dial.most:
            more = min(GROWTH * params.get(self.dial.name, 1), self.dial.most)
            params = params | {self.dial.name: more}
            yield {"metric_type": METRIC, "params": params}


_KINDS = (
    (r"Flat", "FLAT"),
    (r"HNSW(\d+)(?:,Flat)?", "HNSW"),
    (r"HNSW(\d+)_SQ8", "HNSW_SQ"),
    (r"IVF(\d+),Flat", "IVF_FLAT"),
    (r"IVF(\d+),SQ8", "IVF_SQ8"),
)


def kind_of(recipe: str, dims: int, rows: int) -> IndexKind:
    """What Milvus builds by a FAISS factory string.

    Raises:
        RecipeFault: FAISS does not know it, or Milvus has nothing like it.
    """
    untrained(recipe, dims)
    for pattern, index_type in _KINDS:
        if found := re.fullmatch(pattern, recipe):
            number = int(found[1]) if found.groups() else 0
            if index_type.startswith("HNSW"):
                params: dict[str, Any] = {"M": number, "efConstruction": LINKS_CONSIDERED}
                if index_type == "HNSW_SQ":
                    params["sq_type"] = "SQ8"
                dial = Dial("ef", max(1, min(rows, MOST_EFFORT_IN_A_GRAPH)))
                return IndexKind(recipe, index_type, params, dial, exact=False)
            if index_type.startswith("IVF"):
                return IndexKind(recipe, index_type, {"nlist": number}, Dial("nprobe", number), exact=False)
            return IndexKind(recipe, index_type, {}, None, exact=True)
    raise RecipeFault(
        f"Milvus has nothing like the recipe {recipe!r}; it has Flat, HNSW32, HNSW32_SQ8, IVF1024,Flat and IVF1024,SQ8 "
        "(with other numbers too)"
    )


def chosen(rows: int) -> str:
    """The recipe for this many rows: exact while that is quick, then the graph that Milvus keeps by segments."""
    return "Flat" if rows <= FLAT_ROWS else "HNSW32"
