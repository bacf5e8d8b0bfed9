"""What reaches a network, and which run a folder belongs to."""

import hashlib
import json
import math
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import DistilBertConfig, DistilBertForSequenceClassification

from model.bundle import load_student
from model.faults import TrainingFault
from model.head import Calibration
from model.manifest import ArtifactError, sha256_of
from model.training import distil as distil_module
from model.training import networks, trainer
from model.training import tasks as tasks_module
from model.training import teacher as teacher_module
from model.training.data_recipe import DataRecipe
from model.training.distil import distil
from model.training.export import calibration_inputs
from model.training.guide import guide_embeddings
from model.training.logits import TeacherLogits, label
from model.training.material import materials, pairs_to_train, stage_examples
from model.training.network_recipe import NetworkRecipe
from model.training.networks import BiEncoder, Network, load_network, make_network, weights_of
from model.training.objectives import Example
from model.training.pairs import Pair, TrainingData
from model.training.quality import Correlation
from model.training.recipes import DistillationRecipe, TaskRecipe, TeacherRecipe
from model.training.runs import keep_initial, train_network
from model.training.signal import Signal
from model.training.tasks import run_task
from model.training.teacher import TeacherGateError, train_teacher
from model.training.trainer import Learner, Material, optimiser_of
from scripts.studies import depth as depth_module
from tests import tiny
from tests.model.training.tiny_training import (
    DATA,
    EXPORT,
    LEAK,
    WORDS,
    bert,
    network,
    student_recipe,
    task_recipe,
    teacher_recipe,
    training_data,
    write_classes,
    write_tokenizer,
)


class FirstLetter:
    """A signal of one member, who says how far down the alphabet the left sentence starts."""

    signal = Signal("letters", (), Calibration(1.0, 0.0), Correlation(0, 0), 48)

    def raw_scores(self, pairs):
        import numpy as np

        return np.array([[ord(pair.left[0]) - ord("a")] for pair in pairs], np.float64)


FirstLetter.signal = Signal(
    "letters",
    (teacher_module.Member("one", "fake", "d", mean=0.0, deviation=1.0, dev=Correlation(0, 0)),),
    Calibration(1.0, 0.0),
    Correlation(0, 0),
    max_tokens=48,
)


@pytest.fixture
def logits(tmp_path: Path, pair_files: Path) -> TeacherLogits:
    return label(FirstLetter(), training_data(pair_files).pairs("train"), tmp_path / "logits.jsonl")


def texts(examples: list[Example]) -> set[str]:
    return {text for example in examples for text in (example.pair.left, example.pair.right)}


