"""dse study length: pairs in context keep what people said of them, and every cell is trained on the same budget."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.faults import TrainingFault
from model.tokens import SentenceTokenizer
from model.training.pairs import Pair
from scripts import study_options
from scripts.console import BadInput
from tests import tiny
from tests.command import dse

pytest.importorskip("torch")

from model.training.networks import BiEncoder
from model.training.pairs import TrainingData
from model.training.recipes import DistillationRecipe, read_recipe
from scripts.evaluation.sets import Registry
from scripts.studies.length import judge, price
from scripts.studies.length.context import Context
from scripts.studies.length.ground import Ground, ground_digest
from scripts.studies.length.plan import Control, Plan, Sizes
from scripts.studies.length.run import converged, run_control, run_student
from tests.model.training import tiny_training

SENTENCES = [f"{one} {two} {three}." for one in "ab" for two in ("stone", "x") for three in ("y z", "q", "river w")]
WORD = st.sampled_from(["fox", "jumps over", "a b c d", "window"])


def tokenizer(folder: Path, most: int = 512) -> SentenceTokenizer:
    tiny.tokenizer().save(str(folder / "tokenizer.json"))
    return SentenceTokenizer.load(folder / "tokenizer.json", most)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    return Context(SENTENCES, tokenizer(tmp_path_factory.mktemp("tokenizer")))


@given(left=WORD, right=WORD, tokens=st.integers(2, 120), salt=st.text("xy", max_size=2))
@settings(deadline=None)
def test_both_texts_are_the_same_but_for_the_pair(
    context: Context, tmp_path_factory: pytest.TempPathFactory, left: str, right: str, tokens: int, salt: str
) -> None:
    (placed,) = context.around([Pair("p", left, right, 0.4)], tokens, salt)
    assert (placed.id, placed.gold) == ("p", 0.4)
    before, _, after = placed.left.partition(left)
    assert placed.right == before + right + after
    around = [sentence.strip() for sentence in (before + after).split(".")]
    assert {f"{sentence}." for sentence in around if sentence} <= {*SENTENCES}
    assert len({*around} - {""}) == len([sentence for sentence in around if sentence])  # none twice
    reader = tokenizer(tmp_path_factory.getbasetemp())
    longest = int(reader.tokenize([placed.left, placed.right]).lengths.max())
    alone = int(reader.tokenize([left, right]).lengths.max())
    assert longest <= max(tokens, alone)


def test_a_context_fills_the_text_and_is_another_for_another_salt(context: Context, tmp_path: Path) -> None:
    pairs = [Pair(str(number), "fox", "jumps over", 0.0) for number in range(20)]
    once, again, other = (context.around(pairs, 60, salt) for salt in ("one", "one", "two"))
    assert once == again
    assert sum(left == right for left, right in zip(once, other, strict=True)) == 0
    lengths = tokenizer(tmp_path).tokenize([pair.left for pair in once]).lengths
    assert lengths.min() > 45
    places = [pair.left.index("fox") / len(pair.left) for pair in once]
    assert min(places) < 0.2
    assert max(places) > 0.8


def curve(*figures: float) -> list[dict[str, Any]]:
    return [{"step": 10 * number, "pearson": figure} for number, figure in enumerate(figures)]


def test_a_student_has_converged_where_it_stays_good() -> None:
    found = converged(curve(0.0, 50.0, 100.0, 100.0), cpu_seconds=2.0)
    assert found == {key: {"step": 19.0, "cpu_seconds": 38.0} for key in ("of_final", "of_gain")}
    found = converged(curve(80.0, 98.0, 90.0, 100.0), cpu_seconds=1.0)  # it fell below 95 once more
    assert found["of_final"] == {"step": 25.0, "cpu_seconds": 25.0}
    assert found["of_gain"] == {"step": 29.0, "cpu_seconds": 29.0}
    found = converged(curve(99.0, 99.5, 98.0), cpu_seconds=1.0)
    assert found == {"of_final": {"step": 0.0, "cpu_seconds": 0.0}, "of_gain": None}


LONG_PAIRS = [f"{'apple river ' * 40}\t{'apple river ' * 30}\t1", f"{'stone ' * 60}\t{'cloud ' * 50}\t0"] * 2


def write_study(folder: Path, **stage: Any) -> list[object]:
    """Weights, pairs, sentences, long sets and a recipe; the options that name them."""
    init = tiny_training.write_pretrained(folder / "bert")
    pairs = folder / "pairs"
    pairs.mkdir()
    tiny_training.write_pairs(pairs)
    (pairs / "sentences.txt").write_text("\n".join(f"{word} {other}." for word in "abcdef" for other in SENTENCES))
    (pairs / "long.tsv").write_text("\n".join(["sentence1\tsentence2\tscore", *LONG_PAIRS]) + "\n")
    (pairs / "books" / "qrels").mkdir(parents=True)
    rows = [{"_id": name, "text": f"{name} " * 200} for name in ("apple", "river", "stone")]
    (pairs / "books" / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (pairs / "books" / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "apple"}))
    (pairs / "books" / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\tapple\t1\n")
    sets = {"classification": {"long": {"file": "long.tsv"}}, "retrieval": {"books": {"folder": "books"}}}
    tiny_training.write_toml(folder / "sets.toml", sets)
    context = {"context": {"file": "sentences.txt", "terms": "made in a test"}}
    what = {"sets": ["train"], "texts": ["context"], "regression": 1.0, "batch": 2, "text_batch": 2, "epochs": 1}
    facts = {"head": {"kind": "cosine"}, "stage": what | stage}
    recipe = {
        "data": tiny_training.DATA | {"texts": context},
        "network": tiny_training.network("bi-encoder", **facts),
        "export": tiny_training.EXPORT,
    }
    tiny_training.write_toml(folder / "length.toml", recipe)
    options = {"data": pairs, "init": init, "recipe": folder / "length.toml", "sets": folder / "sets.toml"}
    options |= {"output": folder / "study", "budget": 6 * 64 * 4, "train": 8, "dev": 10, "test": 12}
    options |= {"looks": 2, "seeds": 2, "seeds-of-long": 1, "page": folder / "page.md"}
    return [part for name, value in options.items() for part in (f"--{name}", value)]


def test_a_study_of_length_trains_judges_and_tells(tmp_path: Path) -> None:
    options = write_study(tmp_path)
    options += ["--static", tiny.write_student(tmp_path / "static", head="cosine"), "--tokens", 64, "--tokens", 32]
    page = dse("study", "length", *options)
    cells = json.loads((tmp_path / "study" / "length.json").read_text())["cells"]
    students = {f"{kind}-{n}-seed{s}" for kind in ("softmax", "hedgehog") for n in (32, 64) for s in (1, 2)}
    controls = {f"{kind}-{n}" for kind in ("truncated", "pieces", "static") for n in (32, 64, "long")}
    assert set(cells) == students | controls
    for name in students:
        cell = cells[name]
        tokens = int(name.split("-")[1])
        assert cell["steps"] == 4 * 64 // tokens
        assert cell["trained_tokens"] == 6 * 64 * 4
        assert [look["step"] for look in cell["curve"]] == [0, cell["steps"] // 2, cell["steps"]]
        config = json.loads((tmp_path / "study" / name / "run" / "config.json").read_text())
        assert config["attention_kinds"] == [name.split("-")[0]] * 2
        assert cell["step"]["cpu_seconds"] > 0
        assert set(cell["long"]) == {"long", "books"}
        assert cell["long"]["books"]["ndcg@10"]["value"] > 0
    assert cells["softmax-64-seed1"]["curve"] != cells["softmax-64-seed2"]["curve"]
    assert cells["truncated-32"]["test"]["pearson"] == cells["pieces-32"]["test"]["pearson"]  # there is one piece
    lines = [line for line in page.splitlines() if line.startswith(("| 64 |", "| 32 |"))]
    assert len(lines) == 2 * 5 + 2 * 2
    pictures = {path.name for path in tmp_path.glob("length-*.svg")}  # no picture of what no tiny student did
    certain = {"pearson", "training", "curves-softmax", "curves-hedgehog"}
    assert {f"length-{name}.svg" for name in certain} <= pictures
    assert all(f"]({name})" in page for name in pictures)
    assert (tmp_path / "page.md").read_text() + "\n" == page
    manifest = tmp_path / "static" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"lineage": ["told in other words"]}))
    assert dse("study", "length", *options) == page  # everything is only read
    with pytest.raises(BadInput, match="of another study"):
        dse("study", "length", *options, "--train", 9)
    with (tmp_path / "pairs" / "long.tsv").open("a") as file:
        file.write(LONG_PAIRS[0] + "\n")
    with pytest.raises(BadInput, match="of another study"):
        dse("study", "length", *options)


def test_init_stands_for_whatever_the_recipe_starts_from(tmp_path: Path) -> None:
    """A recipe's folder that is there, and one that is not: what the user names is taken."""
    write_study(tmp_path)
    recipe, sizes = read_recipe(tmp_path / "length.toml", DistillationRecipe), Sizes(768, 8, 10, 12, 2, 2)
    for named in (str(tmp_path / "bert"), "runs/nowhere/bi"):
        told = recipe.model_copy(update={"network": recipe.network.model_copy(update={"init": named})})
        plan = Plan.of(told, str(tmp_path), None, None, sizes, "data")
        assert (plan.init, plan.linear) == (str(tmp_path), str(tmp_path))
    with pytest.raises(TrainingFault, match="runs/nowhere/bi is not there"):
        Plan.of(told, None, None, None, sizes, "data")


