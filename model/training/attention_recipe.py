"""Which attention has each layer, and how many positions are there? Read without torch."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

LinearKind = Literal[
    "elu",  # elu(x) + 1, Katharopoulos et al., arXiv 2006.16236
    "relu",
    "hedgehog",  # learned: [softmax(Wx); softmax(-Wx)], Zhang et al., arXiv 2402.04347
]
AttentionKind = Literal["softmax"] | LinearKind

LEARNED: frozenset[AttentionKind] = frozenset({"hedgehog"})
"""Kinds whose feature map has weights of its own."""


class TopLayers(BaseModel):
    """``{ map = "hedgehog", top = 3 }``: linear attention in the last three layers, softmax below them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    map: LinearKind
    top: Annotated[int, Field(ge=0)]


AttentionRecipe = AttentionKind | list[AttentionKind] | TopLayers
"""One kind for every layer, a kind for each (the first is nearest to the words), or linear ones on top."""


def named(recipe: AttentionRecipe) -> set[AttentionKind]:
    """The kinds that a recipe names."""
    if isinstance(recipe, TopLayers):
        return {recipe.map} if recipe.top else set()
    return {*recipe} if isinstance(recipe, list) else {recipe}


def attention_of(recipe: AttentionRecipe, layers: int) -> list[AttentionKind]:
    """The kind of each of so many layers.

    Raises:
        ValueError: the recipe is for another number of layers.

    >>> attention_of(TopLayers(map="relu", top=1), 3)
    ['softmax', 'softmax', 'relu']
    """
    if isinstance(recipe, TopLayers):
        if recipe.top > layers:
            raise ValueError(f"attention of the top {recipe.top} layers is asked for, of a body of {layers}")
        below: list[AttentionKind] = ["softmax"] * (layers - recipe.top)
        return [*below, *([recipe.map] * recipe.top)]
    if isinstance(recipe, list):
        if len(recipe) != layers:
            raise ValueError(f"attention is given for {len(recipe)} layers, of a body of {layers}")
        return recipe
    return [recipe] * layers


class PositionRecipe(BaseModel):
    """How many tokens a body is to tell apart by position, and how the rows for more than it has are made.

    ``tile`` repeats the rows: the first ones stay as they are, and a text that fits them is read as before.
    ``interpolate`` stretches them, so that every position moves (both: LongEmbed, arXiv 2404.12096).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens: Annotated[int, Field(gt=0)]
    how: Literal["tile", "interpolate"] = "tile"
