"""The simulation is held to what is known in closed form."""

import json
from math import exp, log

import numpy as np
import pytest

from scripts.console import BadInput
from scripts.studies.fanout import Z99, Shard, answers, tails
from tests.command import dse


def test_what_one_shard_takes_has_the_percentiles_and_the_mean_it_is_given_by() -> None:
    shard = Shard(p50=4.0, p99=20.0, pause=100.0, pauses=0.002)
    drawn = shard.draw(np.random.default_rng(1), 400_000)
    assert np.median(drawn) == pytest.approx(4.0, rel=0.02)
    assert np.percentile(Shard(4.0, 20.0).draw(np.random.default_rng(1), 400_000), 99) == pytest.approx(20.0, rel=0.02)
    assert drawn.mean() == pytest.approx(shard.mean(), rel=0.01)
    assert (drawn > 100).mean() == pytest.approx(0.002, rel=0.1)


@pytest.mark.parametrize("shards", [1, 8, 64])
def test_without_queues_the_slowest_of_many_is_distributed_as_the_power_says(shards: int) -> None:
    """P(all below t) = F(t) ** shards, for a lognormal F."""
    (found,) = tails(Shard(4.0, 20.0), [shards], replicas=1, load=0.0, queries=40_000, seed=1)
    deviation = log(20.0 / 4.0) / Z99
    random = np.random.default_rng(2)
    normal = np.sort(random.standard_normal(2_000_000))
    for share, value in ((0.5, found.p50), (0.99, found.p99)):
        quantile = float(np.quantile(normal, share ** (1 / shards)))
        assert value == pytest.approx(4.0 * exp(deviation * quantile), rel=0.06)
    assert found.slow == pytest.approx(1 - 0.99**shards, abs=0.05)


def test_one_queue_of_exponential_work_is_an_mm1_queue() -> None:
    """The time in the system is exponential with mean service / (1 - load)."""
    random = np.random.default_rng(3)
    gaps = random.exponential(1.0, 150_000)
    taken = answers(lambda count: random.exponential(2.0, count), 2.0, 1, 1, 0.5, len(gaps), gaps)
    assert taken.mean() == pytest.approx(4.0, rel=0.04)
    assert np.percentile(taken, 99) == pytest.approx(-log(0.01) * 4.0, rel=0.08)


def test_replicas_shorten_the_tail_at_the_same_load_and_the_seed_decides() -> None:
    shard = Shard(4.0, 20.0)
    (one,), (two,), (again,) = (tails(shard, [16], replicas, 0.6, 5_000, seed=4) for replicas in (1, 2, 2))
    assert two.p99 < 0.8 * one.p99
    assert again == two
    assert tails(shard, [16], 2, 0.6, 5_000, seed=5) != [two]


def test_the_command_says_it_as_a_table_and_as_json() -> None:
    options = ("study", "fanout", "--p50", 4, "--p99", 20, "--shards", 1, "--shards", 8, "--queries", 2000)
    told = json.loads(dse(*options, "--json"))
    assert [row["shards"] for row in told["tails"]] == [1, 8]
    assert told["tails"][1]["p99"] > told["tails"][0]["p99"]
    assert told["seed"] == 1
    assert "1.0%" in dse(*options)  # by definition, of one shard


@pytest.mark.parametrize(
    ("options", "message"),
    [(("--p50", 9, "--p99", 3), r"--p99 \(3.*below --p50 \(9"), (("--p50", 1, "--p99", 3, "--load", 1), "--load")],
)
def test_what_cannot_be_simulated_is_refused(options: tuple[object, ...], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        dse("study", "fanout", *options)
