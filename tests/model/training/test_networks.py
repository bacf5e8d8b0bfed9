from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import DistilBertConfig, DistilBertForSequenceClassification

from model.faults import TrainingFault
from model.head import MlpHead as NumpyHead
from model.head import QuadraticHead as NumpyQuadraticHead
from model.training.answers import torch_logits
from model.training.network_recipe import NetworkRecipe
from model.training.networks import (
    BiEncoder,
    CrossEncoder,
    MlpHead,
    QuadraticHead,
    load_network,
    make_network,
    mean_pool,
    save_network,
)
from model.training.objectives import Example
from model.training.pairs import Pair
from model.training.trainer import Learner, Material, train_stage, warmup_then_linear
from tests.model.training.tiny_training import bert, network, write_tokenizer

PAIRS = [Pair("1", "apple river", "river stone", 1.0), Pair("2", "cloud", "green table music", 0.2)]


def recipe(kind: str = "bi-encoder", **facts) -> NetworkRecipe:
    return NetworkRecipe.model_validate(network(kind, **facts))


def test_the_head_is_the_same_in_torch_and_in_numpy(tmp_path: Path) -> None:
    torch.manual_seed(1)
    head = MlpHead(16, 8)
    torch.nn.init.normal_(head.output.weight)
    save_file(head.state_dict(), tmp_path / "head.safetensors")
    left, right = torch.randn(2, 20, 16)
    expected = head(left, right).detach().numpy()
    np.testing.assert_allclose(
        NumpyHead.load(tmp_path / "head.safetensors").logits(left.numpy(), right.numpy()), expected, atol=1e-5
    )


def test_the_quadratic_head_is_the_same_in_torch_and_in_numpy(tmp_path: Path) -> None:
    torch.manual_seed(1)
    head = QuadraticHead(16)
    for weights in head.parameters():
        torch.nn.init.normal_(weights)
    save_file(head.state_dict(), tmp_path / "head.safetensors")
    left, right = torch.nn.functional.normalize(torch.randn(2, 20, 16), dim=-1)
    loaded = NumpyQuadraticHead.load(tmp_path / "head.safetensors")
    expected = head(left, right).detach().numpy()
    np.testing.assert_allclose(loaded.logits(left.numpy(), right.numpy()), expected, atol=1e-5)


@pytest.mark.parametrize("head", [MlpHead(16, 8), QuadraticHead(16)])
def test_the_head_is_symmetric_exactly(head: torch.nn.Module) -> None:
    left, right = torch.randn(2, 20, 16)
    for weights in head.parameters():
        torch.nn.init.normal_(weights)
    assert torch.equal(head(left, right), head(right, left))


def test_a_directed_head_has_weights_of_its_own_for_either_side() -> None:
    """Against the published form: one matrix on [u, v, u*v, abs(u - v)]."""
    torch.manual_seed(3)
    head = MlpHead(6, 5, outputs=3, directed=True)
    torch.nn.init.normal_(head.output.weight)
    left, right = torch.randn(2, 7, 6)
    either, order, product, difference = (
        layer.weight.detach().numpy() for layer in (head.either, head.order, head.product, head.difference)
    )
    u, v = left.numpy(), right.numpy()
    features = np.concatenate([u, v, u * v, np.abs(u - v)], axis=1)
    first = np.concatenate([either + order, either - order, product, difference], axis=1)
    hidden = np.maximum(features @ first.T + head.difference.bias.detach().numpy(), 0)
    expected = hidden @ head.output.weight.detach().numpy().T + head.output.bias.detach().numpy()
    np.testing.assert_allclose(head(left, right).detach().numpy(), expected, atol=1e-5)
    assert not torch.allclose(head(left, right), head(right, left), atol=1e-2)


