"""docs/compatibility.md is true: its examples run."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries

PAGE = (Path(__file__).parents[2] / "docs/compatibility.md").read_text("utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.split()[1] for example in EXAMPLES])
def test_an_example_runs(url: str, example: str) -> None:
    pytest.importorskip(example.split()[1])
    made: dict[str, object] = {}
    exec(example.replace("http://localhost:8000", url), made)
    answer = list(made.values())[-1]
    assert answer is not None


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 10
    assert all(example.count("http://localhost:8000") == 1 for example in EXAMPLES)
