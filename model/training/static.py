"""A student without layers: one row a token, taken from a transformer, and nothing else to compute."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from model.tokens import SentenceTokenizer

TOKENS_PER_BATCH = 512
SIF = 3e-4


class StaticConfig(PretrainedConfig):  # type: ignore[no-untyped-call]
    """``config.json`` of a :class:`StaticBody`."""

    model_type = "dse-static"

    def __init__(self, vocab_size: int = 1, hidden_size: int = 1, **others: Any) -> None:
        super().__init__(**others)
        self.vocab_size, self.hidden_size = vocab_size, hidden_size


class StaticBody(PreTrainedModel):  # type: ignore[no-untyped-call]
    """A table of token rows in the place of a transformer: a token's last hidden state is its row.

    The embedding of a text is then the unit mean of its tokens' rows (Model2Vec; Arora et al., "A simple but
    tough-to-beat baseline for sentence embeddings", ICLR 2017). A row's length is its token's weight.
    """

    config_class = StaticConfig
    base_model_prefix = "static"

    def __init__(self, config: StaticConfig) -> None:
        super().__init__(config)
        self.table = nn.Embedding(config.vocab_size, config.hidden_size)
        self.post_init()  # type: ignore[no-untyped-call]

    @classmethod
    def of_rows(cls, rows: Tensor) -> "StaticBody":
        """A body with the given (vocabulary, dim) rows."""
        body = cls(StaticConfig(*rows.shape))
        with torch.no_grad():
            body.table.weight.copy_(rows)
        return body

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> BaseModelOutput:
        """(texts, tokens, dim) rows of (texts, tokens) ids; the mask is for whoever pools them."""
        return BaseModelOutput(last_hidden_state=self.table(input_ids))

    def weigh(self, counts: NDArray[np.int64]) -> None:
        """Centre the rows, then weigh each by a / (a + p): frequent tokens say little (SIF, Arora et al., equation 1).

        Args:
            counts: (vocabulary,) how often each token occurs in the texts to learn from, whose share of all tokens is
                p. A token that never occurs has the weight 1.
        """
        share = torch.as_tensor(counts / max(1, counts.sum())).float()
        rows = self.table.weight.data
        rows -= rows.mean(0)
        rows *= (SIF / (SIF + share))[:, None]


def vocabulary_embeddings(transformer: PreTrainedModel, tokenizer: SentenceTokenizer) -> Tensor:
    """(vocabulary, dim) unit embeddings of every token of a transformer, each read alone between the text's markers."""
    opening, closing = tokenizer.tokenize([""]).ids.values.tolist()
    rows = []
    with torch.inference_mode():
        for start in range(0, transformer.config.vocab_size, TOKENS_PER_BATCH):
            tokens = torch.arange(start, min(start + TOKENS_PER_BATCH, transformer.config.vocab_size))
            marked = [torch.full_like(tokens, opening), tokens, torch.full_like(tokens, closing)]
            ids = torch.stack(marked, dim=1)
            states = transformer(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
            rows.append(functional.normalize(states.float().mean(1), dim=-1))
    return torch.cat(rows)


def token_counts(tokenizer: SentenceTokenizer, texts: Sequence[str], vocabulary: int) -> NDArray[np.int64]:
    """(vocabulary,) how often each token occurs in texts, the markers of every text included."""
    return np.bincount(tokenizer.tokenize(texts).ids.values, minlength=vocabulary)


def bert_config(body: StaticBody, max_tokens: int) -> BertConfig:
    """What a bundle's ``config.json`` says, for programs that ask transformers: a BERT of no layers."""
    return BertConfig(
        vocab_size=body.config.vocab_size,
        hidden_size=body.config.hidden_size,
        num_hidden_layers=0,
        num_attention_heads=1,
        max_position_embeddings=max_tokens,
    )


def quantise_table(body: StaticBody, opset: int) -> ModelProto:
    """The int8 graph of a static student: rows looked up, summed as integers, brought to unit length.

    The rows share one symmetric scale: as they are summed, it is the error in the sum that counts, and there each row
    has the same. The scale then falls out of the unit length, so that nothing is dequantised on the way to
    ``sentence_embedding``, and integer sums are exact: padding and the rest of the batch cannot show at all. The mask
    is the uint8 side of the product, the rows its int8 side, so that the kernels of older CPUs, which add products in
    16 bits, do not overflow.
    """
    rows = body.table.weight.detach().float().numpy()
    scale = np.float32(np.abs(rows).max() / 127)
    tensors = {
        "table": np.round(rows / scale).astype(np.int8),
        "scale": scale,
        "rows_axis": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"], axis=0),
        helper.make_node("DequantizeLinear", ["rows", "scale"], ["last_hidden_state"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.UINT8),
        helper.make_node("Unsqueeze", ["mask", "rows_axis"], ["weights"]),
        helper.make_node("MatMulInteger", ["weights", "rows"], ["sums"]),
        helper.make_node("Squeeze", ["sums", "rows_axis"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("LpNormalization", ["wide"], ["sentence_embedding"], axis=-1, p=2),
    ]
    dims = rows.shape[1]
    graph = helper.make_graph(
        nodes,
        "static",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
            for name in ("input_ids", "attention_mask")
        ],
        [
            helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["batch", "tokens", dims]),
            helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["batch", dims]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(model)
    return model
