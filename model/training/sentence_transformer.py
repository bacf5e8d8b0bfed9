"""What does a sentence-transformers folder answer? Body, pooling, dense layers, unit length: without that library."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel, PreTrainedModel

from model.faults import TrainingFault
from model.tokens import SentenceTokenizer, plan_batches

TOKENS_PER_BATCH = 4096
USUAL_TOKENS = 512
"""Where a text is cut if nothing in a folder says where."""
NO_LIMIT = 1e20
"""A tokenizer without a limit says 1e30, a body without one -1."""
TOKENIZER = "tokenizer.json"
LEGACY_MODES = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}
ACTIVATIONS = {"Identity": nn.Identity, "Tanh": nn.Tanh, "ReLU": nn.ReLU, "GELU": nn.GELU}

Step = Callable[[Tensor], Tensor]
"""(texts, dim) to (texts, dim or another)."""


class SentenceTransformer:
    """A pretrained sentence encoder in fp32: texts in, unit embeddings out. ``home`` holds its body and tokenizer."""

    def __init__(self, home: Path, pooling: str, after: Sequence[Step]) -> None:
        self._body, self._tokenizer, self._pooling, self._after = _body(home), own_tokenizer(home), pooling, after
        self.tokenizer_file = home / TOKENIZER

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a folder whose ``modules.json`` lists Transformer, Pooling (mean or cls), then Dense and Normalize.

        A plain Hugging Face folder, which has none, is read with mean pooling. Embeddings are of unit length, whether
        or not Normalize comes last: only cosines are taken of them.

        Raises:
            TrainingFault: not such a folder, or a part of it is of another kind; the message names it.
        """
        try:
            if not (folder / "modules.json").exists():
                return cls(folder, "mean", [])
            modules = _json(folder / "modules.json")
            kinds = [str(module["type"]).rsplit(".", 1)[-1] for module in modules]
            if kinds[:2] != ["Transformer", "Pooling"] or set(kinds[2:]) - {"Dense", "Normalize"}:
                raise ValueError(f"it lists {', '.join(kinds)}; read are Transformer, Pooling, Dense, Normalize")
            home, pooling, *rest = (folder / module["path"] for module in modules)
            after = [_dense(path) if kind == "Dense" else _unit for kind, path in zip(kinds[2:], rest, strict=True)]
            return cls(home, _pooling(pooling), after)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise TrainingFault(f"{folder} is not a sentence-transformers folder that can be read: {error}") from error

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(texts, dim) unit embeddings, in the order of ``texts``."""
        tokens = self._tokenizer.tokenize(texts)
        batches = plan_batches(tokens.lengths, TOKENS_PER_BATCH)
        with torch.inference_mode():
            found = [self._embed(self._tokenizer.padded(tokens, batch)) for batch in batches]
        embeddings = np.empty((len(tokens), found[0].shape[1]), np.float32)
        embeddings[np.concatenate(batches)] = torch.cat(found).numpy()
        return embeddings

    def _embed(self, inputs: dict[str, NDArray[np.int64]]) -> Tensor:
        tensors = {name: torch.as_tensor(array) for name, array in inputs.items()}
        hidden = self._body(**tensors).last_hidden_state  # (texts, tokens, dim)
        mask = tensors["attention_mask"].unsqueeze(-1)
        pooled = hidden[:, 0] if self._pooling == "cls" else (hidden * mask).sum(1) / mask.sum(1)
        for step in self._after:
            pooled = step(pooled)
        return _unit(pooled)


def _unit(embeddings: Tensor) -> Tensor:
    return functional.normalize(embeddings, dim=-1)


def _json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def _body(folder: Path) -> PreTrainedModel:
    return AutoModel.from_pretrained(folder, use_safetensors=True, dtype=torch.float32).eval()


def own_tokenizer(folder: Path) -> SentenceTokenizer:
    """Cut where sentence-transformers cuts: at its own limit, else at the lesser of the tokenizer's and the body's."""
    own, tokenizer, body = (
        _json(folder / name) if (folder / name).exists() else {}
        for name in ("sentence_bert_config.json", "tokenizer_config.json", "config.json")
    )
    if own.get("do_lower_case"):
        raise ValueError("do_lower_case is set, which is not read; let the tokenizer do it")
    limits = [tokenizer.get("model_max_length"), body.get("max_position_embeddings")]
    most = own.get("max_seq_length") or min(
        (limit for limit in limits if limit and 0 < limit < NO_LIMIT), default=USUAL_TOKENS
    )
    return SentenceTokenizer.load(folder / TOKENIZER, int(most))


def _pooling(folder: Path) -> str:
    config = _json(folder / "config.json")
    asked = config.get("pooling_mode") or [
        LEGACY_MODES.get(name, name) for name, on in config.items() if name.startswith("pooling_mode_") and on
    ]
    modes = [asked] if isinstance(asked, str) else asked
    if modes not in (["mean"], ["cls"]):
        raise ValueError(f"it pools by {', '.join(modes) or 'nothing'}; read are mean and cls")
    return modes[0]


def _dense(folder: Path) -> Step:
    config = _json(folder / "config.json")
    activation = str(config["activation_function"]).rsplit(".", 1)[-1]
    if activation not in ACTIVATIONS or config.get("use_residual"):
        raise ValueError(f"its Dense has {activation}, or a residual; read are {', '.join(ACTIVATIONS)}, and none")
    weights = load_file(folder / "model.safetensors")
    linear = nn.Linear(config["in_features"], config["out_features"], bias=config["bias"])
    linear.load_state_dict({name.removeprefix("linear."): tensor for name, tensor in weights.items()})
    return nn.Sequential(linear, ACTIVATIONS[activation]())
