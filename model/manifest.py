"""Is this artifact what it says it is? Digests of every file, checked before anything is loaded."""

import hashlib
from collections.abc import Iterable
from pathlib import Path


class ArtifactError(Exception):
    """An artifact that is missing, altered, or made for something else; the message says how to mend it."""


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digests_of(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Sha256 of each named file, by its path inside ``folder``."""
    return {name: sha256_of(folder / name) for name in sorted(names)}


def check_digests(folder: Path, digests: dict[str, str], remedy: str) -> None:
    """Compare files with the digests their manifest holds.

    Raises:
        ArtifactError: a file is missing or differs; the message names the file, both digests and ``remedy``.
    """
    for name, expected in digests.items():
        path = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ArtifactError(f"{folder / 'manifest.json'} names {name!r}, outside the folder; {remedy}")
        if not path.is_file():
            raise ArtifactError(f"{path} is missing; {remedy}")
        try:
            actual = sha256_of(path)
        except OSError as error:
            raise ArtifactError(f"{path} cannot be read: {error.strerror}; {remedy}") from error
        if actual != expected:
            raise ArtifactError(
                f"{path} has been altered: its sha256 is {actual}, the manifest says {expected}; {remedy}"
            )
