"""A head over a body that stays as it is: what it is asked again, and what it learns of searching."""

from pathlib import Path

import numpy as np
import pytest
import torch

from model.training.known import CANDIDATES_ANYWHERE, CANDIDATES_NEAR, NEAR, KnownEmbeddings, nearest
from model.training.network_recipe import NetworkRecipe
from model.training.networks import BiEncoder, make_network
from model.training.pairs import Pair
from model.training.runs import train_network
from model.training.trainer import Material, TextTarget
from tests.model.training.test_runs import examples
from tests.model.training.tiny_training import network, some_texts

RECIPE = NetworkRecipe.model_validate(network("bi-encoder"))


@pytest.fixture
def student(pretrained: Path) -> BiEncoder:
    made = make_network(RECIPE, pretrained).eval()
    assert isinstance(made, BiEncoder)
    return made


def on_a_half_circle(count: int) -> np.ndarray:
    """(count, 2) unit rows, of which each is known by its cosine with the first."""
    angles = np.array([0.0, *np.linspace(0.5, np.pi, count - 1)])
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_known_embeddings_answer_as_the_network_and_read_every_text_once(
    student: BiEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    embed = student.embed
    monkeypatch.setattr(student, "embed", lambda texts: (read.extend(texts), embed(texts))[1])
    known = KnownEmbeddings(student, RECIPE, [example.pair for example in [*examples(), *examples()]])
    assert len(read) == len(set(read))
    pairs = [example.pair for example in examples()][::-1]
    answers = known(pairs)
    assert len(read) == len(set(read))  # nothing was read again
    for name in ("logit", "similarity", "left", "right"):
        torch.testing.assert_close(getattr(answers, name), getattr(student(pairs), name))
    answers.logit.sum().backward()
    assert student.head is not None
    assert all(parameter.grad is not None for parameter in student.head.parameters())
    assert all(parameter.grad is None for parameter in student.body.parameters())


@pytest.mark.parametrize("most", [3, 500])
def test_the_nearest_are_those_of_every_comparison(most: int) -> None:
    rows = np.random.default_rng(1).normal(size=(60, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    similarities = rows @ rows.T
    np.fill_diagonal(similarities, -np.inf)
    expected = np.argsort(-similarities, axis=1)[:, : min(most, 59)]
    np.testing.assert_array_equal(nearest(torch.from_numpy(rows), most), expected)


def test_a_search_scores_texts_near_and_far_beside_what_the_guide_says(student: BiEncoder) -> None:
    texts = some_texts(300)
    aims = on_a_half_circle(len(texts))
    known = KnownEmbeddings(student, RECIPE, [], dict(zip(texts, aims, strict=True)))
    logits, similarities = known.search([texts[0]] * 20)
    assert logits.shape == similarities.shape == (20, CANDIDATES_NEAR + CANDIDATES_ANYWHERE)
    found = np.abs(similarities.numpy()[..., None] - aims[:, 0]).argmin(-1)  # rows of candidates
    assert (found[:, :CANDIDATES_NEAR] <= NEAR).all()
    assert (found[:, :CANDIDATES_NEAR] > 0).all()  # a text is no candidate of its own
    assert all(len(set(row[:CANDIDATES_NEAR])) == CANDIDATES_NEAR for row in found.tolist())
    assert (found[:, CANDIDATES_NEAR:] > NEAR).any()
    pairs = [Pair(str(n), texts[0], texts[row], 0.0) for n, row in enumerate(found.flatten())]
    torch.testing.assert_close(logits.flatten(), student(pairs).logit)


def test_a_head_learns_to_rank_as_the_guide_does(tmp_path: Path, pretrained: Path) -> None:
    texts = some_texts(150)
    angles = np.array([3 * text.count("apple") / len(text.split()) for text in texts])
    aims = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float16)
    one = {"name": "one", "sets": ["train"], "epochs": 1, "batch": 8, "learning_rate": 1e-2}
    head = one | {"name": "head", "head_only": True, "epochs": 30}
    agreement = {}
    for name, asked in (("without", {}), ("with", {"search": 1.0, "texts": ["plain"]})):
        recipe = NetworkRecipe.model_validate(network("bi-encoder") | {"stages": [one, head | asked]})
        targets = [TextTarget(text, aim) for text, aim in zip(texts, aims, strict=True)] if asked else []
        material = [Material(examples()), Material(examples(), targets)]
        made = train_network(recipe, pretrained, material, tmp_path / name, lambda *_: None).eval()
        assert isinstance(made, BiEncoder)
        torch.manual_seed(3)
        logits, similarities = KnownEmbeddings(made, RECIPE, [], dict(zip(texts, aims, strict=True))).search(texts)
        agreement[name] = np.corrcoef(logits.detach().flatten(), similarities.flatten())[0, 1]
    assert agreement["with"] > agreement["without"] + 0.2
