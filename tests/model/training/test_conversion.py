"""Feature maps learn to weigh tokens as softmax does, and nothing else moves while they do."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.training.attention import MixedBert, as_softmax, feature_maps
from model.training.conversion import map_loss
from model.training.losses import attention_cross_entropy, attention_kl
from model.training.network_recipe import NetworkRecipe
from model.training.networks import BiEncoder, make_network
from model.training.runs import train_network
from model.training.traces import trace
from model.training.trainer import Material, TextTarget, train_stage
from tests.model.training.test_attention import ids, mixed
from tests.model.training.tiny_training import WORDS, network

TEXTS = [f"{a} {b} {c}" for a, b, c in zip(WORDS * 4, WORDS[1:] * 5, WORDS[2:] * 5, strict=False)]
MASK = torch.tensor([[1] * 12, [1] * 5 + [0] * 7])


def batch() -> dict[str, torch.Tensor]:
    return {"input_ids": ids(2, 12), "attention_mask": MASK}


@pytest.fixture(scope="module")
def sharp(pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pretrained body, whose attention is nearly uniform, with attention that looks at few tokens."""
    folder = tmp_path_factory.mktemp("sharp")
    for path in pretrained.iterdir():
        shutil.copy(path, folder)
    weights = load_file(folder / "model.safetensors")
    for name, tensor in weights.items():
        if ".query.weight" in name or ".key.weight" in name:
            tensor *= 3
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def recipe(*stages: dict[str, Any], **facts: Any) -> NetworkRecipe:
    maps = {"name": "maps", "texts": ["texts"], "text_batch": 8, "maps_only": True, "epochs": 12, "batch": 8}
    maps |= {"learning_rate": 2e-2}
    stages_of = [maps, *stages]
    return NetworkRecipe.model_validate(network("bi-encoder", attention="hedgehog") | {"stages": stages_of} | facts)


