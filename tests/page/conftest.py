"""A browser, and services for it to look at: the program itself, over documents that try to be more than text."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.loading import identity
from index.build import build
from index.documents import Document
from index.sources import SourcedDocument
from model.bundle import Student
from tests.live import served

KEY = "page-key-0123456789abcdef"
SCRIPT = "<img src=x onerror=\"document.title='taken over'\"><script>document.title='taken over'</script>"
DOCUMENTS = [
    Document("w/listen", "listen to the onset", {"lang": "en", "year": 2019, "tags": ["music", "news"]}),
    Document("w/silent", "silent notes in stone", {"lang": "en", "year": 2021, "tags": ["music"]}),
    Document("w/enlist", "enlist a tinsel", {"lang": "de", "year": 2021, "author": {"name": "Ada"}}),
    Document("w/banana", "banana in a cabana", {"lang": "fr", "year": 2024, "draft": True}),
    Document("w/google", "google a banana", {"lang": None}),
    Document("w/long", "stone" * 60, {"path": "p" * 200}),
    Document(f"w/{SCRIPT}", f"stones {SCRIPT}", {SCRIPT: SCRIPT}),
]


def chromium() -> str:
    """Where the browser is; without one, these tests are skipped."""
    named = os.environ.get("DSE_CHROMIUM")
    found = named or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not found:
        pytest.skip("needs Chromium: install it, or say where it is with DSE_CHROMIUM")
    return found


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    # For this package alone: while Playwright runs, nothing else can run a loop of asyncio.
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install '.[dev]'")
    where = chromium()
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=where, args=["--no-sandbox"], timeout=120_000)
        yield started
        started.close()


@pytest.fixture(scope="package")
def documents(tmp_path_factory: pytest.TempPathFactory, student: Student) -> Path:
    """An index of the documents above."""
    folder = tmp_path_factory.mktemp("page") / "index"
    sourced = [SourcedDocument(document, f"documents:{row}") for row, document in enumerate(DOCUMENTS)]
    build(sourced, student.encoder.encode, student.encoder.dims, identity(student), folder, "Flat")
    return folder


@pytest.fixture(scope="package")
def address(
    tmp_path_factory: pytest.TempPathFactory, student_bundle: Path, teacher_bundle: Path, documents: Path
) -> Iterator[str]:
    """A service with everything there is."""
    log = tmp_path_factory.mktemp("page") / "log"
    models = ("--bundle", student_bundle, "--teacher", teacher_bundle)
    with served(log, *models, "--index", documents, DSE_MAX_TEACHER_PAIRS="10") as address:
        yield address


@pytest.fixture(scope="package")
def bare(tmp_path_factory: pytest.TempPathFactory, student_bundle: Path) -> Iterator[str]:
    """A service with a student and nothing else, that takes a key."""
    log = tmp_path_factory.mktemp("page") / "log"
    with served(log, "--bundle", student_bundle, "--no-teacher", DSE_API_KEYS=KEY) as address:
        yield address


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A tab of its own. However a test ends: nothing failed in the script, and nothing was asked of another host."""
    context = browser.new_context(viewport={"width": 1100, "height": 900}, color_scheme="light")
    context.set_default_timeout(120_000)
    opened = context.new_page()
    faults: list[str] = []
    hosts: set[str] = set()
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("console", lambda message: faults.append(message.text) if of_the_page(message) else None)
    opened.on("request", lambda request: hosts.add(request.url.split("/")[2].split(":")[0]))
    yield opened
    assert opened.title() != "taken over"
    context.close()
    assert not faults
    assert hosts <= {"127.0.0.1"}


def of_the_page(message: Any) -> bool:
    """Whether a line of the console is a fault of the page; the browser also notes each refused request there."""
    return message.type in ("error", "warning") and not message.text.startswith("Failed to load resource")
