"""Who answers to which name, and whose the index is."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError

from app.errors import ServiceError
from app.loading import load
from app.main import create_app
from app.registry import Models
from app.settings import Settings
from model.bundle import Student, load_student, load_teacher
from model.manifest import ArtifactError
from tests.tiny import write_student, write_teacher


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_student(tmp_path_factory.mktemp("other") / "bundle", seed=9, name="other-student")


@pytest.fixture(scope="module")
def models(student: Student, other: Path, teacher_bundle: Path) -> Models:
    return Models(
        [student, load_student(other, threads=1)],
        load_teacher(teacher_bundle, threads=1),
        {"text-embedding-3-small": "default", "rerank-v3.5": "teacher", "gte": "other-student"},
    )


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        (None, "tiny-student"),
        ("", "tiny-student"),
        ("default", "tiny-student"),
        ("tiny-student", "tiny-student"),
        ("other-student", "other-student"),
        ("teacher", "tiny-teacher"),
        ("tiny-teacher", "tiny-teacher"),
        ("text-embedding-3-small", "tiny-student"),
        ("rerank-v3.5", "tiny-teacher"),
        ("gte", "other-student"),
    ],
)
def test_names(models: Models, name: str | None, meant: str) -> None:
    models.check()
    assert models.named(name).name == meant


def test_an_unknown_name_is_told_the_known_ones(models: Models) -> None:
    with pytest.raises(ServiceError, match="no model is called 'gpt'") as refused:
        models.named("gpt")
    assert (refused.value.status, refused.value.param) == (404, "model")
    for name in ("tiny-student", "other-student", "tiny-teacher", "default", "teacher", "rerank-v3.5"):
        assert name in refused.value.message


def test_without_a_teacher_nobody_answers_for_it(student: Student) -> None:
    alone = Models([student])
    assert alone.names == ["tiny-student", "default"]
    with pytest.raises(ServiceError, match="no model is called 'teacher'"):
        alone.named("teacher")


def test_the_teacher_embeds_nothing(models: Models) -> None:
    assert models.student("gte").name == "other-student"
    with pytest.raises(ServiceError, match="embed: tiny-student, other-student") as refused:
        models.student("rerank-v3.5")
    assert refused.value.status == 422


def test_names_that_would_mean_two_models_are_refused_at_start(
    tmp_path: Path, student: Student, teacher_bundle: Path
) -> None:
    teacher = load_teacher(teacher_bundle, threads=1)
    called_teacher = load_student(write_student(tmp_path / "t", name="teacher"), threads=1)
    for models, reason in [
        (Models([student, student]), "several bundles are called tiny-student"),
        (Models([called_teacher]), "a bundle is called teacher, a name that the service gives"),
        (Models([student], teacher, {"tiny-teacher": "default"}), "tiny-teacher is already a model's name"),
        (Models([student], None, {"default": "tiny-student"}), "default is already a model's name"),
        (Models([student], None, {"gpt": "teacher"}), "gpt stands for teacher, which is not loaded"),
        (Models([student], None, {"gpt": "big", "big": "default"}), "gpt stands for big, which is not loaded"),
    ]:
        with pytest.raises(ArtifactError, match=reason):
            models.check()


def test_an_index_is_searched_by_the_student_that_built_it(settings: Settings, other: Path) -> None:
    both = settings.model_copy(update={"bundle": other, "bundles": (settings.bundle,)})
    service = load(both)
    assert (service.student.name, service.searching.name) == ("other-student", "tiny-student")
    client = TestClient(create_app(both, service))
    alone = TestClient(create_app(settings))
    for path, body in [
        ("/v1/search", {"query": "notes"}),
        ("/v1/search", {"query": "notes", "rerank": "none"}),
        ("/v1/search/batch", {"queries": ["notes", "stone"]}),
    ]:
        assert client.post(path, json=body).json() == alone.post(path, json=body).json()
    of_index = client.post("/v1/compare", json={"query": "notes"}).json()
    assert (of_index["student"], of_index["results"]) == (
        "tiny-student",
        alone.post("/v1/compare", json={"query": "notes"}).json()["results"],
    )
    given = client.post("/v1/compare", json={"query": "notes", "candidates": ["stone"]}).json()
    assert given["student"] == "other-student"
    assert client.post("/v1/similarity", json={"pairs": [["a", "b"]]}).json()["model"] == "other-student"


def test_settings_of_several_models(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (Settings().bundles, Settings().model_aliases) == ((), {})
    monkeypatch.setenv("DSE_BUNDLES", "a, b/c,")
    monkeypatch.setenv("DSE_MODEL_ALIASES", "text-embedding-3-small=default, rerank-v3.5 = teacher")
    settings = Settings()
    assert settings.bundles == (Path("a"), Path("b/c"))
    assert settings.model_aliases == {"text-embedding-3-small": "default", "rerank-v3.5": "teacher"}
    monkeypatch.setenv("DSE_MODEL_ALIASES", "gpt")
    with pytest.raises(ValidationError, match="write name=model, separated by commas; 'gpt' stands for no model"):
        Settings()


def test_a_bundle_that_is_served_beside_is_checked_like_the_first(settings: Settings, tmp_path: Path) -> None:
    teacher = write_teacher(tmp_path / "teacher")
    with pytest.raises(ArtifactError, match=r"of kind cross-encoder; a student"):
        load(settings.model_copy(update={"bundles": (teacher,)}))
