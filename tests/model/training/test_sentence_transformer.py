import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModel

from model.faults import TrainingFault
from model.training.network_recipe import NetworkRecipe
from model.training.networks import BiEncoder, make_network
from model.training.sentence_transformer import SentenceTransformer, own_tokenizer
from tests.model.training.tiny_training import network, write_pretrained

TEXTS = ["apple river", "a", "", "stone cloud green table music paper horse light seven window"]
MEAN = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
CLS = {"pooling_mode": "cls"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_pretrained(tmp_path / "folder")


def write_modules(folder: Path, pooling: dict, *after: str) -> None:
    kinds = ["sentence_transformers.models.Transformer", "sentence_transformers.models.Pooling", *after]
    paths = ["", "1_Pooling", *(f"{place}_{kind}" for place, kind in enumerate(after, 2))]
    modules = [{"idx": n, "path": path, "type": kind} for n, (kind, path) in enumerate(zip(kinds, paths, strict=True))]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling/config.json").write_text(json.dumps(pooling))


def write_dense(folder: Path, activation: str = "torch.nn.modules.activation.Tanh", **more: bool) -> dict:
    torch.manual_seed(3)
    tensors = {"linear.weight": torch.randn(5, 32), "linear.bias": torch.randn(5)}
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    config = {"in_features": 32, "out_features": 5, "bias": True, "activation_function": activation, **more}
    (folder / "config.json").write_text(json.dumps(config))
    return tensors


def hidden_alone(folder: Path, text: str) -> torch.Tensor:
    """(tokens, dim) of one text, without padding, by transformers alone."""
    from tokenizers import Tokenizer

    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids
    with torch.inference_mode():
        return AutoModel.from_pretrained(folder).eval()(torch.tensor([ids])).last_hidden_state[0]


def unit(rows: list[torch.Tensor]) -> np.ndarray:
    return torch.nn.functional.normalize(torch.stack(rows), dim=-1).numpy()


def test_mean_pooling_is_that_of_the_networks_that_are_trained(folder: Path) -> None:
    write_modules(folder, MEAN, "sentence_transformers.models.Normalize")
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 48}')  # as in the recipe
    trained = make_network(NetworkRecipe.model_validate(network("bi-encoder")), folder).eval()
    assert isinstance(trained, BiEncoder)
    with torch.inference_mode():
        expected = trained.embed(TEXTS).numpy()
    np.testing.assert_allclose(SentenceTransformer.load(folder).encode(TEXTS), expected, atol=1e-5)


def test_a_folder_without_modules_is_pooled_by_the_mean(folder: Path) -> None:
    plain = SentenceTransformer.load(folder).encode(TEXTS)
    np.testing.assert_allclose(plain, unit([hidden_alone(folder, text).mean(0) for text in TEXTS]), atol=1e-5)


def test_cls_pooling_takes_the_first_token(folder: Path) -> None:
    write_modules(folder, CLS)
    expected = unit([hidden_alone(folder, text)[0] for text in TEXTS])
    np.testing.assert_allclose(SentenceTransformer.load(folder).encode(TEXTS), expected, atol=1e-5)


def test_a_dense_layer_reads_what_comes_before_it_normalised_or_not(folder: Path) -> None:
    tensors = write_dense(folder / "2_Dense")
    write_modules(folder, MEAN, "Dense", "Normalize")
    means = [hidden_alone(folder, text).mean(0) for text in TEXTS]
    expected = [torch.tanh(tensors["linear.weight"] @ mean + tensors["linear.bias"]) for mean in means]
    np.testing.assert_allclose(SentenceTransformer.load(folder).encode(TEXTS), unit(expected), atol=1e-5)
    (folder / "2_Dense").rename(folder / "3_Dense")
    write_modules(folder, MEAN, "Normalize", "Dense")
    units = [torch.from_numpy(row) for row in unit(means)]
    expected = [torch.tanh(tensors["linear.weight"] @ row + tensors["linear.bias"]) for row in units]
    np.testing.assert_allclose(SentenceTransformer.load(folder).encode(TEXTS), unit(expected), atol=1e-5)


def test_texts_are_cut_where_the_folder_says(folder: Path) -> None:
    long = "apple river " * 20
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 8, "do_lower_case": false}')
    cut = SentenceTransformer.load(folder).encode([long, long + "stone"])
    np.testing.assert_allclose(cut[0], cut[1], atol=1e-6)
    (folder / "sentence_bert_config.json").unlink()  # then at what the body has places for: 64
    assert SentenceTransformer.load(folder).encode([long]).shape == (1, 32)


@pytest.mark.parametrize(
    ("tokenizer", "body", "cut"),
    [(8192, 2048, 2048), (1e30, 514, 514), (600, -1, 600), (1e30, -1, 512), (128, 512, 128)],
)
def test_texts_are_cut_at_the_lesser_limit_of_tokenizer_and_body(
    folder: Path, tokenizer: float, body: int, cut: int
) -> None:
    """As sentence-transformers does, where a folder has no limit of its own."""
    for file, name, limit in (
        ("tokenizer_config.json", "model_max_length", tokenizer),
        ("config.json", "max_position_embeddings", body),
    ):
        facts = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
        (folder / file).write_text(json.dumps(facts | {name: limit}))
    assert own_tokenizer(folder).tokenize(["apple " * 9000]).lengths.tolist() == [cut]


def test_many_texts_in_many_batches_keep_their_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = SentenceTransformer.load(folder)
    texts = [text + " apple" * (n % 3) for n, text in enumerate(TEXTS * 4)]
    together = encoder.encode(texts)
    monkeypatch.setattr("model.training.sentence_transformer.TOKENS_PER_BATCH", 20)
    np.testing.assert_allclose(encoder.encode(texts), together, atol=1e-5)


def test_what_cannot_be_read_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    def refused(message: str) -> None:
        with pytest.raises(TrainingFault, match=message):
            SentenceTransformer.load(folder)

    write_modules(folder, {**MEAN, "pooling_mode_max_tokens": True})
    refused("pools by mean, pooling_mode_max_tokens; read are mean and cls")
    write_modules(folder, MEAN, "sentence_transformers.models.WordWeights")
    refused("lists Transformer, Pooling, WordWeights; read are")
    write_dense(folder / "2_Dense", "torch.nn.modules.activation.Softsign")
    write_modules(folder, MEAN, "Dense")
    refused("Dense has Softsign")
    (folder / "2_Dense").rename(tmp_path / "away")
    write_dense(folder / "2_Dense", use_residual=True)
    refused("or a residual")
    write_modules(folder, MEAN)
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 8, "do_lower_case": true}')
    refused("do_lower_case is set")
    (folder / "sentence_bert_config.json").unlink()
    (folder / "model.safetensors").unlink()
    refused("is not a sentence-transformers folder that can be read")
    with pytest.raises(TrainingFault, match="nowhere is not a sentence-transformers folder"):
        SentenceTransformer.load(tmp_path / "nowhere")
