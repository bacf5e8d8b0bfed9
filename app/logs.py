"""What is written down of a request? One line: who asked for what, how it went, how long it took; never a text."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal

from app.calls import CALL

# The standard library's logging: uvicorn and every library log through it already, so one formatter reaches all.
FACTS = "facts"
"""The attribute of a record that holds what it says beside its message."""


def install(form: Literal["json", "text"]) -> None:
    """Send every log, uvicorn's too, to standard error in one format."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


class JsonLines(logging.Formatter):
    """A JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level, logger, message, the request's id, further facts, and the stack of an exception."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if call := CALL.get():
            line["request_id"] = call.id
        line |= getattr(record, FACTS, {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextLines(logging.Formatter):
    """A line for people: the message, then the facts as ``name=value``."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The line, without the stack of an exception."""
        facts = dict(getattr(record, FACTS, {}))
        if call := CALL.get():
            facts["request_id"] = call.id
        # One record, one line: what a client sent may hold line breaks.
        line = super().formatMessage(record).replace("\n", "\\n").replace("\r", "\\r")
        return " ".join([line, *(f"{name}={value}" for name, value in facts.items())])