def study_of(folder: Path) -> tuple[Plan, Ground]:
    """The plan and the ground of :func:`write_study`."""
    recipe = read_recipe(folder / "length.toml", DistillationRecipe)
    sizes = Sizes(budget=6 * 32 * 4, train=8, dev=10, test=12, looks=2, long_pairs=2)
    plan = Plan.of(recipe, str(folder / "bert"), None, None, sizes, "data")
    return plan, Ground(plan, TrainingData(folder / "pairs", recipe.data), [])


def test_a_student_that_was_stopped_ends_as_one_that_was_not(tmp_path: Path) -> None:
    write_study(tmp_path)
    plan, ground = study_of(tmp_path)
    cell = plan.student("hedgehog", 32, seed=1)
    found = []
    for stop_at in (None, 3):
        folder = tmp_path / f"cell-{stop_at}"
        folder.mkdir()

        def progress(stage: str, done: int, total: int, stop_at: int | None = stop_at) -> None:
            if stage == "one" and done == stop_at:
                raise KeyboardInterrupt

        if stop_at is not None:
            with pytest.raises(KeyboardInterrupt):
                run_student(plan, cell, ground, folder, tmp_path / "parent", progress)
            assert set(json.loads((folder / "course.json").read_text())["curve"]) == {"0", "2"}
        found.append(run_student(plan, cell, ground, folder, tmp_path / "parent", lambda *_: None))
        assert run_student(plan, cell, ground, folder, tmp_path / "parent", progress)["curve"] == found[-1]["curve"]
    assert found[0]["curve"] == found[1]["curve"]
    assert len(found[0]["curve"]) == 3
    assert found[0]["test"]["pearson"] == found[1]["test"]["pearson"]


