"""A second embedding beside a body's own: what stays, what is trained, and what the two together say."""

import json
import shutil
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from model.bundle import load_student
from model.faults import TrainingFault
from model.head import Calibration
from model.training.branch import BranchedBert
from model.training.card import network_card
from model.training.export import export_network
from model.training.graphs import to_onnx
from model.training.losses import cosent
from model.training.networks import BiEncoder, MlpHead, load_network, make_network, save_network
from model.training.objectives import pair_objective
from model.training.quality import Correlation
from model.training.recipes import NetworkRecipe
from model.training.runs import train_network
from model.training.signal import SIGNAL as SIGNAL_FILE
from model.training.signal import Signal
from model.training.trainer import Material
from tests.model.training.test_card import MANIFEST, SIGNAL
from tests.model.training.test_runs import examples
from tests.model.training.tiny_training import bert, network, student_recipe, training_data

BRANCH = {"layers": 1, "dims": 8, "share": 0.2}
TEXTS = ["apple river", "stone", "cloud green table music paper horse"]


def recipe(**facts: Any) -> NetworkRecipe:
    return NetworkRecipe.model_validate(network("bi-encoder", **facts))


def made(pretrained: Path, **branch: Any) -> BiEncoder:
    found = make_network(recipe(branch=BRANCH | branch), pretrained).eval()
    assert isinstance(found, BiEncoder)
    return found


def plain(pretrained: Path) -> BiEncoder:
    found = make_network(recipe(), pretrained).eval()
    assert isinstance(found, BiEncoder)
    return found


