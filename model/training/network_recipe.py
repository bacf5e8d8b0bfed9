"""What does a recipe say of a network? Its body and head, and the stages that train them."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from model.training.attention_recipe import LEARNED, AttentionRecipe, PositionRecipe, named
from model.training.data_recipe import Strict
from model.training.imitation_recipe import ImitationRecipe

PairLoss = Literal["dse", "prediction", "cosent", "margin-mse", "multiple-negatives"]
Weight = Annotated[float, Field(gt=0)]


class Stage(Strict):
    """A pass over pairs, over plain texts, or over both at once, with one learning-rate schedule.

    Of the sets in ``teacher_only`` (and of silver pairs) the gold scores are not used: the teacher's logit is the only
    target. ``losses`` weighs what is asked of a batch of pairs (see :meth:`NetworkRecipe.losses`); ``regression`` (to
    the guide's embeddings) and ``imitation`` (of the guide's body) are asked of ``text_batch`` texts in every step;
    ``texts`` may name a set of pairs, too, and means its sentences. An epoch goes once over the pairs, or over the
    texts where there are no pairs. With ``head_only`` the embeddings stay as they are and the head alone is trained;
    ``search`` weighs that it ranks what lies near each of ``text_batch`` texts as the guide's similarity does.
    With ``maps_only`` the feature maps of linear attention alone are: on texts, to weigh tokens as softmax would
    (Hedgehog, arXiv 2402.04347).
    """

    name: str
    sets: list[str] = Field([])
    teacher_only: list[str] = Field([])
    losses: Annotated[dict[PairLoss, Weight], Field(min_length=1)] | None = None
    texts: list[str] = Field([])
    text_batch: Annotated[int, Field(gt=1)] = 32
    regression: Annotated[float, Field(ge=0)] = 0.0
    search: Annotated[float, Field(ge=0)] = 0.0
    imitation: ImitationRecipe | None = None
    epochs: Annotated[int, Field(gt=0)]
    batch: Annotated[int, Field(gt=1)]
    learning_rate: Annotated[float, Field(gt=0)]
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    both_orders: bool = False
    head_only: bool = False
    maps_only: bool = False
    head_learning_rate: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _something_to_learn(self) -> Self:
        if not self.sets and not self.texts:
            raise ValueError(f"stage {self.name}: give sets of pairs, texts, or both")
        if self.maps_only and (self.sets or self.regression or self.imitation or self.head_only):
            raise ValueError(f"stage {self.name}: maps_only goes with texts, and with nothing else to learn")
        if bool(self.texts) != bool(self.regression or self.imitation or self.maps_only or self.search):
            raise ValueError(
                f"stage {self.name}: texts go with regression, imitation, maps_only or search, and these with texts"
            )
        if self.head_only and (self.regression or self.imitation):
            raise ValueError(
                f"stage {self.name}: regression and imitation shape the body, and head_only leaves it as it is"
            )
        if self.search and not self.head_only:
            raise ValueError(f"stage {self.name}: search is asked of a head over embeddings that stay: of head_only")
        if stray := sorted(set(self.teacher_only) - set(self.sets)):
            raise ValueError(f"stage {self.name}: teacher_only names {stray}, which are not among its sets")
        return self


class HeadRecipe(Strict):
    """The similarity function trained over two embeddings, or over the two segments that a cross-encoder reads.

    ``classifier`` is a cross-encoder's alone: the linear layer of transformers' sequence classification. An mlp may
    have several ``outputs``, one a class, and be ``directed``: for pairs that mean something else the other way round.
    """

    kind: Literal["mlp", "quadratic", "cosine", "classifier"] = "mlp"
    hidden: Annotated[int, Field(gt=0)] = 512
    outputs: Annotated[int, Field(gt=0)] = 1
    directed: bool = False

    @property
    def symmetric_score(self) -> bool:
        """Whether it answers one logit, the same for both orders: what is calibrated, exported and served."""
        return self.outputs == 1 and not self.directed

    @model_validator(mode="after")
    def _an_mlp_for_what_only_it_can(self) -> Self:
        if self.kind != "mlp" and not self.symmetric_score:
            raise ValueError(f"several outputs and directed need an mlp head, not {self.kind}")
        return self


class BranchRecipe(Strict):
    """A second reading of every text, by copies of a body's top ``layers``.

    The copies alone are trained, for pairs; the body's own reading stays as it is, for search. Once they are trained,
    both are merged into one embedding, whose cosine is nearly the mean of theirs, the branch's weighing ``share``; of
    its axes, ``axes`` are the branch's.
    """

    layers: Annotated[int, Field(gt=0)]
    axes: Annotated[int, Field(gt=0)]
    share: Annotated[float, Field(gt=0, lt=1)]


class NetworkRecipe(Strict):
    """One network to train: a cross-encoder, or a bi-encoder with its head.

    A ``static`` body is a table of token rows, made from the initial weights and the texts that are learned from.
    ``layers`` picks layers of the initial body by number, from 0 (all of them if left out; those of its branch, where
    it has one, are numbered on, and one reading is left); ``attention`` says which
    kind of attention each of these has, and ``positions`` how many tokens are told apart (both as the initial weights
    have it if left out). Of ``frozen`` parts the weights stay as they are; positions that ``positions`` adds are
    trained all the same. ``keep_initial`` is the share of the initial weights that is averaged in once the body is
    trained, before the stages that train the head alone; where ``init`` is itself a trained network, ``origin`` names
    the weights that are kept, and drawn to, instead. With a ``branch`` (:class:`BranchRecipe`) they are averaged in
    before anything is trained, into all but the branch.
    ``guide`` names the encoder that ``regression``, ``search`` and ``imitation`` look to: a folder or a hub id (for the
    first two, a student's bundle as well); the weights that are kept if left out; with ``guide_pieces`` a text that is
    longer than it reads aims at the mean embedding of its pieces, not at that of its start. ``recompute`` trades a
    third of the speed for memory, on long texts: what layers computed is not kept for the way back. ``matryoshka`` are
    further dimensions whose prefixes are trained as embeddings of their own.
    """

    name: str
    kind: Literal["cross-encoder", "bi-encoder"]
    init: str
    origin: str | None = None
    body: Literal["transformer", "static"] = "transformer"
    layers: list[Annotated[int, Field(ge=0)]] | None = None
    attention: AttentionRecipe | None = None
    positions: PositionRecipe | None = None
    branch: BranchRecipe | None = None
    frozen: list[Literal["embeddings"]] = Field([])
    max_tokens: Annotated[int, Field(ge=8)] = 128
    recompute: bool = False
    seed: int = 0
    precision: Literal["bf16", "fp32"] = "bf16"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    attention_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    distillation: Annotated[float, Field(ge=0, le=1)] = 0.0
    cosine_scale: Annotated[float, Field(gt=0)] = 20.0
    matryoshka: list[Annotated[int, Field(gt=1)]] = Field([])
    keep_initial: Annotated[float, Field(ge=0, le=1)] = 0.0
    guide: str | None = None
    guide_pieces: bool = False
    head: HeadRecipe = HeadRecipe()
    stages: list[Stage]

    @property
    def texts(self) -> list[str]:
        """The text sets of every stage, each once."""
        return sorted({name for stage in self.stages for name in stage.texts})

    @property
    def as_initial(self) -> "NetworkRecipe":
        """The same for a plain transformer, with the layers, attention, positions and widths that the weights have."""
        changes = {"body": "transformer", "layers": None, "attention": None, "positions": None, "branch": None}
        return self.model_copy(update=changes | {"matryoshka": []})

    def losses(self, stage: Stage) -> dict[PairLoss, float]:
        """What a stage asks of its pairs; if it does not say, the DSE objective, and CoSENT on what can be compared."""
        if stage.losses is not None:
            return stage.losses
        if self.head.outputs > 1:
            return {"dse": 1.0}
        usual: dict[str, dict[PairLoss, float]] = {
            "mlp": {"dse": 1.0, "cosent": 1.0},
            "quadratic": {"dse": 1.0, "cosent": 1.0},
            "cosine": {"cosent": 1.0},  # a cosine is no logit
            "classifier": {"dse": 1.0},
        }
        return usual[self.head.kind]

    @model_validator(mode="after")
    def _losses_fit_the_head(self) -> Self:
        asked: set[PairLoss] = {name for stage in self.stages for name in self.losses(stage)}
        if self.head.kind == "cosine" and (stray := asked & {"dse", "prediction", "margin-mse"}):
            raise ValueError(f"{', '.join(sorted(stray))}: not without a head, for a cosine is no logit")
        if self.head.kind == "classifier" and asked & {"cosent", "multiple-negatives"}:
            raise ValueError("cosent and multiple-negatives compare two embeddings: a classifier has none")
        if self.head.outputs > 1 and asked - {"dse", "prediction"}:
            raise ValueError(
                "all losses but dse and prediction rank pairs by one score: a head of several outputs has none"
            )
        return self

    @property
    def body_stages(self) -> int:
        """How many stages, the first ones, train the body."""
        return sum(not stage.head_only for stage in self.stages)

    @model_validator(mode="after")
    def _heads_are_trained_last(self) -> Self:
        if any(stage.head_only for stage in self.stages[: self.body_stages]):
            raise ValueError("stages that train the head alone come after those that train the body")
        if self.body_stages < len(self.stages) and self.head.kind in ("cosine", "classifier"):
            raise ValueError(
                "head_only needs a head of its own: a cosine has nothing to train, a classifier is part of its body"
            )
        if any(stage.search for stage in self.stages) and not self.head.symmetric_score:
            raise ValueError("search ranks texts by one score, the same for both orders: not for this head")
        return self

    @model_validator(mode="after")
    def _parts_fit_the_kind(self) -> Self:
        if self.keep_initial == 1 and self.branch is None:
            raise ValueError("keep_initial = 1 would keep nothing of what is trained, but for a branch")
        if self.kind == "cross-encoder" and (self.keep_initial or self.texts or self.matryoshka):
            raise ValueError("keep_initial, texts and matryoshka are a bi-encoder's: a cross-encoder embeds nothing")
        if self.head.kind == ("cosine" if self.kind == "cross-encoder" else "classifier"):
            raise ValueError(f"a {self.kind} has no {self.head.kind} head")
        if self.head.directed and any(stage.both_orders for stage in self.stages):
            raise ValueError("both_orders gives both orders of a pair one target: not for a directed head")
        return self

    @model_validator(mode="after")
    def _attention_fits_the_rest(self) -> Self:
        kinds = set() if self.attention is None else named(self.attention)
        if self.head.kind == "classifier" and (self.attention or self.positions):
            raise ValueError("attention and positions are for encoders: transformers' classifier is taken as it is")
        if self.keep_initial and kinds - {"softmax"}:
            raise ValueError("keep_initial averages weights of one kind of attention: leave it out, or attention")
        if any(stage.maps_only for stage in self.stages) and not kinds & LEARNED:
            raise ValueError(f"maps_only needs attention with a learned feature map ({', '.join(sorted(LEARNED))})")
        if self.positions is not None and self.max_tokens > self.positions.tokens:
            raise ValueError(f"max_tokens is {self.max_tokens}, but there will be {self.positions.tokens} positions")
        return self

    @model_validator(mode="after")
    def _a_branch_is_what_is_trained(self) -> Self:
        if self.branch is None:
            return self
        if self.kind == "cross-encoder" or self.body == "static":
            raise ValueError("a branch is a transformer's that embeds")
        stray = [name for name in ("frozen", "layers", "attention", "positions") if getattr(self, name)]
        stray += ["texts"] if any(stage.texts for stage in self.stages[: self.body_stages]) else []
        if stray:
            raise ValueError(f"with a branch nothing else of the body is trained or changed: leave out {stray}")
        if self.body_stages == 0 or (self.head.kind != "cosine" and self.body_stages == len(self.stages)):
            raise ValueError(
                "a branch is trained by stages of the body, and then merged; a head is fitted to what came out, by "
                "stages with head_only"
            )
        return self

    @model_validator(mode="after")
    def _a_table_is_asked_for_what_it_has(self) -> Self:
        if self.body == "static" and (self.kind == "cross-encoder" or self.frozen or self.keep_initial):
            raise ValueError("a static body is a bi-encoder's, trained whole, and has no initial weights to keep")
        if self.body == "static" and (self.attention or self.positions):
            raise ValueError("a static body has neither attention nor positions: leave both out")
        if self.body == "static" and any(stage.imitation for stage in self.stages):
            raise ValueError("a static body has no layers that could imitate a guide's: leave imitation out")
        return self
