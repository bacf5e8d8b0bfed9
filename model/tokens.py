"""How does text become the arrays a graph reads, and which texts share a batch?"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from model.line import Line
from model.manifest import ArtifactError

T = TypeVar("T")

Arrays = dict[str, NDArray[np.int64]]
"""Graph inputs by name, each (rows, tokens) int64."""
Forward = Callable[[Any], NDArray[Any]]
"""A graph over the tokens of one batch: (rows, ...) an answer a row."""
Run = Callable[[Any], NDArray[Any]]
"""Tokens to (rows, ...) answers, in as many batches as it takes."""


@dataclass(frozen=True)
class Ragged:
    """Rows of unlike length, end to end in one array: filling a batch from it costs no Python per row."""

    values: NDArray[np.int64]  # (all rows' values,)
    bounds: NDArray[np.intp]  # (rows + 1,): row r is values[bounds[r] : bounds[r + 1]]

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> "Ragged":
        """Rows given as lists."""
        bounds = np.zeros(len(rows) + 1, np.intp)
        np.cumsum(np.fromiter(map(len, rows), np.intp, len(rows)), out=bounds[1:])
        return cls(np.fromiter(chain.from_iterable(rows), np.int64, bounds[-1]), bounds)

    @classmethod
    def gathered(cls, picked: Sequence[tuple["Ragged", int]]) -> Self:
        """Rows picked from several, in the order given."""
        rows = [ragged.row(row) for ragged, row in picked]
        bounds = np.zeros(len(rows) + 1, np.intp)
        np.cumsum([len(row) for row in rows], out=bounds[1:])
        return cls(np.concatenate(rows), bounds)

    def row(self, row: int) -> NDArray[np.int64]:
        """(values of the row,) one row."""
        return self.values[self.bounds[row] : self.bounds[row + 1]]

    def padded(self, rows: NDArray[np.intp], fill: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """(rows, longest) some rows, filled up at their ends, and a mask of the same shape: False where filled."""
        starts = self.bounds[rows]
        lengths = self.bounds[rows + 1] - starts
        columns = np.arange(lengths.max(initial=0))
        mask = columns < lengths[:, None]
        padded = np.full(mask.shape, fill, np.int64)
        padded[mask] = self.values[(starts[:, None] + columns)[mask]]
        return padded, mask


@dataclass(frozen=True)
class Tokens:
    """Texts as token ids. The fields are parallel."""

    ids: Ragged
    truncated: NDArray[np.bool_]  # (texts,) the text was longer than the model reads

    def __len__(self) -> int:
        return len(self.truncated)

    @property
    def lengths(self) -> NDArray[np.intp]:
        """(texts,) tokens of each."""
        return np.diff(self.ids.bounds)

    def key(self, row: int) -> bytes:
        """What a graph reads of a text: of equal keys, it answers the same."""
        return self.ids.row(row).tobytes()

    @classmethod
    def gathered(cls, picked: Sequence[tuple[Any, int]]) -> "Tokens":
        """Texts picked from several, in the order given; all are of this class."""
        return cls(Ragged.gathered([(tokens.ids, row) for tokens, row in picked]), _cut(picked))


@dataclass(frozen=True)
class PairTokens(Tokens):
    """Pairs as token ids, and which sentence of its pair each token is of."""

    type_ids: Ragged

    def key(self, row: int) -> bytes:
        """What a graph reads of a pair: of equal keys, it answers the same."""
        return self.ids.row(row).tobytes() + self.type_ids.row(row).tobytes()

    @classmethod
    def gathered(cls, picked: Sequence[tuple[Any, int]]) -> "PairTokens":
        """Pairs picked from several, in the order given."""
        ids = Ragged.gathered([(tokens.ids, row) for tokens, row in picked])
        types = Ragged.gathered([(tokens.type_ids, row) for tokens, row in picked])
        return cls(ids, _cut(picked), types)


@dataclass(frozen=True)
class Pieces:
    """Texts of any length as token ids: each in as many pieces as it takes, and a text is the mean of its pieces."""

    tokens: Tokens  # of every piece, text after text
    owners: NDArray[np.intp]  # (pieces,) the row of the text that each is of
    truncated: NDArray[np.bool_]  # (texts,) the text has more pieces than are read

    @property
    def lengths(self) -> NDArray[np.intp]:
        """(pieces,) tokens of each."""
        return self.tokens.lengths

    def means(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """(texts, dim) unit means of the (pieces, dim) embeddings of each text's pieces, which count by their tokens.

        Of a text in one piece that is its embedding, to the last bit.
        """
        texts = len(self.truncated)
        alone = np.bincount(self.owners, minlength=texts) == 1
        if alone.all():
            return embeddings
        means = np.zeros((texts, embeddings.shape[1]), np.float32)
        np.add.at(means, self.owners, embeddings * self.lengths[:, None].astype(np.float32))
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        means[alone] = embeddings[alone[self.owners]]
        return means


def _cut(picked: Sequence[tuple[Tokens, int]]) -> NDArray[np.bool_]:
    return np.array([tokens.truncated[row] for tokens, row in picked], np.bool_)


AHEAD = 32
"""Characters of a text for each token that a model reads, with which reading a long one begins: most have 4 to 6."""
SPARE = 128
"""Tokens beyond those read that a beginning must have: where it ends within a word, its last ones are others."""
ALONE = 8_192
"""Characters in all, above which the texts of one call at a time are tokenised."""
SLICE = 32_768
"""Characters that are tokenised at a time; the tokenizer takes some hundred bytes for each of their tokens."""
CHARACTERS_A_SECOND = 1e6
"""About so many are tokenised."""
PATIENCE = 16.0
"""Times as long as its own takes, a call lets the texts of others pass."""


class _TokenizerFile:
    """What both tokenizers share: a ``tokenizer.json``, cut at ``max_tokens``.

    However long and many the texts, and however many threads ask: what the tokenizer makes of them, which is far more
    than the ids that stay, is in memory only for a slice of them, and one call at a time has its slices read. Of a text
    that is far longer than what is read, only a beginning is looked at.
    """

    def __init__(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._line = Line(PATIENCE)
        self.max_tokens = max_tokens
        pads = [tokenizer.token_to_id(name) for name in ("[PAD]", "<pad>")]  # BERT's name and RoBERTa's
        self._pad_id = next((pad for pad in pads if pad is not None), 0)

    @classmethod
    def load(cls, path: Path, max_tokens: int) -> Self:
        """Read a ``tokenizer.json``.

        Raises:
            ArtifactError: there is none, or it is damaged.
        """
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises no other
            raise ArtifactError(f"{path} cannot be read as a tokenizer: {error}") from error
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_tokens)
        return cls(tokenizer, max_tokens)

    def _read(self, texts: Sequence[str], keep: Callable[[Encoding], T], specials: bool, most: int | None) -> list[T]:
        """What is kept of the tokens of each text; of a very long one, of enough to fill the ``most`` that are read."""
        characters = sum(map(len, texts))
        if characters <= ALONE:
            return list(map(keep, self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=specials)))
        kept: list[T] = []
        with self._line.joined(characters / CHARACTERS_A_SECOND) as turn:
            for some in _slices(texts):
                with turn():
                    beginnings = list(some) if most is None else [self._beginning(text, most) for text in some]
                    kept += map(keep, self._tokenizer.encode_batch_fast(beginnings, add_special_tokens=specials))
        return kept

    def _beginning(self, text: str, most: int) -> str:
        """The text, or as much of it as has more tokens than the ``most`` that are read: what follows would be cut."""
        end = AHEAD * most
        while end < len(text):
            (read,) = self._tokenizer.encode_batch_fast([text[:end]], add_special_tokens=False)
            if sum(map(len, (read, *read.overflowing))) >= most + SPARE:
                return text[:end]
            end *= 4
        return text


def _slices(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Texts in order, some at a time: together of at most ``SLICE`` characters, or one."""
    first, characters = 0, 0
    for number, text in enumerate(texts):
        characters += len(text)
        if characters > SLICE and number > first:
            yield texts[first:number]
            first, characters = number, len(text)
    yield texts[first:]