def test_of_several_outputs_the_first_starts_as_the_cosine() -> None:
    torch.manual_seed(2)
    left, right = torch.nn.functional.normalize(torch.randn(2, 200, 64), dim=-1)
    cosines = (left * right).sum(-1)
    logits = MlpHead(64, 32, outputs=3, directed=True)(left, right).detach()
    assert logits.shape == (200, 3)
    assert np.corrcoef(logits[:, 0], cosines)[0, 1] > 0.95
    assert logits[:, 1:].abs().max() < 0.5


def test_a_fresh_head_ranks_like_the_cosine() -> None:
    torch.manual_seed(2)
    left, right = torch.nn.functional.normalize(torch.randn(2, 200, 64), dim=-1)
    cosines = (left * right).sum(-1)
    assert np.corrcoef(MlpHead(64, 32)(left, right).detach(), cosines)[0, 1] > 0.95
    torch.testing.assert_close(QuadraticHead(64)(left, right), 6 * cosines - 3.6)


def test_pooled_padding_of_nines_does_not_show() -> None:
    hidden = torch.randn(1, 3, 4)
    padded = torch.cat([hidden, torch.full((1, 2, 4), 9.0)], dim=1)
    mask = torch.tensor([[1, 1, 1, 0, 0]])
    torch.testing.assert_close(mean_pool(padded, mask), mean_pool(hidden, mask[:, :3]))
    assert mean_pool(hidden, mask[:, :3]).norm().item() == pytest.approx(1)


CLASSES = {"kind": "mlp", "hidden": 16, "outputs": 3, "directed": True}


@pytest.mark.parametrize("head", [{"kind": "mlp", "hidden": 16}, CLASSES])
@pytest.mark.parametrize("kind", ["bi-encoder", "cross-encoder"])
def test_a_network_is_the_same_after_saving(tmp_path: Path, pretrained: Path, kind: str, head: dict) -> None:
    what = recipe(kind, head=head)
    made = make_network(what, pretrained).eval()
    save_network(made, what, pretrained, tmp_path / "saved")
    loaded, read = load_network(tmp_path / "saved")
    assert read == what
    with torch.inference_mode():
        before, after = made(PAIRS), loaded(PAIRS)
    torch.testing.assert_close(after.logit, before.logit)
    torch.testing.assert_close(after.similarity, before.similarity)


def test_a_fresh_cross_encoder_with_a_head_ranks_by_the_cosine_of_its_segments(pretrained: Path) -> None:
    cross = make_network(recipe("cross-encoder"), pretrained).eval()
    bi = make_network(recipe(head={"kind": "cosine"}), pretrained).eval()
    assert isinstance(cross, CrossEncoder)
    assert isinstance(bi, BiEncoder)
    with torch.inference_mode():
        pair = Pair("1", "apple", "apple river stone", 1.0)
        tokens = cross.tokenizer.tokenize([(pair.left, pair.right)])
        inputs = {name: torch.as_tensor(array) for name, array in cross.tokenizer.padded(tokens).items()}
        first = (inputs["token_type_ids"] == 0)[0]
        hidden = cross.body(**inputs).last_hidden_state[0]
        means = [torch.nn.functional.normalize(hidden[rows].mean(0), dim=-1) for rows in (first, ~first)]
        assert cross([pair]).similarity.item() == pytest.approx((means[0] @ means[1]).item(), abs=1e-6)
    segments = cross.body.embeddings.token_type_embeddings.weight
    assert torch.equal(segments[0], segments[1])


def test_padding_does_not_show_in_a_cross_encoder_with_a_head(pretrained: Path) -> None:
    cross = make_network(recipe("cross-encoder"), pretrained).eval()
    long = Pair("3", "apple river stone cloud green", "music paper horse light seven window", 0.5)
    with torch.inference_mode():
        together, alone = cross([*PAIRS, long]).logit[:2], torch.cat([cross([pair]).logit for pair in PAIRS])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["bi-encoder", "cross-encoder"])
