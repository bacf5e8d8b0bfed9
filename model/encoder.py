"""What is the embedding of a sentence? Tokenise, batch by length, run the graph."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray

from model.faults import DimensionsError
from model.long_text import MOST_PIECES, LongText
from model.sessions import GraphRunner
from model.tokens import Forward, Pieces, Run, SentenceTokenizer, Tokens


def shortened(embeddings: NDArray[np.float32], dims: int) -> NDArray[np.float32]:
    """(rows, dims) the first numbers of (rows, dim) embeddings, at unit length again.

    Only worth something for an encoder trained for it (Matryoshka Representation Learning, arXiv 2205.13147).
    """
    prefixes = embeddings[:, :dims]
    return prefixes / np.linalg.norm(prefixes, axis=1, keepdims=True)


Read = Tokens | Pieces
"""Texts as an encoder will read them."""


def whole_embeddings(
    tokenizer: SentenceTokenizer, embed: Callable[[Tokens], NDArray[np.float32]], texts: Sequence[str]
) -> NDArray[np.float32]:
    """(texts, dim) unit embeddings of whole texts, however long: the means of their pieces' (:meth:`Pieces.means`)."""
    pieces = tokenizer.pieces(texts)
    return pieces.means(embed(pieces.tokens))


def allowed_width(dims: int | None, whole: int, prefixes: Sequence[int]) -> int:
    """The width that was asked for, by default the whole.

    Raises:
        DimensionsError: the encoder was not trained to be cut there.
    """
    width = whole if dims is None else dims
    if width not in (*prefixes, whole):
        allowed = ", ".join(map(str, (*prefixes, whole)))
        raise DimensionsError(f"embeddings of {width} dimensions were asked for; this model gives {allowed}")
    return width


class OnnxEncoder:
    """A student's body: texts in, unit embeddings out. Safe to call from several threads."""

    def __init__(
        self,
        graph: GraphRunner,
        tokenizer: SentenceTokenizer,
        dims: int,
        matryoshka: Sequence[int] = (),
        token_budget: int | None = None,
        run: Run | None = None,
        long_text: LongText = "truncate",
    ) -> None:
        self._graph, self._tokenizer = graph, tokenizer
        self.dims, self.matryoshka, self.long_text = dims, tuple(matryoshka), long_text
        self._token_budget = token_budget
        self._run = run or self.forward

    @property
    def max_tokens(self) -> int:
        """Texts are cut after this many tokens."""
        return self._tokenizer.max_tokens * (MOST_PIECES if self.long_text == "chunk" else 1)

    def with_token_budget(self, token_budget: int) -> "OnnxEncoder":
        """The same encoder with batches of so many tokens, however many threads there are."""
        return self._like(token_budget, None)

    def queued(self, queue: Callable[[Forward], Run]) -> "OnnxEncoder":
        """The same encoder, whose texts wait in a queue for the graph."""
        return self._like(self._token_budget, queue(self.forward))

    def _like(self, token_budget: int | None, run: Run | None) -> "OnnxEncoder":
        return OnnxEncoder(self._graph, self._tokenizer, self.dims, self.matryoshka, token_budget, run, self.long_text)

    def tokenize(self, texts: Sequence[str]) -> Read:
        """Texts as tokens; ``truncated`` says which were cut."""
        if self.long_text == "chunk":
            return self._tokenizer.pieces(texts, MOST_PIECES)
        return self._tokenizer.tokenize(texts)

    def embed(self, tokens: Read) -> NDArray[np.float32]:
        """(texts, dim) unit embeddings of tokenised texts, in order.

        Raises:
            ArithmeticError: the graph answered a number that is not finite.
        """
        if isinstance(tokens, Pieces):
            return tokens.means(self.embed(tokens.tokens))
        embeddings: NDArray[np.float32] = self._run(tokens) if len(tokens) else np.empty((0, self.dims), np.float32)
        if not np.isfinite(embeddings).all():
            raise ArithmeticError("the encoder answered a number that is not finite; check the bundle")
        return embeddings

    def forward(self, tokens: Tokens) -> NDArray[np.float32]:
        """(texts, dim) what the graph answers of each text, in order."""
        padded = partial(self._tokenizer.padded, tokens)
        return self._graph.run("sentence_embedding", tokens.lengths, padded, self._token_budget)

    def encode(self, texts: Sequence[str], dims: int | None = None) -> NDArray[np.float32]:
        """(texts, dim) unit embeddings, in the order of ``texts``; with ``dims``, cut to that many.

        Raises:
            DimensionsError: the encoder was not trained to be cut there.
        """
        width = self._width(dims)
        return self._cut(self.embed(self.tokenize(texts)), width)

    def encode_whole(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(texts, dim) unit embeddings of texts of any length: the mean of their pieces' (:func:`whole_embeddings`)."""
        return whole_embeddings(self._tokenizer, self.embed, texts)

    def encode_batches(
        self, batches: Iterable[Sequence[str]], dims: int | None = None
    ) -> Iterator[NDArray[np.float32]]:
        """What :meth:`encode` gives of each batch; the next is tokenised while the graph has the last.

        Raises:
            DimensionsError: the encoder was not trained to be cut there. Said at once, before any batch is read.
        """
        return self._encoded(batches, self._width(dims))

    def _encoded(self, batches: Iterable[Sequence[str]], width: int) -> Iterator[NDArray[np.float32]]:
        with ThreadPoolExecutor(max_workers=1) as beside:
            last: Future[Read] | None = None
            for batch in batches:
                tokens = beside.submit(self.tokenize, batch)
                if last is not None:
                    yield self._cut(self.embed(last.result()), width)
                last = tokens
            if last is not None:
                yield self._cut(self.embed(last.result()), width)

    def _width(self, dims: int | None) -> int:
        return allowed_width(dims, self.dims, self.matryoshka)

    def _cut(self, embeddings: NDArray[np.float32], width: int) -> NDArray[np.float32]:
        return embeddings if width == self.dims else shortened(embeddings, width)
