"""Is this generation what it says it is? Its manifest, and the digests of its files."""

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

MANIFEST = "manifest.json"
SMALL_FILE = 2**20  # bytes: what is read in no time
RESTORE = "restore the folder from a copy, or build the index again (dse index build)"

Verify = Literal["quick", "full"]
"""How much of a generation is compared with its manifest: sizes and headers, or every byte."""


class IndexFault(Exception):
    """An index that cannot be used or written; the message says what is wrong and how to mend it."""


class EncoderIdentity(BaseModel):
    """Which encoder made the embeddings: its name, for people, and its digest, which decides."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    digest: str


class GenerationManifest(BaseModel):
    """``manifest.json`` of a generation, written last. Everything but ``measured`` follows from input and recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    documents: Annotated[int, Field(gt=0)]
    dims: Annotated[int, Field(gt=0)]
    recipe: str
    encoder: EncoderIdentity
    files: dict[str, str]
    sizes: dict[str, int] = Field(default_factory=dict)
    measured: dict[str, Any]

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

    def check_encoder(self, folder: Path, serving: EncoderIdentity) -> None:
        """Compare the encoder that built the index with the one that will embed queries.

        Raises:
            IndexFault: they differ; the message names both digests and the two ways out.
        """
        if self.encoder.digest != serving.digest:
            raise IndexFault(
                f"{folder} was built with encoder {self.encoder.name} ({self.encoder.digest}), not with {serving.name} "
                f"({serving.digest}); give the bundle it was built with (--bundle), or build it again: "
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