def test_a_student_that_was_stopped_before_it_was_saved_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.training.trainer.CHECKPOINT_SECONDS", -1.0)
    write_study(tmp_path)
    plan, ground = study_of(tmp_path)
    cell, steps = plan.student("softmax", 32, seed=1), list[int]()
    folder = tmp_path / "cell"
    folder.mkdir()

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "one":
            steps.append(done)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("scripts.studies.length.run.save_network", stop)
        with pytest.raises(KeyboardInterrupt):
            run_student(plan, cell, ground, folder, tmp_path / "parent", progress)
    assert steps == [1, 2, 3, 4]
    assert run_student(plan, cell, ground, folder, tmp_path / "parent", progress)["curve"][-1]["step"] == 4
    assert steps == [1, 2, 3, 4]
    assert not (folder / "stage.safetensors").exists()


@pytest.mark.parametrize(("control", "most"), [("truncated", 64), ("pieces", 120)])
def test_what_reading_costs_is_told_of_the_tokens_that_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, control: Control, most: int
) -> None:
    """The parent has 64 positions; computing alone is timed, not what is made of the cosines."""
    write_study(tmp_path)
    plan, ground = study_of(tmp_path)
    seconds = [0.0]

    def taking(more: float, work: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any) -> Any:
            seconds[0] += more
            return work(*given)

        return timed

    reads: tuple[Any, str] = (judge, "whole_embeddings") if control == "pieces" else (BiEncoder, "embed_tokens")
    for (owner, name), more in ((reads, 6.0), ((judge, "draw"), 100.0)):
        monkeypatch.setattr(owner, name, taking(more, getattr(owner, name)))
    monkeypatch.setattr(judge.time, "process_time", lambda: seconds[0])
    found = run_control(plan, plan.control(control, 120), ground, tmp_path)["test"]
    texts = {text for pair in ground.judged("test", 120) for text in (pair.left, pair.right)}
    lengths = ground.lengths([*texts])
    assert max(lengths) > 64
    assert found["microseconds_per_token"] == round(6e6 / sum(min(length, most) for length in lengths), 1)