def test_the_classifier_and_every_head_survive_saving(tmp_path: Path, pretrained: Path, kind: str) -> None:
    for head in ("mlp", "quadratic", "classifier" if kind == "cross-encoder" else "cosine"):
        what = recipe(kind, head={"kind": head, "hidden": 8})
        made = make_network(what, pretrained).eval()
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.add_(0.01)
        save_network(made, what, pretrained, tmp_path / head)
        loaded, _ = load_network(tmp_path / head)
        with torch.inference_mode():
            torch.testing.assert_close(loaded(PAIRS).logit, made(PAIRS).logit)


def test_layers_are_those_that_were_named_and_stay_so(tmp_path: Path, pretrained: Path) -> None:
    what = recipe(layers=[1])
    whole, made = make_network(recipe(), pretrained), make_network(what, pretrained).eval()
    kept, meant = (n.body.encoder.layer for n in (made, whole))
    assert len(kept) == 1
    for mine, theirs in zip(kept[0].parameters(), meant[1].parameters(), strict=True):
        assert torch.equal(mine, theirs)
    save_network(made, what, pretrained, tmp_path / "saved")
    loaded, _ = load_network(tmp_path / "saved")
    with torch.inference_mode():
        torch.testing.assert_close(loaded(PAIRS).logit, made(PAIRS).logit)
    with pytest.raises(TrainingFault, match=r"layers \[2\] asked for, but the initial weights have 2"):
        make_network(recipe(layers=[0, 2]), pretrained)


@pytest.mark.parametrize("facts", [{}, {"body": "static", "head": {"kind": "cosine"}}])
def test_a_prefix_as_wide_as_the_embedding_is_refused(pretrained: Path, facts: dict) -> None:
    make_network(recipe(matryoshka=[16, 31], **facts), pretrained)
    with pytest.raises(TrainingFault, match=r"matryoshka names \[32, 40\], but embeddings of 32 dims"):
        make_network(recipe(matryoshka=[16, 32, 40], **facts), pretrained)


def test_a_guide_may_be_narrower_than_what_is_cut_to(pretrained: Path) -> None:
    make_network(recipe(matryoshka=[40]).as_initial, pretrained)


def write_distilbert(folder: Path) -> Path:
    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 64}
    DistilBertForSequenceClassification(DistilBertConfig(num_labels=1, **sizes)).save_pretrained(folder)
    return write_tokenizer(folder)


@pytest.mark.parametrize("kind", ["bi-encoder", "cross-encoder"])
def test_a_body_that_cannot_embed_is_named(tmp_path: Path, kind: str) -> None:
    with pytest.raises(TrainingFault, match="is of kind distilbert: to embed texts"):
        make_network(recipe(kind), write_distilbert(tmp_path))


def test_a_head_that_compares_segments_needs_a_body_that_tells_them_apart(tmp_path: Path) -> None:
    bert(type_vocab_size=1).save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    with pytest.raises(TrainingFault, match="is of kind bert and tells no two segments apart"):
        make_network(recipe("cross-encoder"), tmp_path)


def test_a_classifier_of_another_kind_drops_what_its_recipe_says(tmp_path: Path) -> None:
    write_distilbert(tmp_path)
    facts = {"head": {"kind": "classifier"}, "dropout": 0.0, "attention_dropout": 0.25}
    made = make_network(recipe("cross-encoder", **facts), tmp_path)
    shares = [(name, module.p) for name, module in made.named_modules() if isinstance(module, torch.nn.Dropout)]
    assert len(shares) == 4
    for name, share in shares:
        assert share == (0.25 if "attention" in name else 0.0), name


def test_what_is_frozen_stays_as_it_was(tmp_path: Path, pretrained: Path) -> None:
    what = recipe(frozen=["embeddings"], stage={"epochs": 1, "batch": 8})
    made = make_network(what, pretrained)
    before = {name: tensor.clone() for name, tensor in made.body.state_dict().items()}
    train_stage(made, what, what.stages[0], Material(examples()), tmp_path / "c.safetensors", lambda *_: None)
    for name, tensor in made.body.state_dict().items():
        assert torch.equal(tensor, before[name]) == name.startswith("embeddings."), name


