"""What is in a bundle folder, and does it hold together? One exported model, checked before it is used."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from model.cross_encoder import OnnxCrossEncoder, PairLogits
from model.encoder import OnnxEncoder
from model.ensemble import OnnxEnsemble, Standard
from model.head import Calibration, Head, HeadKind, load_head
from model.long_text import LongText
from model.manifest import ArtifactError, check_digests
from model.sessions import GraphRunner
from model.tokens import BATCH_TOKENS, TABLE_BATCH_TOKENS, Forward, PairTokenizer, Run, SentenceTokenizer

MANIFEST = "manifest.json"
Graph = Literal["int8", "fp32"]
GRAPH_FILES: Mapping[Graph, str] = {"int8": "onnx/model_int8.onnx", "fp32": "onnx/model.onnx"}
TOKENIZER = "tokenizer.json"
HEAD = "head.safetensors"
PAIR, SENTENCE = "pair", "sentence"
"""An ensemble's folders, one a member, each with graphs, tokenizer and head where the bundle of one model has them."""


class CalibrationFacts(BaseModel):
    """Slope and intercept of a raw score's sigmoid."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    slope: Annotated[float, Field(gt=0)]
    intercept: float

    def calibration(self) -> Calibration:
        """The function that these two numbers are."""
        return Calibration(self.slope, self.intercept)


class StandardFacts(BaseModel):
    """How a member's raw scores are standardised."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mean: float
    deviation: Annotated[float, Field(gt=0)]

    def standard(self) -> Standard:
        """The function that these two numbers are."""
        return Standard(self.mean, self.deviation)


class SignalFacts(CalibrationFacts):
    """How an ensemble's members make one logit: slope and intercept are those of the mean standardised score."""

    pair: StandardFacts
    sentence: StandardFacts


class BundleManifest(BaseModel):
    """``manifest.json`` of a bundle, written last: what the model is, and the sha256 of each of its files."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    name: str
    kind: Literal["encoder", "cross-encoder", "ensemble"]
    task: str
    dims: int | None
    max_tokens: Annotated[int, Field(ge=8)]
    pooling: Literal["mean"] | None
    head: HeadKind | None
    calibration: dict[Literal["score", "similarity"], CalibrationFacts]
    quality: dict[str, Any]
    licence: str
    lineage: list[str]
    files: dict[str, str]
    trained_on: list[str] = []  # the sets it, and what taught it, learned from, each with its terms
    matryoshka: list[Annotated[int, Field(ge=1)]] = []  # dimensions, below dims, that embeddings may be cut to
    signal: SignalFacts | None = None  # of an ensemble, whose dims, pooling and head are its sentence member's

    @field_validator("matryoshka")
    @classmethod
    def _prefixes_are_shorter_than_the_whole(cls, prefixes: list[int], facts: ValidationInfo) -> list[int]:
        whole = facts.data.get("dims") or 0
        if too_long := [dims for dims in prefixes if dims >= whole]:
            raise ValueError(f"{too_long} is not below the {whole} dims")
        return prefixes

    @classmethod
    def read(cls, folder: Path) -> "BundleManifest":
        """The manifest in a folder.

        Raises:
            ArtifactError: there is none, or it is not a bundle's.
        """
        path = folder / MANIFEST
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            raise ArtifactError(
                f"{folder} is not a bundle: it has no {MANIFEST}; make one with dse export, or give another folder"
            ) from error
        except OSError as error:
            raise ArtifactError(f"{path}: {error.strerror}") from error
        except ValidationError as error:
            first = error.errors()[0]
            raise ArtifactError(
                f"{path} is not a bundle's manifest: {'.'.join(map(str, first['loc']))}: {first['msg']}; "
                "export the bundle again"
            ) from error

    def graph_digest(self, graph: Graph) -> str:
        """What decides a graph's answers: its file, the tokenizer's, and where texts are cut.

        For an encoder this is the encoder digest that an index remembers: two bundles with the same digest give
        the same embeddings.
        """
        files = [self.files[part + name] for part in self._parts() for name in (GRAPH_FILES[graph], TOKENIZER)]
        return hashlib.sha256(json.dumps([*files, self.max_tokens]).encode()).hexdigest()

    def answers_digest(self, graph: Graph) -> str:
        """All that decides what a bundle answers with a graph, its head and calibration among it; not its card."""
        files = [self.files[name] for name in sorted(self.loaded(graph))]
        facts = self.model_dump(include={"max_tokens", "calibration", "signal"})
        return hashlib.sha256(json.dumps([files, facts]).encode()).hexdigest()

    def loaded(self, graph: Graph) -> list[str]:
        """The files that are read to serve a graph: itself, tokenizer and head, of every member."""
        ends = (GRAPH_FILES[graph], TOKENIZER, HEAD)
        return [name for name in self.files if name.endswith(ends)]

    def pick(self, graph: Graph | None, folder: Path) -> Graph:
        """The graph that was asked for; without a wish, int8 where there is one.

        Raises:
            ArtifactError: the bundle has no such graph.
        """
        held: list[Graph] = [
            name for name, file in GRAPH_FILES.items() if all(part + file in self.files for part in self._parts())
        ]
        if not held or (graph is not None and graph not in held):
            raise ArtifactError(f"{folder} has no {graph or 'onnx'} graph (it has: {', '.join(held) or 'none'})")
        return graph or held[0]

    def lacks(self) -> list[str]:
        """Names of files and facts that a bundle of this kind must have, graphs apart, and this one has not."""
        parts = self._parts()
        files = {part + TOKENIZER for part in parts}
        if self.head not in (None, "cosine"):
            files.add(parts[-1] + HEAD)  # an ensemble's encoder is its last part
        calibrated = {"score", "similarity"} if self.kind == "encoder" else {"score"}
        missing = sorted(files - self.files.keys()) + sorted(calibrated - self.calibration.keys())
        if self.kind != "cross-encoder" and self.dims is None:
            missing.append("dims")
        if self.kind == "ensemble" and self.signal is None:
            missing.append("signal")
        return missing

    def _parts(self) -> list[str]:
        """What the names of each member's files start with."""
        return [f"{PAIR}/", f"{SENTENCE}/"] if self.kind == "ensemble" else [""]


