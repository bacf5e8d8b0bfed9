"""Every data file is read line by line in the same way."""

import gzip
import json
from pathlib import Path

import pytest

from scripts.console import BadInput
from scripts.lines import lines_of, objects_of


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_a_mark_at_the_beginning_blank_lines_and_line_ends_are_no_content(tmp_path: Path, name: str) -> None:
    content = "\ufeffone\r\n\n \t\ntwo\u2028still\rtwo".encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    place = tmp_path / name
    assert list(lines_of(place)) == [(f"{place}:1", "one"), (f"{place}:4", "two\u2028still\rtwo")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}\n[1]\n", "a.jsonl:2: not a JSON object"),
        ("{\n", "a.jsonl:1: not JSON"),
        ("[" * 100_000, "a.jsonl:1: not JSON"),
        (json.dumps({"text": "bad \ud800"}), "a.jsonl:1: 'text' holds half of a surrogate pair"),
        (b"\xff\n", "a.jsonl: .*can't decode byte"),
    ],
)
def test_a_line_that_is_no_object_of_text_is_named(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BadInput, match=message):
        list(objects_of(path))
