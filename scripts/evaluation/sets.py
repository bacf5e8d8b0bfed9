"""What is measured on? Pairs with gold scores, pairs with labels, and collections with judged queries."""

import math
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model.manifest import digests_of
from model.training.data_recipe import PairSet
from model.training.pairs import read_pairs
from scripts.console import BadInput
from scripts.lines import lines_of, objects_of

REGISTRY = Path(__file__).parents[1] / "recipes/evaluation.toml"

Kind = Literal["sts", "classification", "retrieval"]
KINDS: tuple[Kind, ...] = ("sts", "classification", "retrieval")


NOWHERE = -1
"""Rows below it stand for documents that are judged and not in the corpus."""
MOST_ABSENT = 0.01
"""Of the judgements; with more, judgements and corpus are not of one set."""


@dataclass(frozen=True)
class SetFacts:
    """What a set is, for a report."""

    name: str
    kind: Kind
    items: int  # pairs, or judged queries
    documents: int | None
    guarded: bool
    remark: str | None
    files: dict[str, str]  # sha256 of each
    apart: bool = False  # left out of means


@dataclass(frozen=True)
class GoldPairs:
    """Pairs, and what people said of them. The last two fields are parallel."""

    facts: SetFacts
    pairs: list[tuple[str, str]]
    gold: NDArray[np.float64]  # (pairs,) in 0..1; 0 or 1 where they are labels


@dataclass(frozen=True)
class Collection:
    """Documents, and queries with judgements (BEIR's layout)."""

    facts: SetFacts
    document_ids: list[str]  # ascending, so that ties by row are ties by id
    documents: list[str]
    query_ids: list[str]
    queries: list[str]
    judged: list[dict[int, float]]  # of each query: row of a relevant document -> its grade, above 0
    themselves: list[int | None]  # of each query: row of the document that is the query itself


class _Listed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    guarded: bool = False
    apart: bool = False
    remark: str | None = None


class _PairFile(_Listed):
    file: str

    def paths(self, root: Path) -> list[Path]:
        """What has to be there."""
        return [root / self.file]

    def _pairs(self, root: Path, name: str, kind: Kind, scores: tuple[float, float]) -> GoldPairs:
        pairs = read_pairs(root, PairSet(file=self.file, range=scores, terms="the caller's"))
        files = digests_of(root, [self.file])
        facts = SetFacts(name, kind, len(pairs), None, self.guarded, self.remark, files, self.apart)
        return GoldPairs(facts, [(pair.left, pair.right) for pair in pairs], np.array([pair.gold for pair in pairs]))


class StsSet(_PairFile):
    """A TSV with sentence1, sentence2 and a score within ``range``, mapped to 0..1."""

    range: tuple[float, float] = (0.0, 5.0)

    def read(self, root: Path, name: str) -> GoldPairs:
        """The set below ``root``.

        Raises:
            TrainingFault: the file cannot be read, or a score is outside the range.
            BadInput: its scores are all the same.
        """
        found = self._pairs(root, name, "sts", self.range)
        if len(set(found.gold)) < 2:
            raise BadInput(f"{root / self.file}: agreement needs scores that are not all the same")
        return found


class LabelledSet(_PairFile):
    """A TSV with sentence1, sentence2 and a score of 0 or 1."""

    def read(self, root: Path, name: str) -> GoldPairs:
        """The set below ``root``.

        Raises:
            TrainingFault: the file cannot be read, or a score is outside 0 to 1.
            BadInput: it holds scores between 0 and 1, or only one of these.
        """
        found = self._pairs(root, name, "classification", (0.0, 1.0))
        if set(found.gold) != {0.0, 1.0}:
            raise BadInput(f"{root / self.file}: classification needs scores of 0 and 1, some of each")
        return found


