"""mteb, pointed at the running service: it finds what the bundle finds."""

import csv
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.settings import BUNDLES
from model.bundle import load_student
from tests.live import served

mteb = pytest.importorskip("mteb", reason="needs mteb: make test-interop")
datasets = pytest.importorskip("datasets", reason="needs mteb: make test-interop")
tasks = pytest.importorskip("mteb.abstasks", reason="needs mteb: make test-interop")
stats = pytest.importorskip("scipy.stats", reason="needs mteb: make test-interop")

NAME = "dse-minilm-l6"


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with served(tmp_path / "log", "--bundle", BUNDLES / NAME, "--no-teacher") as address:
        yield address


@pytest.fixture
def rows(data: Path) -> list[tuple[str, str, float]]:
    with gzip.open(data / "stsb" / "test.tsv.gz", "rt", encoding="utf-8", newline="") as lines:
        return [
            (row["sentence1"], row["sentence2"], float(row["score"]))
            for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        ]


class LocalSTS(tasks.AbsTaskSTS):  # type: ignore[misc, name-defined]
    """STS-B's test part, from a local copy."""

    metadata = mteb.TaskMetadata(
        name="LocalSTS",
        description="STS-B's test part, from a local copy.",
        dataset={"path": "local/stsb", "revision": "1"},
        type="STS",
        category="t2t",
        modalities=["text"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="cosine_spearman",
    )
    min_score, max_score = 0, 5
    rows: list[tuple[str, str, float]]

    def load_data(self, **options: Any) -> None:
        left, right, score = zip(*self.rows, strict=True)
        columns = {"sentence1": left, "sentence2": right, "score": score}
        self.dataset = {"test": datasets.Dataset.from_dict(columns)}
        self.data_loaded = True


def test_mteb_finds_through_the_service_what_the_bundle_finds(url: str, rows: list[tuple[str, str, float]]) -> None:
    from mteb.models import OpenAIAPIEncodeWrapper

    LocalSTS.rows = rows
    model = OpenAIAPIEncodeWrapper(url, NAME, modalities=["text"], use_chat_template=False)
    result = mteb.evaluate(model, LocalSTS(), cache=None, encode_kwargs={"batch_size": 64})
    found = result.task_results[0].scores["test"][0]["cosine_spearman"]

    encoder = load_student(BUNDLES / NAME, threads=1).encoder
    left, right = (encoder.encode([row[side] for row in rows]) for side in (0, 1))
    direct = stats.spearmanr((left * right).sum(axis=1), [row[2] for row in rows]).statistic
    assert found == pytest.approx(direct, abs=2e-4)
    assert found > 0.8
