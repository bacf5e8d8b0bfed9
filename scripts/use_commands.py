"""dse search, score and encode: use a bundle and an index without a server, one-off or in bulk."""

import json as json_lines
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from index.location import read_location
from scripts.console import (
    BadInput,
    batches,
    print_json,
    print_table,
    progress_bar,
    read_lines,
    settings_with,
    student_of,
    written,
)
from scripts.options import BundleOption, InputsArgument, JsonOption, LongTextOption

if TYPE_CHECKING:
    from app.retriever import Scorer
    from app.settings import Settings
    from index.filters import Filter
    from model.bundle import Student

Rerank = Literal["head", "none", "teacher"]
TEXTS_PER_BATCH = 4096
SENTENCES = ("sentence1", "sentence2")
"""The columns of a file of pairs."""


def search(
    index: Annotated[str, typer.Argument(help="The index: a folder, or milvus://HOST:PORT/NAME.")],
    query: Annotated[str | None, typer.Argument(help="What to look for.")] = None,
    queries: Annotated[Path | None, typer.Option(help="A file of queries, one a line.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="JSON lines, one a query.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Hits a query.")] = 10,
    depth: Annotated[int | None, typer.Option(min=1, help="Candidates scored a query.")] = None,
    rerank: Annotated[
        Rerank, typer.Option(help="Who orders them: the student's head, nobody (the cosine), or the teacher.")
    ] = "head",
    filter: Annotated[
        str | None, typer.Option(metavar="JSON", help='Only documents with such metadata: \'{"lang": "en"}\'.')
    ] = None,
    bundle: BundleOption = None,
    long_text: LongTextOption = None,
    json: JsonOption = False,
) -> None:
    """Search an index: one query, or a file of them."""
    from app.loading import open_index
    from app.retriever import Query, Retriever

    if (query is None) == (queries is None) or (queries is None) != (output is None):
        raise BadInput('give either one query, or --queries FILE with --output FILE: dse search INDEX "words"')
    wanted = None if filter is None else _filter(filter)
    settings = settings_with(bundle=bundle, long_text=long_text)
    student = student_of(settings)
    opened = open_index(read_location(index), student, access=settings.milvus_access()).view()
    retriever = Retriever(student.encoder, opened)
    scorer = _scorer(rerank, student, settings)

    def hits_of(query: Query) -> list[dict[str, object]]:
        reach = depth or settings.depth_for(opened.manifest.depth)
        hits = retriever.search(query, k, reach, scorer, wanted).hits
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
    texts = read_queries(queries)
    with written(output, "w") as file, progress_bar() as bar:
        task = bar.add_task("searching", total=len(texts))
        for batch in batches(texts, TEXTS_PER_BATCH):
            for found in retriever.queries(batch):
                line = {"query": found.text, "hits": hits_of(found)}
                file.write(json_lines.dumps(line, ensure_ascii=False) + "\n")
                bar.advance(task)


def _scorer(rerank: Rerank, student: "Student", settings: "Settings") -> "Scorer":
    from app.retriever import CosineScorer, HeadScorer, TeacherScorer
    from model.bundle import load_teacher

    if rerank == "head":
        return HeadScorer(student.head, student.score)
    if rerank == "none":
        return CosineScorer(student.similarity)
    if settings.teacher is None:
        raise BadInput("--rerank teacher: there is no teacher; name its bundle by DSE_TEACHER")
    teacher = load_teacher(settings.teacher, settings.threads)
    return TeacherScorer(teacher.scorer, teacher.score)


def score(
    sentences: Annotated[
        list[str], typer.Argument(metavar="A B | PAIRS.tsv", help="Two sentences, or a file of pairs.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file's TSV with score and similarity added.")
    ] = None,
    bundle: BundleOption = None,
    long_text: LongTextOption = None,
    json: JsonOption = False,
) -> None:
    """Score two sentences, or every row of a TSV with the columns sentence1 and sentence2.

    A file that has a column score or similarity keeps it: what is added is then called student_score and
    student_similarity.
    """
    from model.similarity import score_pairs

    if len(sentences) > 2 or (len(sentences) == 2) != (output is None):
        raise BadInput("give either two sentences, or a file and --output: dse score PAIRS.tsv -o SCORES.tsv")
    if output is not None:
        _score_file(Path(sentences[0]), output, bundle, long_text)
        return
    settings = settings_with(bundle=bundle, long_text=long_text)
    student = student_of(settings)
    left, right = (_usable(sentence, "a sentence") for sentence in sentences)
    answer = score_pairs(student.encoder, student.head, [(left, right)])
    value, cosine = float(student.score(answer.logits)[0]), float(answer.similarities[0])
    if json:
        print_json({"score": value, "similarity": cosine, "model": student.name})
    else:
        typer.echo(f"score {value:.3f}   similarity {cosine:.3f}")


def _score_file(path: Path, output: Path, bundle: Path | None, long_text: str | None) -> None:
    from model.similarity import score_pairs

    settings = settings_with(bundle=bundle, long_text=long_text)
    columns, rows = _table(path)
    with written(output, "w") as file, progress_bar() as bar:
        student = student_of(settings)
        task = bar.add_task("scoring", total=len(rows))
        file.write("\t".join([*columns, *_answer_columns(columns)]) + "\n")
        left, right = (columns.index(name) for name in SENTENCES)
        for batch in batches(rows, TEXTS_PER_BATCH):
            answer = score_pairs(student.encoder, student.head, [(row[left], row[right]) for row in batch])
            for row, value, cosine in zip(batch, student.score(answer.logits), answer.similarities, strict=True):
                file.write("\t".join([*row, f"{value:.6f}", f"{cosine:.6f}"]) + "\n")
            bar.advance(task, len(batch))


def _answer_columns(taken: Sequence[str]) -> list[str]:
    """What score and similarity are called beside these columns: where either is taken, both are the student's."""
    prefixes = chain(["", "student_"], (f"student_{number}_" for number in count(2)))
    named = ([f"{prefix}score", f"{prefix}similarity"] for prefix in prefixes)
    return next(names for names in named if not {*names} & {*taken})


def encode(
    inputs: InputsArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="A .npy file, (texts, dim) float32.")],
    bundle: BundleOption = None,
    long_text: LongTextOption = None,
    text_column: Annotated[str, typer.Option(help="Column or field that holds the text.")] = "text",
    dimensions: Annotated[
        int | None, typer.Option(help="Cut embeddings to this many, where the bundle allows it.")
    ] = None,
) -> None:
    """Write the embeddings of the texts of some files, in order."""
    import numpy as np

    from index.sources import Columns, read_documents

    settings = settings_with(bundle=bundle, long_text=long_text)
    with written(output, "wb") as file, progress_bar() as bar:
        student = student_of(settings)
        task = bar.add_task("encoding", total=None)
        documents = read_documents(inputs, Columns(text=text_column))
        parts = []
        texts = batches((sourced.document.text for sourced in documents), TEXTS_PER_BATCH)
        for embeddings in student.encoder.encode_batches(texts, dimensions):
            parts.append(embeddings)
            bar.advance(task, len(embeddings))
        np.save(file, np.concatenate(parts))


