"""Spans: what is told of a request, to whom, and what is not."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from fastapi.testclient import TestClient
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app import calls
from app.main import create_app
from app.settings import Settings
from scripts.benchmarks.service import started

SECRET = "zanzibar"


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    kept, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    monkeypatch.setattr(calls, "TRACER", provider.get_tracer("dse"))
    yield kept
    provider.shutdown()


def spans_of(exporter: InMemorySpanExporter, name: str) -> dict[str, ReadableSpan]:
    """The spans of one request, by name; those of FastAPI's own steps left out."""
    spans = {span.name: span for span in exporter.get_finished_spans() if not span.name.startswith("fastapi.")}
    assert name in spans, list(spans)
    assert len({span.context.trace_id for span in spans.values()}) == 1
    return spans


def test_a_search_is_traced_through_its_stages(settings: Settings, exporter: InMemorySpanExporter) -> None:
    client = TestClient(create_app(settings))
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    answer = client.post("/v1/search", json={"query": SECRET}, headers={"traceparent": parent})
    assert answer.status_code == 200
    spans = spans_of(exporter, "POST /v1/search")
    stages = ("tokenize", "queue", "inference", "candidates", "scores", "documents")
    assert set(spans) == {"POST /v1/search", *stages}
    whole = spans["POST /v1/search"]
    assert format(whole.context.trace_id, "032x") == parent.split("-")[1]
    in_order = [spans[name] for name in stages]
    assert [span.start_time for span in in_order] == sorted(span.start_time or 0 for span in in_order)
    slack = 5_000_000  # the clocks are two
    for span in in_order:
        assert (whole.start_time or 0) - slack <= (span.start_time or 0) <= (span.end_time or 0)
        assert (span.end_time or 0) <= (whole.end_time or 0) + slack
    assert abs((spans["queue"].end_time or 0) - (spans["inference"].start_time or 0)) < slack
    assert SECRET not in "".join(span.to_json() for span in exporter.get_finished_spans())


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"input": SECRET}),
        ("/v1/similarity", {"pairs": [[SECRET, "b"]]}),
        ("/embed", {"inputs": "a"}),
    ],
)
def test_whatever_is_embedded_is_traced(
    settings: Settings, exporter: InMemorySpanExporter, path: str, body: dict[str, object]
) -> None:
    TestClient(create_app(settings)).post(path, json=body)
    assert set(spans_of(exporter, f"POST {path}")) == {f"POST {path}", "tokenize", "queue", "inference"}


def test_a_refusal_is_traced_without_what_was_sent(settings: Settings, exporter: InMemorySpanExporter) -> None:
    TestClient(create_app(settings)).post("/v1/search", json={"query": "a", "k": SECRET})
    (span,) = spans_of(exporter, "POST /v1/search").values()
    assert span.attributes is not None
    assert span.attributes["http.response.status_code"] == 422
    assert SECRET not in "".join(span.to_json() for span in exporter.get_finished_spans())


def test_probes_are_not_traced(settings: Settings, exporter: InMemorySpanExporter) -> None:
    client = TestClient(create_app(settings))
    for path in ("/livez", "/readyz", "/metrics"):
        assert client.get(path).status_code == 200
    assert exporter.get_finished_spans() == ()


@pytest.fixture
def collector() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """Where spans are sent to, and what came."""
    came: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *said: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", came
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("named", [True, False])
def test_spans_leave_only_where_an_address_is_named(
    tmp_path: Path, student_bundle: Path, collector: tuple[str, list[tuple[str, bytes]]], named: bool
) -> None:
    address, came = collector
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": address, "OTEL_EXPORTER_OTLP_COMPRESSION": "none"} if named else {}
    serve = ["scripts.dse", "serve", "--port", "0", "--bundle", str(student_bundle), "--no-teacher", "--threads", "1"]
    with started(serve, tmp_path / "log", variables) as url:
        body = json.dumps({"pairs": [[SECRET, "b"]]}).encode()
        asked = Request(f"{url}v1/similarity", body, {"Content-Type": "application/json"})
        end = time.monotonic() + 60
        while True:
            try:
                assert urlopen(asked).status == 200
                break
            except OSError:  # it is open, and not yet ready to answer
                assert time.monotonic() < end
                time.sleep(0.05)
    assert {path for path, _ in came} == ({"/v1/traces"} if named else set())
    sent = b"".join(body for _, body in came)
    assert (b"inference" in sent) == named
    assert SECRET.encode() not in sent
