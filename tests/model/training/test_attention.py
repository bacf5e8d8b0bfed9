"""Linear attention is the weighted mean that its papers write down, whatever is padded, saved or exported."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import BertModel

from model.faults import TrainingFault
from model.tokens import SentenceTokenizer
from model.training.attention import BLOCK, BLOCKED, MIXED, PLAIN, FeatureMaps, MixedBert, as_softmax, feature_maps
from model.training.attention_recipe import AttentionKind, AttentionRecipe, PositionRecipe, attention_of
from model.training.graphs import to_onnx
from model.training.network_recipe import NetworkRecipe
from model.training.networks import BiEncoder, load_network, make_network, save_network
from model.training.objectives import Example
from model.training.pairs import Pair
from model.training.quantise import IN_FLOAT
from model.training.trainer import Material, train_stage
from tests import tiny
from tests.model.training.tiny_training import bert, network

LINEAR: list[AttentionKind] = ["elu", "relu", "hedgehog"]
HEADS, DIM = 2, 6


def recipe(**facts: Any) -> NetworkRecipe:
    return NetworkRecipe.model_validate(network("bi-encoder", **facts))


def mixed(*kinds: AttentionKind, seed: int = 0) -> MixedBert:
    """The tiny BERT with a kind of attention for each layer; learned maps are no longer the identity."""
    plain = bert(layers=len(kinds), seed=seed)
    body = MixedBert(plain.config).eval()
    body.load_state_dict(plain.state_dict(), strict=False)
    body.use_attention(kinds)
    return disturbed(body)


def disturbed(body: MixedBert) -> MixedBert:
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for maps in feature_maps(body):
            for parameter in maps.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator))
    return body


def ids(texts: int, tokens: int, seed: int = 0) -> Tensor:
    return torch.randint(5, 57, (texts, tokens), generator=torch.Generator().manual_seed(seed))


def softmax(x: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


PHI: dict[str, Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]] = {
    "elu": lambda x, w: np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1) + 1,
    "relu": lambda x, w: np.maximum(x, 0),
    "hedgehog": lambda x, w: np.concatenate([softmax(x @ w.T), softmax(-(x @ w.T))], axis=-1),
}


def oracle(kind: str, wq: Any, wk: Any, q: Any, k: Any, v: Any, real: int) -> NDArray[np.float64]:
    """One text, one head: every query's mean of the real values, weighed by phi(q).phi(k), pair by pair."""
    mixed = np.zeros_like(v)
    for i in range(len(q)):
        weights = [PHI[kind](q[i], wq) @ PHI[kind](k[j], wk) for j in range(real)]
        if sum(weights) > 0:
            mixed[i] = sum(weight * v[j] for j, weight in enumerate(weights)) / sum(weights)
    return mixed


def maps_of(kind: AttentionKind) -> FeatureMaps:
    torch.manual_seed(5)
    made = FeatureMaps(kind, HEADS, DIM).double()
    for parameter in made.parameters():
        nn.init.normal_(parameter)
    return made


def head_weights(side: nn.Module, head: int) -> Any:
    return side.weight[head].detach().numpy() if hasattr(side, "weight") else None


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", LINEAR)
def test_every_map_gives_the_mean_that_its_weights_say(kind: AttentionKind, seed: int) -> None:
    maps = maps_of(kind)
    q, k, v = torch.randn(3, 2, HEADS, 9, DIM, generator=torch.Generator().manual_seed(seed)).double()
    mask = torch.ones(2, 1, 1, 9, dtype=torch.bool)
    mask[1, ..., 5:] = False
    found = maps(q, k, v, mask).detach().numpy()
    for text, real in ((0, 9), (1, 5)):
        for head in range(HEADS):
            weights = (head_weights(side, head) for side in (maps.query, maps.key))
            expected = oracle(kind, *weights, *(x[text, head].numpy() for x in (q, k, v)), real=real)
            np.testing.assert_allclose(found[text, head], expected, atol=2e-4)
    torch.testing.assert_close(maps(q, k, v, None), maps(q, k, v, torch.ones_like(mask)))