def test_neither_teacher_nor_student_is_shown_a_held_out_sentence(
    tmp_path: Path, pair_files: Path, logits: TeacherLogits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training file holds a sentence of the test file, in another spelling."""
    assert LEAK in (pair_files / "train.tsv").read_text()
    shown: list[Example] = []

    class Seen(Exception):
        pass

    def look(recipe, init, stages, folder, progress, origin=None, guide=None):
        shown.extend(example for stage in stages for example in stage.examples)
        raise Seen

    data = training_data(pair_files)
    for module in (teacher_module, distil_module):
        monkeypatch.setattr(module, "train_network", look)
    for train in (
        lambda: train_teacher(teacher_recipe(), data, None, "init", tmp_path / "t", lambda *_: None),
        lambda: distil(student_recipe(), data, logits, "init", tmp_path / "s", lambda *_: None),
    ):
        shown.clear()
        with pytest.raises(Seen):
            train()
        assert len(shown) > 100
        assert LEAK not in texts(shown)


def test_a_teacher_only_set_keeps_its_gold_to_itself(pair_files: Path, logits: TeacherLogits) -> None:
    pairs = pairs_to_train(student_recipe().network.stages, training_data(pair_files))
    plain, imitated = (
        stage_examples(student_recipe(stage={"teacher_only": only}).network.stages[0], pairs, logits)
        for only in ([], ["train"])
    )
    assert [example.gold for example in plain] == [pair.gold for pair in pairs["train"]]
    assert all(math.isnan(example.gold) for example in imitated)
    for example in imitated:
        assert example.teacher == pytest.approx(ord(example.pair.left[0]) - ord("a"))


def test_keeping_some_of_the_initial_weights_is_an_average(pretrained: Path) -> None:
    recipe = NetworkRecipe.model_validate(network("bi-encoder", keep_initial=0.25))
    initial = make_network(recipe, pretrained).body.state_dict()
    trained = make_network(recipe, pretrained)
    assert isinstance(trained, BiEncoder)
    with torch.no_grad():
        for parameter in trained.body.parameters():
            parameter.add_(1.0)
    head = {name: tensor.clone() for name, tensor in trained.head.state_dict().items()}
    keep_initial(trained, recipe, pretrained)
    for name, parameter in trained.body.named_parameters():
        torch.testing.assert_close(parameter.data, initial[name] + 0.75)
    for name, tensor in trained.head.state_dict().items():
        assert torch.equal(tensor, head[name])


def test_head_and_body_have_their_own_rates_and_biases_are_not_decayed(pretrained: Path) -> None:
    recipe = NetworkRecipe.model_validate(network("bi-encoder", stage={"head_learning_rate": 0.5}))
    made = make_network(recipe, pretrained)
    groups = optimiser_of(Learner(made), recipe.stages[0]).param_groups
    rates = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert len(rates) == len(list(made.parameters()))
    for name, parameter in made.named_parameters():
        decay = 0.0 if name.endswith("bias") or "LayerNorm" in name else 0.01
        assert rates[id(parameter)] == (0.5 if name.startswith("head.") else 3e-3, decay), name


def test_layer_norms_are_not_decayed_whatever_a_body_calls_them(tmp_path: Path) -> None:
    config = DistilBertConfig(
        vocab_size=len(tiny.VOCABULARY), dim=32, n_layers=1, n_heads=4, hidden_dim=64, num_labels=1
    )
    DistilBertForSequenceClassification(config).save_pretrained(tmp_path)
    recipe = NetworkRecipe.model_validate(network("cross-encoder", head={"kind": "classifier"}))
    made = make_network(recipe, write_tokenizer(tmp_path))
    groups = optimiser_of(Learner(made), recipe.stages[0]).param_groups
    spared = {id(p) for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    norms = [p for name, p in made.named_parameters() if name.endswith("layer_norm.weight")]
    assert len(norms) == 2
    assert all(id(parameter) in spared for parameter in norms)


def examples(count: int = 24) -> list[Example]:
    return [Example(Pair(str(n), f"apple {'river ' * (n % 5)}", "stone", n / 40), n / 40, 0.0) for n in range(count)]


def test_a_run_stopped_between_stages_goes_on_and_leaves_only_its_end(tmp_path: Path, pretrained: Path) -> None:
    one = {"name": "one", "sets": ["train"], "epochs": 1, "batch": 8, "learning_rate": 1e-3}
    recipe = NetworkRecipe.model_validate(network("bi-encoder") | {"stages": [one, one | {"name": "two"}]})
    stages, seen = [Material(examples()), Material(examples(8))], []

    def run(folder: Path, stop: bool) -> None:
        def progress(stage: str, done: int, total: int) -> None:
            seen.append(stage)
            if stop and stage == "two":
                raise KeyboardInterrupt

        train_network(recipe, pretrained, stages, folder, progress)

    run(tmp_path / "whole", stop=False)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", stop=True)
    seen.clear()
    run(tmp_path / "stopped", stop=False)
    assert set(seen) == {"two"}
    whole, stopped = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "stopped"))
    assert all(torch.equal(stopped[name], tensor) for name, tensor in whole.items())
    assert not list((tmp_path / "stopped").glob("stage-*"))
    seen.clear()
    run(tmp_path / "stopped", stop=False)
    assert seen == []


def test_a_run_stopped_before_a_stage_was_saved_does_not_train_it_again(
    tmp_path: Path, pretrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.training.trainer.CHECKPOINT_SECONDS", -1.0)
    recipe = NetworkRecipe.model_validate(network("bi-encoder", keep_initial=0.5, stage={"epochs": 1}))
    seen: list[int] = []

    def run(folder: Path) -> dict[str, torch.Tensor]:
        stages = [Material(examples(16))]
        train_network(recipe, pretrained, stages, folder, lambda stage, done, total: seen.append(done))
        return load_file(folder / "model.safetensors")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    whole = run(tmp_path / "whole")
    with monkeypatch.context() as patched:
        patched.setattr("model.training.runs.keep_initial", stop)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "stopped")
    assert seen == [1, 1]
    stopped = run(tmp_path / "stopped")
    assert seen == [1, 1]
    assert all(torch.equal(stopped[name], tensor) for name, tensor in whole.items())
    assert not list((tmp_path / "stopped").glob("stage-*"))


@pytest.mark.parametrize("difference", ["recipe", "init", "material"])
def test_a_folder_is_taken_up_by_its_own_run_only(tmp_path: Path, pretrained: Path, difference: str) -> None:
    def go(seed: int, init: Path, rows: list[Example]) -> None:
        recipe = NetworkRecipe.model_validate(network("bi-encoder", seed=seed, stage={"epochs": 1}))
        train_network(recipe, init, [Material(rows)], tmp_path / "run", lambda *_: None)

    go(1, pretrained, examples())
    other = tmp_path / "other"
    shutil.copytree(pretrained, other)
    with (other / "model.safetensors").open("ab") as file:
        file.write(b" ")
    changed = [Example(row.pair, row.gold, 1.0) for row in examples()]
    with pytest.raises(TrainingFault, match=rf"holds another run \(its {difference} differ\)"):
        go(
            2 if difference == "recipe" else 1,
            other if difference == "init" else pretrained,
            changed if difference == "material" else examples(),
        )


def test_a_folder_of_another_network_is_left_as_it_is(
    tmp_path: Path, pretrained: Path, pair_files: Path, logits: TeacherLogits
) -> None:
    theirs = shutil.copytree(pretrained, tmp_path / "theirs")
    before = {path.name: sha256_of(path) for path in theirs.iterdir()}
    with pytest.raises(TrainingFault, match=r"theirs holds model\.safetensors and no run\.json"):
        distil(student_recipe(), training_data(pair_files), logits, str(pretrained), theirs, lambda *_: None)
    assert {path.name: sha256_of(path) for path in theirs.iterdir()} == before


def test_another_runs_folder_is_refused_before_anything_is_made_for_it(
    tmp_path: Path, pretrained: Path, with_texts: TrainingData, logits: TeacherLogits
) -> None:
    def go(seed: int) -> None:
        recipe = drawn_to_texts(seed=seed)
        distil(recipe, with_texts, logits, str(pretrained), tmp_path / "run", lambda *_: None)

    go(1)
    shutil.rmtree(tmp_path / "run" / "guide")
    with pytest.raises(TrainingFault, match=r"holds another run \(its recipe differ\)"):
        go(2)
    assert not (tmp_path / "run" / "guide").exists()


def test_a_teachers_folder_is_not_given_to_another_signal(tmp_path: Path, pretrained: Path, pair_files: Path) -> None:
    """But to the same one with more members."""

    def go(name: str, *members: str) -> None:
        facts = [network("bi-encoder", member, head={"kind": "cosine"}, stage={"epochs": 2}) for member in members]
        recipe = TeacherRecipe.model_validate({"name": name, "data": DATA, "members": facts, "max_tokens": 48})
        train_teacher(recipe, training_data(pair_files), None, str(pretrained), tmp_path / "teacher", lambda *_: None)

    go("first", "one")
    for name, member in (("second", "one"), ("second", "two"), ("first", "two")):
        with pytest.raises(TrainingFault, match=r"holds another signal \(first, of one\)"):
            go(name, member)
    assert not (tmp_path / "teacher" / "two").exists()
    go("first", "one", "two")
    assert [member.name for member in Signal.read(tmp_path / "teacher").members] == ["one", "two"]


def test_init_stands_for_the_hub_id_of_a_guide_too(
    tmp_path: Path, pretrained: Path, with_texts: TrainingData, logits: TeacherLogits
) -> None:
    for guide, message in (("owner/model", None), ("runs/nobody", "runs/nobody is not there: train it first")):
        recipe = drawn_to_texts(guide=guide)
        with nullcontext() if message is None else pytest.raises(TrainingFault, match=message):
            distil(recipe, with_texts, logits, str(pretrained), tmp_path / "run", lambda *_: None)


@pytest.mark.parametrize("difference", ["origin", "guide"])
def test_a_run_is_not_taken_up_with_other_weights_to_be_drawn_to(
    tmp_path: Path, pretrained: Path, with_texts: TrainingData, difference: str
) -> None:
    origin = shutil.copytree(pretrained, tmp_path / "origin")
    imitation = {"stages": [text_stage(imitation={"weights": {"hidden": 1.0}}, epochs=1)], "guide": str(origin)}
    facts = {"keep_initial": 0.5} if difference == "origin" else imitation
    what = NetworkRecipe.model_validate(network("bi-encoder") | facts)
    material = materials(what, with_texts, None, pretrained, tmp_path / "run", lambda *_: None)

    def go() -> None:
        train_network(what, pretrained, material, tmp_path / "run", lambda *_: None, origin)

    go()
    go()
    with (origin / "model.safetensors").open("ab") as file:
        file.write(b" ")
    with pytest.raises(TrainingFault, match=rf"holds another run \(its {difference} differ\)"):
        go()


def test_a_run_begun_before_recipes_learned_a_word_is_taken_up(tmp_path: Path, pretrained: Path) -> None:
    recipe = NetworkRecipe.model_validate(network("bi-encoder", stage={"epochs": 1}))
    train_network(recipe, pretrained, [Material(examples())], tmp_path / "run", lambda *_: None)
    claim = json.loads((tmp_path / "run/run.json").read_text())
    del claim["recipe"]["matryoshka"]
    (tmp_path / "run/run.json").write_text(json.dumps(claim))
    train_network(recipe, pretrained, [Material(examples())], tmp_path / "run", lambda *_: None)
    other = recipe.model_copy(update={"matryoshka": [8]})
    with pytest.raises(TrainingFault, match="its recipe differ"):
        train_network(other, pretrained, [Material(examples())], tmp_path / "run", lambda *_: None)


def test_missing_weights_say_how_to_give_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = NetworkRecipe.model_validate(network("bi-encoder"))
    (tmp_path / "empty").mkdir()
    for init in (tmp_path / "empty", tmp_path / "nowhere"):
        with pytest.raises(TrainingFault, match="give a folder with --init"):
            make_network(recipe, init)


def test_a_finished_run_has_kept_what_its_recipe_says(tmp_path: Path, pretrained: Path) -> None:
    def trained(keep: float) -> dict[str, torch.Tensor]:
        recipe = NetworkRecipe.model_validate(network("bi-encoder", keep_initial=keep, stage={"epochs": 1}))
        made = train_network(recipe, pretrained, [Material(examples())], tmp_path / f"keep-{keep}", lambda *_: None)
        return dict(made.body.named_parameters())

    initial, whole, half = load_file(pretrained / "model.safetensors"), trained(0.0), trained(0.5)
    for name, parameter in half.items():
        torch.testing.assert_close(parameter, (whole[name] + initial[name]) / 2)


def test_a_network_trained_further_keeps_of_its_origin(tmp_path: Path, pretrained: Path) -> None:
    facts = {"stage": {"epochs": 1}}
    first = NetworkRecipe.model_validate(network("bi-encoder", **facts))
    train_network(first, pretrained, [Material(examples())], tmp_path / "first", lambda *_: None)
    further = {}
    for keep in (0.0, 0.5):
        recipe = NetworkRecipe.model_validate(network("bi-encoder", keep_initial=keep, **facts))
        folder, material = tmp_path / f"keep-{keep}", [Material(examples())]
        made = train_network(recipe, tmp_path / "first", material, folder, lambda *_: None, pretrained)
        further[keep] = dict(made.body.named_parameters())
    origin = load_file(pretrained / "model.safetensors")
    for name, parameter in further[0.5].items():
        torch.testing.assert_close(parameter, (further[0.0][name] + origin[name]) / 2)


def test_a_head_alone_is_fitted_to_a_body_averaged_before(tmp_path: Path, pretrained: Path) -> None:
    first = NetworkRecipe.model_validate(network("bi-encoder", stage={"epochs": 1}))
    train_network(first, pretrained, [Material(examples())], tmp_path / "first", lambda *_: None)
    recipe = NetworkRecipe.model_validate(network("bi-encoder", keep_initial=0.25, stage={"head_only": True}))
    material = [Material(examples())]
    made = train_network(recipe, tmp_path / "first", material, tmp_path / "head", lambda *_: None, pretrained)
    tuned, origin = (load_file(folder / "model.safetensors") for folder in (tmp_path / "first", pretrained))
    for name, parameter in made.body.named_parameters():
        torch.testing.assert_close(parameter.data, 0.75 * tuned[name] + 0.25 * origin[name])


def test_a_folder_stands_for_a_recipes_hub_ids_but_not_for_its_folders(tmp_path: Path) -> None:
    assert weights_of("hub/id", str(tmp_path)) == str(tmp_path)
    assert weights_of("hub/id", None) == "hub/id"
    (tmp_path / "run").mkdir()
    assert weights_of(str(tmp_path / "run"), str(tmp_path)) == str(tmp_path / "run")
    for missing in ("runs/three_layer", "runs/served_teacher/bi", "./here", str(tmp_path / "nowhere")):
        with pytest.raises(TrainingFault, match="is not there: train it first"):
            weights_of(missing, str(tmp_path))


@pytest.mark.parametrize("trained", ["teacher", "student", "task", "study"])
def test_a_network_starts_from_its_init_and_is_drawn_to_its_origin(
    tmp_path: Path, pair_files: Path, logits: TeacherLogits, monkeypatch: pytest.MonkeyPatch, trained: str
) -> None:
    (tmp_path / "start").mkdir()
    named = {"init": str(tmp_path / "start"), "origin": "hub/id"}
    what = NetworkRecipe.model_validate(network("bi-encoder") | named)
    data, told = training_data(pair_files), lambda *_: None
    teacher = TeacherRecipe.model_validate({"name": "t", "data": DATA, "members": [what.model_dump()]})
    task = task_recipe("classes")
    task["teacher"] |= named
    seen: list[tuple[str, ...]] = []

    class Seen(Exception):
        pass

    def drawn(network, data, logits, origin, folder, progress):
        seen.append((origin,))
        return []

    def look(recipe, init, stages, folder, progress, origin=None, guide=None):
        seen.append((init, origin))
        raise Seen

    run = {
        "teacher": lambda: train_teacher(teacher, data, None, "instead", tmp_path / "run", told),
        "student": lambda: distil(student_recipe(**named), data, logits, "instead", tmp_path / "run", told),
        "task": lambda: run_task(
            TaskRecipe.model_validate(task), write_classes(pair_files, tmp_path), "instead", tmp_path / "run", told
        ),
        "study": lambda: depth_module.train_and_judge(what, data, "instead", tmp_path / "run", tmp_path, told),
    }
    modules = {"teacher": teacher_module, "student": distil_module, "task": tasks_module, "study": depth_module}
    monkeypatch.setattr(modules[trained], "materials", drawn)
    monkeypatch.setattr(modules[trained], "train_network", look)
    with pytest.raises(Seen):
        run[trained]()
    assert seen == [("instead",), (str(tmp_path / "start"), "instead")]


@pytest.mark.parametrize(
    ("precision", "able", "used"), [("bf16", True, True), ("bf16", False, False), ("fp32", True, False)]
)
def test_bfloat16_is_used_where_the_processor_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, precision: str, able: bool, used: bool
) -> None:
    monkeypatch.setattr(networks, "computes_bfloat16", lambda: able)
    with networks.mixed_precision(NetworkRecipe.model_validate(network("bi-encoder", precision=precision))):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == (torch.bfloat16 if used else torch.float32)


@pytest.mark.parametrize("kind", ["bi-encoder", "cross-encoder"])
def test_what_a_body_says_in_bfloat16_is_compared_in_float32(
    monkeypatch: pytest.MonkeyPatch, pretrained: Path, kind: str
) -> None:
    monkeypatch.setattr(networks, "computes_bfloat16", lambda: True)
    recipe = NetworkRecipe.model_validate(network(kind, precision="bf16"))
    made, seen = make_network(recipe, pretrained).eval(), {"body": list[bool](), "loss": list[bool]()}
    assert made.head is not None
    made.body.register_forward_pre_hook(lambda *_: seen["body"].append(torch.is_autocast_enabled("cpu")))
    objective = trainer.pair_objective

    def compared(answers, *arguments):
        seen["loss"].append(torch.is_autocast_enabled("cpu"))
        assert answers.logit.dtype == torch.float32
        torch.testing.assert_close(answers.logit, made.head(answers.left, answers.right), rtol=0, atol=0)
        return objective(answers, *arguments)

    monkeypatch.setattr(trainer, "pair_objective", compared)
    Learner(made).loss(recipe, recipe.stages[0], Material(examples()))
    assert (set(seen["body"]), seen["loss"]) == ({True}, [False])


def test_the_head_is_fitted_alone_to_the_averaged_body(tmp_path: Path, pretrained: Path) -> None:
    one = {"name": "one", "sets": ["train"], "epochs": 1, "batch": 8, "learning_rate": 1e-2}
    alone = one | {"name": "head", "head_only": True, "epochs": 5}
    made, heads = {}, {}
    for name, stages in (("without", [one]), ("with", [one, alone])):
        recipe = NetworkRecipe.model_validate(network("bi-encoder", keep_initial=0.5) | {"stages": stages})
        material = [Material(examples())] * len(stages)
        trained = train_network(recipe, pretrained, material, tmp_path / name, lambda *_: None)
        assert all(parameter.requires_grad for parameter in trained.parameters())
        made[name], heads[name] = (load_file(tmp_path / name / f"{part}.safetensors") for part in ("model", "head"))
    assert all(torch.equal(made["with"][name], tensor) for name, tensor in made["without"].items())
    assert not torch.equal(heads["with"]["output.weight"], heads["without"]["output.weight"])


def test_the_head_alone_comes_last_and_must_be_there() -> None:
    one = {"name": "one", "sets": ["train"], "epochs": 1, "batch": 8, "learning_rate": 1e-2}
    alone = one | {"head_only": True}
    for stages, facts, message in (
        ([alone, one], {}, "come after those that train the body"),
        ([one, alone], {"head": {"kind": "cosine"}}, "head_only needs a head"),
        ([one, alone | {"texts": ["plain"], "regression": 1.0}], {}, "head_only leaves it as it is"),
        ([one | {"texts": ["plain"], "search": 1.0}], {}, "of head_only"),
        ([one, alone | {"search": 1.0}], {}, "these with texts"),
        ([one, alone | {"texts": ["plain"], "search": 1.0}], {"head": {"outputs": 3}}, "not for this head"),
    ):
        with pytest.raises(ValueError, match=message):
            NetworkRecipe.model_validate(network("bi-encoder", **facts) | {"stages": stages})


def text_stage(**facts: Any) -> dict[str, Any]:
    return {
        "name": "texts",
        "texts": ["plain"],
        "text_batch": 4,
        "epochs": 2,
        "batch": 4,
        "learning_rate": 1e-3,
    } | facts


DATA_WITH_TEXTS = DATA | {"texts": {"plain": {"file": "plain.txt", "terms": "made in a test"}}}


@pytest.fixture
def with_texts(pair_files: Path, tmp_path: Path) -> TrainingData:
    lines = [
        f"{one} {two} {LEAK if one == two else three}"
        for one, two, three in zip(WORDS, WORDS[1:], WORDS[2:], strict=False)
    ]
    (pair_files / "plain.txt").write_text("\n".join([*lines, LEAK]))
    return TrainingData(pair_files, DataRecipe.model_validate(DATA_WITH_TEXTS))


def drawn_to_texts(**facts: Any) -> DistillationRecipe:
    stages = [text_stage(regression=1.0, epochs=1)]
    return DistillationRecipe.model_validate(
        {"data": DATA_WITH_TEXTS, "network": network("bi-encoder", **facts) | {"stages": stages}, "export": EXPORT}
    )


def test_int8_is_scaled_by_pairs_and_by_the_texts_that_a_student_learned_from(
    pretrained: Path, with_texts: TrainingData
) -> None:
    one = {"name": "one", "sets": ["train"], "epochs": 1, "batch": 8, "learning_rate": 1e-2}
    for stages, expected in (([one], 0), ([one | {"texts": ["plain"], "regression": 1.0}], 4)):
        what = NetworkRecipe.model_validate(network("bi-encoder") | {"stages": stages})
        made = make_network(what, pretrained)
        assert isinstance(made, BiEncoder)
        rows = [tuple(inputs["input_ids"][0]) for inputs in calibration_inputs(made, what, with_texts, 8)]
        read = {tuple(made.inputs([text])["input_ids"][0].tolist()) for text in with_texts.texts("plain")}
        assert len(rows) == 8
        assert sum(row in read for row in rows) == expected


def test_a_student_drawn_to_its_guide_comes_closer(tmp_path: Path, pretrained: Path, with_texts: TrainingData) -> None:
    """One layer of two imitates the embeddings of both; no held-out sentence is among its texts."""
    what = NetworkRecipe.model_validate(
        network("bi-encoder", layers=[1], head={"kind": "cosine"}) | {"stages": [text_stage(regression=1.0, epochs=30)]}
    )
    stages = materials(what, with_texts, None, pretrained, tmp_path / "run", lambda *_: None)
    texts = [target.text for target in stages[0].texts]
    assert len(texts) > 5
    assert LEAK not in texts
    guide = make_network(what.model_copy(update={"layers": None}), pretrained).eval()
    assert isinstance(guide, BiEncoder)
    with torch.inference_mode():
        aims = guide.embed(texts).numpy()
    np.testing.assert_allclose([target.embedding for target in stages[0].texts], aims, atol=1e-3)

    def distance(made: Network) -> float:
        assert isinstance(made, BiEncoder)
        with torch.inference_mode():
            return float(((made.embed(texts).numpy() - aims) ** 2).sum(1).mean())

    before = distance(make_network(what, pretrained).eval())
    trained = train_network(what, pretrained, stages, tmp_path / "run", lambda *_: None)
    assert distance(trained) < before / 2
    again = materials(what, with_texts, None, pretrained, tmp_path / "run", lambda *_: None)
    for one, two in zip(stages[0].texts, again[0].texts, strict=True):
        assert np.array_equal(one.embedding, two.embedding)


def test_int8_is_scaled_by_pairs_from_all_over_the_sets(pretrained: Path, pair_files: Path) -> None:
    """More than half of them, so that every second one would end in the middle."""
    what, data = NetworkRecipe.model_validate(network("cross-encoder")), training_data(pair_files)
    made, train = make_network(what, pretrained), data.pairs("train")
    rows = [tuple(inputs["input_ids"][0]) for inputs in calibration_inputs(made, what, data, 100)]
    last = made.tokenizer.padded(made.tokenizer.tokenize([(train[158].left, train[158].right)]))["input_ids"][0]
    assert len(train) == 160
    assert rows[-1] == tuple(last)


@pytest.mark.parametrize("dims", [16, 48])
def test_embeddings_are_not_drawn_to_a_guides_of_another_width(
    tmp_path: Path, pretrained: Path, with_texts: TrainingData, dims: int
) -> None:
    guide = shutil.copytree(pretrained, tmp_path / "guide")
    bert(dims=dims).save_pretrained(guide)
    stages = [text_stage(imitation={"weights": {"hidden": 1.0}}, name="first"), text_stage(regression=1.0)]
    what = NetworkRecipe.model_validate(network("bi-encoder", guide=str(guide)) | {"stages": stages})
    material = materials(what, with_texts, None, guide, tmp_path / "run", lambda *_: None)
    told: list[str] = []
    with pytest.raises(TrainingFault, match=f"stage texts: regression .* of 32 dims to the guide's of {dims};"):
        train_network(what, pretrained, material, tmp_path / "run", lambda stage, *_: told.append(stage))
    assert told == []  # it is refused before any stage


def test_a_guide_may_be_a_bundle(tmp_path: Path, pretrained: Path) -> None:
    bundle = tiny.write_student(tmp_path / "bundle")
    what = NetworkRecipe.model_validate(network("bi-encoder"))
    texts = ["apple river", "stone"]
    found = guide_embeddings(what, bundle, texts, tmp_path / "guide", lambda *_: None)
    expected = load_student(bundle, threads=1).encoder.encode(texts)
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize(
    "changed", [{"max_tokens": 16}, {"max_tokens": 16, "guide_pieces": True}, {"precision": "bf16"}]
)
def test_what_a_guide_said_is_used_again_by_those_alone_who_ask_the_same(
    tmp_path: Path, pretrained: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]
) -> None:
    monkeypatch.setattr(networks, "computes_bfloat16", lambda: True)
    texts = ["apple river stone cloud green table music", "paper"]
    pieces = changed.get("guide_pieces", False)

    def said(folder: str, **facts: Any) -> np.ndarray:
        what = NetworkRecipe.model_validate(network("bi-encoder", guide_pieces=pieces) | facts)
        return guide_embeddings(what, pretrained, texts, tmp_path / folder, lambda *_: None)

    before = said("kept")
    assert not np.array_equal(said("kept", **changed), before)
    np.testing.assert_array_equal(said("kept", **changed), said("apart", **changed))
    np.testing.assert_array_equal(said("kept"), before)
    assert len(list((tmp_path / "kept").iterdir())) == 2


def test_what_a_guide_said_before_its_precision_was_noted_is_used_again(tmp_path: Path, pretrained: Path) -> None:
    what = NetworkRecipe.model_validate(network("bi-encoder", precision="bf16"))
    asked = f"{sha256_of(pretrained / 'model.safetensors')} 48\napple\nriver\n"
    kept = np.eye(2, 32, dtype=np.float16)
    np.save(tmp_path / f"{hashlib.sha256(asked.encode()).hexdigest()[:32]}.npy", kept)
    found = guide_embeddings(what, pretrained, ["apple", "river"], tmp_path, lambda *_: None)
    np.testing.assert_array_equal(found, kept)


@pytest.mark.parametrize("loss", ["hidden", "relations", "soft-targets"])
def test_a_recipe_may_ask_for_imitation_and_is_resumable(
    tmp_path: Path, pretrained: Path, with_texts: TrainingData, loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.training.trainer.CHECKPOINT_SECONDS", 0.0)
    imitation = {"weights": {loss: 1.0}, "relation_heads": 4, "mlm_head_steps": 3}
    what = NetworkRecipe.model_validate(
        network("bi-encoder", layers=[1]) | {"stages": [text_stage(imitation=imitation)]}
    )
    material = materials(what, with_texts, None, pretrained, tmp_path / "run", lambda *_: None)
    assert material[0].texts[0].embedding is None

    def run(name: str, stop_at: int) -> dict[str, torch.Tensor]:
        def progress(stage: str, done: int, total: int) -> None:
            if stage == "texts" and done == stop_at:
                raise KeyboardInterrupt

        train_network(what, pretrained, material, tmp_path / name, progress)
        return load_file(tmp_path / name / "model.safetensors")

    whole = run("whole", 0)
    with pytest.raises(KeyboardInterrupt):
        run("stopped", 3)
    stopped = run("stopped", 0)
    initial = load_file(pretrained / "model.safetensors")
    assert any(not torch.equal(tensor, initial.get(name, tensor)) for name, tensor in whole.items())
    assert all(torch.equal(stopped[name], tensor) for name, tensor in whole.items())


def test_a_later_stage_that_projects_to_its_guides_width_is_resumable(
    tmp_path: Path, pretrained: Path, with_texts: TrainingData
) -> None:
    wide = shutil.copytree(pretrained, tmp_path / "wide")
    bert(dims=48).save_pretrained(wide)
    stages = [text_stage(imitation={"weights": {"hidden": 1.0}}, name=name, epochs=1) for name in ("first", "second")]
    what = NetworkRecipe.model_validate(network("bi-encoder", guide=str(wide)) | {"stages": stages})
    material = materials(what, with_texts, None, pretrained, tmp_path / "guide", lambda *_: None)

    def run(name: str, stop_in: str) -> dict[str, torch.Tensor]:
        def progress(stage: str, done: int, total: int) -> None:
            if stage == stop_in:
                raise KeyboardInterrupt

        train_network(what, pretrained, material, tmp_path / name, progress)
        return load_file(tmp_path / name / "model.safetensors")

    with pytest.raises(KeyboardInterrupt):
        run("stopped", "second")
    whole, stopped = run("whole", ""), run("stopped", "")
    assert all(torch.equal(stopped[name], tensor) for name, tensor in whole.items())


def test_a_signal_hardly_better_than_its_bi_encoder_is_not_written(
    tmp_path: Path, pretrained: Path, pair_files: Path
) -> None:
    """A signal of one bi-encoder gains nothing over it."""
    member = network("bi-encoder", "bi", head={"kind": "cosine"}, stage={"epochs": 1})
    facts = {"name": "tiny", "data": DATA, "members": [member]}
    data = training_data(pair_files)
    for gain, folder in ((0.0, "passes"), (1.0, "fails")):
        recipe = TeacherRecipe.model_validate(facts | {"min_gain": gain})
        with pytest.raises(TeacherGateError, match=r"0\.00 points .* asks for 1\.0") if gain else nullcontext():
            train_teacher(recipe, data, None, str(pretrained), tmp_path / folder, lambda *_: None)
    assert (tmp_path / "passes/signal.json").exists()
    assert not (tmp_path / "fails/signal.json").exists()


def test_taught_members_need_an_earlier_signal(tmp_path: Path, pair_files: Path, logits: TeacherLogits) -> None:
    member = network("bi-encoder", "bi", distillation=0.5)
    recipe = TeacherRecipe.model_validate({"name": "tiny", "data": DATA, "members": [member], "taught": True})
    with pytest.raises(TrainingFault, match="give its --logits"):
        train_teacher(recipe, training_data(pair_files), None, "init", tmp_path / "t", lambda *_: None)


def test_a_stage_with_nothing_to_learn_from_is_refused(tmp_path: Path, pretrained: Path) -> None:
    recipe = NetworkRecipe.model_validate(network("bi-encoder"))
    with pytest.raises(TrainingFault, match="has nothing to learn from; its files have no rows"):
        train_network(recipe, pretrained, [Material()], tmp_path / "run", lambda *_: None)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["network.json", "model.safetensors", "head.safetensors", "tokenizer.json"])
def test_a_damaged_run_is_told_and_not_a_stack_trace(tmp_path: Path, pretrained: Path, name: str) -> None:
    recipe = NetworkRecipe.model_validate(network("bi-encoder", head={"kind": "mlp", "hidden": 8}))
    train_network(recipe, pretrained, [Material(examples())], tmp_path, lambda *_: None)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises((TrainingFault, ArtifactError), match=r"is damaged|not a pretrained|read as a tokenizer"):
        load_network(tmp_path)
