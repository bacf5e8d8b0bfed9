"""How does a pair of sentences become a pair of long texts, so that what people said of it still holds?

Both sentences are set into the same place of the same context, sentences of news that have nothing to do with them.
What the context says, both texts say: they differ in the two sentences and in nothing else, so pairs keep the order
that people gave them. With a context for each side, the texts would differ by their topics, and nobody judged that.
"""

import random
from collections.abc import Sequence

from model.tokens import SentenceTokenizer
from model.training.pairs import Pair

MISSES = 16
"""So many sentences in turn may be drawn that are in the context already or too long for what is left of it."""


class Context:
    """Sentences that are set around others, drawn at random: the same for the same pair."""

    def __init__(self, sentences: Sequence[str], tokenizer: SentenceTokenizer) -> None:
        self._sentences, self._tokenizer = sentences, tokenizer
        self._markers = int(tokenizer.tokenize([""]).lengths[0])
        self._lengths = (tokenizer.tokenize(sentences).lengths - self._markers).tolist()

    def around(self, pairs: Sequence[Pair], tokens: int, salt: str) -> list[Pair]:
        """The pairs with as many sentences around both of theirs as ``tokens`` tokens have room for.

        For the same salt, a pair's context begins with the same sentences at every length, as far as they fit, and the
        pair's own stand at the same share of it.
        """
        lengths = self._tokenizer.tokenize([text for pair in pairs for text in (pair.left, pair.right)]).lengths
        longest = lengths.reshape(-1, 2).max(axis=1, initial=0).tolist()
        return [self._around(pair, tokens - length, salt) for pair, length in zip(pairs, longest, strict=True)]

    def _around(self, pair: Pair, room: int, salt: str) -> Pair:
        draw = random.Random(f"{salt}/{pair.id}")
        share = draw.random()
        chosen: dict[int, None] = {}  # in the order in which they were drawn
        misses = 0
        while misses < MISSES:
            row = draw.randrange(len(self._sentences))
            if row in chosen or self._lengths[row] > room:
                misses += 1
                continue
            chosen[row] = None
            room -= self._lengths[row]
            misses = 0
        place = int(share * (len(chosen) + 1))
        context = [self._sentences[row] for row in chosen]
        before, after = context[:place], context[place:]
        left, right = (" ".join([*before, sentence, *after]) for sentence in (pair.left, pair.right))
        return Pair(pair.id, left, right, pair.gold)