def read_queries(path: Path) -> list[str]:
    """The queries of a file, one a line; blank lines are passed over."""
    return [_usable(line, f"{path}:{number}") for number, line in read_lines(path, "queries")]


def _table(path: Path) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of a TSV with sentence1 and sentence2; a quotation mark in it is an ordinary character."""
    try:
        header, *lines = path.read_bytes().decode("utf-8-sig").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: {error}") from error
    columns = header.rstrip("\r").split("\t")
    if missing := sorted({*SENTENCES} - set(columns)):
        raise BadInput(f"{path}: the header lacks {missing}")
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        raise BadInput(f"{path}: the header names {twice} more than once; give each column its own name")
    if not lines:
        raise BadInput(f"{path}: no pairs in it")
    rows = []
    for number, line in enumerate(lines, 2):
        values = line.rstrip("\r").split("\t")
        if len(values) != len(columns):
            raise BadInput(f"{path}:{number}: {len(values)} columns, the header has {len(columns)}")
        for name in SENTENCES:
            _usable(values[columns.index(name)], f"{path}:{number}: {name}")
        rows.append(values)
    return columns, rows


def _filter(text: str) -> "Filter":
    from index.filters import FilterError, parse_filter

    try:
        return parse_filter(json_lines.loads(text))
    except FilterError as error:
        raise BadInput(f"--filter: {error}") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"--filter is not JSON: {error}") from error


def _usable(text: str, name: str) -> str:
    from index.sources import unusable

    if not text.strip():
        raise BadInput(f"{name} is empty")
    if problem := unusable(text):
        raise BadInput(f"{name} holds {problem}")
    return text


def _short(text: str, width: int = 90) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
