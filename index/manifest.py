"""Is this generation what it says it is? Its manifest, and the digests of its files."""

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

MANIFEST = "manifest.json"
SMALL_FILE = 2**20  # bytes: what is read in no time
RESTORE = "restore the folder from a copy, or build the index again (dse index build)"

Verify = Literal["quick", "full"]
"""How much of a generation is compared with its manifest: sizes and headers, or every byte."""


class IndexFault(Exception):
    """An index that cannot be used or written; the message says what is wrong and how to mend it."""


class ReadOnlyFault(IndexFault):
    """A write to an index that cannot be written, or not by this process."""


class BusyFault(IndexFault):
    """A write that waited for another process for too long; nothing of it was written."""


class AwayFault(IndexFault):
    """A server that holds an index and cannot be asked right now; it is tried again by itself."""


class RecipeFault(IndexFault):
    """A recipe that does not suit the rows it is to hold; another one might."""


class EncoderIdentity(BaseModel):
    """Which encoder made the embeddings: its name, for people, and its digest, which decides.

    After a ``+`` the digest says how long texts are read, where they are not cut.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    digest: str


class HeadIdentity(BaseModel):
    """Which head FAISS ranks by: its name, for people, and its digest, which decides."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    digest: str


class EndToEnd(BaseModel):
    """How much of the head's exhaustive best is among what it is given, by depth: recall@k, from so many queries."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    queries: int
    recall: dict[int, float]


class Proof(BaseModel):
    """What was shown before a generation was published: how much of an exhaustive search's answer it finds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    target: float
    k: int
    asked: Literal["queries", "documents"]
    """Given queries, or documents of the index, each looking for the others."""
    queries: int
    """That it was proven with; the parameters were tuned with others, unless every document was one."""
    recall: float
    lower_bound: float
    method: Literal["wilson", "every document", "exhaustive"]
    """Of the bound: Wilson's, one-sided, 95 %; or the recall itself, where nothing is estimated."""
    curve: dict[int, float]
    """Recall by search parameter (nprobe, efSearch, or refine where there is neither), as tuned."""
    index_bytes: int
    end_to_end: EndToEnd | None = None


class GenerationManifest(BaseModel):
    """``manifest.json`` of a generation, written last. Everything but ``measured`` follows from input and recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    documents: Annotated[int, Field(ge=0)]
    dims: Annotated[int, Field(gt=0)]
    recipe: str
    """What FAISS was built by."""
    named: str | None = None
    """What the user asked for, which ``recipe`` is unless it does not suit the rows; None: chosen by their number."""
    memory: int | None = None
    """Bytes that making the FAISS index may take, which a recipe that is chosen keeps to; None: as many as it needs."""
    encoder: EncoderIdentity
    files: dict[str, str]
    sizes: dict[str, int] = Field(default_factory=dict)
    search: dict[str, int] = {}
    """FAISS's parameters, given with each search."""
    refine: Annotated[int, Field(ge=1)] = 1
    """How many times the depth is fetched from FAISS, to keep the nearest by the stored embeddings."""
    depth: Annotated[int, Field(ge=1)] | None = None
    """How many candidates a head should be given; None: not measured."""
    head: HeadIdentity | None = None
    """Whose score FAISS ranks by; None: by the inner product of the embeddings."""
    proof: Proof | None = None
    changes_through: Annotated[int, Field(ge=0)] = 0
    """The last change, by its sequence number, that these documents already hold."""
    measured: dict[str, Any]

    @model_validator(mode="before")
    @classmethod
    def _of_before_recipes_were_chosen_again(cls, given: Any) -> Any:
        """Where an earlier version did not say whether a recipe was named, it is kept while it suits the rows."""
        return {"named": given.get("recipe")} | given if isinstance(given, dict) else given

    @classmethod
    def read(cls, folder: Path) -> "GenerationManifest":
        """The manifest in a generation's folder.

        Raises:
            IndexFault: there is none, or it is not a generation's.
        """
        path = folder / MANIFEST
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise IndexFault(f"{path}: {error.strerror}; build the index again (dse index build)") from error
        except ValidationError as error:
            first = error.errors()[0]
            raise IndexFault(
                f"{path} is not a generation's manifest: {'.'.join(map(str, first['loc']))}: {first['msg']}; "
                "build the index again (dse index build)"
            ) from error

    def check_encoder(self, folder: object, serving: EncoderIdentity) -> None:
        """Compare the encoder that built the index with the one that will embed queries.

        Args:
            folder: where the index is, for messages: a folder, or an address.
            serving: that will embed queries.

        Raises:
            IndexFault: they differ; the message names both digests and the two ways out.
        """
        built, served = self.encoder.digest.partition("+"), serving.digest.partition("+")
        if built != served and built[0] == served[0]:
            reads, wanted = built[2] or "truncate", served[2] or "truncate"
            raise IndexFault(
                f"{folder} was built with --long-text {reads}, not {wanted}: give --long-text {reads} "
                f"(DSE_LONG_TEXT={reads}), or embed its texts again: dse index rebuild {folder} --long-text {wanted}"
            )
        if built != served:
            raise IndexFault(
                f"{folder} was built with encoder {self.encoder.name} ({self.encoder.digest}), not with {serving.name} "
                f"({serving.digest}); give the bundle it was built with (--bundle), or build it again: "
                f"dse index build INPUT --output {folder} --bundle BUNDLE"
            )

    def check_head(self, folder: Path, serving: HeadIdentity | None) -> None:
        """Compare the head that FAISS ranks by, if it ranks by one, with the one that will be served.

        Raises:
            IndexFault: they differ; the message names both digests and the two ways out.
        """
        if self.head is not None and (serving is None or serving.digest != self.head.digest):
            other = f"{serving.name} ({serving.digest})" if serving else "one that FAISS could rank by"
            raise IndexFault(
                f"{folder} is ranked by the head of {self.head.name} ({self.head.digest}), and the head served is not "
                f"it but {other}; give the bundle it was built with (--bundle), or build it again: "
                f"dse index build INPUT --output {folder} --bundle BUNDLE"
            )

    def check_files(self, folder: Path, verify: Verify = "full") -> None:
        """Compare every file with its size and digest.

        Args:
            folder: the generation's.
            verify: ``quick`` leaves out the digests of files above a mebibyte.

        Raises:
            IndexFault: files are missing or altered; the message names each and says what differs.
        """
        if faults := [fault for name in sorted(self.files) if (fault := self._fault(folder / name, verify))]:
            raise IndexFault("; ".join([*faults, RESTORE]))

    def _fault(self, path: Path, verify: Verify) -> str | None:
        try:
            size = path.stat().st_size
            if size != self.sizes.get(path.name, size):
                return f"{path} has been altered: it has {size:,} bytes, the manifest says {self.sizes[path.name]:,}"
            if verify == "quick" and size > SMALL_FILE:
                return None
            actual, expected = sha256_of(path), self.files[path.name]
        except FileNotFoundError:
            return f"{path} is missing"
        except OSError as error:
            return f"{path} cannot be read: {error.strerror}"
        if actual != expected:
            return f"{path} has been altered: its sha256 is {actual}, the manifest says {expected}"
        return None


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
