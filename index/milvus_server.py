"""Is Milvus there? One connection to it, with deadlines, a few retries, and a breaker that fails fast while it is away.

A call that does not reach the server is repeated a few times, after pauses of random length, where repeating it
changes nothing: searches, look-ups, and writes by key. What finds the server away opens the breaker: calls are then
refused at once. One thread looks after the server, several times a second; what it finds closes the breaker again.
"""

import json
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
from pymilvus import MilvusClient, MilvusException

from index.location import MilvusAccess, MilvusAddress
from index.manifest import AwayFault, IndexFault

log = logging.getLogger("dse")

T = TypeVar("T")

ATTEMPTS = 3
SECONDS_BETWEEN_ATTEMPTS = 0.05  # at most, and twice that before the third
SECONDS_BETWEEN_LOOKS = 0.25
LOOK_SHARE = 1 / 5
"""Of the time that a call may take: how long the server may take to say that it is there. One that is gone is known
at once; one that is merely silent may be busy."""
LATE_LOOKS = 2
"""In a row, without any answer between them, after which a silent server is taken to be away."""
LONG_SECONDS = 600.0
"""For what takes as long as there are rows: loading, indexing, compacting."""
SLOW_IN_A_ROW = 3  # calls past their deadline, after which the server is taken to be away

_SERVICE = "milvus.proto.milvus.MilvusService"
_LOOKS = ("GetVersion",)
_PROMPT = ("Search", "Query", "Upsert", "Delete", "DescribeAlias", "DescribeCollection")
_UNREACHED = (grpc.StatusCode.UNAVAILABLE,)
_SILENT = (*_UNREACHED, grpc.StatusCode.DEADLINE_EXCEEDED)
_DENIED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
_COLLECTION_NOT_FOUND, _NOT_LOADED = 100, (101, 103)

# Its own account of an error, with a traceback, is one too many: every error here becomes a fault that is reported.
logging.getLogger("pymilvus").setLevel(logging.CRITICAL)


class Server:
    """A connection to Milvus. Safe to use from several threads."""

    def __init__(self, address: MilvusAddress, access: MilvusAccess) -> None:
        self.address, self.access = address, access
        self._client = self._connected()
        self._away: str | None = None
        self._slow = self._late = 0
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._watcher: threading.Thread | None = None

    @property
    def away(self) -> str | None:
        """Why calls are refused right now; None: they are not."""
        return self._away

    def call(self, what: str, operation: Callable[[MilvusClient], T], repeat: bool = True) -> T:
        """Ask the server. While it is away only the thread that looks after it does; all others are refused.

        Args:
            what: is done, for messages.
            operation: given the client; passes ``**OPTIONS`` to what it calls.
            repeat: it may be done twice, if it is not known whether it was done at all.

        Raises:
            AwayFault: the server is not there, or takes too long.
            IndexFault: it refused; the message says why.
        """
        if self._away is not None and threading.current_thread() is not self._watcher:
            raise AwayFault(self._away)
        started = time.monotonic()
        for attempt in range(1, ATTEMPTS + 1):
            try:
                answer = operation(self._client)
            except (grpc.RpcError, MilvusException) as error:
                code = _code(error)
                spent = time.monotonic() - started
                if code in _UNREACHED and repeat and attempt < ATTEMPTS and spent < self.access.timeout:
                    time.sleep(random.uniform(0, attempt * SECONDS_BETWEEN_ATTEMPTS))
                    continue
                raise self._fault(what, error, code) from error
            self._slow = self._late = 0
            return answer
        raise AssertionError("the last attempt returns or raises")

    def watch(self, look: Callable[[MilvusClient], None], back: Callable[[MilvusClient], None]) -> None:
        """Begin to look after the server, with a thread that asks it something every now and then.

        Args:
            look: asks, and takes note of what it learns; quick where nothing has changed.
            back: after the server was away, has it ready for calls again.
        """
        self._watcher = threading.Thread(target=self._run, args=(look, back), name="milvus", daemon=True)
        self._watcher.start()

    def close(self) -> None:
        """Let go of the connection."""
        self._closed.set()
        if self._watcher is not None:
            self._watcher.join(timeout=1)
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, look: Callable[[MilvusClient], None], back: Callable[[MilvusClient], None]) -> None:
        said: str | None = None  # the same is not said again four times a second
        while not self._closed.wait(SECONDS_BETWEEN_LOOKS):
            try:
                self._client.get_server_version(**OPTIONS)
                if self._away is not None:
                    back(self._client)
                self._close()
                look(self._client)
                said = None
            except (grpc.RpcError, MilvusException) as error:
                self._late += 1
                if _code(error) != grpc.StatusCode.DEADLINE_EXCEEDED or self._late >= LATE_LOOKS:
                    self._open("does not answer" if _code(error) in _SILENT else _reason(error))
            except IndexFault as fault:
                if str(fault) != said:
                    log.warning("%s", fault)
                said = str(fault)
            except Exception:  # whatever it is, the server is looked after
                log.exception("looking after Milvus")

    def _fault(self, what: str, error: Exception, code: Any) -> IndexFault:
        if code in _UNREACHED:
            return AwayFault(self._open("cannot be reached"))
        if _is_unloaded(error):  # it was started again, and nobody noticed that it was gone
            return AwayFault(self._open("has not loaded the index yet"))
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            self._slow += 1
            if self._slow >= SLOW_IN_A_ROW:
                return AwayFault(self._open(f"takes longer than {self.access.timeout} seconds"))
            return AwayFault(
                f"{self.address}: {what} took longer than {self.access.timeout} seconds (DSE_MILVUS_TIMEOUT)"
            )
        return refused(self.address, what, error)

    def _open(self, reason: str) -> str:
        away = f"the Milvus at {self.address.host}:{self.address.port} {reason}; it is tried again by itself"
        with self._lock:
            if self._away is None and self._watcher is not None:
                log.warning("%s", away)
                self._away = away
        return away

    def _close(self) -> None:
        with self._lock:
            if self._away is not None:
                log.warning("the Milvus at %s:%d is back", self.address.host, self.address.port)
            self._away, self._slow, self._late = None, 0, 0

    def _connected(self) -> MilvusClient:
        access, address = self.access, self.address
        host = f"[{address.host}]" if ":" in address.host else address.host
        options: dict[str, Any] = {"secure": True} if access.tls else {}
        if access.ca_file is not None:
            options["server_pem_path"] = str(access.ca_file)
        try:
            client = MilvusClient(
                uri=f"{'https' if access.tls else 'http'}://{host}:{address.port}",
                token=access.token or "",
                db_name=access.database,
                timeout=access.timeout,
                dedicated=True,
                grpc_options=_channel_options(access.timeout),
                **options,
            )
        except (grpc.RpcError, MilvusException, OSError) as error:
            code = _code(error)
            if code in _DENIED:
                raise refused(address, "connecting", error) from error
            raise AwayFault(
                f"the Milvus at {address.host}:{address.port} cannot be reached: {_reason(error)}; is it up, and are "
                "DSE_MILVUS_TOKEN, DSE_MILVUS_DATABASE and DSE_MILVUS_TLS right?"
            ) from error
        # On an error its client would connect anew, one thread after the other; the channel does so by itself.
        vars(client._handler).pop("_on_rpc_error", None)
        return client


