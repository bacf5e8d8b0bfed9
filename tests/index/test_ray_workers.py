"""What is Ray's own: workers that die, that embed otherwise, or never start; all else is the local build's."""

import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ray", reason="needs ray: pip install '.[ray]'")

import index.ray_workers as ray_module
from index import build as job
from index.generations import Generation
from index.manifest import IndexFault
from index.ray_workers import Cluster, RayWorkers
from index.sources import Inputs, Rejects
from tests.index.crash_build import ENCODER, Letters, live_files, small_shards
from tests.ray_cluster import ray_cluster

WORDS = [f"{word} {number}" for number in range(8) for word in ("stone", "notes", "google", "cabana", "lemon")]


class Loads:
    """Makes an encoder that leaves its process's name, and may die of a text, wait for others, or err."""

    def __init__(
        self, folder: Path, dies_of: str | None = None, times: int = 0, together: int = 1, bent: float = 0.0
    ) -> None:
        self.folder, self.dies_of, self.times, self.together, self.bent = folder, dies_of, times, together, bent

    def __call__(self, threads: int):
        letters = Letters()

        def encode(texts: Sequence[str]) -> np.ndarray:
            (self.folder / f"pid-{os.getpid()}").touch()
            while texts != ray_module.PROBE and len(list(self.folder.glob("pid-*"))) < self.together:
                time.sleep(0.01)
            if self.dies_of in texts and len(deaths := list(self.folder.glob("death-*"))) < self.times:
                (self.folder / f"death-{len(deaths)}").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            embeddings = letters(texts)
            if not self.bent:
                return embeddings
            bent = embeddings + np.float32(self.bent)
            return bent / np.linalg.norm(bent, axis=1, keepdims=True)

        return encode


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """One cluster for all: it takes seconds to begin."""
    with ray_cluster() as cluster:
        yield cluster.address


def pool(folder: Path, address: str, workers: int = 2, **options) -> RayWorkers:
    folder.mkdir(exist_ok=True)
    return RayWorkers(Loads(folder, **options), Letters(), Cluster(address, workers=workers), 2)


