"""Which pairs are trained on, what each should score, and is any of them held out?"""

import csv
import gzip
import hashlib
import json
import math
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from model.faults import TrainingFault
from model.manifest import digests_of
from model.spaced import spaced
from model.training.data_recipe import SILVER, SILVER_PAIRS, DataRecipe, PairSet
from model.training.network_recipe import Stage

SOURCES = ".sources.json"
"""What the name of a file of silver pairs is followed by in that of the file that says where its sentences are from."""


class PairFileError(TrainingFault):
    """A pair file that cannot be read; the message names the file and the line."""


@dataclass(frozen=True)
class Pair:
    """Two sentences and their gold target: 0..1, the number of a class, or NaN where nobody gave one."""

    id: str
    left: str
    right: str
    gold: float

    @property
    def digest(self) -> str:
        """Sha256 of both sentences, in order and unambiguously separated."""
        return hashlib.sha256(json.dumps([self.left, self.right]).encode()).hexdigest()

    def swapped(self) -> "Pair":
        """The same pair read in the other order."""
        return Pair(self.id, self.right, self.left, self.gold)


def read_pairs(root: Path, pair_set: PairSet) -> list[Pair]:
    """The pairs of one file under ``root``: TSV with sentence1, sentence2, score; gzip or plain.

    A pair's id is the file's name without endings and its row, counted from 1: ``stsb/train:1``. A set that is a part
    of its file has those pairs whose left text falls into it, so that no left text is in two parts.

    Raises:
        PairFileError: the file is missing, or a line lacks a column or holds a score the set does not map, or maps to
            gold outside 0..1.
    """
    stem = pair_set.file.removesuffix(".gz").removesuffix(".tsv")
    pairs = [
        Pair(f"{stem}:{number}", left, right, _target(pair_set, score, number))
        for number, (left, right, score) in enumerate(pair_rows(root / pair_set.file), 1)
        if pair_set.part is None or pair_set.part[0] <= share_of(left) < pair_set.part[1]
    ]
    return pairs[: pair_set.limit]


def pair_rows(path: Path) -> Iterator[tuple[str, str, str]]:
    """Both sentences and the score, as written, of every row of a pair file: TSV without quoting, gzip or plain.

    Raises:
        PairFileError: the file is missing or damaged, its header lacks a column or names one twice, or a line has too
            few.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="\n") as file:
            csv.field_size_limit(2**31 - 1)
            reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            columns = list(reader.fieldnames or ())
            if missing := {"sentence1", "sentence2", "score"} - {*columns}:
                raise PairFileError(f"{path}: the header lacks {sorted(missing)}")
            if twice := {name for name in columns if columns.count(name) > 1}:
                raise PairFileError(
                    f"{path}: the header names {sorted(twice)} more than once; give each column its own name"
                )
            for row in reader:
                values = row["sentence1"], row["sentence2"], row["score"]
                if None in values:
                    raise PairFileError(f"{path}:{reader.line_num}: fewer columns than the header")
                yield values
    except (OSError, UnicodeDecodeError, EOFError, csv.Error, zlib.error) as error:
        raise PairFileError(f"{path}: {error}") from error


def share_of(text: str) -> float:
    """Where a text falls in 0..1, by a hash of its letters and digits: for parts that are the same in every run."""
    return int.from_bytes(hashlib.sha256(normalised(text).encode()).digest()[:8]) / 2**64


def _target(pair_set: PairSet, score: str, number: int) -> float:
    if pair_set.unlabelled:
        return math.nan
    try:
        if pair_set.classes is not None:
            return float(pair_set.classes.index(score))
        if pair_set.labels is not None:
            return pair_set.labels[score]
        assert pair_set.range is not None  # PairSet has one of the four
        low, high = pair_set.range
        gold = (float(score) - low) / (high - low)
    except (KeyError, ValueError) as error:
        raise PairFileError(f"{pair_set.file}, row {number}: score {score!r} is not mapped") from error
    if not 0 <= gold <= 1:  # nan, too
        raise PairFileError(
            f"{pair_set.file}, row {number}: score {score!r} is not within {low:g} to {high:g}; mend the file, or the "
            "range that is said of it"
        )
    return gold


def silver_sources(silver: Path) -> list[str]:
    """A file of silver pairs, and the files that its sentences are from: each with its terms, for model cards.

    Raises:
        PairFileError: what ``dse silver`` wrote beside the pairs cannot be read.
    """
    path = silver.with_name(silver.name + SOURCES)
    try:
        sources = [str(described) for described in json.loads(path.read_text("utf-8"))]
    except FileNotFoundError:
        return [f"`{silver.name}`: where its sentences are from is not stated"]
    except (OSError, ValueError) as error:
        raise PairFileError(f"{path} cannot be read ({error}); make the pairs again with dse silver") from error
    return [SILVER_PAIRS.model_copy(update={"file": silver.name}).described, *sources]


def normalised(text: str) -> str:
    """Letters and digits only, without case or accents: how two sentences are compared for leaks."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(character for character in decomposed if character.isalnum())