def test_logits_do_not_depend_on_the_order_of_a_pair_or_of_pairs(pretrained: Path) -> None:
    cross = make_network(recipe("cross-encoder"), pretrained).eval()
    scores = torch_logits(cross, PAIRS)
    swapped = torch_logits(cross, [pair.swapped() for pair in reversed(PAIRS)])
    np.testing.assert_allclose(swapped[::-1], scores, atol=1e-6)


@pytest.mark.parametrize("kind", ["bi-encoder", "cross-encoder"])
def test_the_logits_of_a_directed_head_are_of_the_order_given(pretrained: Path, kind: str) -> None:
    network = make_network(recipe(kind, head=CLASSES), pretrained).eval()
    scores = torch_logits(network, PAIRS)
    with torch.inference_mode():
        alone = [network([pair]).logit[0].numpy() for pair in PAIRS]
    np.testing.assert_allclose(scores, alone, atol=1e-5)
    swapped = torch_logits(network, [pair.swapped() for pair in PAIRS])
    assert np.abs(swapped - scores).max() > 1e-3


def test_the_learning_rate_rises_then_falls_to_nothing() -> None:
    factor = warmup_then_linear(100, 0.1)
    factors = [factor(step) for step in range(101)]
    assert factors[9] == 1.0
    assert factors[:10] == sorted(factors[:10])
    assert factors[9:] == sorted(factors[9:], reverse=True)
    assert factors[100] == 0.0


def examples() -> list[Example]:
    return [Example(Pair(str(n), f"apple {'river ' * (n % 5)}", "stone", n / 40), n / 40, 0.0) for n in range(40)]


class Killed(Exception):
    pass


@pytest.mark.parametrize("kind", ["bi-encoder", "cross-encoder"])
def test_a_stopped_run_ends_with_the_weights_of_one_that_never_stopped(
    tmp_path: Path, pretrained: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("model.training.trainer.CHECKPOINT_SECONDS", 0.0)
    what = recipe(kind, distillation=0.5, stage={"epochs": 2, "batch": 8})
    stage, checkpoint = what.stages[0], tmp_path / "checkpoint.safetensors"

    def run(stop_at: int | None) -> dict[str, torch.Tensor]:
        torch.manual_seed(what.seed)
        trained = make_network(what, pretrained)

        def progress(_: str, done: int, total: int) -> None:
            assert total == 10
            if done == stop_at:
                raise Killed

        train_stage(trained, what, stage, Material(examples()), checkpoint, progress)
        return trained.state_dict()

    whole = run(None)
    checkpoint.unlink()
    with pytest.raises(Killed):
        run(6)
    assert int(load_file(checkpoint)["done"]) == 5
    resumed = run(None)
    for name, tensor in whole.items():
        assert torch.equal(resumed[name], tensor), name


def test_training_lowers_the_loss(tmp_path: Path, pretrained: Path) -> None:
    torch.manual_seed(0)
    what = recipe(distillation=0.5, stage={"epochs": 8, "batch": 8})
    trained = make_network(what, pretrained).eval()
    before = Learner(trained).loss(what, what.stages[0], Material(examples())).item()
    train_stage(trained, what, what.stages[0], Material(examples()), tmp_path / "c.safetensors", lambda *_: None)
    assert Learner(trained).loss(what, what.stages[0], Material(examples())).item() < before - 0.1


def test_a_cosine_head_leaves_the_embedding_to_the_ranking_loss(pretrained: Path) -> None:
    from model.training.losses import cosent

    what = recipe(head={"kind": "cosine"})
    made = make_network(what, pretrained).eval()
    assert isinstance(made, BiEncoder)
    rows = examples()[:8]
    cosines = made([row.pair for row in rows]).similarity
    expected = cosent(cosines, torch.tensor([row.gold for row in rows]), 20.0)
    plain = [Example(row.pair, row.gold, float("nan")) for row in rows]
    torch.testing.assert_close(Learner(made).loss(what, what.stages[0], Material(plain)), expected)