def build(source: Path, folder: Path, rejects: Rejects | None = None, **options) -> None:
    with small_shards():
        inputs = Inputs([source], rejects=rejects)
        job.build(inputs, Letters(), 26, ENCODER, folder, rejects=rejects, share_read=inputs.share_read, **options)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder of two shards, with a line that is no document."""
    import pyarrow
    from pyarrow import parquet

    folder = tmp_path / "source"
    folder.mkdir()
    rows = [{"id": f"a{row}", "text": word} for row, word in enumerate(WORDS)]
    lines = [*map(json.dumps, rows[:20]), '{"text', json.dumps(rows[3])]
    (folder / "part-0.jsonl").write_text("\n".join(lines))
    parquet.write_table(pyarrow.Table.from_pylist(rows[20:]), folder / "part-1.parquet")
    return folder


def test_the_files_are_those_of_a_local_build_whoever_dies(tmp_path: Path, source: Path, cluster: str) -> None:
    for name, options in {
        "whole": {"together": 2},
        "killed": {"dies_of": "notes 5", "times": ray_module.TRIES - 1},
    }.items():
        with Rejects(tmp_path / f"{name}.rejects") as rejects, pool(tmp_path / name, cluster, **options) as workers:
            build(source, tmp_path / f"{name}.index", rejects, encode_batches=workers.encode_batches)
        assert len(list((tmp_path / name).glob("death-*"))) == options.get("times", 0)
        assert len(list((tmp_path / name).glob("pid-*"))) >= 2
    with Rejects(tmp_path / "local.rejects") as rejects:
        build(source, tmp_path / "local.index", rejects)
    assert live_files(tmp_path / "whole.index") == live_files(tmp_path / "local.index")
    assert live_files(tmp_path / "killed.index") == live_files(tmp_path / "local.index")
    assert len(Generation.open(tmp_path / "local.index")) == len(WORDS)
    refused = [(tmp_path / f"{name}.rejects").read_text() for name in ("local", "whole", "killed")]
    assert refused[0].count("\n") == 2
    assert refused[1:] == refused[:1] * 2


def test_a_batch_that_kills_every_worker_ends_the_build_which_goes_on_locally(
    tmp_path: Path, source: Path, cluster: str
) -> None:
    with (
        Rejects() as rejects,
        pool(tmp_path / "pool", cluster, dies_of="notes 5", times=99) as workers,
        pytest.raises(IndexFault, match=r"4 workers have died of the same batch, which begins with .*goes on"),
    ):
        build(source, tmp_path / "index", rejects, encode_batches=workers.encode_batches)
    assert len(list((tmp_path / "pool").glob("death-*"))) == ray_module.TRIES
    with Rejects() as rejects:
        build(source, tmp_path / "index", rejects)
        build(source, tmp_path / "local", Rejects())
    assert Generation.open(tmp_path / "index").manifest.measured["resumed"] > 0
    assert live_files(tmp_path / "index") == live_files(tmp_path / "local")


def test_no_more_is_read_than_the_workers_can_have(tmp_path: Path, cluster: str) -> None:
    read = 0

    def batches() -> Iterator[list[str]]:
        nonlocal read
        for word in WORDS:
            read += 1
            yield [word]

    with pool(tmp_path / "pool", cluster) as workers:
        for done, embeddings in enumerate(workers.encode_batches(batches()), 1):
            np.testing.assert_array_equal(embeddings, Letters()(WORDS[done - 1 : done]))
            assert read - done < ray_module.WAITING * 2
    assert done == len(WORDS)


def test_a_worker_that_embeds_otherwise_is_refused(tmp_path: Path, cluster: str) -> None:
    with pytest.raises(IndexFault, match=r"embeds otherwise than this machine \(cosine 0\.\d+, and not 0\.9999\)"):
        pool(tmp_path / "pool", cluster, bent=0.5)


def test_workers_that_cannot_start_are_an_error_with_its_reason(cluster: str) -> None:
    def load(threads: int):
        raise FileNotFoundError("no such tokenizer")

    with pytest.raises(IndexFault, match=r"workers die as they start; .*no such tokenizer"):
        RayWorkers(load, Letters(), Cluster(cluster, workers=1), 2)


def test_a_cluster_without_free_cpus_is_not_waited_for_for_ever(
    tmp_path: Path, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_module, "SECONDS_TO_START", 1.0)
    with pytest.raises(IndexFault, match=r"no worker has started within 1 s: the cluster has not 64 CPUs free"):
        RayWorkers(Loads(tmp_path), Letters(), Cluster(cluster, cpus=64, workers=1), 2)


def test_an_encoders_own_error_is_not_tried_again(cluster: str) -> None:
    def load(threads: int):
        def encode(texts: Sequence[str]) -> np.ndarray:
            if "bad" in texts:
                raise ArithmeticError("not finite")
            return Letters()(texts)

        return encode

    with RayWorkers(load, Letters(), Cluster(cluster, workers=1), 2) as workers:
        with pytest.raises(ArithmeticError, match="not finite"):
            list(workers.encode_batches([["good"], ["bad"]]))
        (embeddings,) = workers.encode_batches([["good"]])
    np.testing.assert_array_equal(embeddings, Letters()(["good"]))


def test_an_address_where_nobody_is() -> None:
    with pytest.raises(IndexFault, match=r"no Ray cluster at 127\.0\.0\.1:1: .*ray start --head"):
        RayWorkers(Loads(Path()), Letters(), Cluster("127.0.0.1:1"), 2)


def test_a_machine_on_which_ray_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def late(*_: object, **options: object) -> None:
        tried.append(options)
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray_module.ray, "init", late)
    with pytest.raises(IndexFault, match=r"does not start on this machine: .*timed out.*--engine local"):
        RayWorkers(Loads(Path()), Letters(), Cluster(cpus=2, workers=4), 3)
    assert [options["num_cpus"] for options in tried] == [8] * ray_module.STARTS
