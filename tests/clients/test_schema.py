"""Requests made up from the OpenAPI document: answers are as it says, and none is a failure inside."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = int(os.environ.get("DSE_EXAMPLES", "20"))
"""Requests for each of the routes, at most, beside those that try its limits one by one."""

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)


def test_answers_are_as_described_and_nothing_fails_inside(url: str, tmp_path: Path) -> None:
    pytest.importorskip("schemathesis")
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json", "--checks", ",".join(CHECKS)]
    options = ["--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES), "--max-response-time", "30"]
    reporting = ["--generation-deterministic", "--no-color", "--report-json-path", str(report)]
    done = subprocess.run([*command, *options, *reporting], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr
    run = json.loads(report.read_text())
    cases, operations = run["test_cases"], run["operations"]
    print(f"{cases['generated']} requests to {operations['tested']} routes")  # noqa: T201
    assert operations["tested"] == operations["total"]
    assert cases["generated"] > 15 * EXAMPLES
    assert run["warnings"]["unresolvable_reference"] == []
    unheard = [route for route, phases in run["valid_rates"].items() if not any(map(_heard, phases.values()))]
    assert unheard == []


def _heard(phase: dict[str, int]) -> bool:
    """Some request was not stopped by its shape: it was answered, or met a document or a model that is not there."""
    return phase["accepted"] + phase["unreachable"] + phase["conflicts"] > 0
