from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Encoding, Tokenizer, models, pre_tokenizers, processors

from model.tokens import AHEAD, SLICE, PairTokenizer, SentenceTokenizer, plan_batches
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


@given(lengths=st.lists(st.integers(1, 50), max_size=80), budget=st.integers(1, 200))
def test_batches_are_as_large_as_the_budget_allows(lengths: list[int], budget: int) -> None:
    """The plain way: shortest first, a row joins the batch unless that makes it too large."""
    plain: list[list[int]] = [[]]
    for row in sorted(range(len(lengths)), key=lambda row: lengths[row]):
        if plain[-1] and lengths[row] * (len(plain[-1]) + 1) > budget:
            plain.append([])
        plain[-1].append(row)
    assert [batch.tolist() for batch in plan_batches(lengths, budget)] == [batch for batch in plain if batch]


TEXTS = st.text("abc xyz[SEP]\N{SNOWMAN}", max_size=14)


def plainly(rows: list[list[int]], fill: int) -> np.ndarray:
    """Rows filled up to the longest, one at a time."""
    width = max(map(len, rows), default=0)
    return np.array([[*row, *[fill] * (width - len(row))] for row in rows]).reshape(len(rows), width)


@given(texts=st.lists(TEXTS, min_size=1, max_size=12), data=st.data())
def test_a_batch_of_sentences_is_what_encoding_each_alone_gives(
    tokenizer_file: Path, texts: list[str], data: st.DataObject
) -> None:
    one_by_one = Tokenizer.from_file(str(tokenizer_file))
    one_by_one.enable_truncation(8)
    alone = [one_by_one.encode(text) for text in texts]
    tokenizer = SentenceTokenizer.load(tokenizer_file, 8)
    tokens = tokenizer.tokenize(texts)
    assert len(tokens) == len(texts)
    assert tokens.lengths.tolist() == [len(encoding) for encoding in alone]
    assert tokens.truncated.tolist() == [bool(encoding.overflowing) for encoding in alone]
    rows = data.draw(st.lists(st.integers(0, len(texts) - 1)))
    arrays = tokenizer.padded(tokens, np.array(rows, np.intp))
    np.testing.assert_array_equal(arrays["input_ids"], plainly([alone[row].ids for row in rows], 0))
    np.testing.assert_array_equal(arrays["attention_mask"], plainly([alone[row].attention_mask for row in rows], 0))
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.int64)}


LONG = st.lists(
    st.tuples(st.sampled_from(["a", "xyz", "abc" * 10, "c" * 101, "\N{SNOWMAN}", ",", " "]), st.integers(1, 60))
)


@pytest.mark.parametrize("space", [" ", ""])
@settings(max_examples=40)
@given(texts=st.lists(LONG, max_size=3))
def test_of_long_texts_a_beginning_is_enough(
    tokenizer_file: Path, space: str, texts: list[list[tuple[str, int]]]
) -> None:
    """In small: looked at from 32 characters on, and 60 at a time."""
    written = [space.join(space.join([word] * times) for word, times in text) for text in texts]
    one_by_one = Tokenizer.from_file(str(tokenizer_file))
    one_by_one.enable_truncation(32)
    alone = [one_by_one.encode(text) for text in written]
    with mock.patch.multiple("model.tokens", AHEAD=1, ALONE=20, SLICE=60):
        tokens = SentenceTokenizer.load(tokenizer_file, 32).tokenize(written)
        pairs = PairTokenizer.load(tokenizer_file, 32).tokenize([(text, "a") for text in written])
    assert [tokens.ids.row(row).tolist() for row in range(len(tokens))] == [encoding.ids for encoding in alone]
    assert tokens.truncated.tolist() == [bool(encoding.overflowing) for encoding in alone]
    paired = [one_by_one.encode(text, "a") for text in written]
    assert [pairs.ids.row(row).tolist() for row in range(len(pairs))] == [encoding.ids for encoding in paired]
    assert pairs.truncated.tolist() == [bool(encoding.overflowing) for encoding in paired]