class SentenceTokenizer(_TokenizerFile):
    """Sentences, each alone: ``[CLS] s [SEP]``, cut at ``max_tokens``."""

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Texts as tokens, in order."""

        def kept(encoding: Encoding) -> tuple[list[int], bool]:
            return encoding.ids, bool(encoding.overflowing)

        read = self._read(texts, kept, specials=True, most=self.max_tokens)
        return Tokens(Ragged.of([ids for ids, _ in read]), np.array([cut for _, cut in read], np.bool_))

    def pieces(self, texts: Sequence[str], most: int | None = None) -> Pieces:
        """Texts in pieces of at most ``max_tokens``, each with its own markers; all of them, or so many of a text."""

        def kept(encoding: Encoding) -> tuple[list[list[int]], bool]:
            pieces = [encoding.ids, *(piece.ids for piece in encoding.overflowing)]
            return pieces[:most], most is not None and len(pieces) > most

        read = self._read(texts, kept, specials=True, most=None if most is None else most * self.max_tokens)
        ids = Ragged.of([piece for pieces, _ in read for piece in pieces])
        owners = np.repeat(np.arange(len(texts)), [len(pieces) for pieces, _ in read])
        tokens = Tokens(ids, np.zeros(len(owners), np.bool_))
        return Pieces(tokens, owners, np.array([cut for _, cut in read], np.bool_))

    def padded(self, tokens: Tokens, rows: NDArray[np.intp] | None = None) -> Arrays:
        """``input_ids`` and ``attention_mask`` of some rows, or of all, as wide as the longest."""
        rows = np.arange(len(tokens)) if rows is None else rows
        ids, mask = tokens.ids.padded(rows, self._pad_id)
        return {"input_ids": ids, "attention_mask": mask.astype(np.int64)}


class PairTokenizer(_TokenizerFile):
    """Pairs, read together: ``[CLS] a [SEP] b [SEP]`` with segments 0 and 1, cut at ``max_tokens``."""

    def __init__(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        super().__init__(tokenizer, max_tokens)
        tokenizer.no_truncation()  # how much of a text is read depends on the other one of its pair
        self._frame = _Frame.of(tokenizer)

    def tokenize(self, pairs: Sequence[tuple[str, str]]) -> PairTokens:
        """Pairs as tokens, in order.

        A text that many pairs share is read once, and no more of it is kept than fits: one query beside many
        documents costs what its own length does.
        """
        row_of = {text: row for row, text in enumerate(dict.fromkeys(chain.from_iterable(pairs)))}
        most_read = self.max_tokens
        read = self._read(list(row_of), lambda encoding: (encoding.ids[:most_read], len(encoding)), False, most_read)
        texts, lengths = Ragged.of([ids for ids, _ in read]), np.array([length for _, length in read], np.intp)
        left, right = (np.array([row_of[pair[side]] for pair in pairs], np.intp) for side in (0, 1))
        most = self.max_tokens - len(self._frame.specials)
        kept = _longest_first(lengths[left], lengths[right], most)
        return self._frame.around(texts, (left, right), kept, lengths[left] + lengths[right] > most)

    def padded(self, tokens: PairTokens, rows: NDArray[np.intp] | None = None) -> Arrays:
        """``input_ids``, ``attention_mask`` and ``token_type_ids`` of some rows, or of all, as wide as the longest."""
        rows = np.arange(len(tokens)) if rows is None else rows
        ids, mask = tokens.ids.padded(rows, self._pad_id)
        types, _ = tokens.type_ids.padded(rows, 0)
        return {"input_ids": ids, "attention_mask": mask.astype(np.int64), "token_type_ids": types}


@dataclass(frozen=True)
class _Frame:
    """What a tokenizer puts around the two texts of a pair, as it does around any."""

    specials: tuple[tuple[int, int, int], ...]  # of each token around them: how many texts are before it, id, type
    types: tuple[int, int]  # of the tokens of either text

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "_Frame":
        """Look at a pair of short texts."""
        shown = tokenizer.encode("a", "a")
        texts_before, specials, types = 0, [], [0, 0]
        for id_, type_, of in zip(shown.ids, shown.type_ids, shown.sequence_ids, strict=True):
            if of is None:
                specials.append((texts_before, id_, type_))
            else:
                texts_before, types[of] = of + 1, type_
        return cls(tuple(specials), (types[0], types[1]))

    def around(
        self,
        texts: Ragged,
        rows: tuple[NDArray[np.intp], NDArray[np.intp]],
        kept: tuple[NDArray[np.intp], NDArray[np.intp]],
        truncated: NDArray[np.bool_],
    ) -> PairTokens:
        """Pairs of texts, of which the first ``kept`` tokens are read; ``rows`` and ``kept`` are of either side."""
        counts = [sum(before == texts_before for before, _, _ in self.specials) for texts_before in range(3)]
        starts = np.stack([np.full_like(kept[0], counts[0]), counts[0] + kept[0] + counts[1]])  # (2, pairs) in its pair
        bounds = np.zeros(len(truncated) + 1, np.intp)
        np.cumsum(len(self.specials) + kept[0] + kept[1], out=bounds[1:])
        ids, types = np.empty((2, bounds[-1]), np.int64)
        for side, type_ in enumerate(self.types):
            within = _counted(kept[side])
            places = np.repeat(bounds[:-1] + starts[side], kept[side]) + within
            ids[places] = texts.values[np.repeat(texts.bounds[rows[side]], kept[side]) + within]
            types[places] = type_
        for number, (texts_before, id_, type_) in enumerate(self.specials):
            places = bounds[:-1] + number + sum(kept[:texts_before], np.zeros_like(kept[0]))
            ids[places], types[places] = id_, type_
        return PairTokens(Ragged(ids, bounds), truncated, Ragged(types, bounds))


def _counted(lengths: NDArray[np.intp]) -> NDArray[np.intp]:
    """(all rows' values,) 0, 1, ... of each row, end to end."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)


def _longest_first(
    left: NDArray[np.intp], right: NDArray[np.intp], most: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """How many tokens of each text are kept where both together may have ``most``: the longer loses its end first.

    To the token what tokenizers' own ``longest_first`` keeps, but for who has the odd one of two texts so long that
    only a beginning of either was read: the longer beginning.
    """
    shorter = np.minimum(left, right)
    longer = np.maximum(shorter, most - shorter)
    halved = shorter + longer > most
    shorter, longer = np.where(halved, most // 2, shorter), np.where(halved, most - most // 2, longer)
    fits = left + right <= most
    first = np.where(fits, left, np.where(left > right, longer, shorter))
    return first, np.where(fits, right, np.where(left > right, shorter, longer))


BATCH_TOKENS = 256
"""Tokens of a thread's batch, padding included: enough for the kernels, little enough for the caches."""
TABLE_BATCH_TOKENS = 1024
"""The same for a body without layers, where a row costs less than its part of a call."""
LEAST_TOKENS = 64
"""Of a thread's batch: less is not worth another thread."""
ONE_BATCH = 1 << 30
"""Tokens of a batch that is never split."""
FEW = 4
"""Batches a thread, up to which they are evened out."""
STEP = 8
"""Tokens to which a batch's size is chosen then."""


def plan_shares(lengths: NDArray[np.intp], threads: int, most: int = BATCH_TOKENS) -> list[NDArray[np.intp]]:
    """Rows grouped so that so many threads have a like share of them, in batches of at most ``most`` tokens.

    A few batches are made as small as their number allows once each thread has as many: the last one would be waited
    for. Of many, it hardly matters.

    >>> [batch.tolist() for batch in plan_shares(np.array([90, 60, 90, 60]), threads=2)]
    [[1, 3], [0, 2]]
    """
    share = -(-len(lengths) // threads) * int(lengths.max(initial=0))
    budget = min(most, max(LEAST_TOKENS, share))
    batches = plan_batches(lengths, budget)
    if not 1 < len(batches) <= FEW * threads:
        return batches
    allowed, least = -(-len(batches) // threads) * threads, LEAST_TOKENS
    while budget - least > STEP:
        middle = (least + budget) // 2
        found = plan_batches(lengths, middle)
        if len(found) <= allowed:
            batches, budget = found, middle
        else:
            least = middle
    return batches


def plan_batches(lengths: Sequence[int] | NDArray[np.intp], budget: int) -> list[NDArray[np.intp]]:
    """Rows grouped so that each batch, padded to its longest row, holds at most ``budget`` tokens.

    Rows of like length meet, so little is padded. A row longer than the budget gets a batch of its own.

    >>> [batch.tolist() for batch in plan_batches([3, 9, 3, 3], budget=9)]
    [[0, 2, 3], [1]]
    """
    lengths = np.asarray(lengths, np.intp)
    order = np.argsort(lengths, kind="stable")
    batches: list[NDArray[np.intp]] = []
    start = 0
    while start < len(order):
        ahead = lengths[order[start : start + budget]]
        padded = ahead * np.arange(1, len(ahead) + 1)  # tokens of a batch that ends here
        end = start + max(1, int(np.searchsorted(padded, budget, side="right")))
        batches.append(order[start:end])
        start = end
    return batches
