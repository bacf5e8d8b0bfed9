"""What does a recipe say of its data? Files of pairs and of texts, how their scores are read, and what is held out."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Strict(BaseModel):
    """A part of a recipe: it knows its own fields and no others."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PairSet(Strict):
    """One file of sentence pairs, and how its scores map to a gold target in 0..1.

    ``range`` maps a number linearly (``[0, 5]`` for STS); ``labels`` maps a label name; ``classes`` lists the labels of
    a task that asks for one of several, and gold is a label's place among them; the scores of an ``unlabelled`` set
    mean nothing here. ``part`` takes a share of the file, by the left text (:func:`~model.training.pairs.share_of`):
    ``[0.8, 1]`` is the last fifth.
    """

    file: str
    terms: str
    range: tuple[float, float] | None = None
    labels: dict[str, float] | None = None
    classes: Annotated[list[str], Field(min_length=2)] | None = None
    unlabelled: bool = False
    part: tuple[float, float] | None = None
    limit: Annotated[int, Field(gt=0)] | None = None

    @property
    def outputs(self) -> int | None:
        """How many logits a network answers that learns from its gold; None where there is no gold."""
        return None if self.unlabelled else len(self.classes or ["one"])

    @property
    def described(self) -> str:
        """For model cards: the file, which part of it, and its terms."""
        part = "" if self.part is None else f", {self.part[0]:g} to {self.part[1]:g} of its left texts by hash"
        return f"`{self.file}`{part}: {self.terms}"

    @model_validator(mode="after")
    def _one_way_to_read_the_score(self) -> Self:
        if sum([self.range is not None, self.labels is not None, self.classes is not None, self.unlabelled]) != 1:
            raise ValueError(f"{self.file}: give one of range, labels, classes and unlabelled")
        return self

    @model_validator(mode="after")
    def _a_range_has_two_ends(self) -> Self:
        if self.range is not None and self.range[0] == self.range[1]:
            raise ValueError(f"{self.file}: a range from {self.range[0]:g} to {self.range[1]:g} has no scores in it")
        return self

    @model_validator(mode="after")
    def _labels_are_gold(self) -> Self:
        if stray := {label: gold for label, gold in (self.labels or {}).items() if not 0 <= gold <= 1}:
            raise ValueError(f"{self.file}: labels stand for gold in 0..1, not for {stray}")
        return self


class TextSet(Strict):
    """One file of plain text, a text a line; ``limit`` takes that many, evenly spaced.

    Of JSON lines (``.jsonl``, ``.jsonl.gz``) a text is the ``title`` and ``text`` of a line. Texts are cut into
    passages of ``words`` words, what is left over of a longer text dropped; those of more than ``max_words`` words are
    left out.
    """

    file: str
    terms: str
    words: Annotated[int, Field(gt=0)] | None = None
    max_words: Annotated[int, Field(gt=0)] | None = None
    limit: Annotated[int, Field(gt=0)] | None = None

    @property
    def described(self) -> str:
        """For model cards: the file and its terms."""
        return f"`{self.file}`: {self.terms}"


SILVER = "silver"
"""The name by which a stage asks for the pairs that ``dse silver`` made."""

SILVER_PAIRS = PairSet(
    file="silver.tsv.gz",
    range=(0, 1),
    terms="neighbours among the sentences of other sets and texts",
)


class DataRecipe(Strict):
    """The pair sets, the splits to judge by, and further files whose sentences nothing may be trained on either."""

    sets: dict[str, PairSet]
    texts: dict[str, TextSet] = {}
    dev: PairSet
    test: PairSet
    held_out: list[str] = []

    def set_of(self, name: str) -> PairSet:
        """What a stage means by a set's name."""
        return SILVER_PAIRS if name == SILVER else self.sets[name]

    def texts_of(self, name: str) -> TextSet | PairSet:
        """What a stage means by the name of texts: a text set, or the sentences of a pair set."""
        return self.texts[name] if name in self.texts else self.set_of(name)
