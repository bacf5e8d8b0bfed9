"""A second reading by copies of the top layers: what is trained, what stays, and what the two say as one."""

from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from model.faults import TrainingFault
from model.training import trainer
from model.training.branch import BRANCH as COPIES
from model.training.branch import BranchedBert
from model.training.card import network_card
from model.training.graphs import to_onnx
from model.training.network_recipe import NetworkRecipe
from model.training.networks import BiEncoder, load_network, make_network, save_network
from model.training.runs import train_network
from model.training.trainer import Learner, Material
from tests.model.training.test_card import MANIFEST, SIGNAL
from tests.model.training.test_runs import examples
from tests.model.training.tiny_training import bert, network, some_texts, student_recipe

BRANCH = {"layers": 1, "share": 0.2, "axes": 10}
TEXTS = ["apple river", "stone", "cloud green table music paper horse"]
STAGES = [
    {"name": "branch", "sets": ["train"], "epochs": 1, "batch": 16, "learning_rate": 3e-3},
    {"name": "head", "sets": ["train"], "epochs": 1, "batch": 16, "learning_rate": 3e-3, "head_only": True},
]


def recipe(**facts: Any) -> NetworkRecipe:
    return NetworkRecipe.model_validate(network("bi-encoder", branch=BRANCH) | {"stages": STAGES} | facts)


def encoder(of: NetworkRecipe, weights: Path) -> BiEncoder:
    found = make_network(of, weights).eval()
    assert isinstance(found, BiEncoder)
    return found


def body_of(student: BiEncoder) -> BranchedBert:
    assert isinstance(student.body, BranchedBert)
    return student.body


def plain(weights: Path) -> BiEncoder:
    return encoder(recipe(branch=None), weights)


@pytest.fixture
def forked(pretrained: Path) -> BiEncoder:
    """A student whose two readings differ, not merged yet."""
    student = encoder(recipe(dropout=0.0), pretrained)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in body_of(student).encoder.branch.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return student


