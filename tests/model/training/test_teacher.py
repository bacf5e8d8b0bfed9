"""A teacher signal's members: trained here, or any cross-encoder that others trained."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModelForSequenceClassification, RobertaConfig, RobertaForSequenceClassification

from model.faults import TrainingFault
from model.manifest import ArtifactError
from model.training.pairs import Pair
from model.training.recipes import TeacherRecipe
from model.training.teacher import Ensemble, train_teacher
from tests.model.training.tiny_training import DATA, EXPORT, WORDS, network, training_data

pytestmark = pytest.mark.filterwarnings("ignore")  # the exporter warns about itself

PAIRS = [("apple river", "river stone"), ("cloud", "green table music paper horse")]


def write_roberta(folder: Path, labels: int = 1) -> Path:
    """Someone else's cross-encoder: RoBERTa's special tokens, no segments, positions that start after the padding."""
    torch.manual_seed(3)
    words = ["<s>", "<pad>", "</s>", "<unk>", *WORDS, "zzz", "fox", "quick", "jjj"]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    config = RobertaConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        type_vocab_size=1,
        pad_token_id=1,
        num_labels=labels,
        initializer_range=0.3,
    )
    RobertaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "RobertaTokenizerFast"}))
    return folder


def recipe(**facts: Any) -> TeacherRecipe:
    member = network("cross-encoder", "theirs", head={"kind": "classifier"}) | {"stages": []} | facts
    return TeacherRecipe.model_validate(
        {"name": "theirs", "data": DATA, "members": [member], "max_tokens": 48, "export": EXPORT}
    )


def test_any_cross_encoder_is_a_teacher_as_it_is(tmp_path: Path, pair_files: Path) -> None:
    theirs = write_roberta(tmp_path / "roberta")
    train_teacher(recipe(), training_data(pair_files), None, str(theirs), tmp_path / "run", lambda *_: None)
    ensemble = Ensemble.load(tmp_path / "run")
    raw = ensemble.raw_scores([Pair("", left, right, 0.0) for left, right in PAIRS])
    model = AutoModelForSequenceClassification.from_pretrained(theirs).eval()
    tokenizer = Tokenizer.from_file(str(theirs / "tokenizer.json"))
    for row, pair in zip(raw, PAIRS, strict=True):
        orders = [tokenizer.encode(*pair).ids, tokenizer.encode(*reversed(pair)).ids]
        with torch.inference_mode():
            logits = [model(torch.tensor([ids])).logits.item() for ids in orders]
        assert row[0] == pytest.approx(np.mean(logits), abs=1e-4)


def test_a_cross_encoder_of_three_labels_is_refused(tmp_path: Path, pair_files: Path) -> None:
    theirs = write_roberta(tmp_path / "roberta", labels=3)
    with pytest.raises(TrainingFault, match="answers 3 labels a pair; a teacher answers one logit"):
        train_teacher(recipe(), training_data(pair_files), None, str(theirs), tmp_path / "run", lambda *_: None)


def test_weights_that_would_have_to_be_unpickled_are_refused(tmp_path: Path, pair_files: Path) -> None:
    theirs = write_roberta(tmp_path / "roberta")
    (theirs / "model.safetensors").rename(theirs / "pytorch_model.bin")
    with pytest.raises(TrainingFault, match="not a pretrained transformer"):
        train_teacher(recipe(), training_data(pair_files), None, str(theirs), tmp_path / "run", lambda *_: None)


def test_a_signal_without_an_encoder_cannot_find_neighbours(tmp_path: Path, pair_files: Path) -> None:
    theirs = write_roberta(tmp_path / "roberta")
    train_teacher(recipe(), training_data(pair_files), None, str(theirs), tmp_path / "run", lambda *_: None)
    with pytest.raises(TrainingFault, match="theirs has no bi-encoder among its members"):
        Ensemble.load(tmp_path / "run").sentence_member()


@pytest.mark.parametrize(("name", "fault"), [("onnx/model.onnx", ArtifactError), ("config.json", TrainingFault)])
def test_a_member_that_was_altered_does_not_label(
    tmp_path: Path, pair_files: Path, name: str, fault: type[Exception]
) -> None:
    theirs = write_roberta(tmp_path / "roberta")
    train_teacher(recipe(), training_data(pair_files), None, str(theirs), tmp_path / "run", lambda *_: None)
    with (tmp_path / "run/theirs" / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(fault, match=r"theirs.* has been altered: .*; run dse teacher train into a new folder"):
        Ensemble.load(tmp_path / "run")


def test_a_signal_of_before_graphs_were_noted_is_the_same(tmp_path: Path, pair_files: Path) -> None:
    """Labels that were written under it go on."""
    theirs = write_roberta(tmp_path / "roberta")
    signal = train_teacher(recipe(), training_data(pair_files), None, str(theirs), tmp_path / "run", lambda *_: None)
    written = json.loads((tmp_path / "run/signal.json").read_text())
    del written["members"][0]["graph"]
    (tmp_path / "run/signal.json").write_text(json.dumps(written))
    assert Ensemble.load(tmp_path / "run").signal == signal
    assert signal.members[0].graph is not None


def test_progress_tells_the_members_apart(tmp_path: Path, pretrained: Path, pair_files: Path) -> None:
    """Their stages may have one name and unlike lengths."""
    members = [
        network("bi-encoder", name, head={"kind": "cosine"}, stage={"epochs": epochs})
        for name, epochs in (("first", 1), ("second", 2))
    ]
    wanted = TeacherRecipe.model_validate({"name": "two", "data": DATA, "members": members, "max_tokens": 48})
    told: dict[str, set[int]] = {}
    train_teacher(
        wanted,
        training_data(pair_files),
        None,
        str(pretrained),
        tmp_path / "run",
        lambda stage, done, total: told.setdefault(stage, set()).add(total),
    )
    assert told == {"first: one": {10}, "second: one": {20}}
