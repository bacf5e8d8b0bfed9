"""dse index build --engine ray: the shipped bundle's vectors, bit by bit, and what is left when the head is killed."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="needs ray: pip install '.[ray]'")

from index.generations import Generation
from index.view import View
from tests.index.crash_build import live_files
from tests.ray_cluster import RayCluster, ray_cluster
from tests.standin import StandIn

TEXTS = [
    f"A {kind} {deed} {place}, {times} times."
    for times in range(4)
    for place in ("in the park", "on a long and winding road to the sea", "here")
    for deed in ("runs", "sings a song that nobody has heard before", "sleeps")
    for kind in ("dog", "woman", "train", "déjà vu", "committee of the whole house")
]
PER_SHARD, PER_BATCH = 8, 4
SECONDS_TO_NOTICE = 120
SMALL = f"""
import index.build as build
build.DOCUMENTS_PER_SHARD, build.DOCUMENTS_PER_BATCH = {PER_SHARD}, {PER_BATCH}
from scripts.dse import main
main()
"""


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DSE_BUNDLE", raising=False)
    monkeypatch.setenv("DSE_THREADS", "1")


@pytest.fixture
def cluster() -> Iterator[RayCluster]:
    with ray_cluster() as cluster:
        yield cluster


def vectors(folder: Path) -> list[tuple[str, str, dict[str, object], bytes]]:
    """Every document with its embedding, by id: Milvus keeps them in an order of its own."""
    view = View.of(Generation.open(folder))
    documents = view.documents(view.rows())
    rows = [row.tobytes() for row in view.embeddings(view.rows())]
    found = ((each.id, each.text, each.metadata, row) for each, row in zip(documents, rows, strict=True))
    return sorted(found, key=lambda each: each[0])


def build(place: object, *options: object) -> "subprocess.Popen[str]":
    """Documents are read from standard input."""
    command = [sys.executable, "-c", SMALL, "index", "build", "-", "--output", str(place), *map(str, options)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_build_whose_head_is_killed_goes_on_and_is_bit_by_bit_the_local_one(
    tmp_path: Path, cluster: RayCluster
) -> None:
    lines = [json.dumps({"id": str(row), "text": text}) + "\n" for row, text in enumerate(TEXTS)]
    finished = tmp_path / "ray/generations/build.partial/000001.safetensors"
    with build(tmp_path / "ray", "--engine", "ray", "--ray-address", cluster.address) as first:
        assert first.stdin is not None
        first.stdin.write("".join(lines[: len(lines) // 2]))  # it waits for more
        first.stdin.flush()
        while not finished.exists():
            assert first.poll() is None, first.communicate()[1]
            time.sleep(0.01)
        cluster.kill()
        first.wait(SECONDS_TO_NOTICE)
    assert first.returncode != 0
    left = len(list(finished.parent.glob("*.safetensors")))
    assert 2 <= left <= len(TEXTS) // 2 // PER_SHARD
    assert not (tmp_path / "ray/CURRENT").exists()

    with ray_cluster() as another:
        second = build(tmp_path / "ray", "--engine", "ray", "--ray-address", another.address)
        said = second.communicate("".join(lines))[1]
    assert second.returncode == 0, said
    assert Generation.open(tmp_path / "ray").manifest.measured["resumed"] == left * PER_SHARD
    local = build(tmp_path / "local")
    said = local.communicate("".join(lines))[1]
    assert local.returncode == 0, said
    assert live_files(tmp_path / "ray") == live_files(tmp_path / "local")


def test_a_build_by_ray_into_milvus_has_the_local_ones_vectors(
    tmp_path: Path, cluster: RayCluster, milvus: StandIn
) -> None:
    rows = ({"id": str(row), "text": text, "metadata": {"half": row % 2}} for row, text in enumerate(TEXTS))
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    place = str(milvus.address())
    by_ray = build(place, "--engine", "ray", "--ray-address", cluster.address, "--work", tmp_path / "work")
    local = build(tmp_path / "local")
    for job in (by_ray, local):
        said = job.communicate(lines)[1]
        assert job.returncode == 0, said
    command = [sys.executable, "-m", "scripts.dse", "index", "snapshot", place, str(tmp_path / "copied")]
    subprocess.run(command, check=True, capture_output=True)
    assert vectors(tmp_path / "copied") == vectors(tmp_path / "local")
    assert not (tmp_path / "work").exists()
