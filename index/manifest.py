"""Is this generation what it says it is? Its manifest, and the digests of its files."""

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

MANIFEST = "manifest.json"


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

    def check_files(self, folder: Path) -> None:
        """Compare every file with its digest.

        Raises:
            IndexFault: a file is missing or altered; the message names it and both digests.
        """
        remedy = "restore the folder from a copy, or build the index again (dse index build)"
        for name, expected in self.files.items():
            path = folder / name
            if not path.is_file():
                raise IndexFault(f"{path} is missing; {remedy}")
            try:
                actual = sha256_of(path)
            except OSError as error:
                raise IndexFault(f"{path} cannot be read: {error.strerror}; {remedy}") from error
            if actual != expected:
                raise IndexFault(
                    f"{path} has been altered: its sha256 is {actual}, the manifest says {expected}; {remedy}"
                )


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
