import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import faiss
import numpy as np
import pytest

from index.candidates import CandidateIndex
from index.generations import FILES, Generation
from index.manifest import GenerationManifest, IndexFault, sha256_of
from tests.index import crash_build
from tests.index.crash_build import Letters
from tests.index.test_resume import WORDS, build

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.fixture
def index(tmp_path: Path) -> Path:
    build(tmp_path / "index")
    return tmp_path / "index"


def home(index: Path) -> Path:
    return index / "generations/000001"


def alter(index: Path, name: str, content: bytes, tell: bool = True) -> None:
    """Replace a file of the generation; with ``tell``, the manifest agrees, so that only its header gives it away."""
    path = home(index) / name
    path.write_bytes(content)
    if tell:
        manifest = json.loads((home(index) / "manifest.json").read_text())
        manifest["files"][name] = sha256_of(path)
        manifest["sizes"][name] = len(content)
        (home(index) / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("verify", ["quick", "full"])
@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_named_with_both_sizes(index: Path, name: str, verify) -> None:
    content = (home(index) / name).read_bytes()
    alter(index, name, content[:-1], tell=False)
    message = (
        rf"{name} has been altered: it has {len(content) - 1:,} bytes, the manifest says {len(content):,}; .*build"
    )
    with pytest.raises(IndexFault, match=message):
        Generation.open(index, verify=verify)


def test_every_altered_file_is_named(index: Path) -> None:
    (home(index) / "embeddings.npy").unlink()
    alter(index, "documents.sqlite", b"short", tell=False)
    with pytest.raises(IndexFault, match=r"documents\.sqlite has been altered: .*; .*embeddings\.npy is missing; rest"):
        Generation.open(index)


def test_quick_reads_small_files_and_leaves_out_large_ones(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray((home(index) / "embeddings.npy").read_bytes())
    content[-1] ^= 1
    alter(index, "embeddings.npy", bytes(content), tell=False)
    with pytest.raises(IndexFault, match=r"embeddings\.npy has been altered: its sha256"):
        Generation.open(index, verify="quick")
    monkeypatch.setattr("index.manifest.SMALL_FILE", 10)
    assert len(Generation.open(index, verify="quick")) == len(WORDS)
    with pytest.raises(IndexFault, match=r"embeddings\.npy has been altered: its sha256"):
        Generation.open(index, verify="full")


def test_a_generation_written_before_sizes_were_still_opens(index: Path) -> None:
    path = home(index) / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["sizes"]
    path.write_text(json.dumps(manifest))
    assert len(Generation.open(index, verify="quick")) == len(WORDS)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("candidates.faiss", lambda c: c[:4] + struct.pack("<iq", 26, 2**60) + c[16:], "it says 1,152,9.* rows of 26"),
        ("candidates.faiss", lambda c: c[:4] + struct.pack("<iq", 2**30, 11) + c[16:], "it says 11 rows of 1073741824"),
        ("candidates.faiss", lambda c: c[:7], "is cut off after 7 bytes"),
        ("embeddings.npy", lambda c: c[: -26 * 4], "embeddings.npy has been altered"),
        ("embeddings.npy", lambda c: c.replace(b"<f4", b"|O "), "embeddings.npy has been altered"),
        ("embeddings.npy", lambda c: b"x" + c[1:], "embeddings.npy has been altered"),
        ("embeddings.npy", lambda c: c.replace(b"'shape'", b"('shape'"), "embeddings.npy has been altered"),
        ("documents.sqlite", lambda c: c[:-4096], "documents.sqlite has been altered"),
        ("documents.sqlite", lambda c: b"x" + c[1:], "documents.sqlite has been altered"),
        ("documents.sqlite", lambda c: c[:50], "documents.sqlite has been altered"),
    ],
)
def test_a_header_that_lies_is_found_before_anything_is_made_of_it(
    index: Path, name: str, change, message: str
) -> None:
    alter(index, name, change((home(index) / name).read_bytes()))
    with pytest.raises(IndexFault, match=message):
        Generation.open(index, verify="quick")


@pytest.mark.parametrize("recipe", ["Flat", "SQ8", "HNSW8"])
def test_no_altered_number_in_a_faiss_file_makes_it_allocate_without_bound(tmp_path: Path, recipe: str) -> None:
    """Every place of the file that could be a length becomes a huge one; a child with little memory reads them all."""
    path = tmp_path / "candidates.faiss"
    CandidateIndex.build(Letters()(WORDS * 3), recipe).save(path)
    code = f"""
import resource
from pathlib import Path
from index.candidates import CandidateIndex
from index.manifest import IndexFault
path = Path({str(path)!r})
content = path.read_bytes()
CandidateIndex.load(path)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**26, used + 2**26))
refused = 0
for place in range(16, min(len(content) - 8, 400)):
    path.write_bytes(content[:place] + (2**33).to_bytes(8, "little") + content[place + 8:])
    try:
        CandidateIndex.load(path)
    except IndexFault as error:
        assert "bad_alloc" not in str(error) and "MemoryError" not in str(error), (place, error)
        refused += 1
print(refused)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 5


def test_the_librarys_limits_are_as_they_were(index: Path) -> None:
    before = faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()
    Generation.open(index)
    assert (faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()) == before


def child(index: Path, tmp_path: Path, before: str) -> str:
    """A build in a process that is hindered first; what it answers."""
    source = tmp_path / "in.jsonl"
    source.write_text(
        "".join(json.dumps({"id": word, "text": word, "metadata": {"long": "x" * 2000}}) + "\n" for word in WORDS)
    )
    code = f"""
import os, resource
from pathlib import Path
from index.manifest import IndexFault
from tests.index.crash_build import Letters, build
source = Path("in.jsonl")
{before}
try:
    build(source, Path({str(index.relative_to(tmp_path))!r}), Letters())
except IndexFault as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=ENVIRONMENT, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("limit", [100, 9000, 16_000])
def test_a_full_disk_is_said_and_costs_nothing(tmp_path: Path, limit: int) -> None:
    index = tmp_path / "index"
    build(index, ["old", "words"])
    answer = child(index, tmp_path, f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))")
    assert "index cannot be written: " in answer
    assert len(Generation.open(index)) == 2
    encode = Letters()
    crash_build.build(tmp_path / "in.jsonl", index, encode)
    assert len(Generation.open(index)) == len(WORDS)
    assert len(encode.texts) == (1 if limit == 16_000 else len(WORDS) + 1)  # the sample, and what was not kept


def test_a_folder_that_may_not_be_written_to_is_said(tmp_path: Path) -> None:
    index = tmp_path / "index"
    build(index, ["old", "words"])
    before = sorted(str(path) for path in index.rglob("*"))
    (index / "generations").chmod(0o555)
    tmp_path.chmod(0o755)
    try:
        as_nobody = "os.setgroups([]); os.setgid(65534); os.setuid(65534)" if os.geteuid() == 0 else ""
        answer = child(index, tmp_path, as_nobody)
    finally:
        (index / "generations").chmod(0o755)
    assert "index cannot be written: [Errno 13] Permission denied" in answer
    assert sorted(str(path) for path in index.rglob("*")) == before
    assert len(Generation.open(index)) == 2


def test_the_manifest_tells_every_files_size(index: Path) -> None:
    manifest = GenerationManifest.read(home(index))
    assert manifest.sizes == {name: (home(index) / name).stat().st_size for name in FILES}
    assert np.load(home(index) / "embeddings.npy").shape == (manifest.documents, manifest.dims)