OPTIONS: Mapping[str, Any] = {"retry_times": 0, "retry_on_rate_limit": False}
"""Given with each call: what is repeated, and how often, is decided here."""


def refused(address: MilvusAddress, what: str, error: Exception) -> IndexFault:
    """What Milvus will not do, as a fault."""
    if _code(error) in _DENIED:
        return IndexFault(f"{address}: Milvus lets nobody in with this token ({what}); check DSE_MILVUS_TOKEN")
    return IndexFault(f"{address}: {what} was refused: {_reason(error)}")


def is_missing(error: Exception) -> bool:
    """Did the server say that there is no such collection or alias?"""
    text = str(getattr(error, "message", "")).lower()
    return _code(error) == _COLLECTION_NOT_FOUND or "not found" in text or "not exist" in text


def _is_unloaded(error: Exception) -> bool:
    """Did the server say that a collection is not ready to be searched?"""
    text = str(getattr(error, "message", "")).lower()
    return _code(error) in _NOT_LOADED or "not loaded" in text or "'released'" in text


def _channel_options(timeout: float) -> dict[str, Any]:
    """Deadlines by method, kept by the channel itself; and a channel that tries again often, and never for long."""

    def within(seconds: float, *methods: str) -> dict[str, Any]:
        names = [{"service": _SERVICE, "method": method} for method in methods] or [{}]
        return {"name": names, "timeout": f"{seconds:.3f}s"}

    deadlines = [within(LOOK_SHARE * timeout, *_LOOKS), within(timeout, *_PROMPT), within(LONG_SECONDS)]
    return {
        "grpc.service_config": json.dumps({"methodConfig": deadlines}),
        "grpc.initial_reconnect_backoff_ms": 100,
        "grpc.min_reconnect_backoff_ms": 1000,
        "grpc.max_reconnect_backoff_ms": 400,
    }


def _code(error: Exception) -> Any:
    """gRPC's status, or Milvus's number."""
    code = getattr(error, "code", None)
    return code() if callable(code) else code


def _reason(error: Exception) -> str:
    """The first line of what was said; it never holds what was sent along to be let in."""
    details = getattr(error, "details", None)
    said = details() if callable(details) else getattr(error, "message", None)
    return str(said or error or type(error).__name__).strip().splitlines()[0][:300]
