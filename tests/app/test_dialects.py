"""The same fault in everybody's words, whole: clients act on more than the status."""

import pytest

from app.dialects import Fault, cohere, jina, native, openai, tei


@pytest.mark.parametrize(
    ("status", "ours", "openais", "teis"),
    [
        (429, "overloaded", ("rate_limit_error", "rate_limit_exceeded"), "Overloaded"),
        (500, "internal", ("server_error", None), "Backend"),
        (503, "not_ready", ("server_error", None), "Unhealthy"),
        (504, "timeout", ("server_error", None), "Overloaded"),
        (422, "invalid", ("invalid_request_error", None), "Validation"),
    ],
)
def test_each_client_is_told_in_its_own_words(
    status: int, ours: str, openais: tuple[str, str | None], teis: str
) -> None:
    fault, (kind, code) = Fault(status, "why"), openais
    assert native(fault) == {"error": {"type": ours, "message": "why"}}
    assert openai(fault) == {"error": {"message": "why", "type": kind, "param": None, "code": code}}
    assert tei(fault) == {"error": "why", "error_type": teis}
    assert cohere(fault) == {"message": "why"}
    assert jina(fault) == {"detail": "why", "message": "why"}


def test_the_field_at_fault_is_named_where_there_is_a_place_for_it() -> None:
    fault = Fault(404, "why", "model")
    assert native(fault) == {"error": {"type": "not_found", "message": "why", "param": "model"}}
    words = {"message": "why", "type": "invalid_request_error", "param": "model", "code": "model_not_found"}
    assert openai(fault) == {"error": words}
