"""The README is true: what it names exists, and what exists is named."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import typer.main
from fastapi.testclient import TestClient

from app.settings import Settings
from model.bundle import BundleManifest
from scripts.dse import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def commands() -> list[str]:
    program = typer.main.get_command(app)
    names = []
    for name, command in program.commands.items():  # type: ignore[attr-defined]
        children = getattr(command, "commands", None)
        names += [f"dse {name} {child}" for child in children] if children else [f"dse {name}"]
    return names


@pytest.mark.parametrize("command", commands())
def test_every_command_is_mentioned(command: str) -> None:
    assert f"`{command}`" in README


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_is_described_with_its_default(name: str) -> None:
    field = Settings.model_fields[name]
    (row,) = re.findall(rf"^\| `DSE_{name.upper()}` \| (.*) \| (.*) \|$", README, re.MULTILINE)
    default, description = row
    assert description == field.description
    if not isinstance(field.default, Path) and field.default_factory is None:
        assert default == ("none" if field.default in (None, "") else f"`{field.default}`")


def test_what_it_says_is_a_setting_or_a_command_is_one() -> None:
    rows = re.findall(r"^\| `DSE_(\w+)` \|", README, re.MULTILINE)
    assert {row.lower() for row in rows} == set(Settings.model_fields)
    (table,) = re.findall(r"\| command \| does \|\n\|---\|---\|\n((?:\|.*\n)+)", README)
    named = [name for row in table.splitlines() for name in re.findall(r"`(dse [a-z ]+)`", row.split(" | ")[0])]
    assert sorted(named) == sorted(commands())


def test_the_figures_of_the_models_that_ship_are_their_manifests() -> None:
    shipped = Settings().bundle.parent
    kinds = {
        r"student `dse-minilm-l6`, int8: score": ("dse-minilm-l6", "int8", "score"),
        r"three-layer student `dse-minilm-l3`, int8: score": ("dse-minilm-l3", "int8", "score"),
        r"static student `dse-static`, a table of token rows, int8: score": ("dse-static", "int8", "score"),
        r"teacher `teacher-minilm-l6`, int8, served": ("teacher-minilm-l6", "int8", "score"),
    }
    for row, (name, graph, by) in kinds.items():
        quality = BundleManifest.read(shipped / name).quality
        figures = [quality[split][graph][by] for split in ("dev", "test")]
        told = " | ".join(f"{found['pearson']:.2f} / {found['spearman']:.2f}" for found in figures)
        size = sum(path.stat().st_size for path in (shipped / name).rglob("*") if path.is_file())
        assert f"| {row} | {round(size / 1e6):d} MB | {told} |" in README, name


def test_every_make_target_it_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    named = set(re.findall(r"(?:^    |`)make ([a-z-]+)", README, re.MULTILINE))
    assert {"run", "test", "check"} <= named
    for target in named:
        assert re.search(rf"^{target}:.*##", makefile, re.MULTILINE), target


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_clean_leaves_what_was_trained(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for made in (".venv", ".venv-serving", ".venv-clients", "build", "runs"):
        (tmp_path / made).mkdir()
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    assert {path.name for path in tmp_path.iterdir()} == {"Makefile", "runs"}


def test_every_file_it_links_to_exists() -> None:
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link


def curls() -> list[list[str]]:
    blocks = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    text = "\n".join(blocks).replace("\\\n", " ")
    return [shlex.split(line[2:]) for line in text.splitlines() if line.startswith("$ curl")]


@pytest.mark.parametrize("curl", curls(), ids=lambda curl: curl[2])
def test_every_curl_gets_an_answer(client: TestClient, curl: list[str]) -> None:
    path = curl[2].removeprefix("localhost:8000")
    answer = client.post(path, json=json.loads(curl[curl.index("-d") + 1]))
    assert answer.status_code == 200
    assert answer.json().get("hits") or answer.json().get("results")


def test_there_are_curls() -> None:
    assert len(curls()) == 3


def test_nobody_is_sent_to_the_package_of_the_same_name_on_pypi() -> None:
    code = [file for folder in ("app", "index", "model", "scripts", "tests") for file in (ROOT / folder).rglob("*.py")]
    places = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *code]
    assert [str(place) for place in places if re.search(r"pip install '?dse", place.read_text("utf-8"))] == []
