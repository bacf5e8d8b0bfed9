from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import BertForMaskedLM

from model.faults import TrainingFault
from model.training.language import MlmHead, Vocabulary, fit_mlm_head, mask_tokens, word_embeddings
from model.training.losses import NOT_ASKED, masked_language_loss
from tests import tiny
from tests.model.training.tiny_training import bert

CLS, SEP, PAD = 2, 3, 0
LETTERS = Vocabulary(len(tiny.VOCABULARY), mask=4, special=(0, 1, 2, 3, 4))


def many_tokens() -> tuple[torch.Tensor, torch.Tensor]:
    """200 texts of 98 letters and padding."""
    letters = torch.randint(5, LETTERS.size, (200, 98), generator=torch.Generator().manual_seed(0))
    column = torch.ones(200, 1, dtype=torch.int64)
    ids = torch.cat([CLS * column, letters, SEP * column, PAD * column.repeat(1, 100)], dim=1)
    return ids, (ids != PAD).long()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_masking_is_berts() -> None:
    ids, mask = many_tokens()
    read, labels = mask_tokens(ids, mask, LETTERS, seeded(1))
    asked = labels != NOT_ASKED
    assert torch.equal(labels[asked], ids[asked])
    assert torch.equal(read[~asked], ids[~asked])
    assert asked.sum().item() / (200 * 98) == pytest.approx(0.15, abs=0.01)
    masked, kept = read[asked] == LETTERS.mask, read[asked] == ids[asked]
    assert masked.float().mean().item() == pytest.approx(0.8, abs=0.02)
    assert kept.float().mean().item() == pytest.approx(0.1, abs=0.02)
    others = read[asked][~masked & ~kept]
    assert len(others.unique()) > LETTERS.size / 2


def test_special_tokens_and_padding_are_never_asked() -> None:
    ids, mask = many_tokens()
    _, labels = mask_tokens(ids, mask, LETTERS, seeded(2))
    special = torch.isin(ids, torch.tensor(LETTERS.special))
    assert (labels[special] == NOT_ASKED).all()
    _, labels = mask_tokens(ids, torch.zeros_like(mask), LETTERS, seeded(2))
    assert (labels == NOT_ASKED).all()


def test_masking_is_the_same_for_the_same_generator() -> None:
    ids, mask = many_tokens()
    first, again, other = (mask_tokens(ids, mask, LETTERS, seeded(seed)) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def test_a_vocabulary_is_read_from_the_tokenizer_file(pretrained: Path) -> None:
    assert Vocabulary.load(pretrained / "tokenizer.json") == LETTERS


def test_a_tokenizer_without_a_mask_is_refused(tmp_path: Path) -> None:
    Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(TrainingFault, match=r"tokenizer.json has no \[MASK\]"):
        Vocabulary.load(tmp_path / "tokenizer.json")


def test_the_head_is_berts() -> None:
    """The oracle is transformers' BertForMaskedLM with the same weights."""
    torch.manual_seed(0)
    whole = BertForMaskedLM(bert().config).eval()
    theirs, head = whole.cls.predictions, MlmHead.of(whole.bert)
    torch.nn.init.normal_(theirs.decoder.bias)
    torch.nn.init.normal_(theirs.transform.LayerNorm.bias)
    with torch.no_grad():
        for ours, other in (
            (head.dense, theirs.transform.dense),
            (head.LayerNorm, theirs.transform.LayerNorm),
        ):
            ours.load_state_dict(other.state_dict())
        head.bias.copy_(theirs.decoder.bias)
    ids, mask = torch.tensor([[2, 7, 33, 3]]), torch.ones(1, 4, dtype=torch.int64)
    hidden = whole.bert(input_ids=ids, attention_mask=mask).last_hidden_state
    expected = whole(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(head(hidden, word_embeddings(whole.bert)), expected)


def test_a_head_is_fitted_to_a_body_that_stays_as_it_was() -> None:
    body, batch = bert(), {"input_ids": torch.tensor([[2, 7, 33, 34, 8, 3]] * 32)}
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    before = {name: tensor.clone() for name, tensor in body.state_dict().items()}
    read, labels = mask_tokens(**batch, vocabulary=LETTERS, generator=seeded(9))

    def loss(head: MlmHead) -> float:
        with torch.no_grad():
            hidden = body(input_ids=read, attention_mask=batch["attention_mask"]).last_hidden_state
            return masked_language_loss(head(hidden, word_embeddings(body)), labels).item()

    told: list[tuple[int, int]] = []
    fitted = fit_mlm_head(body, [batch], LETTERS, 200, progress=lambda done, total: told.append((done, total)))
    assert loss(fitted) < 0.5 * loss(MlmHead.of(body))
    assert all(torch.equal(body.state_dict()[name], tensor) for name, tensor in before.items())
    assert (told[0], told[-1], len(told)) == ((1, 200), (200, 200), 200)
    again = fit_mlm_head(body, [batch], LETTERS, 200)
    assert torch.equal(again.dense.weight, fitted.dense.weight)
