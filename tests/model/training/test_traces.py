import pytest
import torch
from transformers import DistilBertConfig, DistilBertModel

from model.faults import TrainingFault
from model.training.traces import trace
from tests.model.training.tiny_training import bert

IDS = torch.tensor([[2, 7, 33, 34, 3], [2, 9, 3, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


def hooks_of(body: torch.nn.Module) -> int:
    return sum(len(module._forward_hooks) for name, module in body.named_modules() if "attention.self." in name)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_masked_scores_are_the_attention_that_the_body_gave(implementation: str) -> None:
    """The oracle is transformers' own eager attention, whichever implementation was traced."""
    body = bert(attn_implementation=implementation).eval()
    traced = trace(body, IDS, MASK)
    body.set_attn_implementation("eager")
    attentions = body(input_ids=IDS, attention_mask=MASK, output_attentions=True).attentions
    assert len(traced.layers) == len(attentions) == 2
    for layer, expected in zip(traced.layers, attentions, strict=True):
        found = layer.scores().masked_fill(MASK[:, None, None, :] == 0, -torch.inf).softmax(-1)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_hidden_states_begin_with_the_embedding_layer_and_end_with_the_answer() -> None:
    body = bert().eval()
    traced = trace(body, IDS, MASK)
    torch.testing.assert_close(traced.embedding, body.embeddings(IDS))
    torch.testing.assert_close(traced.last.hidden, body(input_ids=IDS, attention_mask=MASK).last_hidden_state)
    first = body.encoder.layer[0].attention.self
    torch.testing.assert_close(traced.layers[0].values, first.value(traced.embedding))
    torch.testing.assert_close(traced.layers[1].keys, body.encoder.layer[1].attention.self.key(traced.layers[0].hidden))


def test_gradients_reach_the_layers_that_were_caught() -> None:
    body = bert()
    trace(body, IDS, MASK).last.scores().sum().backward()
    last = body.encoder.layer[-1].attention.self
    assert last.query.weight.grad.abs().sum() > 0
    assert last.value.weight.grad is None


def test_a_trace_under_autocast_is_in_float32() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        traced = trace(bert(), IDS, MASK)
    assert {traced.last.queries.dtype, traced.last.hidden.dtype, traced.embedding.dtype} == {torch.float32}


def test_no_hook_stays_behind() -> None:
    body = bert()
    trace(body, IDS, MASK)
    assert hooks_of(body) == 0
    with pytest.raises(IndexError):
        trace(body, IDS + 10_000, MASK)
    assert hooks_of(body) == 0


def test_a_body_without_berts_attention_is_refused() -> None:
    body = DistilBertModel(DistilBertConfig(vocab_size=60, dim=16, n_layers=3, n_heads=2, hidden_dim=32))
    with pytest.raises(TrainingFault, match="DistilBertModel has 3 layers and 0 attention modules"):
        trace(body, IDS, MASK)
