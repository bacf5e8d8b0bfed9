"""Where is an index? In a folder, or in a Milvus."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from index.manifest import IndexFault

SCHEME = "milvus"
DEFAULT_PORT = 19530
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")


@dataclass(frozen=True)
class MilvusAddress:
    """An index in a Milvus: ``milvus://host:port/name``. Who may read it is not part of its address."""

    host: str
    port: int
    name: str

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{SCHEME}://{host}:{self.port}/{self.name}"


Location = Path | MilvusAddress


def read_location(text: str | Path | MilvusAddress) -> Location:
    """What an operator wrote, as a folder or an address.

    >>> read_location("milvus://db.example:19531/papers"), str(read_location("milvus://db.example/papers"))
    (MilvusAddress(host='db.example', port=19531, name='papers'), 'milvus://db.example:19530/papers')

    Raises:
        IndexFault: an address that cannot be read. What it holds of a password is not repeated.
    """
    if not isinstance(text, str):
        return text
    if not text.startswith(f"{SCHEME}:"):
        return Path(text)
    try:
        url = urlsplit(text)
        host, port = url.hostname, url.port or DEFAULT_PORT
    except ValueError as error:
        raise IndexFault(f"the address of an index in Milvus cannot be read: {error}; {_FORM}") from error
    if url.username is not None or url.password is not None or url.query or url.fragment:
        raise IndexFault(
            f"an address names nobody and sets nothing: {_FORM}, and give the token in DSE_MILVUS_TOKEN, "
            "the database in DSE_MILVUS_DATABASE"
        )
    name = url.path.removeprefix("/")
    if not text.startswith(f"{SCHEME}://") or not host or not _NAME.fullmatch(name):
        raise IndexFault(f"{text!r} is no address of an index in Milvus: {_FORM}")
    return MilvusAddress(host, port, name)


_FORM = "write milvus://HOST:PORT/NAME, a name of letters, digits and _ that begins with no digit"


Consistency = Literal["strong", "session", "bounded"]
"""Which writes a search is sure to see: all that were acknowledged, those of this process, or those of a while ago."""


@dataclass(frozen=True)
class MilvusAccess:
    """How a Milvus is reached, beside its address."""

    token: str | None = field(default=None, repr=False)
    """``user:password`` or an API key; never logged."""
    database: str = ""
    """Of the server; empty: its default."""
    tls: bool = False
    ca_file: Path | None = None
    """Of whoever signed the server's certificate; None: those that the system trusts."""
    timeout: float = 5.0
    """Seconds a call may take, retries included; building an index takes as long as it takes."""
    consistency: Consistency = "strong"