@pytest.mark.parametrize("kind", LINEAR)
def test_scores_are_logarithms_of_the_weights(kind: AttentionKind) -> None:
    maps = maps_of(kind)
    q, k = torch.randn(2, 1, HEADS, 7, DIM, generator=torch.Generator().manual_seed(1)).double()
    weights = maps.scores(q, k).softmax(-1)
    one_hot = torch.eye(7).double().expand(1, HEADS, 7, 7)  # as values: what comes out are the weights themselves
    found = maps(q, k, one_hot, None)
    answered = found.sum(-1) > 0.5  # relu: some queries are answered by no key
    assert answered.float().mean() > 0.5
    torch.testing.assert_close(found[answered], weights[answered], atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", LINEAR)
def test_gradients_are_those_of_finite_differences(kind: AttentionKind) -> None:
    maps = maps_of(kind)
    q, k, v = torch.randn(3, 2, HEADS, 4, DIM, generator=torch.Generator().manual_seed(2)).double()
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]], dtype=torch.bool)[:, None, None, :]
    inputs = [x.requires_grad_() for x in (q, k, v)]
    assert torch.autograd.gradcheck(lambda *args: maps(*args, mask), inputs)


def test_a_query_that_no_key_answers_gets_zeros() -> None:
    q, k = torch.ones(1, 1, 3, DIM), -torch.ones(1, 1, 3, DIM)
    assert torch.equal(FeatureMaps("relu", 1, DIM)(q, k, q, None), torch.zeros(1, 1, 3, DIM))


@pytest.mark.parametrize("implementation", [MIXED, PLAIN, BLOCKED])
def test_softmax_layers_are_those_of_transformers(implementation: str) -> None:
    body, plain = mixed("softmax", "softmax"), bert().eval()
    body.set_attn_implementation(implementation)
    mask = torch.tensor([[1] * 8, [1] * 3 + [0] * 5])
    with torch.no_grad():
        found, expected = (b(input_ids=ids(2, 8), attention_mask=mask).last_hidden_state for b in (body, plain))
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=0)


@pytest.mark.parametrize("implementation", [MIXED, PLAIN, BLOCKED])
@pytest.mark.parametrize("kinds", [*((kind, kind) for kind in LINEAR), ("softmax", "elu"), ("hedgehog", "softmax")])
def test_padding_does_not_show(kinds: tuple[AttentionKind, ...], implementation: str) -> None:
    body = mixed(*kinds)
    body.set_attn_implementation(implementation)
    padded, mask = ids(3, 20), torch.ones(3, 20, dtype=torch.long)
    mask[1, 7:] = 0
    with torch.no_grad():
        together = body(input_ids=padded, attention_mask=mask).last_hidden_state[1, :7]
        alone = body(input_ids=padded[1:2, :7], attention_mask=mask[1:2, :7]).last_hidden_state[0]
        unmasked = body(input_ids=padded[1:2, :7]).last_hidden_state[0]
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(unmasked, alone, atol=1e-5, rtol=0)


def test_each_layer_has_its_own_kind() -> None:
    both, plain = mixed("softmax", "elu"), bert().eval()
    with torch.no_grad():
        found, expected = (b(input_ids=ids(2, 8), output_hidden_states=True).hidden_states for b in (both, plain))
    torch.testing.assert_close(found[1], expected[1], atol=1e-5, rtol=0)
    assert (found[2] - expected[2]).abs().max() > 1e-2


