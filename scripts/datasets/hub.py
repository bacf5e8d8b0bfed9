"""Sets from the Hugging Face hub, or from a mirror of it that ``HF_ENDPOINT`` names.

The hub's own client downloads: it sends ``HF_TOKEN``, keeps what it has in its cache (``HF_HOME``), compares sizes, and
leaves nothing half behind.
"""

import os
from pathlib import Path

from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.utils import logging
from rich.progress import Progress, TaskID
from tqdm import tqdm

from scripts.console import BadInput
from scripts.datasets.catalogue import CATALOGUE, HubFile, Part
from scripts.datasets.originals import reader_of
from scripts.datasets.supplies import Fetched, Supply

TIMEOUT_SECONDS = 10.0


def from_hub(name: str, progress: Progress, again: bool = False) -> list[Supply]:
    """The files of a catalogued set; each is downloaded when it is fetched, ``again`` even if the cache has it."""

    def supply(part: Part) -> Supply:
        def fetch() -> Fetched:
            read = reader_of(part.original.path)  # what cannot be read is not downloaded
            path, commit = download(part.original, progress, again)
            origin = f"{part.original.repository}@{commit[:12]}/{part.original.path}"
            return Fetched(read(path), part.to_uniform, origin)

        return Supply(part.file, part.rows, fetch)

    return [supply(part) for part in CATALOGUE[name].parts]


def download(file: HubFile, progress: Progress, again: bool) -> tuple[Path, str]:
    """A file's place in the hub's cache, and the commit it is of.

    Raises:
        BadInput: the hub does not answer, refuses, has no such file, or sends another number of bytes than it said.
    """
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # what fails is said once, here
    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or None
    url = hf_hub_url(file.repository, file.path, repo_type="dataset", revision=file.revision, endpoint=endpoint)
    try:
        # Asked first, because this gives up at once where the download would try for half a minute.
        found = get_hf_file_metadata(url, timeout=TIMEOUT_SECONDS)
        commit = found.commit_hash or file.revision
        task = progress.add_task(f"{file.repository} {file.path}", total=found.size)
        path = hf_hub_download(
            file.repository,
            file.path,
            repo_type="dataset",
            revision=commit,
            endpoint=endpoint,
            force_download=again,
            tqdm_class=_shown_on(progress, task),
        )
        progress.update(task, completed=found.size)
    except Exception as error:  # the client's errors, and those of the HTTP library below it, which has changed twice
        raise BadInput(f"{url}: {_reason(error)}; a local copy serves as well: --from DIR") from error
    return Path(path), commit


def _shown_on(progress: Progress, task: TaskID) -> type:
    """A bar for the hub's client that shows on ours how many bytes have come."""

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(*args, **options | {"disable": True})

        def update(self, n: float = 1) -> None:
            self.n += n
            progress.update(task, completed=self.n)

    return Bar


def _reason(error: Exception) -> str:
    if type(error).__name__ == "OfflineModeIsEnabled":
        return "HF_HUB_OFFLINE is set"
    if (response := getattr(error, "response", None)) is not None:
        refused = response.status_code in (401, 403)
        return f"answered {response.status_code}" + (" (does it ask for another HF_TOKEN?)" if refused else "")
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