def test_the_cross_entropy_is_that_of_the_two_attentions() -> None:
    """As written down, one query at a time; padding neither asks nor answers."""
    student, teacher = torch.randn(2, 2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    expected = []
    for text, real in ((0, 12), (1, 5)):
        for head in range(3):
            for query in range(real):
                mine, aim = (s[text, head, query, :real].softmax(-1) for s in (student, teacher))
                expected.append(-(aim * mine.log()).sum())
    found = attention_cross_entropy(student, teacher, MASK)
    torch.testing.assert_close(found, torch.stack(expected).mean())
    entropy = attention_cross_entropy(teacher, teacher, MASK)
    torch.testing.assert_close(found - entropy, attention_kl(student, teacher, MASK))


def test_only_learned_maps_are_fitted_each_below_a_softmax_body() -> None:
    body = mixed("elu", "hedgehog")
    loss = map_loss(body, batch())
    loss.backward()
    learning = {name for name, parameter in body.named_parameters() if parameter.grad is not None}
    assert learning == {f"encoder.layer.1.attention.self.maps.{side}.weight" for side in ("query", "key")}
    with torch.no_grad(), as_softmax(body):
        below = trace(body, **batch()).layers[1]
    linear = feature_maps(body)[1].scores(*(x.view(2, 12, 4, 8).transpose(1, 2) for x in (below.queries, below.keys)))
    torch.testing.assert_close(loss, attention_cross_entropy(linear, below.scores(), MASK))


def test_a_trace_of_linear_layers_tells_their_own_weights() -> None:
    body = mixed("hedgehog", "softmax")
    seen = trace(body, **batch())
    maps = feature_maps(body)[0]
    queries, keys, values = (
        x.view(2, 12, 4, 8).transpose(1, 2)
        for x in (seen.layers[0].queries, seen.layers[0].keys, seen.layers[0].values)
    )
    weights = seen.layers[0].scores().masked_fill(MASK[:, None, None, :] == 0, -torch.inf).softmax(-1)
    torch.testing.assert_close(
        weights @ values, maps(queries, keys, values, MASK[:, None, None, :].bool()), atol=1e-3, rtol=0
    )
    assert seen.layers[1].maps is None


def test_fitting_lowers_the_loss_and_moves_the_maps_alone(tmp_path: Path, sharp: Path) -> None:
    what = recipe()
    made = make_network(what, sharp)
    assert isinstance(made, BiEncoder)
    inputs = made.inputs(TEXTS)
    with torch.no_grad():
        floor = attention_floor(made.body, inputs)
        before = map_loss(made.body, inputs).item() - floor
    weights = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    material = Material(texts=[TextTarget(text) for text in TEXTS])
    train_stage(made, what, what.stages[0], material, tmp_path / "c.safetensors", lambda *_: None)
    with torch.no_grad():
        after = map_loss(made.body, inputs).item() - floor
    assert 0 <= after < 0.7 * before
    for name, tensor in made.state_dict().items():
        assert torch.equal(tensor, weights[name]) == (".maps." not in name), name
    assert all(parameter.requires_grad for parameter in made.parameters())


def attention_floor(body: MixedBert, inputs: dict[str, torch.Tensor]) -> float:
    """The cross-entropy of maps that weigh exactly as softmax does: its entropy."""
    with as_softmax(body):
        layers = trace(body, **inputs).layers
    found = [attention_cross_entropy(x.scores(), x.scores(), inputs["attention_mask"]).item() for x in layers]
    return sum(found) / len(found)


def test_a_converted_student_is_drawn_to_its_parent(tmp_path: Path, sharp: Path) -> None:
    """Maps first, then end to end to the embeddings of the softmax network that it was copied from."""
    parent = make_network(recipe().as_initial, sharp).eval()
    assert isinstance(parent, BiEncoder)
    aims = parent.embed_all(TEXTS).numpy()
    end = {"name": "end to end", "texts": ["texts"], "text_batch": 8, "regression": 1.0, "epochs": 12, "batch": 8}
    what = recipe(end | {"learning_rate": 3e-3}, dropout=0.0)
    stages = [Material(texts=[TextTarget(text) for text in TEXTS])]
    stages.append(Material(texts=[TextTarget(*pair) for pair in zip(TEXTS, aims, strict=True)]))
    trained = train_network(what, sharp, stages, tmp_path / "run", lambda *_: None)
    fresh = make_network(what, sharp)
    assert isinstance(trained, BiEncoder)
    assert isinstance(fresh, BiEncoder)
    assert isinstance(trained.body, MixedBert)

    def distance(student: BiEncoder) -> float:
        return float(((student.embed_all(TEXTS).numpy() - aims) ** 2).sum(1).mean())

    assert distance(trained) < 0.3 * distance(fresh)
    assert trained.body.config.attention_kinds == ["hedgehog", "hedgehog"]


@pytest.mark.parametrize("name", ["last-attention", "hidden", "value-relation"])
def test_a_linear_student_can_imitate_a_softmax_guide(tmp_path: Path, sharp: Path, name: str) -> None:
    stage = {"name": "imitation", "texts": ["texts"], "text_batch": 8, "epochs": 6, "batch": 8, "learning_rate": 3e-3}
    what = recipe(stage | {"imitation": {"weights": {name: 1.0}}}, dropout=0.0)
    stages = [Material(texts=[TextTarget(text) for text in TEXTS])] * 2
    trained = train_network(what, sharp, stages, tmp_path / "run", lambda *_: None)
    from model.training.runs import _imitation

    imitation = _imitation(trained, what, what.stages[1], stages[1], sharp, lambda *_: None)
    assert imitation is not None
    fresh = make_network(what, sharp).eval()
    assert isinstance(fresh, BiEncoder)
    with torch.no_grad():
        after, before = (imitation(student.body, fresh.inputs(TEXTS)).item() for student in (trained, fresh))
    assert after < 0.8 * before
