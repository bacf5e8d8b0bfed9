"""The contract changes only on purpose: the served schema is the committed one."""

import json
from pathlib import Path
from types import SimpleNamespace

from fastapi.testclient import TestClient

SNAPSHOT = Path(__file__).with_name("openapi.json")


def test_the_served_schema_is_the_committed_one(client: TestClient) -> None:
    served = client.get("/openapi.json").json()
    assert served == json.loads(SNAPSHOT.read_text()), (
        f"the HTTP contract changed; if that was the intention, write the new one to {SNAPSHOT.name}: "
        "python -m tests.app.test_openapi"
    )


def main() -> None:
    from app.batching import Queues
    from app.main import create_app
    from app.settings import Settings

    nothing = SimpleNamespace(queues=Queues(), index=None)
    schema = create_app(Settings(), service=nothing).openapi()  # type: ignore[arg-type]
    SNAPSHOT.write_text(json.dumps(schema, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
