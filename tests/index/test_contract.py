"""What every index promises, in a folder and in a Milvus: the same tests for both, through :mod:`index.contract`."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index.contract import Index, IndexView
from index.documents import Document
from index.filters import parse_filter
from index.finish import SearchWanted
from index.generations import similarities_of
from index.location import Location
from index.manifest import EncoderIdentity, IndexFault, ReadOnlyFault, RecipeFault
from index.opening import manifest_at, open_any
from index.places import build_at, copy_between, facts_at, rebuild_at, verify_at
from index.recall import Aim
from index.sources import SourcedDocument, SourceError
from tests.index.lettered import ENCODER, HALVED, document, embed, embed_halves
from tests.index.vectors import clustered, unit_rows
from tests.standin import ACCESS

WORDS = {"a": "listen", "b": "silent", "c": "stone", "d": "notes", "e": "banana"}
ODD_IDS = ["ü ?#%", "'", '"', "\\", "] or true", "a/b", "{x}", "𝄞", "x" * 2000]
IDS = st.sampled_from([*"abcdef", *ODD_IDS])
TEXTS = st.text("abcdef", min_size=1, max_size=6)


class Kind:
    """Where indexes are made."""

    def __init__(self, request: pytest.FixtureRequest, folder: Path) -> None:
        self.name, self._request, self._folder, self._made = request.param, request, folder, 0

    def place(self) -> Location:
        if self.name == "folder":
            self._made += 1
            return self._folder / f"index{self._made}"
        return self._request.getfixturevalue("milvus").address()

    def work(self, place: Location) -> Path:
        return self._folder / "work" / str(place).rpartition("/")[2]

    def build(self, documents: list[Document], recipe: str | None = "Flat", **options: Any) -> Location:
        place = self.place()
        self.build_into(place, documents, recipe, **options)
        return place

    def build_into(self, place: Location, documents: list[Document], recipe: str | None = "Flat", **options: Any):
        wanted: dict[str, Any] = {"encode": embed, "dims": 26, "encoder": ENCODER, "recipe": recipe} | options
        sourced = [SourcedDocument(found, f"line {number}") for number, found in enumerate(documents, 1)]
        return build_at(place, ACCESS, self.work(place), documents=sourced, **wanted)

    def words(self) -> Location:
        return self.build([document(*item) for item in WORDS.items()])


@pytest.fixture(scope="module", params=["folder", "milvus"])
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kind:
    if request.param == "milvus":
        request.getfixturevalue("milvus")
    return Kind(request, tmp_path_factory.mktemp("contract"))


def opened(place: Location, writable: bool = True, encoder: EncoderIdentity | None = ENCODER) -> Index:
    return open_any(place, encoder, writable, access=ACCESS)


@pytest.fixture
def index(kind: Kind) -> Iterator[Index]:
    with opened(kind.words()) as index:
        yield index


def upsert(index: Index, texts: Mapping[str, str]) -> list[str]:
    return list(index.upsert([document(*item) for item in texts.items()], embed(list(texts.values()))))


def check(view: IndexView, expected: Mapping[str, str]) -> None:
    """Every way to count and find has to agree with what is expected."""
    assert len(view) == len(expected)
    for id_ in {*WORDS, *expected}:
        found = view.get(id_)
        assert (found and found.text) == expected.get(id_)
    for query, depth in (("listen", 3), ("ban", 100)):
        check_search(view, expected, query, depth)


def check_search(view: IndexView, expected: Mapping[str, str], query: str, depth: int, most: int | None = None) -> None:
    """The answer has the similarities that exhaustive comparison finds, and each is that of its own document."""
    asked = embed([query])[0]
    wanted = None if most is None else parse_filter({"length": {"$lte": most}})
    allowed = {id_: text for id_, text in expected.items() if most is None or len(text) <= most}
    found = view.search(asked, depth, wanted)
    every = similarities_of(embed(list(allowed.values())), asked)
    np.testing.assert_allclose(found.similarities, np.sort(every)[::-1][:depth], atol=2e-5)
    documents = view.documents(found.rows)
    assert len({hit.id for hit in documents}) == len(documents)
    assert [document(hit.id, allowed[hit.id]) for hit in documents] == documents
    np.testing.assert_array_equal(found.embeddings, embed([hit.text for hit in documents]))
    order = list(zip(-found.similarities, found.rows, strict=True))
    assert order == sorted(order)
    assert view.documents(found.rows[::-1]) == documents[::-1]


def test_what_was_built_is_found(index: Index) -> None:
    check(index.view(), WORDS)
    view = index.view()
    assert (view.name, view.pending, view.manifest.encoder) == ("000001", 0, ENCODER)
    assert (index.writable, index.away, index.stays_because) == (True, None, None)
    assert (index.latest.name, len(index.latest)) == ("000001", 5)


def test_a_write_is_in_the_very_next_view_of_every_handle(kind: Kind) -> None:
    place = kind.words()
    with opened(place) as one, opened(place, writable=False) as other:
        assert upsert(one, {"f": "tinsel", "a": "google"}) == ["created", "updated"]
        for handle in (one, other):
            check(handle.view(), {**{id_: WORDS[id_] for id_ in "bcde"}, "f": "tinsel", "a": "google"})
        assert one.delete(["f", "b", "f", "nobody"]) == 2
        check(other.view(), {**{id_: WORDS[id_] for id_ in "cde"}, "a": "google"})


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.dictionaries(IDS, TEXTS, max_size=4) | st.lists(IDS, max_size=4) | st.just("compact"), min_size=1, max_size=8
    ),
    query=TEXTS,
    depth=st.integers(1, 20),
    most=st.integers(1, 6),
)
def test_any_history(index: Index, steps: list, query: str, depth: int, most: int) -> None:
    index.delete([*WORDS, *"f", *ODD_IDS])
    assert upsert(index, WORDS) == ["created"] * len(WORDS)
    oracle = dict(WORDS)
    for step in steps:
        if isinstance(step, dict):
            assert upsert(index, step) == ["updated" if id_ in oracle else "created" for id_ in step]
            oracle |= step
        elif isinstance(step, list):
            assert index.delete(step) == len(set(step) & oracle.keys())
            oracle = {id_: text for id_, text in oracle.items() if id_ not in step}
        else:
            index.compact()
        check_search(index.view(), oracle, query, depth)
    check(index.view(), oracle)
    check_search(index.view(), oracle, query, depth, most)


def test_an_id_twice_in_a_batch(index: Index) -> None:
    twice = [document("n", "first"), document("n", "second")]
    assert index.upsert(twice, embed(["first", "second"])) == ["created", "updated"]
    check(index.view(), WORDS | {"n": "second"})


def test_metadata_comes_back_as_it_went_in(index: Index) -> None:
    metadata = {"é \"'": [1, 2.5, None, True, {"deep": ["𝄞", {}]}], "big": 2**70, "small": 1e-300, "": ""}
    index.upsert([Document("m", "abc", metadata)], embed(["abc"]))
    found = index.view().get("m")
    assert found == Document("m", "abc", metadata)
    assert list(found.metadata) == list(metadata)


def test_deletes_and_filters_take_no_place_of_the_depth(kind: Kind, index: Index) -> None:
    upsert(index, {"a": "abba"})
    index.delete(["b"])
    view = index.view()
    found = view.search(embed(["tinsel"])[0], 3)
    hits = [hit.id for hit in view.documents(found.rows)]
    assert hits == ["c", "d", "e"] or (kind.name == "milvus" and hits == ["d", "c", "e"])  # equals are in any order
    short = view.search(embed(["tinsel"])[0], 2, parse_filter({"length": 5}))
    assert {hit.id for hit in view.documents(short.rows)} == {"c", "d"}
    none = view.search(embed(["tinsel"])[0], 2, parse_filter({"length": {"$in": []}}))
    assert (none.rows.shape, none.embeddings.shape) == ((0,), (0, 26))


def test_an_index_whose_last_document_was_deleted(index: Index) -> None:
    assert index.delete(WORDS) == 5
    assert (len(index.view()), len(index.view().search(embed(["listen"])[0], 10).rows)) == (0, 0)
    index.compact()
    upsert(index, {"x": "stone"})
    check(index.view(), {"x": "stone"})


def test_a_reader_changes_nothing(kind: Kind) -> None:
    with opened(kind.words(), writable=False) as index:
        for change in (lambda: upsert(index, {"f": "f"}), lambda: index.delete(["a"]), index.compact):
            with pytest.raises(ReadOnlyFault, match="for reading only"):
                change()
        check(index.view(), WORDS)


def test_vectors_that_do_not_fit_change_nothing(index: Index) -> None:
    with pytest.raises(IndexFault, match="this index holds rows of 26"):
        index.upsert([document("f", "f")], np.ones((1, 25), np.float32))
    with pytest.raises(IndexFault, match="not finite"):
        index.upsert([document("f", "f")], np.full((1, 26), np.nan, np.float32))
    check(index.view(), WORDS)


def test_another_encoder_is_refused_and_both_are_named(kind: Kind) -> None:
    place = kind.words()
    with pytest.raises(IndexFault, match=f"{ENCODER.digest}.*{HALVED.digest}.*dse index build INPUT"):
        opened(place, encoder=HALVED)
    manifest = manifest_at(place, ACCESS)
    assert manifest is not None
    assert manifest.encoder == ENCODER


def test_what_is_no_index_is_refused_with_the_command_that_makes_one(kind: Kind) -> None:
    place = kind.place()
    with pytest.raises(IndexFault, match=r"is not an index .*dse index build INPUT --output"):
        opened(place)
    assert manifest_at(place, ACCESS) is None


def test_a_second_build_takes_the_place_of_the_first(kind: Kind) -> None:
    place = kind.words()
    with opened(place) as index:
        name, _ = kind.build_into(place, [document("x", "onset")])
        assert name == "000002"
        assert index.reload().name == "000002"
        check(index.view(), {"x": "onset"})
        upsert(index, {"y": "notes"})
        check(index.view(), {"x": "onset", "y": "notes"})


def test_a_build_that_fails_leaves_the_index_and_goes_on_later(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    from index import build as build_module

    monkeypatch.setattr(build_module, "DOCUMENTS_PER_SHARD", 2)
    monkeypatch.setattr(build_module, "DOCUMENTS_PER_BATCH", 2)
    place = kind.words()
    more = {f"n{number}": "abcdef"[number:] for number in range(5)}
    documents = [document(*item) for item in more.items()]
    embedded: list[str] = []

    def encode(texts: list[str]) -> np.ndarray:
        if "ef" in texts:
            raise ArithmeticError("not finite")
        embedded.extend(texts)
        return embed(texts)

    with pytest.raises(ArithmeticError):
        kind.build_into(place, documents, encode=encode)
    with opened(place) as index:
        check(index.view(), WORDS)
    first = list(embedded)
    kind.build_into(place, documents, encode=lambda texts: (embedded.extend(texts), embed(texts))[1])
    again = set(embedded[len(first) :])
    assert (first[-2:], again) == (["cdef", "def"], {"abcdef", "bcdef", "ef"})  # two for the time that they take
    with opened(place) as index:
        check(index.view(), more)
    with pytest.raises(SourceError, match="id 'n0' is already that of line 1"):
        kind.build_into(place, [*documents, document("n0", "x")])
    with opened(place) as index:
        check(index.view(), more)


def rebuilt(kind: Kind, place: Location, encode=embed_halves) -> IndexView:
    return rebuild_at(place, ACCESS, kind.work(place), encode, 13, HALVED, None, lambda done, total: None)


def test_a_rebuild_embeds_the_indexs_own_texts(kind: Kind) -> None:
    place = kind.words()
    with opened(place) as index:
        upsert(index, {"f": "tinsel", "a": "google"})
        index.delete(["c"])
        view = rebuilt(kind, place)
        assert (view.name, len(view), view.manifest.encoder) == ("000002", 5, HALVED)
        with pytest.raises(ReadOnlyFault, match="built with encoder halved"):
            upsert(index, {"z": "z"})
        found = index.view().search(embed(["google"])[0], 1)  # the service of the old encoder goes on with what it has
        assert found.similarities.tolist() == [1.0]
    with opened(place, encoder=HALVED) as index:
        found = index.view().search(embed_halves(["google"])[0], 1)
        assert found.similarities.tolist() == [1.0]
        index.upsert([document("g", "stone")], embed_halves(["stone"]))
        assert len(index.view()) == 6


@pytest.mark.parametrize("changes", [1, 50])
def test_what_is_changed_during_a_rebuild_is_embedded_too(kind: Kind, changes: int) -> None:
    place, made = kind.words(), 0
    with opened(place) as index:

        def encode(texts: list[str]) -> np.ndarray:
            nonlocal made
            if made < min(changes, 3):  # afterwards writers have to wait
                made += 1
                upsert(index, {"a": f"change{'x' * made}", f"new{made}": "onset"})
                index.delete([f"new{made - 1}"])
            return embed_halves(texts)

        view = rebuilt(kind, place, encode)
    expected = {**{id_: WORDS[id_] for id_ in "bcde"}, "a": f"change{'x' * made}", f"new{made}": "onset"}
    assert len(view) == len(expected)
    with opened(place, encoder=HALVED) as index:
        for id_, text in expected.items():
            found = index.view().get(id_)
            assert found is not None
            assert found.text == text
            assert index.view().search(embed_halves([text])[0], 1).similarities.tolist() == [1.0]


def test_a_copy_is_an_index_of_its_own(kind: Kind, tmp_path: Path) -> None:
    place = kind.words()
    with opened(place) as index:
        upsert(index, {"f": "tinsel"})
        view = copy_between(place, tmp_path / "copy", ACCESS, kind.work(place), lambda step: None)
        assert len(view) == 6
        index.delete(["f"])
        check(index.view(), WORDS)
    with opened(tmp_path / "copy") as copy:
        check(copy.view(), WORDS | {"f": "tinsel"})
        upsert(copy, {"g": "google"})
        check(copy.view(), WORDS | {"f": "tinsel", "g": "google"})
    with pytest.raises(IndexFault, match="copy exists"):
        copy_between(place, tmp_path / "copy", ACCESS, kind.work(place), lambda step: None)


def test_a_whole_index_is_verified(kind: Kind) -> None:
    place = kind.words()
    assert verify_at(place, ACCESS) == ("000001", 5, 0)
    name, facts, pending = facts_at(place, ACCESS)
    assert (name, facts.documents, facts.dims, pending) == ("000001", 5, 26, 0)


@pytest.mark.parametrize("recipe", ["HNSW8", "IVF8,Flat", "IVF8,SQ8", "Flat"])
def test_a_tuned_search_finds_what_was_proven(kind: Kind, recipe: str) -> None:
    """Every recipe is tuned and proven by the same code, whatever searches."""
    rows = clustered(3, 600)
    texts = [str(row) for row in range(600)]

    def encode(some: list[str]) -> np.ndarray:
        return rows[[int(text) for text in some]]

    place = kind.build(
        [Document(text, text) for text in texts],
        recipe,
        encode=encode,
        dims=32,
        search=SearchWanted(aim=Aim(target=0.9)),
    )
    with opened(place) as index:
        view = index.view()
        proof = view.manifest.proof
        assert proof is not None
        assert (view.manifest.recipe, proof.lower_bound >= 0.9) == (recipe, True)
        queries, found = clustered(4, 100), 0
        for query in queries:
            best = set(np.argsort(-(rows @ query))[:10].tolist())
            hits = view.documents(view.search(query, 10).rows)
            found += len(best & {int(hit.id) for hit in hits})
        assert found >= 850 if recipe != "Flat" else found >= 999


@pytest.mark.parametrize("recipe", ["HNSW8", "IVF32,Flat"])
def test_a_search_that_was_tuned_for_few_of_the_nearest_brings_as_many_as_there_are(kind: Kind, recipe: str) -> None:
    rows = clustered(3, 600)
    place = kind.build(
        [Document(str(row), str(row), {"bucket": row % 100}) for row in range(600)],
        recipe,
        encode=lambda texts: rows[[int(text) for text in texts]],
        dims=32,
        search=SearchWanted(aim=Aim(target=0.5)),
    )
    with opened(place) as index:
        view = index.view()
        for query in clustered(4, 20):
            for bucket, count in ((7, 6), (100, 0)):
                hits = view.documents(view.search(query, 10, parse_filter({"bucket": bucket})).rows)
                assert [hit.metadata["bucket"] for hit in hits] == [bucket] * count
            assert len(view.search(query, 10, parse_filter({"bucket": {"$lt": 50}})).rows) == 10
            assert len(set(view.search(query, 400).rows.tolist())) == 400


def test_a_target_that_is_not_reached_publishes_nothing(kind: Kind) -> None:
    rows = unit_rows(1, 400, dims=32)
    place = kind.words()
    documents = [Document(str(row), str(row)) for row in range(400)]
    with pytest.raises(RecipeFault, match="is not proven"):
        kind.build_into(
            place,
            documents,
            "IVF64,SQ8",
            encode=lambda texts: rows[[int(text) for text in texts]],
            dims=32,
            resume=False,
            search=SearchWanted(aim=Aim(target=0.9999, queries=rows[:300])),
        )
    with opened(place) as index:
        check(index.view(), WORDS)