def test_the_first_part_is_the_bodys_own_embedding(pretrained: Path) -> None:
    whole, own = made(pretrained).embed_all(TEXTS), plain(pretrained).embed_all(TEXTS)
    assert whole.shape == (3, 40)
    torch.testing.assert_close(whole.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(functional.normalize(whole[:, :32], dim=1), own)


def test_cosines_are_the_weighted_mean_of_the_parts(pretrained: Path) -> None:
    whole = made(pretrained).embed_all(TEXTS)
    first, second = (functional.normalize(part, dim=1) for part in whole.split([32, 8], dim=1))
    torch.testing.assert_close(whole @ whole.T, 0.8 * first @ first.T + 0.2 * second @ second.T)


def test_a_branch_starts_as_what_it_copies(tmp_path: Path, pretrained: Path) -> None:
    cut = functional.normalize(plain(pretrained).embed_all(TEXTS)[:, :8], dim=1)
    torch.testing.assert_close(functional.normalize(made(pretrained).embed_all(TEXTS)[:, 32:], dim=1), cut)
    other = bert(seed=1)
    other.encoder.layer[0].load_state_dict(plain(pretrained).body.encoder.layer[0].state_dict())
    other.embeddings.load_state_dict(plain(pretrained).body.embeddings.state_dict())
    other.save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((pretrained / name).read_bytes())
    theirs = functional.normalize(plain(tmp_path).embed_all(TEXTS)[:, :8], dim=1)
    found = functional.normalize(made(pretrained, init=str(tmp_path)).embed_all(TEXTS)[:, 32:], dim=1)
    torch.testing.assert_close(found, theirs)
    assert not torch.allclose(found, cut)


def test_the_head_starts_as_the_cosine_of_the_branch(pretrained: Path) -> None:
    student = made(pretrained)
    assert isinstance(student.head, MlpHead)
    with torch.no_grad():
        student.head.output.weight[:, 1:] = 0.0  # what little the other units say at first
        embeddings = student.embed_all(TEXTS).clone()
        logits = student.head(embeddings[:1].expand(3, -1), embeddings)
    second = functional.normalize(embeddings[:, 32:], dim=1)
    torch.testing.assert_close(logits, 6.0 * (second @ second[0] + 1) - 9.6)


def test_training_moves_the_branch_and_nothing_else_of_the_body(tmp_path: Path, pretrained: Path) -> None:
    wanted = recipe(branch=BRANCH, stage={"epochs": 1})
    before = made(pretrained)
    after = train_network(wanted, pretrained, [Material(examples())], tmp_path / "run", lambda *_: None)
    was = dict(before.body.named_parameters())
    moved = {name for name, value in after.body.named_parameters() if not torch.equal(value, was[name])}
    assert moved == {name for name in was if name.startswith("encoder.branch.")}
    again, _ = load_network(tmp_path / "run")
    assert isinstance(again, BiEncoder)
    assert isinstance(after, BiEncoder)
    assert torch.equal(again.embed_all(TEXTS), after.embed_all(TEXTS))
    torch.testing.assert_close(
        functional.normalize(again.embed_all(TEXTS)[:, :32], dim=1), plain(pretrained).embed_all(TEXTS)
    )


def test_the_order_of_pairs_is_asked_of_the_branch_alone_whole_and_cut_to_half(pretrained: Path) -> None:
    wanted = recipe(branch=BRANCH, stage={"losses": {"cosent": 1.0}})
    student, rows = made(pretrained), examples(6)
    answers = student([row.pair for row in rows])
    found = pair_objective(answers, rows, wanted, wanted.stages[0])
    gold = torch.tensor([row.gold for row in rows])
    losses = []
    for dims in (8, 4):
        left, right = (
            functional.normalize(student.embed_all([getattr(row.pair, side) for row in rows])[:, 32 : 32 + dims], dim=1)
            for side in ("left", "right")
        )
        losses.append(cosent((left * right).sum(1), gold, 20.0))
    torch.testing.assert_close(found, torch.stack(losses).mean())


def test_a_branch_of_other_weights_is_another_run(tmp_path: Path, pretrained: Path) -> None:
    weights = tmp_path / "weights"
    shutil.copytree(pretrained, weights)
    wanted = recipe(branch=BRANCH | {"init": str(weights)}, stage={"epochs": 1})
    train_network(wanted, pretrained, [Material(examples())], tmp_path / "run", lambda *_: None)
    bert(seed=5).save_pretrained(weights)
    with pytest.raises(TrainingFault, match="holds another run"):
        train_network(wanted, pretrained, [Material(examples())], tmp_path / "run", lambda *_: None)


def test_what_is_frozen_drops_nothing_out(pretrained: Path) -> None:
    student = make_network(recipe(branch=BRANCH, dropout=0.5), pretrained).train()
    assert isinstance(student, BiEncoder)
    first, again = (functional.normalize(student.embed(TEXTS)[:, :32], dim=1) for _ in range(2))
    torch.testing.assert_close(first, again)
    assert not torch.equal(student.embed(TEXTS)[:, 32:], student.embed(TEXTS)[:, 32:])


def test_an_exported_graph_answers_both_parts_and_the_bodys_own_states(tmp_path: Path, pretrained: Path) -> None:
    student = made(pretrained)
    with torch.no_grad():
        for parameter in student.body.get_submodule("encoder.branch").parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    session = ort.InferenceSession(to_onnx(student, 48).SerializeToString())
    hidden, embeddings = session.run(None, student.tokenizer.padded(student.tokenizer.tokenize(TEXTS)))
    assert hidden.shape[-1] == 32
    torch.testing.assert_close(torch.as_tensor(embeddings), student.embed_all(TEXTS), atol=1e-5, rtol=0)


def test_a_card_says_what_the_branch_is() -> None:
    card = network_card(MANIFEST, student_recipe(branch=BRANCH), SIGNAL)
    assert "Copies of its top 1 layers (from `local`) were trained" in card
    assert "8 numbers stand beside it, with 20% of the cosine" in card


def test_a_branch_is_lower_than_the_body(pretrained: Path) -> None:
    with pytest.raises(TrainingFault, match="a branch of 2 layers is asked for, of a body of 2"):
        made(pretrained, layers=2)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"frozen": ["embeddings"]}, "nothing else of the body is trained"),
        ({"layers": [0]}, "nothing else of the body is trained"),
        ({"matryoshka": [8]}, "nothing else of the body is trained or changed: leave out .'matryoshka'."),
        ({"keep_initial": 0.5}, "nothing else of the body is trained"),
        ({"head": {"kind": "cosine"}}, "compared by an mlp head"),
        ({"body": "static"}, "compared by an mlp head"),
    ],
)
def test_a_recipe_says_what_does_not_go_with_a_branch(facts: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        recipe(branch=BRANCH, **facts)


def test_it_is_saved_as_it_is(tmp_path: Path, pretrained: Path) -> None:
    student = made(pretrained)
    save_network(student, recipe(branch=BRANCH), pretrained, tmp_path)
    again, _ = load_network(tmp_path)
    assert isinstance(again.body, BranchedBert)
    assert isinstance(again, BiEncoder)
    assert torch.equal(again.embed_all(TEXTS), student.embed_all(TEXTS))


def test_a_bundle_with_a_branch_may_be_cut_to_the_bodys_own_embedding(
    tmp_path: Path, pretrained: Path, pair_files: Path
) -> None:
    what, run = student_recipe(branch=BRANCH), tmp_path / "run"
    save_network(make_network(what.network, pretrained), what.network, pretrained, run)
    signal = Signal("none", (), Calibration(1.0, 0.0), Correlation(0, 0), max_tokens=48)
    (run / SIGNAL_FILE).write_text(json.dumps(signal.as_json()))
    manifest = export_network(what, run, training_data(pair_files), tmp_path / "bundle", True, lambda _: None)
    assert (manifest.dims, manifest.matryoshka) == (40, [32])
    encoder = load_student(tmp_path / "bundle", threads=1, graph="fp32").encoder
    own = plain(pretrained).embed_all(TEXTS)
    torch.testing.assert_close(torch.as_tensor(encoder.encode(TEXTS, dims=32)), own, atol=1e-5, rtol=0)
