"""What reads the files that the makers of a set published? Parquet, and TSV for relevance judgements."""

from collections.abc import Callable, Iterator
from pathlib import Path

from scripts.console import BadInput
from scripts.datasets.forms import JUDGEMENTS, Row


def reader_of(path: str) -> Callable[[Path], Iterator[Row]]:
    """What reads such a file, row by row, in the columns it has.

    Raises:
        BadInput: it is Parquet, and what reads that is not installed. Said now, damage when it is met.
    """
    if path.endswith(".tsv"):
        return JUDGEMENTS.read
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise BadInput(
            f"{path}: reading Parquet needs the extra: pip install '.[parquet]' (in DSE's folder)"
        ) from error

    def read(file: Path) -> Iterator[Row]:
        try:
            with parquet.ParquetFile(file) as table:
                for batch in table.iter_batches():
                    yield from batch.to_pylist()
        except (ArrowException, OSError) as error:
            problem = str(error).partition("\n")[0]
            raise BadInput(f"{file}: not a Parquet file that can be read ({problem})") from error

    return read
