"""dse search, score and encode: use a bundle and an index without a server, one-off or in bulk."""

import csv
import json as json_lines
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from scripts.console import BadInput, print_json, print_table, progress_bar
from scripts.options import BundleOption, JsonOption

TEXTS_PER_BATCH = 4096

T = TypeVar("T")


def search(
    index: Annotated[Path, typer.Argument(help="The index folder.")],
    query: Annotated[str | None, typer.Argument(help="What to look for.")] = None,
    queries: Annotated[Path | None, typer.Option(help="A file of queries, one a line.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="JSON lines, one a query.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Hits a query.")] = 10,
    depth: Annotated[int | None, typer.Option(min=1, help="Candidates scored a query.")] = None,
    bundle: BundleOption = None,
    json: JsonOption = False,
) -> None:
    """Search an index: one query, or a file of them."""
    from app.loading import open_index
    from app.retriever import HeadScorer, Query, Retriever
    from app.settings import Settings
    from model.bundle import load_student

    if (query is None) == (queries is None) or (queries is None) != (output is None):
        raise BadInput('give either one query, or --queries FILE with --output FILE: dse search INDEX "words"')
    settings = Settings()
    student = load_student(bundle or settings.bundle, settings.threads)
    retriever = Retriever(student.encoder, open_index(index, student))
    scorer = HeadScorer(student.head, student.score)

    def hits_of(query: Query) -> list[dict[str, object]]:
        hits = retriever.search(query, k, depth or settings.depth, scorer)
        return [
            {
                "id": hit.document.id,
                "text": hit.document.text,
                "score": hit.score,
                "similarity": hit.similarity,
                "metadata": hit.document.metadata,
            }
            for hit in hits
        ]

    if query is not None:
        hits = hits_of(retriever.queries([_usable(query, "the query")])[0])
        if json:
            print_json({"hits": hits, "model": student.name})
        else:
            rows = [[f"{hit['score']:.3f}", str(hit["id"]), _short(str(hit["text"]))] for hit in hits]
            print_table(["score", "id", "text"], rows)
        return
    assert queries is not None  # checked above, and
    assert output is not None
    texts = _lines(queries)
    with output.open("w", encoding="utf-8") as file, progress_bar() as bar:
        task = bar.add_task("searching", total=len(texts))
        for batch in _batches(texts):
            for found in retriever.queries(batch):
                line = {"query": found.text, "hits": hits_of(found)}
                file.write(json_lines.dumps(line, ensure_ascii=False) + "\n")
                bar.advance(task)


def score(
    sentences: Annotated[
        list[str], typer.Argument(metavar="A B | PAIRS.tsv", help="Two sentences, or a file of pairs.")
    ],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="TSV with score and similarity added.")] = None,
    bundle: BundleOption = None,
    json: JsonOption = False,
) -> None:
    """Score two sentences, or every row of a TSV with the columns sentence1 and sentence2."""
    from app.settings import Settings
    from app.similarity import score_pairs
    from model.bundle import load_student

    if len(sentences) > 2 or (len(sentences) == 2) != (output is None):
        raise BadInput("give either two sentences, or a file and --output: dse score PAIRS.tsv -o SCORES.tsv")
    settings = Settings()
    student = load_student(bundle or settings.bundle, settings.threads)
    if output is None:
        left, right = (_usable(sentence, "a sentence") for sentence in sentences)
        answer = score_pairs(student, [(left, right)])
        found = {
            "score": float(student.score(answer.logits)[0]),
            "similarity": float(answer.similarities[0]),
            "model": student.name,
        }
        if json:
            print_json(found)
        else:
            typer.echo(f"score {found['score']:.3f}   similarity {found['similarity']:.3f}")
        return
    pairs = _pairs(Path(sentences[0]))
    with output.open("w", encoding="utf-8", newline="") as file, progress_bar() as bar:
        writer = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None, lineterminator="\n")
        writer.writerow(["sentence1", "sentence2", "score", "similarity"])
        task = bar.add_task("scoring", total=len(pairs))
        for batch in _batches(pairs):
            answer = score_pairs(student, batch)
            for pair, value, cosine in zip(batch, student.score(answer.logits), answer.similarities, strict=True):
                writer.writerow([*pair, f"{value:.6f}", f"{cosine:.6f}"])
            bar.advance(task, len(batch))


def encode(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help=".jsonl, .csv, .tsv, .parquet, .txt, or -")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A .npy file, (texts, dim) float32.")],
    bundle: BundleOption = None,
    text_column: Annotated[str, typer.Option(help="Column or field that holds the text.")] = "text",
) -> None:
    """Write the embeddings of the texts of some files, in order."""
    import numpy as np

    from app.settings import Settings
    from index.sources import Columns, read_documents
    from model.bundle import load_student

    settings = Settings()
    student = load_student(bundle or settings.bundle, settings.threads)
    parts = []
    with progress_bar() as bar:
        task = bar.add_task("encoding", total=None)
        documents = read_documents(inputs, Columns(text=text_column))
        for batch in _batches(sourced.document.text for sourced in documents):
            parts.append(student.encoder.encode(batch))
            bar.advance(task, len(batch))
    with output.open("wb") as file:
        np.save(file, np.concatenate(parts))


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, TEXTS_PER_BATCH)):
        yield batch


def _lines(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: {error}") from error
    texts = [_usable(line, f"{path}") for line in lines if line]
    if not texts:
        raise BadInput(f"{path}: no queries in it")
    return texts


def _pairs(path: Path) -> list[tuple[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            if missing := {"sentence1", "sentence2"} - set(reader.fieldnames or ()):
                raise BadInput(f"{path}: the header lacks {sorted(missing)}")
            pairs = []
            for row in reader:
                if not row["sentence1"] or not row["sentence2"]:
                    raise BadInput(f"{path}:{reader.line_num}: a sentence is missing")
                pairs.append((row["sentence1"], row["sentence2"]))
            return pairs
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: {error}") from error


def _usable(text: str, name: str) -> str:
    from index.sources import unusable

    if not text.strip():
        raise BadInput(f"{name} is empty")
    if problem := unusable(text):
        raise BadInput(f"{name} holds {problem}")
    return text


def _short(text: str, width: int = 90) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
