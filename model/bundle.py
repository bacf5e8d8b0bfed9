"""What is in a bundle folder, and does it hold together? One exported model, checked before it is used."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import onnxruntime as ort
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from model.cross_encoder import OnnxCrossEncoder
from model.encoder import OnnxEncoder
from model.head import Calibration, Head, HeadKind, load_head
from model.manifest import ArtifactError, check_digests
from model.tokens import PairTokenizer, SentenceTokenizer

MANIFEST = "manifest.json"
Graph = Literal["int8", "fp32"]
GRAPH_FILES: Mapping[Graph, str] = {"int8": "onnx/model_int8.onnx", "fp32": "onnx/model.onnx"}
TOKENIZER = "tokenizer.json"
HEAD = "head.safetensors"


class CalibrationFacts(BaseModel):
    """Slope and intercept of a raw score's sigmoid."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    slope: Annotated[float, Field(gt=0)]
    intercept: float

    def calibration(self) -> Calibration:
        """The function that these two numbers are."""
        return Calibration(self.slope, self.intercept)


class BundleManifest(BaseModel):
    """``manifest.json`` of a bundle, written last: what the model is, and the sha256 of each of its files."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    name: str
    kind: Literal["encoder", "cross-encoder"]
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
    matryoshka: list[Annotated[int, Field(ge=1)]] = []  # dimensions, below dims, that embeddings may be cut to

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
        decides = [self.files[GRAPH_FILES[graph]], self.files[TOKENIZER], self.max_tokens]
        return hashlib.sha256(json.dumps(decides).encode()).hexdigest()

    def pick(self, graph: Graph | None, folder: Path) -> Graph:
        """The graph that was asked for; without a wish, int8 where there is one.

        Raises:
            ArtifactError: the bundle has no such graph.
        """
        held: list[Graph] = [name for name, file in GRAPH_FILES.items() if file in self.files]
        if not held or (graph is not None and graph not in held):
            raise ArtifactError(f"{folder} has no {graph or 'onnx'} graph (it has: {', '.join(held) or 'none'})")
        return graph or held[0]


@dataclass(frozen=True)
class Student:
    """A loaded student: encoder, head, and what their numbers mean."""

    name: str
    encoder: OnnxEncoder
    encoder_digest: str
    head: Head
    score: Calibration
    similarity: Calibration


@dataclass(frozen=True)
class Teacher:
    """A loaded teacher: cross-encoder and calibration."""

    name: str
    cross_encoder: OnnxCrossEncoder
    score: Calibration


def load_student(folder: Path, threads: int, graph: Graph | None = None) -> Student:
    """A student bundle, every file checked against its digest.

    Raises:
        ArtifactError: not a student bundle, or a file is missing or altered.
    """
    manifest = _checked(folder, "encoder")
    chosen = manifest.pick(graph, folder)
    assert manifest.dims is not None  # an encoder's manifest has it: _checked saw to that
    encoder = OnnxEncoder(
        _session(folder / GRAPH_FILES[chosen], threads),
        SentenceTokenizer.load(folder / TOKENIZER, manifest.max_tokens),
        manifest.dims,
        matryoshka=manifest.matryoshka,
    )
    return Student(
        manifest.name,
        encoder,
        manifest.graph_digest(chosen),
        load_head(manifest.head or "cosine", folder / HEAD),
        manifest.calibration["score"].calibration(),
        manifest.calibration["similarity"].calibration(),
    )


def load_teacher(folder: Path, threads: int, graph: Graph | None = None) -> Teacher:
    """A teacher bundle, every file checked against its digest.

    Raises:
        ArtifactError: not a teacher bundle, or a file is missing or altered.
    """
    manifest = _checked(folder, "cross-encoder")
    cross_encoder = OnnxCrossEncoder(
        _session(folder / GRAPH_FILES[manifest.pick(graph, folder)], threads),
        PairTokenizer.load(folder / TOKENIZER, manifest.max_tokens),
    )
    return Teacher(manifest.name, cross_encoder, manifest.calibration["score"].calibration())


def _checked(folder: Path, kind: str) -> BundleManifest:
    manifest = BundleManifest.read(folder)
    if manifest.kind != kind:
        wanted = "a student (kind encoder)" if kind == "encoder" else "a teacher (kind cross-encoder)"
        raise ArtifactError(f"{folder} holds {manifest.name}, of kind {manifest.kind}; {wanted} is needed here")
    needed = {TOKENIZER} | (set() if manifest.head in (None, "cosine") else {HEAD})
    calibrated = {"score", "similarity"} if kind == "encoder" else {"score"}
    missing = sorted(needed - manifest.files.keys()) + sorted(calibrated - manifest.calibration.keys())
    if missing or (kind == "encoder" and manifest.dims is None):
        raise ArtifactError(f"{folder / MANIFEST} lacks {missing or ['dims']}; export the bundle again")
    check_digests(folder, manifest.files, "restore the folder, or export the bundle again")
    return manifest


def _session(path: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own classes, with no common public base
        raise ArtifactError(f"{path} is not a graph that onnxruntime can run: {error}") from error
