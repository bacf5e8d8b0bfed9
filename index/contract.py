"""What does every index promise, in a folder or in a Milvus? What the service and the commands ask of one."""

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from index.documents import Document
from index.filters import Filter
from index.generations import Candidates
from index.manifest import GenerationManifest

Status = Literal["created", "updated"]


class IndexView(Protocol):
    """One generation, as it is asked during one request."""

    @property
    def name(self) -> str:
        """The generation's."""
        ...

    @property
    def manifest(self) -> GenerationManifest:
        """The generation's."""
        ...

    @property
    def pending(self) -> int:
        """How many changes are not yet folded into a generation."""
        ...

    def __len__(self) -> int:
        """How many documents there are."""
        ...

    def search(self, query: NDArray[np.float32], depth: int, filter: Filter | None = None) -> Candidates:
        """At most ``depth`` candidates for a (dim,) query, most similar first, asked as was proven."""
        ...

    def documents(self, rows: NDArray[np.int64]) -> list[Document]:
        """The documents of some rows that this view has found, in the order asked."""
        ...

    def get(self, id_: str) -> Document | None:
        """The document with an id, or None."""
        ...


class Index(Protocol):
    """An index, opened to be searched and perhaps changed; safe to use from several threads."""

    @property
    def writable(self) -> bool:
        """May it be changed from here?"""
        ...

    @property
    def away(self) -> str | None:
        """Why it cannot be asked right now; None: it can. Costs nothing to ask."""
        ...

    @property
    def stays_because(self) -> str | None:
        """Why the generation that is live now is not served here; None: it is."""
        ...

    @property
    def latest(self) -> IndexView:
        """The newest view that was taken, without a look for a newer one."""
        ...

    def view(self) -> IndexView:
        """The index as of now: what was acknowledged before is found."""
        ...

    def upsert(self, documents: Sequence[Document], embeddings: NDArray[np.float32]) -> Sequence[Status]:
        """Add documents, or replace those of the same id; durable and to be found once this returns.

        Returns:
            Of each, whether there was one of its id.
        """
        ...

    def delete(self, ids: Iterable[str]) -> int:
        """Remove documents; returns how many of them were there."""
        ...

    def compact(self) -> IndexView:
        """Bring what was changed into the form that is searched fastest, while searches and writes go on."""
        ...

    def reload(self) -> IndexView:
        """Take up the generation that is live now."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
