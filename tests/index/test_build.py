import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import index.build as build_module
from index.build import build
from index.documents import Document
from index.generations import FILES, Generation, current_name, new_generation
from index.manifest import EncoderIdentity, IndexFault
from index.sources import SourcedDocument, SourceError, read_documents
from tests.fakes import LetterEncoder
from tests.index.journal import Journal

ENCODER = EncoderIdentity(name="letters", digest="d" * 64)
WORDS = ["listen", "silent", "stone", "notes", "banana"]


def sourced(texts: list[str]) -> list[SourcedDocument]:
    return [SourcedDocument(Document(f"id-{n}", text, {"n": n}), f"input:{n + 1}") for n, text in enumerate(texts)]


def build_words(folder: Path, texts: list[str] = WORDS) -> None:
    build(sourced(texts), LetterEncoder().encode, 26, ENCODER, folder)


class CountingEncoder(LetterEncoder):
    """Remembers what it was asked to embed."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.texts += texts
        return super().encode(texts)


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_row_is_the_same_document_everywhere(tmp_path: Path) -> None:
    build_words(tmp_path / "index")
    generation = Generation.open(tmp_path / "index")
    found = generation.search(LetterEncoder().encode(["tinsel"])[0], depth=2)
    assert [d.text for d in generation.documents(found.rows)] == ["listen", "silent"]
    assert [d.metadata for d in generation.documents(found.rows)] == [{"n": 0}, {"n": 1}]
    np.testing.assert_allclose(found.similarities, [1, 1], rtol=1e-6)
    np.testing.assert_array_equal(found.embeddings, LetterEncoder().encode(["listen", "silent"]))


@settings(max_examples=20)
@given(texts=st.lists(st.text("abc", min_size=1, max_size=6), min_size=1, max_size=40), size=st.integers(1, 7))
def test_shards_do_not_show_in_the_result(tmp_path_factory, texts: list[str], size: int) -> None:
    folder = tmp_path_factory.mktemp("shards")
    original = build_module.DOCUMENTS_PER_SHARD
    build_words(folder / "whole", texts)
    try:
        build_module.DOCUMENTS_PER_SHARD = size
        build_words(folder / "sharded", texts)
    finally:
        build_module.DOCUMENTS_PER_SHARD = original
    for name in ("embeddings.npy", "candidates.faiss"):
        left, right = (folder / kind / "generations/000001" / name for kind in ("whole", "sharded"))
        assert left.read_bytes() == right.read_bytes()
    generation = Generation.open(folder / "sharded")
    assert [d.text for d in generation.documents(np.arange(len(texts)))] == texts


def test_embeddings_are_plain_npy(tmp_path: Path) -> None:
    build_words(tmp_path)
    embeddings = np.load(tmp_path / "generations/000001/embeddings.npy", allow_pickle=False)
    np.testing.assert_array_equal(embeddings, LetterEncoder().encode(WORDS))


def test_a_second_build_replaces_the_first_in_one_step(tmp_path: Path) -> None:
    build_words(tmp_path)
    opened = Generation.open(tmp_path)
    build_words(tmp_path, ["other"])
    assert len(opened) == 5  # what is open stays whole
    assert opened.documents(np.array([4]))[0].text == "banana"
    assert current_name(tmp_path) == "000002"
    assert len(Generation.open(tmp_path)) == 1
    build_words(tmp_path, ["third"])
    assert sorted(p.name for p in (tmp_path / "generations").iterdir()) == ["000002", "000003"]


def test_two_documents_with_one_id(tmp_path: Path) -> None:
    documents = [SourcedDocument(Document("same", text), f"a.jsonl:{n}") for n, text in enumerate("xyz", 1)]
    with pytest.raises(SourceError, match=r"a\.jsonl:2: id 'same' is already that of a\.jsonl:1"):
        build(documents, LetterEncoder().encode, 26, ENCODER, tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_the_same_id_shards_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_module, "DOCUMENTS_PER_SHARD", 1)
    documents = [SourcedDocument(Document(id_, "text"), f"a.jsonl:{n}") for n, id_ in enumerate("abca", 1)]
    with pytest.raises(SourceError, match=r"a\.jsonl:4: id 'a' is already that of a\.jsonl:1"):
        build(documents, LetterEncoder().encode, 26, ENCODER, tmp_path / "index")


def test_a_line_broken_in_the_middle_publishes_nothing(tmp_path: Path) -> None:
    lines = [json.dumps({"id": str(n), "text": "word"}) for n in range(9)]
    lines[4] = lines[4][:-5]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    with pytest.raises(SourceError, match=r"in\.jsonl:5: not JSON"):
        build(read_documents([tmp_path / "in.jsonl"]), LetterEncoder().encode, 26, ENCODER, tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_an_unknown_recipe_is_refused_before_anything_is_embedded(tmp_path: Path) -> None:
    def never(texts: list[str]) -> np.ndarray:
        raise AssertionError("embedded for nothing")

    with pytest.raises(IndexFault, match="'Nonsense' is not a recipe"):
        build(sourced(WORDS), never, 26, ENCODER, tmp_path / "index", recipe="Nonsense")
    assert not (tmp_path / "index").exists()


def test_a_failed_build_leaves_the_live_generation_alone(tmp_path: Path) -> None:
    build_words(tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in files_of(tmp_path)}
    with pytest.raises(SourceError, match="already that of"):
        build([*sourced(WORDS), *sourced(WORDS)], LetterEncoder().encode, 26, ENCODER, tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in files_of(tmp_path)} == before


def test_a_killed_build_leaves_the_live_generation_alone(tmp_path: Path) -> None:
    build_words(tmp_path)
    killed = (
        "import os\nfrom pathlib import Path\nfrom index.generations import new_generation\n"
        f"with new_generation(Path({str(tmp_path)!r})) as home:\n"
        "    (home / 'embeddings.npy').write_bytes(b'half')\n    os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", killed], check=False).returncode == -9
    assert len(Generation.open(tmp_path)) == 5
    build_words(tmp_path, ["after"])
    assert len(Generation.open(tmp_path)) == 1
    assert not list(tmp_path.rglob("*.partial"))


def test_two_writers_at_once_are_refused(tmp_path: Path) -> None:
    build_words(tmp_path)
    with (
        pytest.raises(IndexFault, match="being written by another process"),
        new_generation(tmp_path),
        new_generation(tmp_path),
    ):
        raise AssertionError("the second writer was let in")
    assert len(Generation.open(tmp_path)) == 5


def test_what_is_being_served_survives_any_number_of_builds_and_threads(tmp_path: Path) -> None:
    build_words(tmp_path)
    served = Generation.open(tmp_path)
    for word in ("second", "third", "fourth"):
        build_words(tmp_path, [word])
    with ThreadPoolExecutor(1) as fresh_thread:
        found = fresh_thread.submit(served.search, LetterEncoder().encode(["banana"])[0], 1).result()
        assert fresh_thread.submit(served.documents, found.rows).result()[0].text == "banana"


BUILDING = [
    "fsync generations",
    "fsync job.json.partial", "replace job.json.partial", "fsync build.partial",
    "fsync 000000.safetensors.partial", "replace 000000.safetensors.partial", "fsync build.partial",
    "rename documents.sqlite",
    *(f"fsync {name}" for name in sorted([*FILES, "manifest.json"])), "fsync 000002.partial", "rename 000002.partial",
    "fsync generations", "fsync CURRENT.partial", "replace CURRENT.partial", "fsync index",
]  # fmt: skip


def test_everything_is_durable_before_it_can_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_words(tmp_path / "home/index")
    journal = Journal(monkeypatch)
    build_words(tmp_path / "home/index")
    assert journal.steps == BUILDING


def test_a_new_index_is_durable_with_all_folders_above_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(monkeypatch)
    build_words(tmp_path / "new/home/index")
    for name in (tmp_path.name, "new", "home", "index", "generations"):
        assert journal.steps.index(f"fsync {name}") < journal.steps.index("replace CURRENT.partial")


@pytest.mark.parametrize("step", range(len(BUILDING)))
def test_a_build_that_fails_at_any_step_loses_nothing(tmp_path: Path, step: int) -> None:
    folder = tmp_path / "home/index"
    build_words(folder)
    with pytest.MonkeyPatch.context() as monkeypatch:
        Journal(monkeypatch, fail_at=step)
        with pytest.raises(IndexFault, match=r"cannot be written: .*No space left on device") as refused:
            build_words(folder, ["half"])
    published = step > BUILDING.index("replace CURRENT.partial")
    assert (folder / "generations/000002").exists() == published
    if step >= BUILDING.index("rename documents.sqlite"):
        assert str(refused.value).endswith(f"its live generation is {'000002' if published else '000001'}")
    else:
        assert "the same command goes on from there" in str(refused.value)
    assert len(Generation.open(folder)) == (1 if published else 5)
    kept = step > BUILDING.index("replace 000000.safetensors.partial")
    assert (folder / "generations/build.partial").exists() == kept
    live = current_name(folder)
    encoder = CountingEncoder()
    build(sourced(["half"]), encoder.encode, 26, ENCODER, folder)
    assert len(Generation.open(folder)) == 1
    assert encoder.texts == ([] if kept and not published else ["half"])
    assert {path.name for path in (folder / "generations").iterdir()} == {live, current_name(folder)}


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_byte_is_refused(tmp_path: Path, name: str) -> None:
    build_words(tmp_path)
    path = tmp_path / "generations/000001" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        IndexFault, match=rf"{name} has been altered: its sha256 is \w+, the manifest says \w+; .*build"
    ):
        Generation.open(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    build_words(tmp_path)
    (tmp_path / "generations/000001" / name).unlink()
    with pytest.raises(IndexFault, match=rf"{name} is missing; .*dse index build"):
        Generation.open(tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "CURRENT").unlink(), "is not an index"),
        (lambda folder: (folder / "CURRENT").write_text("../elsewhere"), "names '../elsewhere'"),
        (lambda folder: (folder / "CURRENT").write_text("000009\n"), "000009.*No such file"),
        (lambda folder: (folder / "generations/000001/manifest.json").write_text("{}"), "is not a generation's"),
        (lambda folder: (folder / "generations/000001/manifest.json").unlink(), "manifest.json: No such file"),
    ],
)
def test_a_damaged_folder_says_what_is_wrong(tmp_path: Path, damage, message: str) -> None:
    build_words(tmp_path)
    damage(tmp_path)
    with pytest.raises(IndexFault, match=message):
        Generation.open(tmp_path)


def test_files_that_disagree_are_refused(tmp_path: Path) -> None:
    build_words(tmp_path / "index")
    build_words(tmp_path / "other", WORDS[:4])
    ours, theirs = (tmp_path / name / "generations/000001" for name in ("index", "other"))
    manifest, other = (json.loads((home / "manifest.json").read_text()) for home in (ours, theirs))
    for part in ("files", "sizes"):
        manifest[part]["documents.sqlite"] = other[part]["documents.sqlite"]
    (ours / "documents.sqlite").write_bytes((theirs / "documents.sqlite").read_bytes())
    (ours / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(IndexFault, match="the files disagree: manifest 5"):
        Generation.open(tmp_path / "index")


def test_an_index_opens_on_a_read_only_disk(tmp_path: Path) -> None:
    build_words(tmp_path / "index")
    paths = [tmp_path / "index", *(tmp_path / "index").rglob("*")]
    before = files_of(tmp_path)
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        generation = Generation.open(tmp_path / "index")
        assert generation.documents(np.array([2]))[0].text == "stone"
        assert files_of(tmp_path) == before
    finally:
        for path in paths:
            path.chmod(0o755)


def test_an_existing_folder_of_someone_else_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(SourceError, match="no documents"):
        build_words(tmp_path, [])
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_index_takes_the_place_of_no_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(IndexFault, match="file is no folder; give an index another name"):
        build_words(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
