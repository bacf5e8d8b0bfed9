"""Sets from a local copy: in the uniform form already, or the originals below their repositories' names."""

from pathlib import Path

from scripts.console import BadInput
from scripts.datasets.catalogue import CATALOGUE, Part
from scripts.datasets.forms import as_is, form_of
from scripts.datasets.originals import reader_of
from scripts.datasets.supplies import Fetched, Supply


def names_in(copy: Path) -> set[str]:
    """The sets that a folder holds in the uniform form, catalogued or not.

    Raises:
        BadInput: it is no folder.
    """
    if not copy.is_dir():
        raise BadInput(f"{copy} is not a folder")
    return {folder.name for folder in copy.iterdir() if _uniform_files(folder)}


def from_copy(copy: Path, name: str) -> list[Supply]:
    """The files of a set that a local copy holds.

    ``copy/NAME`` holds uniform files, gzip or plain; or ``copy/OWNER/REPOSITORY`` or ``copy/REPOSITORY`` is laid out as
    the repository on the hub is. Originals are all there or refused; of uniform files, those that are there are taken.

    Raises:
        BadInput: there is neither.
    """
    parts = CATALOGUE[name].parts if name in CATALOGUE else ()
    published = {part.file: part.rows for part in parts}
    if uniform := _uniform_files(copy / name):
        return [_uniform(file, path, published.get(file)) for file, path in uniform.items()]
    found = {part: _original(copy, part) for part in parts}
    if missing := [part for part, path in found.items() if path is None]:
        first = missing[0].original
        raise BadInput(
            f"{copy} holds neither {name}/{missing[0].file} nor {first.repository}/{first.path} "
            f"({len(missing)} of the {len(parts)} originals of {name} are missing)"
        )
    return [_from_original(part, path) for part, path in found.items() if path is not None]


def _uniform_files(folder: Path) -> dict[str, Path]:
    """Uniform files of a set's folder, by the names under which they are written here; gzip before plain."""
    found: dict[str, Path] = {}
    for pattern in ("*.tsv", "*.tsv.gz", "corpus.jsonl", "corpus.jsonl.gz", "queries.jsonl", "queries.jsonl.gz"):
        for path in sorted(folder.glob(pattern)):
            found[path.name.removesuffix(".gz") + ".gz"] = path
    return found | {f"qrels/{path.name}": path for path in sorted(folder.glob("qrels/*.tsv"))}


def _uniform(file: str, path: Path, published: int | None) -> Supply:
    return Supply(file, published, lambda: Fetched(form_of(file).read(path), as_is, str(path)), exact=False)


def _original(copy: Path, part: Part) -> Path | None:
    repository = part.original.repository
    places = (copy / folder / part.original.path for folder in (repository, repository.split("/")[-1]))
    return next((place for place in places if place.is_file()), None)


def _from_original(part: Part, path: Path) -> Supply:
    return Supply(part.file, part.rows, lambda: Fetched(reader_of(path.name)(path), part.to_uniform, str(path)))
