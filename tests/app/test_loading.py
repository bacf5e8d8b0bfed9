import os
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr, ValidationError

from app.loading import head_vectors, identity, load, open_index
from app.main import create_app
from app.retriever import HeadScorer, Retriever
from app.settings import Settings
from app.threads import asked_threads, thread_budget
from index.build import build
from index.documents import Document
from index.finish import SearchWanted
from index.live import LiveIndex
from index.manifest import IndexFault
from index.rebuild import rebuild
from index.sources import SourcedDocument
from model.bundle import Student, load_student
from model.manifest import ArtifactError
from tests.conftest import WORDS
from tests.tiny import HEADS, head_tensors, write_student


def test_an_index_of_another_encoder_is_refused_with_both_digests(tmp_path: Path, settings: Settings) -> None:
    other = write_student(tmp_path / "other", seed=9, name="other-student")
    with pytest.raises(IndexFault) as refused:
        load(settings.model_copy(update={"bundle": other}))
    message = str(refused.value)
    ours, theirs = (
        load(settings.model_copy(update={"bundle": b, "index": None})).student for b in (settings.bundle, other)
    )
    assert f"tiny-student ({ours.encoder_digest})" in message
    assert f"other-student ({theirs.encoder_digest})" in message
    assert "dse index build" in message


def test_a_renamed_bundle_with_the_same_encoder_is_welcome(tmp_path: Path, settings: Settings) -> None:
    renamed = write_student(tmp_path / "renamed", name="renamed")
    assert load(settings.model_copy(update={"bundle": renamed})).student.name == "renamed"


def test_a_damaged_index_is_refused_at_start(tmp_path: Path, settings: Settings) -> None:
    assert settings.index is not None
    shutil.copytree(settings.index, tmp_path / "index")
    (tmp_path / "index/generations/000001/candidates.faiss").write_bytes(b"x")
    with pytest.raises(IndexFault, match=r"candidates\.faiss has been altered"):
        load(settings.model_copy(update={"index": tmp_path / "index"}))


