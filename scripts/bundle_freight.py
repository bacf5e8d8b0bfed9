"""How do a cluster's workers get the model? As bytes, along with the work: a node needs the package, and no file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Self

from model.long_text import LongText

if TYPE_CHECKING:
    from index.build import Encode


@dataclass(frozen=True)
class BundleFreight:
    """Every file of a bundle, by name; called, the encoder in it."""

    files: Mapping[str, bytes]
    long_text: LongText

    @classmethod
    def of(cls, folder: Path, long_text: LongText) -> Self:
        """Those of a bundle's folder."""
        from model.bundle import MANIFEST, BundleManifest

        names = [*BundleManifest.read(folder).files, MANIFEST]
        return cls({name: (folder / name).read_bytes() for name in names}, long_text)

    def __call__(self, threads: int) -> "Encode":
        """The encoder, in so many threads; the bundle is compared with its digests where it has arrived."""
        from app.threads import limit_native_threads

        limit_native_threads(threads)
        from model.bundle import load_student

        with TemporaryDirectory() as folder:
            for name, content in self.files.items():
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            return load_student(Path(folder), threads, long_text=self.long_text).encoder.encode
