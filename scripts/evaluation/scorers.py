"""Who is measured? A bundle, a sentence-transformers folder, a teacher, a teacher signal: each as one value."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model.bundle import TOKENIZER, BundleManifest, load_student, load_teacher
from model.encoder import shortened
from model.head import CosineHead, Head
from model.manifest import digests_of
from model.similarity import paired_rows, score_pairs
from scripts.console import BadInput, read_settings

Rows = Sequence[tuple[str, str]]
"""Pairs of sentences."""

Scores = dict[str, NDArray[np.float64]]
"""What was said of pairs, by name, each (pairs,); the answer that is served by default comes first."""

Encode = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts to (texts, dim) unit rows."""

Origin = Literal["bundle", "folder", "teacher", "signal", "service"]


def similarity_at(width: int) -> str:
    """What an answer by embeddings cut to ``width`` is called."""
    return f"similarity@{width}"


@dataclass(frozen=True)
class ModelFacts:
    """What a model is, for a report."""

    name: str
    kind: Origin
    megabytes: float | None  # of the files it was loaded from
    digest: str | None  # of what decides its answers


@dataclass(frozen=True)
class Model:
    """Something that answers pairs. If it embeds sentences, too, documents can be searched with it.

    ``teaches`` names those of its scores that are a teacher's. ``prefixes`` are widths that its embeddings are cut to,
    to be measured besides, each as ``similarity@width``.
    """

    facts: ModelFacts
    score: Callable[[Rows], Scores]
    teaches: tuple[str, ...] = ()
    encode: Encode | None = None
    head: Head | None = None  # None where it would rank as the cosine does
    tokenizer: Path | None = None
    prefixes: tuple[int, ...] = ()
    timed: Callable[[Rows], object] | None = None  # what is timed; None: ``score``

    def answers(self, rows: Rows) -> Scores:
        """What it says of pairs, and what it would say by embeddings cut to each of ``prefixes``."""
        said = self.score(rows)
        if not self.prefixes:
            return said
        assert self.encode is not None  # only who embeds can be cut
        left, right = _embedded(self.encode, rows)
        return said | {
            similarity_at(width): CosineHead().logits(shortened(left, width), shortened(right, width))
            for width in self.prefixes
        }

    def named(self, name: str) -> "Model":
        """The same model under another name."""
        facts = ModelFacts(name, self.facts.kind, self.facts.megabytes, self.facts.digest)
        return replace(self, facts=facts)


def of_bundle(folder: Path, prefixes: bool = False) -> Model:
    """A student: its score and its similarity; with ``prefixes``, also that of each width it may be cut to."""
    settings = read_settings()
    student = load_student(folder, settings.threads, long_text=settings.long_text)
    manifest = BundleManifest.read(folder)
    files = manifest.loaded(student.graph)
    digest = manifest.answers_digest(student.graph)
    if settings.long_text != "truncate":
        digest += f"+{settings.long_text}"

    def score(rows: Rows) -> Scores:
        answers = score_pairs(student.encoder, student.head, rows)
        return {"score": student.score(answers.logits), "similarity": answers.similarities}

    return Model(
        ModelFacts(student.name, "bundle", _megabytes(folder / file for file in files), digest),
        score,
        encode=student.encoder.encode,
        head=None if isinstance(student.head, CosineHead) else student.head,
        tokenizer=folder / TOKENIZER,
        prefixes=tuple(manifest.matryoshka) if prefixes else (),
    )


def of_folder(folder: Path) -> Model:
    """A sentence-transformers or Hugging Face folder, in fp32: its similarity. Needs the training extra.

    Raises:
        BadInput: there is no such folder.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder} is no folder; give that of a sentence-transformers or Hugging Face model")
    from model.training.sentence_transformer import SentenceTransformer

    encoder = SentenceTransformer.load(folder)
    weights = [path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors")]
    digest = hashlib.sha256(json.dumps(digests_of(folder, weights)).encode()).hexdigest()
    megabytes = _megabytes([*(folder / name for name in weights), encoder.tokenizer_file])

    def score(rows: Rows) -> Scores:
        return {"similarity": CosineHead().logits(*_embedded(encoder.encode, rows))}

    return Model(
        ModelFacts(folder.absolute().name, "folder", megabytes, digest),
        score,
        encode=encoder.encode,
        tokenizer=encoder.tokenizer_file,
    )


def of_teacher(folder: Path) -> Model:
    """A served teacher: its score."""
    teacher = load_teacher(folder, read_settings().threads)
    manifest = BundleManifest.read(folder)
    graph = manifest.pick(None, folder)

    def score(rows: Rows) -> Scores:
        return {"score": teacher.score(teacher.scorer.score(rows).logits)}

    megabytes = _megabytes(folder / file for file in manifest.loaded(graph))
    facts = ModelFacts(teacher.name, "teacher", megabytes, manifest.answers_digest(graph))
    return Model(facts, score, teaches=("score",), tokenizer=next(folder.rglob(TOKENIZER)))


def of_signal(folder: Path) -> Model:
    """The signal as the probability its logit stands for, and each member's raw score. Needs the training extra."""
    from model.training.pairs import Pair
    from model.training.teacher import Ensemble

    ensemble = Ensemble.load(folder)
    members = ensemble.signal.members

    def score(rows: Rows) -> Scores:
        raw = ensemble.raw_scores([Pair("", left, right, 0.0) for left, right in rows])
        signal = 1 / (1 + np.exp(-ensemble.signal.logits(raw)))
        return {"signal": signal} | {member.name: raw[:, column] for column, member in enumerate(members)}

    facts = ModelFacts(ensemble.signal.name, "signal", _megabytes(folder.rglob("*.safetensors")), None)
    return Model(facts, score, teaches=("signal",))


def _embedded(encode: Encode, rows: Rows) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(pairs, dim) embeddings of both sides; a text that comes again is embedded once."""
    texts, left, right = paired_rows(rows)
    embeddings = encode(texts)
    return embeddings[left], embeddings[right]


def _megabytes(paths: Iterable[Path]) -> float:
    return round(sum(path.stat().st_size for path in paths) / 1e6, 1)