class HeldOut:
    """The sentences of the evaluation splits: no pair that holds one may be trained on."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = {normalised(text) for text in texts} - {""}

    @classmethod
    def read(cls, root: Path, files: Sequence[str]) -> "HeldOut":
        """Every sentence of the named pair files under ``root``."""
        return cls(text for file in files for row in pair_rows(root / file) for text in row[:2])

    def add(self, pairs: Iterable[Pair]) -> None:
        """Hold out the sentences of these pairs as well."""
        self._texts |= {normalised(text) for pair in pairs for text in (pair.left, pair.right)} - {""}

    def __len__(self) -> int:
        return len(self._texts)

    def without(self, pairs: Iterable[Pair]) -> list[Pair]:
        """The pairs that hold no held-out sentence."""
        return [pair for pair in pairs if not (self._holds(pair.left) or self._holds(pair.right))]

    def without_texts(self, texts: Iterable[str]) -> list[str]:
        """The texts that are not held out."""
        return [text for text in texts if not self._holds(text)]

    def _holds(self, text: str) -> bool:
        return normalised(text) in self._texts


class TrainingData:
    """The sets of a recipe, below a data folder: the one way by which pairs and texts reach any training."""

    def __init__(self, root: Path, recipe: DataRecipe, silver: Path | None = None) -> None:
        self._root, self._recipe, self._silver = root, recipe, silver
        self._held_out = HeldOut.read(root, recipe.held_out)
        self._held_out.add([*self.dev, *self.test])
        self._read: dict[str, list[Pair]] = {}

    @property
    def dev(self) -> list[Pair]:
        """The split that everything is chosen by."""
        return read_pairs(self._root, self._recipe.dev)

    @property
    def test(self) -> list[Pair]:
        """The split that is measured once, at the end."""
        return read_pairs(self._root, self._recipe.test)

    def described(self, stages: Iterable[Stage]) -> list[str]:
        """For model cards: the files that stages learn from, and their terms."""
        used = [*stages]
        names = {name for stage in used for name in (*stage.sets, *stage.texts)}
        sources = silver_sources(self._silver) if SILVER in names and self._silver else []
        return list(dict.fromkeys([*self.described_by_name(names - {SILVER}), *sources]))

    def described_by_name(self, names: Iterable[str]) -> list[str]:
        """For model cards: the files of these sets and texts, each once, and their terms."""
        wanted = set(names)
        texts = sorted(wanted & self._recipe.texts.keys())
        sets = sorted(wanted - self._recipe.texts.keys())
        described = [self._recipe.set_of(name).described for name in sets]
        return list(dict.fromkeys([*described, *(self._recipe.texts[name].described for name in texts)]))

    def pairs(self, name: str) -> list[Pair]:
        """The pairs of a set, without those that hold a held-out sentence.

        Raises:
            PairFileError: the silver pairs are asked for, but no file of them was given.
        """
        if name not in self._read:
            self._read[name] = self._held_out.without(self._pairs(name))
        return self._read[name]

    def texts(self, name: str) -> list[str]:
        """The sentences of a text set, or of a pair set's pairs, each once, without those that are held out."""
        if name not in self._recipe.texts:
            return list(dict.fromkeys(text for pair in self.pairs(name) for text in (pair.left, pair.right)))
        text_set = self._recipe.texts[name]
        lines = _texts(self._root / text_set.file)
        if text_set.words is not None:
            lines = [passage for line in lines for passage in _passages(line, text_set.words)]
        if (longest := text_set.max_words) is not None:
            lines = [line for line in lines if len(line.split()) <= longest]
        every = self._held_out.without_texts(lines)
        return every if text_set.limit is None else spaced(every, text_set.limit)

    def _pairs(self, name: str) -> list[Pair]:
        if name != SILVER:
            return read_pairs(self._root, self._recipe.sets[name])
        if self._silver is None:
            raise PairFileError("the recipe trains on silver pairs: make them with dse silver, and give --silver FILE")
        # The scores of silver pairs only chose them; cosines may be below 0.
        silver = SILVER_PAIRS.model_copy(update={"file": self._silver.name, "range": None, "unlabelled": True})
        return read_pairs(self._silver.parent, silver)


def data_digest(root: Path, recipe: DataRecipe, names: Iterable[str]) -> str:
    """One digest of the files below ``root`` that, by the recipe, decide what sets and texts of these names hold.

    The splits to judge by are among them, silver pairs are not.

    Raises:
        PairFileError: a file is missing.
    """
    used = {recipe.texts_of(name).file for name in names if name != SILVER}
    try:
        digests = digests_of(root, used | {recipe.dev.file, recipe.test.file, *recipe.held_out})
    except OSError as error:
        raise PairFileError(f"{error.filename}: {error.strerror}") from error
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest()


def _passages(text: str, words: int) -> list[str]:
    """A text in pieces of so many words; what is left over is the end of a longer text, and is left out."""
    every = text.split()
    return [" ".join(every[at : at + words]) for at in range(0, max(1, len(every) - words + 1), words)]


def _texts(path: Path) -> list[str]:
    """The texts of a file: lines that are not empty, or of JSON lines the title and text; gzip or plain."""
    lines = _lines(path)
    if ".jsonl" not in path.suffixes:
        return lines
    try:
        rows = [json.loads(line) for line in lines]
        return [" ".join(filter(None, [row.get("title"), row["text"]])) for row in rows]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PairFileError(f"{path}: every line must be an object with a text ({error!r})") from error


def _lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty; gzip or plain."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="\n") as file:
            return [text for line in file if (text := line.strip())]
    except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise PairFileError(f"{path}: {error}") from error