def test_every_split_has_a_context_of_its_own_and_a_pair_another_each_time(tmp_path: Path) -> None:
    write_study(tmp_path)
    plan, ground = study_of(tmp_path)
    recipe = plan.recipe("softmax", 32, seed=1)
    material = ground.material(recipe, 8, tmp_path / "parent", lambda *_: None)
    learned = [example.pair for example in material.examples]
    assert len(learned) == 16
    assert len({pair.id for pair in learned}) == 8
    assert len({(pair.id, pair.left) for pair in learned}) == 16
    other = ground.material(plan.recipe("softmax", 32, seed=2), 8, tmp_path / "parent", lambda *_: None)
    assert [pair.id for pair in learned] != [example.pair.id for example in other.examples]
    assert {target.text for target in material.texts} <= {pair.left for pair in learned}
    assert all(target.embedding is not None for target in material.texts)
    every = {"train": learned, "dev": ground.judged("dev", 32), "test": ground.judged("test", 32)}
    around = {
        split: {sentence for pair in pairs for sentence in re.findall(r"[a-f] [ab] \w[\w ]*\.", pair.left)}
        for split, pairs in every.items()
    }
    assert all(around.values())
    assert not around["train"] & around["dev"] | around["train"] & around["test"] | around["dev"] & around["test"]


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"epochs": 2}, "one epoch"),
        ({"texts": ["train"]}, "regression on these texts and no others"),
        ({"texts": [], "regression": 0.0}, "regression on these texts"),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_refused(tmp_path: Path, stage: dict[str, Any], message: str) -> None:
    write_study(tmp_path, **stage)
    with pytest.raises(BadInput, match=message):
        study_of(tmp_path)


def test_a_budget_that_pays_for_no_curve_is_refused(tmp_path: Path) -> None:
    options = write_study(tmp_path)
    with pytest.raises(BadInput, match=r"2 steps of 6 texts of 128 tokens.*give --budget 2304"):
        dse("study", "length", *options, "--tokens", 128, "--looks", 3)


def test_how_long_it_would_take_is_said_and_nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options, said = write_study(tmp_path), list[str]()
    monkeypatch.setattr(study_options.errors, "print", lambda words, **_: said.append(words))
    assert dse("study", "length", *options, "--tokens", 32, "--estimate") == ""
    assert said[-1] == "8 of 8 cells are left: about 0.0 CPU hours"
    assert not list((tmp_path / "study").glob("*/result.json"))
    plan, ground = study_of(tmp_path)
    cells = plan.cells(["softmax", "elu"], [32, 64], seeds=2, seeds_of_long=1)
    assert [cell.name for cell in cells if "seed" in cell.facts][:4] == [
        f"{kind}-{tokens}-seed1" for tokens in (32, 64) for kind in ("softmax", "elu")
    ]
    said: list[str] = []
    one = price.of(plan, ground, [plan.student("softmax", 32, 1)], lambda stage, *_: said.append(stage))
    assert one > 0
    assert {*said} == {"estimate"}


@pytest.mark.parametrize("name", ["train.tsv", "test.tsv", "sentences.txt", "long.tsv", "books/queries.jsonl"])
def test_a_cell_is_another_with_other_data(tmp_path: Path, name: str) -> None:
    write_study(tmp_path)
    recipe = read_recipe(tmp_path / "length.toml", DistillationRecipe)
    pairs = tmp_path / "pairs"

    def told() -> str:
        long_sets = [one.read(pairs, name) for name, one in Registry.read(tmp_path / "sets.toml").chosen([]).items()]
        return ground_digest(recipe, pairs, long_sets)

    before, changed = told(), pairs / name
    assert told() == before
    changed.write_bytes(changed.read_bytes() + b"\n")
    assert told() != before


def test_linear_students_start_from_a_linear_student(tmp_path: Path) -> None:
    write_study(tmp_path)
    recipe = read_recipe(tmp_path / "length.toml", DistillationRecipe)
    plan = Plan.of(recipe, "softmax-weights", Path("linear-weights"), None, Sizes(10**6, 8, 8, 8, 2, 2), "data")
    starts = {kind: plan.student(kind, 32, 1).facts["weights"] for kind in ("softmax", "elu", "hedgehog")}
    assert starts == {"softmax": "softmax-weights", "elu": "linear-weights", "hedgehog": "linear-weights"}
    assert plan.looks(1024) == [0, 81, 162]
    assert not plan.recipe("elu", 1024, 1).recompute
    assert plan.recipe("elu", 2048, 1).recompute
    assert [c.name for c in plan.cells(["elu"], [1024, 2048], 2, 1) if "seed" in c.facts] == [
        "elu-1024-seed1",
        "elu-2048-seed1",
        "elu-1024-seed2",
    ]