class Largest(TorchDispatchMode):
    """The size of the largest tensor that any operation made."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        if isinstance(made, Tensor):
            self.elements = max(self.elements, made.numel())
        return made


def largest(body: MixedBert, tokens: int) -> int:
    body.set_attn_implementation(PLAIN)
    mask = torch.ones(1, tokens, dtype=torch.long)
    with torch.no_grad(), Largest() as seen:
        body(input_ids=ids(1, tokens), attention_mask=mask)
    return seen.elements


@pytest.mark.parametrize("kind", LINEAR)
def test_nothing_that_is_made_grows_faster_than_the_text(kind: AttentionKind) -> None:
    body, square = mixed(kind, kind), mixed("softmax", "softmax")
    for long in (body, square):
        long.extend_positions(PositionRecipe(tokens=2048))
    assert largest(body, 2048) == 2 * largest(body, 1024)
    assert largest(square, 2048) == 4 * largest(square, 1024)


def test_training_on_long_texts_makes_no_square_of_tokens_either() -> None:
    sizes = []
    for tokens in (1024, 2048):
        body = mixed("softmax", "softmax").train()
        body.extend_positions(PositionRecipe(tokens=2048))
        for layer in body.encoder.layer:
            layer.attention.self.dropout.p = 0.0  # as a recipe has it that does not ask for attention_dropout
        mask = torch.ones(2, tokens, dtype=torch.long)
        mask[1, 700:] = 0
        with Largest() as seen:
            body(input_ids=ids(2, tokens), attention_mask=mask).last_hidden_state.sum().backward()
        sizes.append(seen.elements)
    assert sizes[1] == 2 * sizes[0]


def test_a_graph_for_long_texts_looks_from_some_tokens_at_a_time() -> None:
    body = mixed("softmax", "elu")
    body.extend_positions(PositionRecipe(tokens=2 * BLOCK + 100))
    model = to_onnx(BiEncoder(body, None, SentenceTokenizer(tiny.tokenizer(), 2 * BLOCK + 100)), 2 * BLOCK + 100)
    weights = [node.output[0] for node in model.graph.node if node.op_type == "Softmax"]
    assert len(weights) == 3
    multiplied = [node for node in model.graph.node if node.op_type == "MatMul" and {*node.input} & {*weights}]
    assert all(node.name.startswith(IN_FLOAT) for node in multiplied)
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in weights)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    body.set_attn_implementation(PLAIN)
    for tokens, rows in ((3, [3, 0, 0]), (BLOCK, [BLOCK, 0, 0]), (BLOCK + 1, [BLOCK, 1, 0]), (1100, [512, 512, 76])):
        texts, mask = ids(2, tokens), torch.ones(2, tokens, dtype=torch.long)
        mask[1, tokens // 2 + 1 :] = 0
        with torch.no_grad():
            expected = body(input_ids=texts, attention_mask=mask).last_hidden_state[mask.bool()]
        inputs = {"input_ids": texts.numpy(), "attention_mask": mask.numpy()}
        found, *made = session.run(["last_hidden_state", *weights], inputs)
        np.testing.assert_allclose(found[mask.bool().numpy()], expected, atol=1e-5)
        assert [one.shape for one in made] == [(2, 4, of_block, tokens) for of_block in rows]


def test_half_precision_sums_in_float32() -> None:
    body = mixed("elu", "hedgehog")
    body.extend_positions(PositionRecipe(tokens=1024))
    with torch.no_grad():
        expected = body(input_ids=ids(1, 1024)).last_hidden_state.mean(1)
        with torch.autocast("cpu", torch.bfloat16):
            found = body(input_ids=ids(1, 1024)).last_hidden_state.float().mean(1)
    assert torch.cosine_similarity(found, expected).item() > 0.999


@pytest.mark.parametrize("kind", ["bi-encoder", "cross-encoder"])
def test_softmax_is_computed_in_float32_by_a_body_that_runs_in_bfloat16(
    pretrained: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """On CPUs the fused kernel of torch is ten times as slow with short texts in bfloat16."""
    fused, seen = functional.scaled_dot_product_attention, set()

    def watched(query: Tensor, *rest: Any, **options: Any) -> Tensor:
        seen.add(query.dtype)
        return fused(query, *rest, **options)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", watched)
    body = make_network(NetworkRecipe.model_validate(network(kind)), pretrained).body
    plain = body(input_ids=ids(2, 6)).last_hidden_state
    with torch.autocast("cpu", torch.bfloat16):
        rounded = body(input_ids=ids(2, 6)).last_hidden_state
    assert seen == {torch.float32}
    torch.testing.assert_close(rounded.float(), plain, atol=0.1, rtol=0)


def test_as_softmax_is_the_softmax_body_and_only_inside() -> None:
    body, plain = mixed("hedgehog", "elu"), bert().eval()
    with torch.no_grad():
        linear = body(input_ids=ids(2, 8)).last_hidden_state
        with as_softmax(body):
            inside = body(input_ids=ids(2, 8)).last_hidden_state
        torch.testing.assert_close(inside, plain(input_ids=ids(2, 8)).last_hidden_state, atol=1e-5, rtol=0)
        assert torch.equal(body(input_ids=ids(2, 8)).last_hidden_state, linear)


def test_checkpoints_load_either_way(tmp_path: Path, pretrained: Path) -> None:
    what = recipe(attention=["softmax", "hedgehog"], head={"kind": "cosine"})
    made = make_network(what, pretrained).eval()
    assert isinstance(made.body, MixedBert)
    plain = BertModel.from_pretrained(pretrained).state_dict()
    maps = {name for name in made.body.state_dict() if ".maps." in name}
    assert maps == {f"encoder.layer.1.attention.self.maps.{side}.weight" for side in ("query", "key")}
    for name, tensor in made.body.state_dict().items():
        if name in maps:
            assert torch.equal(tensor, torch.eye(8).expand(4, 8, 8))
        else:
            assert torch.equal(tensor, plain[name]), name
    disturbed(made.body)
    save_network(made, what, pretrained, tmp_path / "linear")
    again, read = load_network(tmp_path / "linear")
    inherited = make_network(recipe(head={"kind": "cosine"}), tmp_path / "linear").eval()
    assert read == what
    texts = ["apple river stone", "cloud"]
    with torch.no_grad():
        for other in (again, inherited):
            assert isinstance(other, BiEncoder)
            torch.testing.assert_close(other.embed(texts), made.embed(texts))
    softmax_again = BertModel.from_pretrained(tmp_path / "linear").state_dict()
    assert all(torch.equal(tensor, softmax_again[name]) for name, tensor in plain.items() if "pooler" not in name)


def test_kept_layers_keep_their_maps(tmp_path: Path, pretrained: Path) -> None:
    what = recipe(attention=["elu", "hedgehog"], head={"kind": "cosine"})
    made = make_network(what, pretrained)
    disturbed(made.body)
    save_network(made, what, pretrained, tmp_path / "linear")
    last = make_network(recipe(layers=[1], head={"kind": "cosine"}), tmp_path / "linear").body
    assert last.config.attention_kinds == ["hedgehog"]
    (mine,), theirs = feature_maps(last), feature_maps(made.body)[1]
    assert torch.equal(mine.query.weight, theirs.query.weight)


@pytest.mark.parametrize("kinds", [["elu", "relu"], ["softmax", "hedgehog"]])
def test_an_exported_graph_answers_as_torch_at_any_length(pretrained: Path, kinds: list[AttentionKind]) -> None:
    what = recipe(attention=kinds, positions={"tokens": 200}, max_tokens=200, head={"kind": "cosine"})
    made = make_network(what, pretrained).eval()
    assert isinstance(made, BiEncoder)
    assert isinstance(made.body, MixedBert)
    disturbed(made.body)
    session = onnxruntime.InferenceSession(to_onnx(made, 200).SerializeToString(), providers=["CPUExecutionProvider"])
    texts = ["a", "apple river stone", " ".join(["window"] * 60)]
    with torch.no_grad():
        expected = torch.cat([made.embed([text]) for text in texts]).numpy()
    inputs = made.tokenizer.padded(made.tokenizer.tokenize(texts))
    assert inputs["input_ids"].shape[1] == 200
    np.testing.assert_allclose(session.run(["sentence_embedding"], inputs)[0], expected, atol=1e-5)
    for text, row in zip(texts, expected, strict=True):
        alone = session.run(["sentence_embedding"], made.tokenizer.padded(made.tokenizer.tokenize([text])))[0]
        np.testing.assert_allclose(alone[0], row, atol=1e-5)


@pytest.mark.parametrize("kind", LINEAR)
def test_padding_changes_no_bit_of_a_graphs_states(pretrained: Path, kind: AttentionKind) -> None:
    """In int8, a last bit decides how a state is rounded, and the next layers make more of it."""
    what = recipe(attention=kind, positions={"tokens": 512}, max_tokens=512, head={"kind": "cosine"})
    made = make_network(what, pretrained).eval()
    assert isinstance(made.body, MixedBert)
    disturbed(made.body)
    session = onnxruntime.InferenceSession(to_onnx(made, 512).SerializeToString(), providers=["CPUExecutionProvider"])
    for tokens in (3, 14, 40):
        inputs = {"input_ids": ids(1, tokens).numpy(), "attention_mask": np.ones((1, tokens), np.int64)}
        (alone,) = session.run(["last_hidden_state"], inputs)
        for padding in (1, 50, 400):
            padded = {name: np.pad(rows, ((0, 0), (0, padding))) for name, rows in inputs.items()}
            (together,) = session.run(["last_hidden_state"], padded)
            np.testing.assert_array_equal(together[:, :tokens], alone)


def test_attention_may_be_said_for_all_layers_for_each_or_for_the_top() -> None:
    def of(said: Any) -> list[str]:
        return attention_of(TypeAdapter(AttentionRecipe).validate_python(said), 3)

    assert of("elu") == ["elu"] * 3
    assert of(["softmax", "relu", "elu"]) == ["softmax", "relu", "elu"]
    assert of({"map": "hedgehog", "top": 2}) == ["softmax", "hedgehog", "hedgehog"]
    assert of({"map": "hedgehog", "top": 0}) == ["softmax"] * 3


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (["elu"], "attention is given for 1 layers, of a body of 2"),
        ({"map": "elu", "top": 3}, "top 3 layers is asked for, of a body of 2"),
    ],
)
def test_attention_for_other_layers_is_refused(pretrained: Path, said: Any, message: str) -> None:
    with pytest.raises(TrainingFault, match=message):
        make_network(recipe(attention=said), pretrained)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"attention": "cosine"}, "attention"),
        ({"attention": "elu", "keep_initial": 0.5}, "averages weights of one kind of attention"),
        ({"attention": "elu", "stage": {"sets": [], "texts": ["t"], "maps_only": True}}, "learned feature map"),
        ({"stage": {"maps_only": True}}, "maps_only goes with texts"),
        ({"attention": "hedgehog", "stage": {"texts": ["t"], "sets": [], "maps_only": True, "regression": 1}}, "else"),
        ({"positions": {"tokens": 64}, "max_tokens": 65}, "there will be 64 positions"),
        ({"positions": {"tokens": 64, "how": "guess"}}, "'tile' or 'interpolate'"),
        ({"body": "static", "attention": "elu"}, "neither attention nor positions"),
    ],
)
def test_a_recipe_says_what_is_wrong_with_its_attention(facts: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        recipe(**facts)


def test_a_classifier_takes_no_other_attention() -> None:
    with pytest.raises(ValidationError, match="classifier is taken as it is"):
        NetworkRecipe.model_validate(network("cross-encoder", attention="elu", head={"kind": "classifier"}))


def test_tiled_positions_leave_shorter_texts_as_they_were(pretrained: Path) -> None:
    old = make_network(recipe(), pretrained).body.embeddings.position_embeddings.weight
    made = make_network(recipe(positions={"tokens": 150}, max_tokens=150), pretrained)
    new = made.body.embeddings.position_embeddings.weight
    assert torch.equal(new[:64], old)
    assert torch.equal(new[64:128], old)
    assert torch.equal(new[128:], old[:22])
    text = ["apple river stone"]
    short = make_network(recipe(), pretrained).eval()
    assert isinstance(short, BiEncoder)
    assert isinstance(made, BiEncoder)
    with torch.no_grad():
        torch.testing.assert_close(made.eval().embed(text), short.embed(text), atol=1e-6, rtol=0)


def test_interpolated_positions_lie_between_the_old_ones(pretrained: Path) -> None:
    old = make_network(recipe(), pretrained).body.embeddings.position_embeddings.weight
    positions = {"tokens": 127, "how": "interpolate"}
    new = make_network(recipe(positions=positions), pretrained).body.embeddings.position_embeddings.weight
    torch.testing.assert_close(new[::2], old)
    torch.testing.assert_close(new[1::2], (old[:-1] + old[1:]) / 2)


def examples() -> list[Example]:
    rows = [Pair(str(n), f"apple {'river ' * (n % 30)}", "stone", n / 40) for n in range(40)]
    return [Example(pair, pair.gold, 0.0) for pair in rows]


@pytest.mark.parametrize(("how", "kept"), [("tile", 64), ("interpolate", 0)])
def test_of_frozen_embeddings_new_positions_are_trained(tmp_path: Path, pretrained: Path, how: str, kept: int) -> None:
    what = recipe(
        positions={"tokens": 150, "how": how}, max_tokens=150, frozen=["embeddings"], stage={"epochs": 1, "batch": 8}
    )
    made = make_network(what, pretrained)
    before = {name: tensor.clone() for name, tensor in made.body.embeddings.state_dict().items()}
    train_stage(made, what, what.stages[0], Material(examples()), tmp_path / "c.safetensors", lambda *_: None)
    after = made.body.embeddings.state_dict()
    rows = (after["position_embeddings.weight"] != before["position_embeddings.weight"]).any(1)
    assert not rows[:kept].any()
    assert rows[max(kept, 1) : 100].all()
    assert all(torch.equal(after[name], before[name]) for name in before if not name.startswith("position"))
    save_network(made, what, pretrained, tmp_path / "saved")
    again = load_network(tmp_path / "saved")[0].body.embeddings
    assert again.position_embeddings.kept == kept
    assert again.position_embeddings.weight.requires_grad
    assert not again.word_embeddings.weight.requires_grad


def test_positions_are_only_ever_added(tmp_path: Path, pretrained: Path) -> None:
    with pytest.raises(TrainingFault, match="have 64 positions, and the recipe asks for"):
        make_network(recipe(positions={"tokens": 50}), pretrained)
    with pytest.raises(TrainingFault, match=r"max_tokens is 65, but the body has 64 positions: .* positions ="):
        make_network(recipe(max_tokens=65), pretrained)
    what = recipe(positions={"tokens": 100}, max_tokens=100)
    save_network(make_network(what, pretrained), what, pretrained, tmp_path / "long")
    assert make_network(recipe(max_tokens=100), tmp_path / "long").body.config.max_position_embeddings == 100


def test_what_layers_computed_may_be_computed_again(pretrained: Path) -> None:
    gradients = []
    for recompute in (False, True):
        made = make_network(recipe(attention="elu", dropout=0.0, recompute=recompute), pretrained).train()
        assert isinstance(made, BiEncoder)
        assert made.body.encoder.layer[0].gradient_checkpointing == recompute
        made.embed(["apple river", "stone"]).sum().backward()
        gradients.append(made.body.encoder.layer[0].attention.self.query.weight.grad)
    torch.testing.assert_close(*gradients)


def test_linear_attention_stays_in_float_and_nothing_else_does(pretrained: Path) -> None:
    names = {}
    for kind in ("softmax", "elu", "hedgehog"):
        what = recipe(attention=["softmax", kind], head={"kind": "cosine"})
        graph = to_onnx(make_network(what, pretrained).eval(), 48).graph
        names[kind] = [node.op_type for node in graph.node if node.name.startswith(IN_FLOAT)]
    assert names["softmax"] == []
    assert names["elu"].count("MatMul") == 2  # sums of keys with values, queries with these
    assert names["hedgehog"].count("MatMul") == 4  # and both maps