@dataclass(frozen=True)
class Student:
    """A loaded student: encoder, head, and what their numbers mean."""

    name: str
    encoder: OnnxEncoder
    encoder_digest: str
    """Of the graph, and of how it reads long texts: what decides whether two embeddings can be compared."""
    head: Head
    score: Calibration
    similarity: Calibration
    graph: Graph

    @property
    def max_tokens(self) -> int:
        """A text is cut after this many tokens."""
        return self.encoder.max_tokens


class TokenizedPairs(Protocol):
    """Pairs as a teacher's tokens: what it would read is known before it does."""

    @property
    def lengths(self) -> NDArray[np.intp]:
        """(pairs,) tokens of both sentences, after any cut."""
        ...

    @property
    def truncated(self) -> NDArray[np.bool_]:
        """(pairs,) the pair is longer than the teacher reads."""
        ...


class PairScorer(Protocol):
    """What every teacher does, of one member or two."""

    @property
    def max_tokens(self) -> int:
        """A pair is cut after this many tokens."""
        ...

    def queued(self, queue: Callable[[Forward], Run]) -> "PairScorer":
        """The same teacher, whose pairs wait in a queue for the graph."""
        ...

    def score(self, pairs: Sequence[tuple[str, str]]) -> PairLogits:
        """One logit a pair, the same whichever sentence comes first: tokenises and reads."""
        ...

    def tokenize(self, pairs: Sequence[tuple[str, str]]) -> TokenizedPairs:
        """Pairs as tokens, in order; no inference."""
        ...

    def read(self, pairs: Any) -> PairLogits:
        """One logit a pair that this teacher has tokenised."""
        ...


@dataclass(frozen=True)
class Teacher:
    """A loaded teacher: who scores, and what the logits mean."""

    name: str
    scorer: PairScorer
    score: Calibration

    @property
    def max_tokens(self) -> int:
        """A pair is cut after this many tokens."""
        return self.scorer.max_tokens


