from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from model.tokens import PairTokenizer, SentenceTokenizer, plan_batches
from tests import tiny


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tiny.tokenizer().save(str(path))
    return path


@given(lengths=st.lists(st.integers(1, 50), max_size=80), budget=st.integers(1, 200))
def test_every_row_is_in_one_batch_and_no_batch_is_over_budget(lengths: list[int], budget: int) -> None:
    batches = plan_batches(lengths, budget)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= budget


def test_sentences_are_padded_to_the_longest(tokenizer_file: Path) -> None:
    tokenizer = SentenceTokenizer.load(tokenizer_file, 8)
    arrays = tokenizer.padded(tokenizer.tokenize(["ab", "c"]))
    cls, sep = tiny.VOCABULARY.index("[CLS]"), tiny.VOCABULARY.index("[SEP]")
    a, b, c = (tiny.VOCABULARY.index(token) for token in ("a", "##b", "c"))
    np.testing.assert_array_equal(arrays["input_ids"], [[cls, a, b, sep], [cls, c, sep, 0]])
    np.testing.assert_array_equal(arrays["attention_mask"], [[1, 1, 1, 1], [1, 1, 1, 0]])


def test_padding_is_what_the_tokenizer_calls_it(tmp_path: Path) -> None:
    robertas = Tokenizer(models.WordLevel({"<s>": 0, "<pad>": 1, "a": 2, "b": 3}, unk_token="<s>"))
    robertas.pre_tokenizer = pre_tokenizers.Whitespace()
    robertas.save(str(tmp_path / "tokenizer.json"))
    tokenizer = SentenceTokenizer.load(tmp_path / "tokenizer.json", 8)
    ids = tokenizer.padded(tokenizer.tokenize(["a b a", "b"]))["input_ids"]
    np.testing.assert_array_equal(ids, [[2, 3, 2], [3, 1, 1]])


def test_a_long_sentence_is_cut_and_says_so(tokenizer_file: Path) -> None:
    short, long = SentenceTokenizer.load(tokenizer_file, 8).tokenize(["abcdef", "abcdefg"])
    assert (len(short), short.truncated) == (8, False)
    assert (len(long), long.truncated) == (8, True)
    assert long.ids[-1] == tiny.VOCABULARY.index("[SEP]")


def test_pairs_are_read_together_the_longer_one_cut(tokenizer_file: Path) -> None:
    tokenizer = PairTokenizer.load(tokenizer_file, 9)
    rows = tokenizer.tokenize([("abcdef", "gh"), ("a b", "c")])
    assert [row.truncated for row in rows] == [True, False]
    decoded = [[tiny.VOCABULARY[token] for token in row.ids] for row in rows]
    assert decoded[0] == ["[CLS]", "a", "##b", "##c", "##d", "[SEP]", "g", "##h", "[SEP]"]
    types = tokenizer.padded(rows)["token_type_ids"]
    np.testing.assert_array_equal(types, [[0, 0, 0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1, 0, 0, 0]])


def test_where_a_pair_is_split_matters(tokenizer_file: Path) -> None:
    left, right = PairTokenizer.load(tokenizer_file, 16).tokenize([("a b", "c"), ("a", "b c")])
    assert left.ids != right.ids
