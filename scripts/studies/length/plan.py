"""Which students are trained, on how many texts of which length? One budget of tokens for each of them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Self

from model.bundle import BundleManifest
from model.training.attention_recipe import AttentionKind, PositionRecipe
from model.training.network_recipe import NetworkRecipe, Stage
from model.training.networks import weights_of
from model.training.recipes import DistillationRecipe
from model.training.runs import weights_digest
from scripts.console import BadInput
from scripts.studies.cells import Cell, digest

CONTEXT = "context"
"""The recipe's text set whose sentences stand around the pairs'."""

READ_AT_ONCE = 512
"""Tokens that the parent reads: where the controls cut a text, or begin its next piece."""

RECOMPUTED_ABOVE = 1024
"""Longer texts are trained on with ``recompute``: what layers computed of them would not fit a small machine."""

LONG_SEEDS_ABOVE = 1024
"""Longer texts have as many seeds as ``seeds_of_long``: a cell of theirs costs the most."""

Control = Literal["truncated", "pieces", "static"]
CONTROLS: tuple[Control, ...] = ("truncated", "pieces", "static")


@dataclass(frozen=True)
class Sizes:
    """How much every cell is trained on and judged by."""

    budget: int  # tokens that a student is trained on
    train: int  # pairs, which go round until the budget is spent
    dev: int  # pairs by which the learning curve is drawn
    test: int  # pairs
    looks: int  # at the learning curve, after the first: at the end, at half of the steps, at a quarter, ...
    long_pairs: int  # of a set of long pairs


@dataclass(frozen=True)
class Plan:
    """What all cells of a study have in common."""

    network: NetworkRecipe
    init: str
    linear: str  # the weights that linear attention starts from
    static: Path | None  # a student's bundle
    sizes: Sizes
    data: str  # one digest of what is learned from and judged by

    @classmethod
    def of(
        cls,
        recipe: DistillationRecipe,
        init: str | None,
        linear: Path | None,
        static: Path | None,
        sizes: Sizes,
        data: str,
    ) -> Self:
        """The plan of a recipe; ``init`` stands for the weights that it names, whatever they are.

        ``data`` is one digest of all files of its cells.

        Raises:
            BadInput: it is not one stage of pairs, or its data has no context for them.
            TrainingFault: the folder that it starts from is not there.
        """
        network, stage = recipe.network, recipe.network.stages[0]
        if len(network.stages) != 1 or not stage.sets or network.head.kind != "cosine":
            raise BadInput("a recipe of the length study has one stage, on sets of pairs, and the head cosine")
        if CONTEXT not in recipe.data.texts or stage.texts != [CONTEXT] or not stage.regression:
            raise BadInput(f"its data needs texts.{CONTEXT}, and its stage regression on these texts and no others")
        if stage.imitation or stage.both_orders or stage.epochs > 1:
            raise BadInput("its stage has one epoch, as long as the budget, and neither imitation nor both_orders")
        parent = weights_of(network.init if init is None else init, None)
        return cls(network, parent, parent if linear is None else str(linear), static, sizes, data)

    @property
    def stage(self) -> Stage:
        """How a batch is made, and what is asked of it."""
        return self.network.stages[0]

    def steps(self, tokens: int) -> int:
        """How many batches of texts of so many tokens the budget pays for.

        Raises:
            BadInput: fewer than there are looks at the learning curve.
        """
        texts = 2 * self.stage.batch + self.stage.text_batch
        steps = self.sizes.budget // (tokens * texts)
        if steps < self.sizes.looks:
            raise BadInput(
                f"a budget of {self.sizes.budget:,} tokens is {steps} steps of {texts} texts of {tokens} tokens, too "
                f"few for a learning curve; give --budget {self.sizes.looks * tokens * texts}, or shorter --tokens"
            )
        return steps

    def looks(self, tokens: int) -> list[int]:
        """The steps after which a learning curve is looked at; 0 is before the first."""
        steps = self.steps(tokens)
        return [0, *(max(1, steps >> halvings) for halvings in reversed(range(self.sizes.looks)))]

    def recipe(self, attention: AttentionKind, tokens: int, seed: int) -> NetworkRecipe:
        """What a cell trains."""
        changes = {
            "attention": attention,
            "positions": PositionRecipe(tokens=max(tokens, READ_AT_ONCE)),
            "max_tokens": tokens,
            "recompute": tokens > RECOMPUTED_ABOVE,
            "guide_pieces": True,
            "seed": seed,
        }
        return self.network.model_copy(update=changes)

    def start(self, attention: str) -> str:
        """The weights that a kind of attention starts from."""
        return self.init if attention == "softmax" else self.linear

    def student(self, attention: AttentionKind, tokens: int, seed: int) -> Cell:
        """A student trained on texts of so many tokens."""
        recipe = digest(self.recipe(attention, tokens, seed).model_dump_json(exclude={"init"}))
        weights = weights_digest(self.start(attention))
        facts = {"what": attention, "tokens": tokens, "seed": seed, "weights": weights, "recipe": recipe}
        return Cell(f"{attention}-{tokens}-seed{seed}", facts | asdict(self.sizes) | {"data": self.data})

    def control(self, control: Control, tokens: int | None) -> Cell:
        """What reads texts of so many tokens, or the sets of long texts, though it never learned from a long text."""
        weights = weights_digest(self.init)
        if control == "static":
            assert self.static is not None  # else there is no such cell
            manifest = BundleManifest.read(self.static)
            weights = manifest.graph_digest(manifest.pick(None, self.static))  # its card may be written anew
        judged = {"test": self.sizes.test} if tokens else {"long_pairs": self.sizes.long_pairs}
        facts = {"what": control, "tokens": tokens, "weights": weights, "data": self.data}
        return Cell(f"{control}-{tokens or 'long'}", facts | judged)

    def cells(
        self, kinds: Sequence[AttentionKind], lengths: Sequence[int], seeds: int, seeds_of_long: int
    ) -> list[Cell]:
        """The controls, then the students: every cell of one seed before the next, short texts before long ones."""
        given = [control for control in CONTROLS if control != "static" or self.static is not None]
        students = [
            self.student(kind, tokens, seed)
            for seed in range(1, max(seeds, seeds_of_long) + 1)
            for tokens in lengths
            if seed <= (seeds if tokens <= LONG_SEEDS_ABOVE else seeds_of_long)
            for kind in kinds
        ]
        return [self.control(control, tokens) for control in given for tokens in (*lengths, None)] + students
