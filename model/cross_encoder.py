"""What does the teacher say of a pair? Both sentences in one graph, in both orders."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from model.head import LOGIT_DECIMALS
from model.sessions import GraphRunner
from model.tokens import Arrays, Forward, PairTokenizer, PairTokens, Run


@dataclass(frozen=True)
class PairLogits:
    """The teacher's answers. The two fields are parallel."""

    logits: NDArray[np.float64]  # (pairs,) mean over both orders
    truncated: NDArray[np.bool_]  # (pairs,) the pair was longer than the model reads


@dataclass(frozen=True)
class BothOrders:
    """Pairs as tokens: all as they came, then all the other way round."""

    tokens: PairTokens

    @property
    def lengths(self) -> NDArray[np.intp]:
        """(pairs,) tokens of both sentences, after any cut."""
        return self.tokens.lengths[: len(self.tokens) // 2]

    @property
    def truncated(self) -> NDArray[np.bool_]:
        """(pairs,) the pair is longer than the model reads."""
        return self.tokens.truncated[: len(self.tokens) // 2]


class OnnxCrossEncoder:
    """A teacher: pairs in, logits out, the same whichever sentence comes first. Safe to call from several threads."""

    def __init__(
        self, graph: GraphRunner, tokenizer: PairTokenizer, token_budget: int | None = None, run: Run | None = None
    ) -> None:
        self._graph, self._tokenizer, self._token_budget = graph, tokenizer, token_budget
        self._run = run or self.forward
        self._inputs = graph.inputs  # not every graph has token_type_ids

    @property
    def max_tokens(self) -> int:
        """A pair is cut after this many tokens, the longer sentence first."""
        return self._tokenizer.max_tokens

    def with_token_budget(self, token_budget: int) -> "OnnxCrossEncoder":
        """The same teacher with batches of so many tokens, however many threads there are."""
        return OnnxCrossEncoder(self._graph, self._tokenizer, token_budget)

    def queued(self, queue: Callable[[Forward], Run]) -> "OnnxCrossEncoder":
        """The same teacher, whose pairs wait in a queue for the graph."""
        return OnnxCrossEncoder(self._graph, self._tokenizer, self._token_budget, queue(self.forward))

    def score(self, pairs: Sequence[tuple[str, str]]) -> PairLogits:
        """Logits of pairs, in order."""
        return self.read(self.tokenize(pairs))

    def tokenize(self, pairs: Sequence[tuple[str, str]]) -> BothOrders:
        """Pairs as tokens, in order."""
        return BothOrders(self._tokenizer.tokenize([*pairs, *((b, a) for a, b in pairs)]))

    def read(self, pairs: BothOrders) -> PairLogits:
        """Logits of tokenised pairs, in order.

        Raises:
            ArithmeticError: the graph answered a number that is not finite.
        """
        count = len(pairs.truncated)
        logits = self._run(pairs.tokens) if count else np.empty(0)
        if not np.isfinite(logits).all():
            raise ArithmeticError("the teacher answered a number that is not finite; check the bundle")
        both_orders = logits.reshape(2, count).mean(axis=0, dtype=np.float64)
        return PairLogits(np.round(both_orders, LOGIT_DECIMALS), pairs.truncated)

    def forward(self, tokens: PairTokens) -> NDArray[np.float32]:
        """(pairs,) what the graph answers of each pair, in one order each."""
        return self._graph.run("logit", tokens.lengths, partial(self._arrays, tokens), self._token_budget)

    def _arrays(self, tokens: PairTokens, rows: NDArray[np.intp]) -> Arrays:
        arrays = self._tokenizer.padded(tokens, rows)
        return {name: array for name, array in arrays.items() if name in self._inputs}
