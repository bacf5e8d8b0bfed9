"""How does text become the arrays a graph reads, and which texts share a batch?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

Arrays = dict[str, NDArray[np.int64]]
"""Graph inputs by name, each (rows, tokens) int64."""


@dataclass(frozen=True)
class Tokens:
    """One text, or one pair, as token ids; ``truncated`` if it was longer than the model reads."""

    ids: Sequence[int]
    type_ids: Sequence[int]
    truncated: bool

    def __len__(self) -> int:
        return len(self.ids)


def _tokens(encoding: Encoding) -> Tokens:
    return Tokens(encoding.ids, encoding.type_ids, truncated=bool(encoding.overflowing))


def _pad(column: Sequence[Sequence[int]], width: int, fill: int) -> NDArray[np.int64]:
    padded = np.full((len(column), width), fill, np.int64)
    for row, values in zip(padded, column, strict=True):
        row[: len(values)] = values
    return padded


class _TokenizerFile:
    """What both tokenizers share: a ``tokenizer.json`` cut at ``max_tokens``, and how rows become arrays."""

    def __init__(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        self._tokenizer = tokenizer
        self.max_tokens = max_tokens
        pads = [tokenizer.token_to_id(name) for name in ("[PAD]", "<pad>")]  # BERT's name and RoBERTa's
        self._pad_id = next((pad for pad in pads if pad is not None), 0)

    @classmethod
    def load(cls, path: Path, max_tokens: int) -> Self:
        """Read a ``tokenizer.json``."""
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.no_padding()
        # longest_first: of a pair, the longer text loses its end first
        tokenizer.enable_truncation(max_tokens, strategy="longest_first")
        return cls(tokenizer, max_tokens)

    def _arrays(self, rows: Sequence[Tokens]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        width = max(len(row) for row in rows)
        ids = _pad([row.ids for row in rows], width, self._pad_id)
        mask = _pad([[1] * len(row) for row in rows], width, 0)
        return ids, mask


class SentenceTokenizer(_TokenizerFile):
    """Sentences, each alone: ``[CLS] s [SEP]``, cut at ``max_tokens``."""

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        """One :class:`Tokens` a text, in order."""
        return [_tokens(encoding) for encoding in self._tokenizer.encode_batch_fast(list(texts))]

    def padded(self, rows: Sequence[Tokens]) -> Arrays:
        """``input_ids`` and ``attention_mask``, as wide as the longest row."""
        ids, mask = self._arrays(rows)
        return {"input_ids": ids, "attention_mask": mask}


class PairTokenizer(_TokenizerFile):
    """Pairs, read together: ``[CLS] a [SEP] b [SEP]`` with segments 0 and 1, cut at ``max_tokens``."""

    def tokenize(self, pairs: Sequence[tuple[str, str]]) -> list[Tokens]:
        """One :class:`Tokens` a pair, in order."""
        return [_tokens(encoding) for encoding in self._tokenizer.encode_batch_fast(list(pairs))]

    def padded(self, rows: Sequence[Tokens]) -> Arrays:
        """``input_ids``, ``attention_mask`` and ``token_type_ids``, as wide as the longest row."""
        ids, mask = self._arrays(rows)
        types = _pad([row.type_ids for row in rows], ids.shape[1], 0)
        return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def plan_batches(lengths: Sequence[int], budget: int) -> list[NDArray[np.intp]]:
    """Rows grouped so that each batch, padded to its longest row, holds at most ``budget`` tokens.

    Rows of like length meet, so little is padded. A row longer than the budget gets a batch of its own.

    >>> [batch.tolist() for batch in plan_batches([3, 9, 3, 3], budget=9)]
    [[0, 2, 3], [1]]
    """
    order = np.argsort(np.asarray(lengths, np.intp), kind="stable")
    batches: list[NDArray[np.intp]] = []
    start = 0
    for end in range(1, len(order) + 1):
        full = end == len(order) or lengths[order[end]] * (end + 1 - start) > budget
        if full:
            batches.append(order[start:end])
            start = end
    return batches