def test_the_operator_chooses_how_much_is_compared(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings.index is not None
    shutil.copytree(settings.index, tmp_path / "index")
    path = tmp_path / "index/generations/000001/embeddings.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    monkeypatch.setattr("index.manifest.SMALL_FILE", 10)
    damaged = settings.model_copy(update={"index": tmp_path / "index"})
    assert load(damaged.model_copy(update={"verify": "quick"})).index is not None
    with pytest.raises(IndexFault, match=r"embeddings\.npy has been altered"):
        load(damaged.model_copy(update={"verify": "full"}))


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSE_PORT", "9000")
    monkeypatch.setenv("DSE_DEPTH", "7")
    assert (Settings().port, Settings().depth) == (9000, 7)
    assert Settings(port=1).port == 1
    assert Settings().depth_for(50) == 7
    monkeypatch.setenv("DSE_DEPTH", "")
    assert (Settings().depth_for(50), Settings().depth_for(None)) == (50, 100)
    monkeypatch.delenv("DSE_DEPTH")
    assert (Settings().depth_for(50), Settings().depth_for(None)) == (50, 100)
    within = Settings(max_depth=20)
    assert (within.depth_for(10), within.depth_for(50), within.depth_for(None)) == (10, 20, 20)
    monkeypatch.setenv("DSE_TEACHER", "")
    assert Settings().teacher is None
    monkeypatch.setenv("DSE_PORT", "high")
    with pytest.raises(ValidationError, match="port"):
        Settings()


@pytest.mark.parametrize("seconds", ["inf", "nan", "0", "86401"])
def test_a_deadline_is_one_that_can_be_waited_for(monkeypatch: pytest.MonkeyPatch, seconds: str) -> None:
    for name in ("timeout", "milvus_timeout"):
        with monkeypatch.context() as variables:
            variables.setenv(f"DSE_{name.upper()}", seconds)
            with pytest.raises(ValidationError, match=name):
                Settings()


def test_a_queue_too_short_for_what_a_model_reads_is_refused(settings: Settings) -> None:
    with pytest.raises(ArtifactError, match=r"DSE_MAX_QUEUE_TOKENS \(63\) is too few for tiny-student, .* 64 tokens"):
        load(settings.model_copy(update={"max_queue_tokens": 63}))
    assert load(settings.model_copy(update={"max_queue_tokens": 64, "teacher": None})).student.name == "tiny-student"


def test_a_milvus_is_reached_as_the_settings_say(settings: Settings, tmp_path: Path) -> None:
    plain = settings.milvus_access()
    assert (plain.token, plain.database, plain.tls, plain.ca_file, plain.consistency) == (
        None,
        "",
        False,
        None,
        "strong",
    )
    told = {
        "milvus_token": SecretStr("root:secret"),
        "milvus_database": "mine",
        "milvus_tls": True,
        "milvus_ca_file": tmp_path / "ca.pem",
        "milvus_timeout": 2.5,
        "milvus_consistency": "bounded",
    }
    access = settings.model_copy(update=told).milvus_access()
    assert vars(access) == {
        "token": "root:secret",
        "database": "mine",
        "tls": True,
        "ca_file": tmp_path / "ca.pem",
        "timeout": 2.5,
        "consistency": "bounded",
    }


def test_the_queues_have_the_limits_of_the_settings(settings: Settings) -> None:
    limits = {"threads": 2, "batch_tokens": 100, "max_queue_tokens": 70, "max_wait": 0.125, "teacher": None}
    for queue in load(settings.model_copy(update=limits)).queues.all:
        assert (queue._budget, queue._max_tokens, queue._max_wait) == (200, 70, 0.125)
    client = TestClient(create_app(settings.model_copy(update=limits)))
    refused = client.post(
        "/v1/similarity", json={"pairs": [["listen " * 40, "silent " * 40], ["stone " * 40, "notes"]]}
    )
    assert refused.status_code == 413
    assert "the limit is 70 (DSE_MAX_QUEUE_TOKENS)" in refused.json()["error"]["message"]


def test_a_graph_that_opens_and_cannot_answer_is_refused_in_a_line(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.tiny.table", lambda seed, dims: np.ones((2, dims), np.float32))  # of two tokens
    broken = write_student(tmp_path / "broken", name="broken")
    with pytest.raises(ArtifactError, match=r"broken does not work: .*; export it again"):
        load(settings.model_copy(update={"bundle": broken, "index": None}))


def test_a_head_of_another_width_than_its_encoder_is_refused_in_a_line(tmp_path: Path, settings: Settings) -> None:
    with pytest.MonkeyPatch.context() as narrow:
        narrow.setitem(HEADS, "mlp", partial(head_tensors, dims=8))
        broken = write_student(tmp_path / "broken", name="broken")
    with pytest.raises(ArtifactError, match=r"^broken does not work: .*; export it again$"):
        load(settings.model_copy(update={"bundle": broken, "index": None}))


@pytest.mark.parametrize(("content", "budget"), [("150000 100000\n", 2), ("50000 100000\n", 1), ("max 100000\n", None)])
def test_the_thread_budget_is_the_containers(tmp_path: Path, content: str, budget: int | None) -> None:
    (tmp_path / "cpu.max").write_text(content)
    machine = len(os.sched_getaffinity(0))
    nowhere = (tmp_path / "none", tmp_path / "none")
    assert thread_budget(tmp_path / "cpu.max", nowhere) == min(machine, budget or machine)
    assert thread_budget(tmp_path / "none", nowhere) == machine


@pytest.mark.parametrize(("quota", "budget"), [("150000\n", 2), ("50000\n", 1), ("-1\n", None)])
def test_the_thread_budget_is_an_old_containers_too(tmp_path: Path, quota: str, budget: int | None) -> None:
    (tmp_path / "quota").write_text(quota)
    (tmp_path / "period").write_text("100000\n")
    machine = len(os.sched_getaffinity(0))
    old = (tmp_path / "quota", tmp_path / "period")
    assert thread_budget(tmp_path / "none", old) == min(machine, budget or machine)


@pytest.mark.parametrize("asked", ["²", "-1", "0", "many", ""])
def test_threads_that_are_no_number_are_the_budget_until_the_settings_refuse_them(
    asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSE_THREADS", asked)
    assert asked_threads() == thread_budget()
    with pytest.raises(ValidationError, match="threads"):
        Settings()


def test_numpy_has_one_thread_and_the_others_have_the_budget() -> None:
    program = """
import app, numpy, os
square = numpy.ones((600, 600), numpy.float32)
square @ square
print(len(os.listdir("/proc/self/task")), os.environ["OMP_NUM_THREADS"], os.environ["OMP_WAIT_POLICY"])
"""
    environment = {**os.environ, "DSE_THREADS": "2"}
    environment.pop("OPENBLAS_NUM_THREADS", None)
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "2", "PASSIVE"]


def test_an_index_ranked_by_the_head_answers_as_the_head_and_opens_with_no_other(tmp_path: Path) -> None:
    student, other = (
        load_student(write_student(tmp_path / name, seed=seed, head="quadratic"), threads=1)
        for name, seed in (("bundle", 1), ("other", 2))
    )
    texts = sorted({f"{left}{right}" for left in WORDS for right in WORDS})
    documents = [SourcedDocument(Document(text, text), text) for text in texts]
    search = SearchWanted(head=head_vectors(student))
    build(documents, student.encoder.encode, student.encoder.dims, identity(student), tmp_path / "i", search=search)

    def check(live: LiveIndex, held: list[str]) -> None:
        """At a depth of three, the three best by the head are found."""
        retriever = Retriever(student.encoder, live.view())
        hits = retriever.search(retriever.queries(["tonsil"])[0], 3, 3, HeadScorer(student.head, student.score)).hits
        logits = student.head.logits(student.encoder.encode(["tonsil"]), student.encoder.encode(held))
        np.testing.assert_allclose([hit.logit for hit in hits], sorted(logits, reverse=True)[:3], atol=2e-5)

    with open_index(tmp_path / "i", student, writable=True) as live:
        check(live, texts)
        added = [text[::-1] for text in texts]
        live.upsert([Document(f"+{text}", text) for text in added], student.encoder.encode(added))
        live.delete(texts[::2])
        check(live, texts[1::2] + added)
        assert live.compact().pending == 0
        check(live, texts[1::2] + added)
    with LiveIndex.open(tmp_path / "i", None, writable=True) as live:  # nobody who knows the head
        live.delete([texts[1]])
        with pytest.raises(IndexFault, match=r"ranks this index by the head of tiny-student .*, and none that it"):
            live.compact()
    with pytest.raises(IndexFault, match=r"ranks this index by the head of tiny-student .*, and none that it"):
        rebuild(tmp_path / "i", pytest.fail, student.encoder.dims, identity(student))  # before anything is embedded
    served = replace(other, encoder_digest=student.encoder_digest)
    assert head_vectors(served) is not None
    with pytest.raises(IndexFault, match="is ranked by the head of tiny-student"):
        open_index(tmp_path / "i", served)


def test_other_heads_are_not_ranked_by(student: Student) -> None:
    assert head_vectors(student) is None
