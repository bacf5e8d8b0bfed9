"""Who may ask, and who may change what is searched? Keys, compared in constant time, by their digests."""

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastapi import Depends, Request
from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import ServiceError, error_response
from app.page import UI
from app.settings import Settings

PROBES = frozenset({"/livez", "/readyz", "/health"})
"""Answered to anybody and at any load."""
_OPEN = PROBES | {"/", *(f"/ui/{file.name}" for file in UI.iterdir())}
"""Read without a key: the page holds no data, and what it asks for takes one. ``POST /`` is a route of a model."""
_READING = frozenset({"GET", "HEAD"})
SHORTEST_KEY = 16

Role = Literal["anybody", "caller", "admin"]
_LACKING = "this service takes a key: send the header Authorization: Bearer KEY"


class KeyFault(Exception):
    """Keys that cannot be used as they are given."""


@dataclass(frozen=True)
class Keys:
    """The digests of the keys that are known."""

    callers: Sequence[bytes] = ()
    admins: Sequence[bytes] = ()

    @classmethod
    def of(cls, settings: Settings) -> "Keys":
        """The keys that the settings name.

        Raises:
            KeyFault: a file cannot be read, a source names no key, or a key is too short or not of ASCII.
        """
        return cls(
            _digests("DSE_API_KEYS", settings.api_keys, settings.api_keys_file),
            _digests("DSE_ADMIN_KEYS", settings.admin_keys, settings.admin_keys_file),
        )

    def role(self, presented: str | None) -> Role | None:
        """Who presents a key, or none; None where the key is not known."""
        if presented is None:
            return "anybody"
        digest = _digest(presented)
        # Every known key is compared, so that the time taken says nothing of which came near.
        admin = sum([hmac.compare_digest(digest, known) for known in self.admins])
        caller = sum([hmac.compare_digest(digest, known) for known in self.callers])
        if admin:
            return "admin"
        if caller:
            return "caller" if self.admins else "admin"
        return None

    def refusal(self, role: Role | None, changes: bool) -> tuple[int, str] | None:
        """Status and reason why somebody may not ask, or change; None if they may."""
        if role is None and (self.callers or self.admins):
            return 401, "the key is not known; " + _LACKING
        if role == "anybody" and (self.callers or (changes and self.admins)):
            return 401, _LACKING
        if role == "caller" and changes:
            return 403, "this takes an admin key (DSE_ADMIN_KEYS)"
        return None


class KeyCheck:
    """ASGI middleware: 401 for requests without a known key, before anything of their body is read."""

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self._app, self._keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, if it may be asked, with the role of who asks."""
        if scope["type"] != "http" or (scope["path"] in _OPEN and scope["method"] in _READING):
            await self._app(scope, receive, send)
            return
        role = self._keys.role(_presented(scope))
        if refused := self._keys.refusal(role, changes=False):
            await error_response(*refused)(scope, receive, send)
            return
        scope.setdefault("state", {})["role"] = role
        await self._app(scope, receive, send)


async def _admin(request: Request) -> None:
    keys: Keys = request.app.state.keys
    if refused := keys.refusal(request.state.role, changes=True):
        raise ServiceError(*refused)


AdminOnly = Depends(_admin)
"""For routes that change what is searched, or how."""


def exposed(host: str) -> bool:
    """Whether others than this machine can reach an address that is listened on."""
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"


def _presented(scope: Scope) -> str | None:
    """The key that a request carries; a header of another form is a key that nobody has."""
    header = Headers(scope=scope).get("authorization")
    if header is None:
        return None
    scheme, _, key = header.partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _digests(variable: str, keys: SecretStr | None, file: Path | None) -> list[bytes]:
    try:
        lines = file.read_text("utf-8").splitlines() if file else []
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFault(f"{variable}_FILE: {file} cannot be read: {error}") from error
    given = [*(keys.get_secret_value().split(",") if keys else []), *lines]
    found = [key.strip() for key in given if key.strip()]
    if (keys or file) and not found:
        # Else a file that was emptied by mistake would open the service to everybody.
        raise KeyFault(f"{variable}: no key is given, though a source of keys is; give one, or unset it")
    if [key for key in found if not re.fullmatch(r"[\x21-\x7e]+", key)]:
        raise KeyFault(
            f"{variable}: a key has other characters than ASCII letters, digits and signs, which clients send in "
            "different ways; make keys with: openssl rand -hex 32"
        )
    if short := [key for key in found if len(key) < SHORTEST_KEY]:
        raise KeyFault(
            f"{variable}: {len(short)} of {len(found)} keys are shorter than {SHORTEST_KEY} characters; "
            "make them with: openssl rand -hex 32"
        )
    return [_digest(key) for key in found]


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