class Noting:
    """A tokenizer that notes how many characters it was given at a time."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer, self.given = tokenizer, list[int]()
        self.token_to_id = tokenizer.token_to_id

    def encode_batch_fast(self, texts: list[str], add_special_tokens: bool) -> list[Encoding]:
        self.given.append(sum(map(len, texts)))
        return self.tokenizer.encode_batch_fast(texts, add_special_tokens=add_special_tokens)


def test_little_is_tokenised_at_a_time(tokenizer_file: Path) -> None:
    whole = Tokenizer.from_file(str(tokenizer_file))
    whole.enable_truncation(256)
    noting = Noting(whole)
    tokenizer = SentenceTokenizer(noting, 256)  # type: ignore[arg-type]
    many = ["a" * 90 + " " + "b" * 90] * 300
    tokens = tokenizer.tokenize([*many, "a b " * 50_000, *many, " " * 20_000 + "a b " * 50_000])
    assert len(tokens) == 602
    assert np.flatnonzero(tokens.truncated).tolist() == [300, 601]
    assert max(noting.given) <= SLICE
    assert sum(noting.given) <= 2 * sum(map(len, many)) + (2 + 1 + 4 + 4) * AHEAD * 256
    noting.given.clear()
    tokenizer.tokenize(many[:20])
    assert noting.given == [20 * 181]


@pytest.fixture(scope="module")
def pair_files(tmp_path_factory: pytest.TempPathFactory, tokenizer_file: Path) -> dict[str, Path]:
    """BERT's markers and segments; RoBERTa's, two between the texts and no segments; and none at all."""
    files = {"bert": tokenizer_file}
    for name, markers in (("roberta", processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2))), ("none", None)):
        tokenizer = tiny.tokenizer()
        tokenizer.post_processor = markers
        files[name] = tmp_path_factory.mktemp(name) / "tokenizer.json"
        tokenizer.save(str(files[name]))
    return files


@pytest.mark.parametrize("kind", ["bert", "roberta", "none"])
@given(pairs=st.lists(st.tuples(TEXTS, TEXTS), max_size=12), most=st.integers(8, 16))
def test_a_batch_of_pairs_is_what_encoding_each_alone_gives(
    pair_files: dict[str, Path], kind: str, pairs: list[tuple[str, str]], most: int
) -> None:
    one_by_one = Tokenizer.from_file(str(pair_files[kind]))
    one_by_one.enable_truncation(most)
    alone = [one_by_one.encode(*pair) for pair in pairs]
    tokenizer = PairTokenizer.load(pair_files[kind], most)
    tokens = tokenizer.tokenize(pairs)
    assert tokens.truncated.tolist() == [bool(encoding.overflowing) for encoding in alone]
    arrays = tokenizer.padded(tokens)
    np.testing.assert_array_equal(arrays["input_ids"], plainly([encoding.ids for encoding in alone], 0))
    np.testing.assert_array_equal(arrays["token_type_ids"], plainly([encoding.type_ids for encoding in alone], 0))
    mask = plainly([encoding.attention_mask for encoding in alone], 0)
    np.testing.assert_array_equal(arrays["attention_mask"], mask)


def test_a_text_that_many_pairs_share_is_read_once(tokenizer_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long query beside a hundred documents took gigabytes."""
    read: list[str] = []

    class Watched:
        def __init__(self, tokenizer: Tokenizer) -> None:
            self._tokenizer = tokenizer

        def encode_batch_fast(self, texts: list[str], **options: bool) -> list[Encoding]:
            read.extend(texts)
            return self._tokenizer.encode_batch_fast(texts, **options)

    tokenizer = PairTokenizer.load(tokenizer_file, 16)
    monkeypatch.setattr(tokenizer, "_tokenizer", Watched(tokenizer._tokenizer))
    tokens = tokenizer.tokenize([("abc " * 50, "x"), ("abc " * 50, "y"), ("x", "abc " * 50)])
    assert sorted(read) == ["abc " * 50, "x", "y"]
    assert tokens.lengths.tolist() == [16] * 3


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
    tokenizer = SentenceTokenizer.load(tokenizer_file, 8)
    tokens = tokenizer.tokenize(["abcdef", "abcdefg"])
    assert tokens.lengths.tolist() == [8, 8]
    assert tokens.truncated.tolist() == [False, True]
    assert tokenizer.padded(tokens)["input_ids"][:, -1].tolist() == [tiny.VOCABULARY.index("[SEP]")] * 2


def test_pairs_are_read_together_the_longer_one_cut(tokenizer_file: Path) -> None:
    tokenizer = PairTokenizer.load(tokenizer_file, 9)
    tokens = tokenizer.tokenize([("abcdef", "gh"), ("a b", "c")])
    assert tokens.truncated.tolist() == [True, False]
    arrays = tokenizer.padded(tokens)
    decoded = [tiny.VOCABULARY[token] for token in arrays["input_ids"][0]]
    assert decoded == ["[CLS]", "a", "##b", "##c", "##d", "[SEP]", "g", "##h", "[SEP]"]
    np.testing.assert_array_equal(arrays["token_type_ids"], [[0, 0, 0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1, 0, 0, 0]])


def test_where_a_pair_is_split_matters(tokenizer_file: Path) -> None:
    tokenizer = PairTokenizer.load(tokenizer_file, 16)
    left, right = tokenizer.padded(tokenizer.tokenize([("a b", "c"), ("a", "b c")]))["input_ids"]
    assert left.tolist() != right.tolist()


def test_pieces_are_the_whole_text_each_within_its_markers(tokenizer_file: Path) -> None:
    texts = ["abcdefghij", "ab", "", "xyz" * 5]
    pieces = SentenceTokenizer.load(tokenizer_file, 6).pieces(texts)
    tokens, owners = pieces.tokens, pieces.owners
    assert owners.tolist() == [0, 0, 0, 1, 2, 3, 3, 3, 3]
    assert not tokens.truncated.any()
    whole = SentenceTokenizer.load(tokenizer_file, 100).tokenize(texts).ids
    opening, closing = whole.row(2)
    rows = [tokens.ids.row(row) for row in range(len(tokens))]
    assert all(len(row) <= 6 and (row[0], row[-1]) == (opening, closing) for row in rows)
    for text in range(len(texts)):
        inner = [row[1:-1] for row, owner in zip(rows, owners, strict=True) if owner == text]
        assert np.concatenate(inner).tolist() == whole.row(text)[1:-1].tolist()
