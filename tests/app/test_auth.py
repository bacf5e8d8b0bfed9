"""Who may ask, and who may change: keys, cross-origin pages, and what a careless operator is told."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from app.auth import KeyFault, Keys, exposed
from app.main import create_app
from app.settings import Settings
from model.bundle import Student
from tests.conftest import build_index

CALLER, OTHER, ADMIN = "caller-key-0123456789", "other-key-0123456789", "admin-key-0123456789"
SEARCH = {"query": "listen", "k": 1}
CHANGES = [
    ("PUT", "/v1/documents", {"documents": [{"id": "new", "text": "novel"}]}),
    ("DELETE", "/v1/documents/d1", None),
    ("POST", "/v1/index/reload", None),
    ("POST", "/v1/index/compact", None),
]


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def serve(settings: Settings, student: Student, tmp_path: Path):
    """A service with other settings, over an index of its own."""

    def serve(**changes) -> TestClient:
        folder = build_index(tmp_path / "index", student, ["listen", "stone"])
        return TestClient(create_app(settings.model_copy(update={"index": folder, "compact_after": 0} | changes)))

    return serve


def test_without_keys_everything_is_open(serve) -> None:
    client = serve()
    assert client.post("/v1/search", json=SEARCH).status_code == 200
    for method, path, body in CHANGES:
        assert client.request(method, path, json=body).status_code in (200, 204), path


def test_with_keys_every_route_but_probes_and_page_takes_one(serve) -> None:
    client = serve(api_keys=SecretStr(f"{CALLER}, {OTHER}"))
    for path in ("/livez", "/readyz", "/health", "/", "/ui/page.js", "/ui/api.js", "/ui/style.css", "/ui/icon.svg"):
        assert client.get(path).status_code == client.head(path).status_code == 200, path
    for path in ("/v1/index", "/v1/documents/d0", "/docs", "/openapi.json", "/metrics", "/nothing", "/ui/", "/livez/"):
        assert client.get(path).status_code == 401, path
    for headers in ({}, bearer("wrong-key-0123456789"), bearer(CALLER[:-1]), bearer(""), {"Authorization": CALLER}):
        answer = client.post("/v1/search", json=SEARCH, headers=headers)
        assert answer.status_code == 401, headers
        assert answer.json()["error"]["type"] == "unauthorized"
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert "Authorization: Bearer KEY" in answer.json()["error"]["message"]
    for key in (CALLER, OTHER):
        assert client.post("/v1/search", json=SEARCH, headers=bearer(key)).status_code == 200
        assert client.post("/v1/search", json=SEARCH, headers={"Authorization": f"bearer {key}"}).status_code == 200
    assert client.put("/v1/documents", json=CHANGES[0][2], headers=bearer(CALLER)).status_code == 200


def routes_of(client: TestClient) -> set[tuple[str, str]]:
    """Every method and path that is documented; of a document, that of ``d1``."""
    paths = client.app.openapi()["paths"]
    return {(method.upper(), path.replace("{id}", "d1")) for path, methods in paths.items() for method in methods}


def test_with_keys_no_route_that_does_something_is_open(serve) -> None:
    """``POST /`` is not the page."""
    client = serve(api_keys=SecretStr(CALLER))
    routes = routes_of(client)
    assert {("POST", "/"), ("PUT", "/v1/documents")} < routes
    open_routes = {(method, path) for method, path in routes if client.request(method, path).status_code != 401}
    assert open_routes == {("GET", "/livez"), ("GET", "/readyz"), ("GET", "/health")}
    assert client.post("/", json={"inputs": "listen"}, headers=bearer(CALLER)).status_code == 200


def test_with_an_admin_key_callers_ask_and_admins_change(serve) -> None:
    client = serve(api_keys=SecretStr(CALLER), admin_keys=SecretStr(ADMIN))
    for key in (CALLER, ADMIN):
        assert client.post("/v1/search", json=SEARCH, headers=bearer(key)).status_code == 200
        assert client.get("/v1/documents/d0", headers=bearer(key)).status_code == 200
    answers = {route: client.request(*route, headers=bearer(CALLER)) for route in routes_of(client)}
    assert {route for route in answers if answers[route].status_code == 403} == {change[:2] for change in CHANGES}
    for method, path, body in CHANGES:
        refused = client.request(method, path, json=body, headers=bearer(CALLER))
        assert (refused.status_code, refused.json()["error"]["type"]) == (403, "forbidden"), path
        refused = client.request(method, path, json=body)
        assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, "Bearer"), path
    assert held(client) == ("000001", {"d0", "d1"})
    for method, path, body in CHANGES:
        assert client.request(method, path, json=body, headers=bearer(ADMIN)).status_code in (200, 204), path
    assert held(client) == ("000002", {"d0", "new"})


def held(client: TestClient) -> tuple[str, set[str]]:
    """The generation that is searched, and the ids of what is found."""
    found = client.post("/v1/search", json={"query": "listen"}, headers=bearer(ADMIN)).json()
    return found["generation"], {hit["id"] for hit in found["hits"]}


def test_an_admin_key_alone_leaves_asking_open(serve) -> None:
    client = serve(admin_keys=SecretStr(ADMIN))
    assert client.post("/v1/search", json=SEARCH).status_code == 200
    assert client.post("/v1/search", json=SEARCH, headers=bearer("wrong-key-0123456789")).status_code == 401
    for method, path, body in CHANGES:
        refused = client.request(method, path, json=body)
        assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, "Bearer"), path
        assert client.request(method, path, json=body, headers=bearer(ADMIN)).status_code in (200, 204), path


def test_keys_come_from_files_too(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"{CALLER}\n\n  {OTHER}  \n")
    keys = Keys.of(settings.model_copy(update={"api_keys_file": tmp_path / "keys", "admin_keys": SecretStr(ADMIN)}))
    assert [keys.role(key) for key in (CALLER, OTHER, ADMIN, "", None)] == [
        "caller", "caller", "admin", None, "anybody"
    ]  # fmt: skip


def test_a_key_of_sixteen_characters_is_long_enough(settings: Settings) -> None:
    keys = Keys.of(settings.model_copy(update={"admin_keys": SecretStr("k" * 16)}))
    assert keys.role("k" * 16) == "admin"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("\n \n", "no key is given"),
        ("zebra-012345678", "1 of 1 keys are shorter than 16"),
        ("zebra-0\n", "1 of 1 keys are shorter than 16"),
        (None, "cannot be read"),
        ("zebra-schlüssel-0123456789\n", "other characters than ASCII"),
        ("zebra words 0123456789\n", "other characters than"),
    ],
)
def test_keys_that_would_not_protect_are_refused_at_start(
    settings: Settings, tmp_path: Path, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "keys").write_text(content)
    with pytest.raises(KeyFault, match=message) as refused:
        create_app(settings.model_copy(update={"api_keys_file": tmp_path / "keys"}))
    assert "DSE_API_KEYS" in str(refused.value)
    assert "zebra" not in str(refused.value)


def test_keys_are_never_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSE_API_KEYS", CALLER)
    monkeypatch.setenv("DSE_ADMIN_KEYS", "")
    settings = Settings()
    assert CALLER not in repr(settings) + str(settings.model_dump())
    assert settings.admin_keys is None
    assert CALLER not in repr(Keys.of(settings))


@pytest.mark.parametrize(
    ("host", "others"),
    [("127.0.0.1", False), ("127.9.9.9", False), ("::1", False), ("localhost", False), ("0.0.0.0", True), ("::", True),
     ("10.1.2.3", True), ("search.example.org", True)],
)  # fmt: skip
def test_which_addresses_others_can_reach(host: str, others: bool) -> None:
    assert exposed(host) is others


def test_pages_of_other_origins_may_call_only_where_allowed(serve, settings: Settings) -> None:
    origin, ask = "https://app.example", {"Access-Control-Request-Method": "POST"}
    closed = TestClient(create_app(settings))
    assert "access-control-allow-origin" not in closed.get("/readyz", headers={"Origin": origin}).headers
    assert closed.options("/v1/search", headers={"Origin": origin} | ask).status_code == 405
    others = "https://other.example"
    opened = serve(cors_origins=f"{origin}, {others}", api_keys=SecretStr(CALLER))
    for allowed in (origin, others):
        refused = opened.post("/v1/search", json=SEARCH, headers={"Origin": allowed})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, allowed)
        answer = opened.post("/v1/search", json=SEARCH, headers={"Origin": allowed} | bearer(CALLER))
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, allowed)
    strange = {"Origin": "https://evil.example"}
    stranger = opened.post("/v1/search", json=SEARCH, headers=strange | bearer(CALLER))
    assert "access-control-allow-origin" not in stranger.headers
    assert opened.options("/v1/search", headers=strange | ask).status_code == 400


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/index"), *(change[:2] for change in CHANGES)])
def test_a_page_that_may_call_may_do_all_that_clients_do(serve, method: str, path: str) -> None:
    origin = "https://app.example"
    wanted = {"authorization", "content-type", "x-request-id", "traceparent", "x-stainless-os"}  # a client's own, too
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": ",".join(wanted)}
    answer = serve(cors_origins=origin).options(path, headers={"Origin": origin} | asked)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, origin)
    assert method in answer.headers["access-control-allow-methods"].split(", ")
    assert wanted <= {name.strip().lower() for name in answer.headers["access-control-allow-headers"].split(",")}


def test_a_page_that_may_call_reads_when_to_come_again_and_which_request_it_was(serve) -> None:
    origin = "https://app.example"
    answer = serve(cors_origins=origin).get("/readyz", headers={"Origin": origin})
    assert set(answer.headers["access-control-expose-headers"].split(", ")) == {"Retry-After", "X-Request-Id"}