def load_student(folder: Path, threads: int, graph: Graph | None = None, long_text: LongText = "truncate") -> Student:
    """A student bundle, every file checked against its digest.

    Args:
        folder: the bundle.
        threads: of the processor, that it computes with.
        graph: which of its graphs; None: the first that runs here.
        long_text: what becomes of texts that are longer than the graph reads.

    Raises:
        ArtifactError: not a student bundle, or a file is missing or altered.
    """
    manifest = _checked(folder, "a student", "encoder")
    chosen = manifest.pick(graph, folder)
    return Student(
        manifest.name,
        _encoder(folder, chosen, manifest, threads, long_text),
        manifest.graph_digest(chosen) + (f"+{long_text}" if long_text != "truncate" else ""),
        load_head(manifest.head or "cosine", folder / HEAD),
        manifest.calibration["score"].calibration(),
        manifest.calibration["similarity"].calibration(),
        chosen,
    )


def load_teacher(folder: Path, threads: int, graph: Graph | None = None) -> Teacher:
    """A teacher bundle, a cross-encoder or an ensemble, every file checked against its digest.

    Raises:
        ArtifactError: not a teacher bundle, or a file is missing or altered.
    """
    manifest = _checked(folder, "a teacher", "cross-encoder", "ensemble")
    chosen = manifest.pick(graph, folder)
    scorer: PairScorer
    if manifest.kind == "cross-encoder":
        scorer = _cross_encoder(folder, chosen, manifest, threads)
    else:
        assert manifest.signal is not None  # _checked saw to that
        scorer = OnnxEnsemble(
            _cross_encoder(folder / PAIR, chosen, manifest, threads),
            manifest.signal.pair.standard(),
            _encoder(folder / SENTENCE, chosen, manifest, threads),
            load_head(manifest.head or "cosine", folder / SENTENCE / HEAD),
            manifest.signal.sentence.standard(),
            manifest.signal.calibration(),
        )
    return Teacher(manifest.name, scorer, manifest.calibration["score"].calibration())


def _checked(folder: Path, what: str, *kinds: str) -> BundleManifest:
    """The manifest of a bundle of one of some kinds, whose files are all there and unaltered."""
    manifest = BundleManifest.read(folder)
    if manifest.kind not in kinds:
        wanted = f"{what} (kind {' or '.join(kinds)})"
        raise ArtifactError(f"{folder} holds {manifest.name}, of kind {manifest.kind}; {wanted} is needed here")
    if missing := manifest.lacks():
        raise ArtifactError(f"{folder / MANIFEST} lacks {missing}; export the bundle again")
    check_digests(folder, manifest.files, "restore the folder, or export the bundle again")
    return manifest


def _encoder(
    folder: Path, graph: Graph, manifest: BundleManifest, threads: int, long_text: LongText = "truncate"
) -> OnnxEncoder:
    assert manifest.dims is not None  # _checked saw to that
    batch_tokens = TABLE_BATCH_TOKENS if _is_table(folder) else BATCH_TOKENS
    return OnnxEncoder(
        GraphRunner(folder / GRAPH_FILES[graph], threads, batch_tokens),
        SentenceTokenizer.load(folder / TOKENIZER, manifest.max_tokens),
        manifest.dims,
        matryoshka=manifest.matryoshka,
        long_text=long_text,
    )


def _is_table(folder: Path) -> bool:
    """Is a body one without layers, whose tokens' rows are looked up?"""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):  # other programs read it; this one needs none
        return False
    return isinstance(config, dict) and config.get("num_hidden_layers") == 0


def _cross_encoder(folder: Path, graph: Graph, manifest: BundleManifest, threads: int) -> OnnxCrossEncoder:
    return OnnxCrossEncoder(
        GraphRunner(folder / GRAPH_FILES[graph], threads),
        PairTokenizer.load(folder / TOKENIZER, manifest.max_tokens),
    )
