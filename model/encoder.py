"""What is the embedding of a sentence? Tokenise, batch by length, run the graph."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray

from model.faults import DimensionsError
from model.sessions import GraphRunner
from model.tokens import Forward, Run, SentenceTokenizer, Tokens


def shortened(embeddings: NDArray[np.float32], dims: int) -> NDArray[np.float32]:
    """(rows, dims) the first numbers of (rows, dim) embeddings, at unit length again.

    Only worth something for an encoder trained for it (Matryoshka Representation Learning, arXiv 2205.13147).
    """
    prefixes = embeddings[:, :dims]
    return prefixes / np.linalg.norm(prefixes, axis=1, keepdims=True)


def whole_embeddings(
    tokenizer: SentenceTokenizer, embed: Callable[[Tokens], NDArray[np.float32]], texts: Sequence[str]
) -> NDArray[np.float32]:
    """(texts, dim) unit means of the embeddings of each text's pieces, which count by their tokens.

    Of a text that is no longer than the tokenizer cuts, that is its embedding.
    """
    tokens, owners = tokenizer.pieces(texts)
    embeddings = embed(tokens)
    sums = np.zeros((len(texts), embeddings.shape[1]), np.float32)
    np.add.at(sums, owners, embeddings * tokens.lengths[:, None].astype(np.float32))
    return sums / np.linalg.norm(sums, axis=1, keepdims=True)


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
    ) -> None:
        self._graph, self._tokenizer = graph, tokenizer
        self.dims, self.matryoshka = dims, tuple(matryoshka)
        self._token_budget = token_budget
        self._run = run or self.forward

    @property
    def max_tokens(self) -> int:
        """Texts are cut after this many tokens."""
        return self._tokenizer.max_tokens

    def with_token_budget(self, token_budget: int) -> "OnnxEncoder":
        """The same encoder with batches of so many tokens, however many threads there are."""
        return OnnxEncoder(self._graph, self._tokenizer, self.dims, self.matryoshka, token_budget)

    def queued(self, queue: Callable[[Forward], Run]) -> "OnnxEncoder":
        """The same encoder, whose texts wait in a queue for the graph."""
        run = queue(self.forward)
        return OnnxEncoder(self._graph, self._tokenizer, self.dims, self.matryoshka, self._token_budget, run)

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Texts as tokens; ``truncated`` says which were cut."""
        return self._tokenizer.tokenize(texts)

    def embed(self, tokens: Tokens) -> NDArray[np.float32]:
        """(texts, dim) unit embeddings of tokenised texts, in order.

        Raises:
            ArithmeticError: the graph answered a number that is not finite.
        """
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
            last: Future[Tokens] | None = None
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