def readings(student: BiEncoder, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit embeddings, (texts, dim), of a body's own reading and of its branch's."""
    merge, dim = body_of(student).encoder.merge, student.dims
    kept, found = merge.weight.clone(), []
    for own in torch.eye(2, dtype=torch.float32):
        merge.weight.data = torch.cat([weight * torch.eye(dim) for weight in own], dim=1)
        found.append(student.embed_all(texts).clone())
    merge.weight.data = kept
    return found[0], found[1]


def test_a_branch_starts_as_what_it_copies_and_is_heard_alone(pretrained: Path, forked: BiEncoder) -> None:
    start = encoder(recipe(), pretrained)
    torch.testing.assert_close(start.embed_all(TEXTS), plain(pretrained).embed_all(TEXTS))
    own, branch = readings(forked, TEXTS)
    torch.testing.assert_close(own, plain(pretrained).embed_all(TEXTS))
    torch.testing.assert_close(forked.embed_all(TEXTS), branch)
    assert not torch.allclose(own, branch, atol=1e-3)


def test_the_first_reading_waits_until_it_is_heard(forked: BiEncoder) -> None:
    read: list[int] = []
    body_of(forked).encoder.layer[-1].register_forward_hook(lambda *_: read.append(1))
    expected = forked.embed(TEXTS)
    assert read == [1]
    torch.testing.assert_close(forked.train().embed(TEXTS), expected)
    assert read == [1]
    body_of(forked).merge([forked.inputs(TEXTS)])
    assert read == [1, 1]
    forked.embed(TEXTS)
    assert read == [1, 1, 1]


@pytest.mark.parametrize("share", [0.2, 0.6])
def test_merged_cosines_are_the_mean_of_both_readings(pretrained: Path, forked: BiEncoder, share: float) -> None:
    """As many axes as there are texts hold all of it; and an average length, as long as the lengths are alike."""
    forked.body.config.branch["share"] = share
    texts = some_texts(12)
    own, branch = readings(forked, texts)
    body_of(forked).merge([forked.inputs(texts)])
    merged = forked.embed_all(texts)
    expected = (1 - share) * own @ own.T + share * branch @ branch.T
    off, *apart = ((each @ each.T - expected).abs().max() for each in (merged, own, branch))
    assert off < 0.3 * min(apart)


def test_merged_axes_are_in_the_order_of_what_they_hold(forked: BiEncoder) -> None:
    texts = some_texts(200)
    body_of(forked).merge([forked.inputs(texts[:150]), forked.inputs(texts[150:])])
    weight = body_of(forked).encoder.merge.weight
    first, second = (half.abs().sum(1) > 0 for half in weight.split(32, dim=1))
    assert torch.equal(first, ~second)  # no axis mixes the readings
    assert second.sum() == 10
    embeddings = forked.embed_all(texts)
    moments = embeddings.T @ embeddings
    assert (moments.diagonal()[:-1] - moments.diagonal()[1:] > -0.02 * moments.max()).all()
    for own in (first, second):
        among = moments[own][:, own]
        assert (among - among.diag().diag()).abs().max() < 0.02 * moments.max()  # principal: uncorrelated


def test_training_moves_the_branch_and_nothing_else_of_the_body(tmp_path: Path, pretrained: Path) -> None:
    wanted, material = recipe(), [Material(examples()), Material(examples())]
    before = dict(encoder(wanted, pretrained).body.named_parameters())
    after = train_network(wanted, pretrained, material, tmp_path / "run", lambda *_: None)
    moved = {name for name, value in after.body.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if name.startswith(COPIES)} | {"encoder.merge.weight"}
    again, _ = load_network(tmp_path / "run")
    assert isinstance(after, BiEncoder)
    assert isinstance(again, BiEncoder)
    assert torch.equal(again.embed_all(TEXTS), after.embed_all(TEXTS))
    own, branch = readings(after, TEXTS)
    torch.testing.assert_close(own, plain(pretrained).embed_all(TEXTS))
    expected = 0.8 * own @ own.T + 0.2 * branch @ branch.T
    torch.testing.assert_close(after.embed_all(TEXTS) @ after.embed_all(TEXTS).T, expected, atol=0.05, rtol=0)


def test_a_run_that_stopped_after_its_branch_ends_the_same(tmp_path: Path, pretrained: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(stage: str, *_: int) -> None:
        if stage == "head":
            raise Stopped

    material = [Material(examples()), Material(examples())]
    whole = train_network(recipe(), pretrained, material, tmp_path / "whole", lambda *_: None)
    with pytest.raises(Stopped):
        train_network(recipe(), pretrained, material, tmp_path / "run", stop)
    again = train_network(recipe(), pretrained, material, tmp_path / "run", lambda *_: None)
    for name, value in again.state_dict().items():
        assert torch.equal(value, whole.state_dict()[name]), name


def test_initial_weights_are_averaged_into_all_but_the_branch(tmp_path: Path, pretrained: Path) -> None:
    taught = tmp_path / "taught"
    bert(seed=1).save_pretrained(taught)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (taught / name).write_bytes((pretrained / name).read_bytes())
    stages = [STAGES[0] | {"learning_rate": 1e-12}, STAGES[1]]
    wanted, material = recipe(keep_initial=0.75, stages=stages), [Material(examples()), Material(examples())]
    student = train_network(wanted, taught, material, tmp_path / "run", lambda *_: None, origin=pretrained)
    theirs, ours = plain(taught).body.state_dict(), plain(pretrained).body.state_dict()
    found = student.body.state_dict()
    for name, value in theirs.items():
        torch.testing.assert_close(found[name], value.lerp(ours[name], 0.75) if value.is_floating_point() else value)
    for name, value in bert(seed=1).encoder.layer[-1].state_dict().items():
        torch.testing.assert_close(found[f"{COPIES}0.{name}"], value)


def test_a_merged_branchs_head_starts_alike_though_nothing_was_left_to_train(
    tmp_path: Path, pretrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    material = [Material(examples())] * len(STAGES)
    whole = train_network(recipe(), pretrained, material, tmp_path / "whole", lambda *_: None)

    def killed(learner: Learner, optimiser: torch.optim.AdamW, done: int, path: Path) -> None:
        save(learner, optimiser, done, path)
        if done == 2:  # of two steps
            raise KeyboardInterrupt

    save = trainer._save
    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(trainer, "_save", killed)
    with pytest.raises(KeyboardInterrupt):
        train_network(recipe(), pretrained, material, tmp_path / "run", lambda *_: None)
    monkeypatch.setattr(trainer, "_save", save)
    again = train_network(recipe(), pretrained, material, tmp_path / "run", lambda *_: None)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_what_is_not_trained_drops_nothing_out(pretrained: Path) -> None:
    student = make_network(recipe(dropout=0.5), pretrained).train()
    assert isinstance(student, BiEncoder)
    own = [readings_in_training(student) for _ in range(2)]
    torch.testing.assert_close(own[0], own[1])
    assert not torch.equal(student.embed(TEXTS), student.embed(TEXTS))


def readings_in_training(student: BiEncoder) -> torch.Tensor:
    merge, dim = body_of(student).encoder.merge, student.dims
    kept = merge.weight.data
    merge.weight.data = torch.cat([torch.eye(dim), torch.zeros(dim, dim)], dim=1)
    found = student.embed(TEXTS)
    merge.weight.data = kept
    return found


def test_an_exported_graph_is_that_of_any_encoder(forked: BiEncoder) -> None:
    """The mean of its states, at unit length, is its embedding: other software pools so."""
    body_of(forked).merge([forked.inputs(some_texts(60))])
    session = ort.InferenceSession(to_onnx(forked, 48).SerializeToString())
    inputs = forked.tokenizer.padded(forked.tokenizer.tokenize(TEXTS))
    hidden, embeddings = (torch.as_tensor(found) for found in session.run(None, inputs))
    torch.testing.assert_close(embeddings, forked.embed_all(TEXTS), atol=1e-5, rtol=0)
    mask = torch.as_tensor(inputs["attention_mask"]).unsqueeze(-1)
    pooled = functional.normalize((hidden * mask).sum(1), dim=-1)
    torch.testing.assert_close(pooled, embeddings, atol=1e-5, rtol=0)


def merged_run(student: BiEncoder, weights: Path, folder: Path) -> Path:
    body_of(student).merge([student.inputs(some_texts(60))])
    save_network(student, recipe(), weights, folder)
    return folder


@pytest.mark.parametrize(("layers", "reading"), [([0, 1], 0), ([0, 2], 1)])
def test_one_reading_can_be_kept(
    tmp_path: Path, pretrained: Path, forked: BiEncoder, layers: list[int], reading: int
) -> None:
    """On the axes of the embedding that both were merged into, and all of it learns."""
    run = merged_run(forked, pretrained, tmp_path / "run")
    kept = encoder(recipe(branch=None, layers=layers), run)
    assert all(parameter.requires_grad for parameter in kept.body.parameters())
    halves = body_of(forked).encoder.merge.weight.data.split(32, dim=1)
    halves[reading].add_(halves[1 - reading])
    halves[1 - reading].zero_()
    torch.testing.assert_close(kept.embed_all(TEXTS), forked.embed_all(TEXTS))
    save_network(kept, recipe(branch=None, layers=layers), run, tmp_path / "kept")
    again, _ = load_network(tmp_path / "kept")
    assert isinstance(again, BiEncoder)
    assert torch.equal(again.embed_all(TEXTS), kept.embed_all(TEXTS))


def test_layers_are_counted_with_the_branchs(tmp_path: Path, pretrained: Path, forked: BiEncoder) -> None:
    run = merged_run(forked, pretrained, tmp_path / "run")
    with pytest.raises(TrainingFault, match=r"layers .3. asked for, but the initial weights have 3"):
        make_network(recipe(branch=None, layers=[0, 3]), run)


def test_a_table_of_tokens_is_made_of_both_readings(tmp_path: Path, pretrained: Path, forked: BiEncoder) -> None:
    run = merged_run(forked, pretrained, tmp_path / "run")
    rows = encoder(recipe(branch=None, body="static", head={"kind": "cosine"}, stages=STAGES[:1]), run).body
    text = "a"
    _, token, _ = forked.tokenizer.tokenize([text]).ids.values
    torch.testing.assert_close(rows.get_parameter("table.weight")[token], forked.embed_all([text])[0])


def test_a_branch_has_softmax_attention(tmp_path: Path, pretrained: Path, forked: BiEncoder) -> None:
    run = merged_run(forked, pretrained, tmp_path / "run")
    with pytest.raises(TrainingFault, match="or no branch"):
        make_network(recipe(branch=None, attention="elu"), run)


def test_a_card_says_what_the_branch_is() -> None:
    card = network_card(MANIFEST, student_recipe(branch=BRANCH, keep_initial=0.8, stages=STAGES), SIGNAL)
    assert "Copies of its top layers (1) alone were trained, then merged" in card
    assert "10 of its axes, and 20% of its cosine, are theirs" in card
    assert "Before, 80% of `local` was averaged into all but the copies." in card


def test_a_branch_is_lower_than_the_body(pretrained: Path) -> None:
    with pytest.raises(TrainingFault, match="a branch of 2 layers is asked for, of a body of 2"):
        make_network(recipe(branch=BRANCH | {"layers": 2}), pretrained)


def test_a_branch_leaves_axes_to_the_body(pretrained: Path) -> None:
    with pytest.raises(TrainingFault, match="a branch has 32 axes of an embedding of 32"):
        make_network(recipe(branch=BRANCH | {"axes": 32}), pretrained)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"frozen": ["embeddings"]}, "nothing else of the body is trained or changed: leave out .'frozen'."),
        ({"layers": [0]}, "nothing else of the body is trained"),
        ({"body": "static"}, "a branch is a transformer's"),
        ({"stages": STAGES[:1]}, "a head is fitted to what came out"),
        ({"stages": STAGES[1:]}, "a branch is trained by stages of the body"),
        ({"branch": None, "keep_initial": 1.0}, "would keep nothing of what is trained"),
    ],
)
def test_a_recipe_says_what_does_not_go_with_a_branch(facts: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        recipe(**facts)


def test_it_is_saved_as_it_is(tmp_path: Path, pretrained: Path, forked: BiEncoder) -> None:
    save_network(forked, recipe(), pretrained, tmp_path)
    again, _ = load_network(tmp_path)
    assert isinstance(again.body, BranchedBert)
    assert isinstance(again, BiEncoder)
    assert torch.equal(again.embed_all(TEXTS), forked.embed_all(TEXTS))