class RetrievalSet(_Listed):
    """A folder with corpus.jsonl, queries.jsonl (either may end in .gz) and qrels/SPLIT.tsv."""

    folder: str
    split: str = "test"

    def read(self, root: Path, name: str) -> Collection:
        """The documents and the queries that have a relevant one, of the set below ``root``.

        A document's text is its title and its text. Judgements of 0 or less say that a document is not relevant,
        as its absence does. A relevant document that is not in the corpus is one that nobody finds, as for trec_eval;
        published sets have such (ArguAna one).

        A document that is the query itself, of the same id and the same text, is no answer to it. BEIR leaves out
        every document of the query's id; in the collections of before, where both are numbered from 1, that would be
        another text.

        Raises:
            BadInput: a file cannot be read, or a judgement names a query that is not there, or more than one in a
                hundred a document that is not.
        """
        corpus, queries, qrels = self.paths(root)
        rows = _texts(corpus)
        texts = {id_: f"{row.get('title') or ''} {row['text']}".strip() for id_, row in rows.items()}
        asked = {id_: row["text"] for id_, row in _texts(queries).items()}
        document_ids = sorted(texts)
        row_of = {id_: row for row, id_ in enumerate(document_ids)}
        judged: dict[str, dict[int, float]] = {}
        absent: dict[str, str] = {}  # and the place of the first judgement of each
        for query, document, grade, place in _judgements(qrels):
            if query not in asked:
                raise BadInput(f"{place}: judges query {query!r}, which is not in {queries}")
            if grade > 0:
                if document not in row_of:
                    absent.setdefault(document, place)
                    row_of[document] = NOWHERE - len(absent)
                judged.setdefault(query, {})[row_of[document]] = grade
        if not judged:
            raise BadInput(f"{qrels}: no query has a relevant document")
        if len(absent) > MOST_ABSENT * sum(map(len, judged.values())):
            document, place = next(iter(absent.items()))
            raise BadInput(f"{place}: judges document {document!r}, one of {len(absent)} that are not in {corpus}")
        home = root / self.folder
        files = {f"{self.folder}/{file}": digest for file, digest in digests_of(home, self._names(root)).items()}
        return Collection(
            SetFacts(name, "retrieval", len(judged), len(texts), self.guarded, self.remark, files, self.apart),
            document_ids,
            [texts[id_] for id_ in document_ids],
            list(judged),
            [asked[id_] for id_ in judged],
            list(judged.values()),
            [row_of[id_] if id_ in rows and asked[id_] in (rows[id_]["text"], texts[id_]) else None for id_ in judged],
        )

    def paths(self, root: Path) -> list[Path]:
        """Corpus, queries and judgements."""
        return [root / self.folder / name for name in self._names(root)]

    def _names(self, root: Path) -> list[str]:
        lines = [
            name if (root / self.folder / name).exists() else f"{name}.gz" for name in ("corpus.jsonl", "queries.jsonl")
        ]
        return [*lines, f"qrels/{self.split}.tsv"]


ListedSet = StsSet | LabelledSet | RetrievalSet


class Registry(BaseModel):
    """The sets that a file lists, by name: ``set/split``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sts: dict[str, StsSet] = Field(default_factory=dict)
    classification: dict[str, LabelledSet] = Field(default_factory=dict)
    retrieval: dict[str, RetrievalSet] = Field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Registry":
        """The registry in a TOML file.

        Raises:
            BadInput: it cannot be read, or says something that a registry does not know.
        """
        try:
            return cls.model_validate(tomllib.loads(path.read_text("utf-8")))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise BadInput(f"{path}: {error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            raise BadInput(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error

    def chosen(self, only: Sequence[str]) -> dict[str, ListedSet]:
        """The sets with one of these names (``stsb/dev``, ``stsb`` or ``sts`` choose it); without a name, all.

        Raises:
            BadInput: a name chooses none.
        """
        by_kind: dict[str, dict[str, Any]] = {kind: getattr(self, kind) for kind in KINDS}
        names = {name: {name, name.split("/")[0], kind} for kind, sets in by_kind.items() for name in sets}
        if unknown := [name for name in only if not any(name in called for called in names.values())]:
            raise BadInput(f"--only {unknown[0]}: there is no such set (there are {', '.join(names)})")
        every: dict[str, ListedSet] = {name: one for sets in by_kind.values() for name, one in sets.items()}
        return {name: one for name, one in every.items() if not only or names[name].intersection(only)}


def one_set(path: Path, kind: Kind) -> GoldPairs | Collection:
    """A set that is given by its file or, for retrieval, its folder: read as a listed one, and guarded."""
    if kind == "retrieval":
        return RetrievalSet(folder=path.name, guarded=True).read(path.parent, str(path))
    listed = StsSet(file=path.name, guarded=True) if kind == "sts" else LabelledSet(file=path.name, guarded=True)
    return listed.read(path.parent, str(path))


def check_present(sets: dict[str, ListedSet], root: Path) -> None:
    """Say which sets are not there before any of them is measured.

    Raises:
        BadInput: some are not.
    """
    missing = [name for name, listed in sets.items() if not all(path.exists() for path in listed.paths(root))]
    if missing:
        raise BadInput(
            f"{root} lacks {len(missing)} of {len(sets)} sets: {', '.join(missing)}; "
            "name those to measure with --only, or get them as docs/data.md says"
        )


def _texts(path: Path) -> dict[str, dict[str, Any]]:
    """By id, the fields of each JSON line, which has a text."""
    found: dict[str, dict[str, Any]] = {}
    for place, row in objects_of(path):
        given, text = row.get("_id"), row.get("text")
        if given in (None, "") or not isinstance(text, str):
            raise BadInput(f"{place}: not an object with _id and text")
        id_ = str(given)
        if id_ in found:
            raise BadInput(f"{place}: the _id {id_!r} is taken already")
        found[id_] = row
    return found


def _judgements(path: Path) -> Iterator[tuple[str, str, float, str]]:
    """Query, document, grade and place of each line after the header."""
    for number, (place, line) in enumerate(lines_of(path)):
        if number == 0:
            if _is_number(line.split("\t")[-1]):
                raise BadInput(f"{place}: a judgement, where the columns are named: query-id, corpus-id, score")
            continue
        try:
            query, document, grade = line.split("\t")
            if not math.isfinite(float(grade)):
                raise ValueError(f"a grade of {grade}")
            yield query, document, float(grade), place
        except ValueError as error:
            raise BadInput(f"{place}: not a query, a document and a grade, between tabs ({error})") from error


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True
