"""The contract changes only on purpose: the served schema is the committed one."""

import json
import re
from pathlib import Path

from fastapi.testclient import TestClient

SNAPSHOT = Path(__file__).parents[2] / "docs/openapi.json"


def test_the_served_schema_is_the_committed_one(client: TestClient) -> None:
    served = client.get("/openapi.json").json()
    assert served == json.loads(SNAPSHOT.read_text("utf-8")), (
        "the HTTP contract changed; if that was the intention, write the new one to docs/openapi.json: make openapi"
    )


def test_its_page_needs_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/docs").text
    assert "https://" not in page
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(addresses) >= 2
    for address in addresses:
        assert client.get(address).status_code == 200, address


def test_every_reference_leads_somewhere() -> None:
    document = SNAPSHOT.read_text("utf-8")
    schemas = json.loads(document)["components"]["schemas"]
    references = set(re.findall(r'"\$ref": "([^"]+)"', document))
    assert references == {f"#/components/schemas/{name}" for name in schemas}


def main() -> None:
    from app.main import create_app
    from app.settings import Settings

    schema = create_app(Settings(index=None, teacher=None)).openapi()
    SNAPSHOT.write_text(json.dumps(schema, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
