"""A view is searched as one collection: the generation, without what is gone, and what came since."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.changes import Change
from index.documents import Document
from index.exact import exact_nearness
from index.filters import parse_filter
from index.generations import Generation
from index.selection import Selection
from index.view import View
from tests.index.test_filtered_search import ROWS, build_numbers, encode, metadata_of

FILTERS = [None, {"lang": "en"}, {"number": {"$lt": 400}}, {"number": {"$gte": 590}}]


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> View:
    return View.of(Generation.open(build_numbers(tmp_path_factory.mktemp("view") / "index")))


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), batches=st.lists(st.integers(0, 60), max_size=3), depth=st.integers(1, 700))
def test_a_search_is_that_of_everything_there_is(numbers: View, seed: int, batches: list[int], depth: int) -> None:
    random = np.random.default_rng(seed)
    view, oracle = View.of(numbers.generation), {f"d{row}": row for row in range(ROWS)}
    for batch in batches:
        changes: dict[str, Change] = {}
        for _ in range(batch):
            id_, number = f"d{random.integers(0, ROWS + 100)}", int(random.integers(1000, 10_000))
            if random.random() < 0.4:
                changes[id_] = Change(id_)
                oracle.pop(id_, None)
            else:
                document = Document(id_, str(number), metadata_of(number % ROWS))
                changes[id_] = Change(id_, document, encode([str(number)])[0])
                oracle[id_] = number
        view = view.after(list(changes.values()))
    assert len(view) == len(oracle)
    (query,) = encode([str(random.integers(10_000, 20_000))])
    for value in FILTERS:
        wanted = None if value is None else parse_filter(value)
        some = [number for number in oracle.values() if wanted is None or wanted.matches(metadata_of(number % ROWS))]
        for _ in range(2):  # the second time from what is remembered
            found = view.search(query, depth, wanted)
            assert len(found.rows) == min(depth, len(some))
            if some:
                best = np.sort(encode([str(number) for number in some]) @ query)[::-1][:depth]
                np.testing.assert_allclose(found.similarities, best, atol=2e-5)
        assert all(oracle[document.id] == int(document.text) for document in view.documents(found.rows))


def test_what_a_selection_says_of_its_rows() -> None:
    flags = np.array([True, False, True, True, False, False, False, False, True])
    selection = Selection(flags)
    assert (len(selection), selection.count, selection.rows.tolist()) == (9, 4, [0, 2, 3, 8])
    assert [selection.bitmap.is_member(row) for row in range(9)] == flags.tolist()
    lists = {3: np.array([0, 1]), 5: np.array([2, 3, 8]), 7: np.empty(0, np.int64)}
    assert [selection.in_list(*each) for each in [*lists.items(), *lists.items()]] == [1, 3, 0, 1, 3, 0]
    assert selection.in_list(5, np.array([1])) == 3  # remembered: a list has no other rows
    both = selection & Selection(~flags | (np.arange(9) == 8))
    assert both.rows.tolist() == [8]
    with pytest.raises(ValueError, match="read-only"):
        selection.flags[0] = False


@given(seed=st.integers(0, 2**32 - 1), sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6), k=st.integers(1, 9))
def test_the_nearest_of_parts_are_those_of_the_whole(seed: int, sizes: list[int], k: int) -> None:
    random = np.random.default_rng(seed)
    rows, queries = random.normal(size=(sum(sizes), 4)), random.normal(size=(3, 4))
    k = min(k, len(rows))
    parts = np.split(rows, np.cumsum(sizes)[:-1])
    found = exact_nearness(queries, k, iter(parts))
    np.testing.assert_allclose(found, np.sort(queries @ rows.T)[:, ::-1][:, :k], rtol=1e-5, atol=1e-6)
