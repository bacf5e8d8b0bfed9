"""What does every route refuse?"""

import numpy as np

from app.errors import ServiceError
from app.schemas import Request


def within(count: int, limit: int, what: str, setting: str) -> None:
    """Refuse more than a limit of something in one request, naming the setting that moves it."""
    if count > limit:
        raise ServiceError(413, f"{count} {what} in one request; the limit is {limit} ({setting})")


def refuse_cut(cut: bool | np.bool_, request: Request, model: str, max_tokens: int) -> None:
    """Refuse a text that was cut, where the request does not allow it."""
    if cut and not request.truncate:
        raise ServiceError(
            422,
            f"a text is longer than the {max_tokens} tokens that {model} reads; shorten it, or allow truncate",
            "truncate",
        )
