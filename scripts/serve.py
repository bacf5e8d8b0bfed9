"""dse serve: the HTTP service."""

import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from app.threads import limit_native_threads
from scripts.console import BadInput, read_settings
from scripts.options import LongTextOption

log = logging.getLogger("dse")


def serve(
    bundle: Annotated[
        list[Path] | None,
        typer.Option(
            help="A student's bundle; several are served by name, the first by default.", show_default="shipped"
        ),
    ] = None,
    teacher: Annotated[Path | None, typer.Option(help="The teacher's bundle.", show_default="shipped")] = None,
    no_teacher: Annotated[bool, typer.Option("--no-teacher", help="Serve without a teacher.")] = False,
    index: Annotated[str | None, typer.Option(help="The index: a folder, or milvus://HOST:PORT/NAME.")] = None,
    verify: Annotated[
        str | None, typer.Option(help="Compare the index with its manifest: quick or full.", show_default="full")
    ] = None,
    long_text: LongTextOption = None,
    host: Annotated[str | None, typer.Option(show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(show_default="8000")] = None,
    threads: Annotated[int | None, typer.Option(show_default="the container's CPUs")] = None,
) -> None:
    """Serve similarity, search and comparison over HTTP. Every setting is also a DSE_* variable."""
    options = {
        "teacher": teacher, "index": index, "verify": verify, "long_text": long_text,
        "host": host, "port": port, "threads": threads,
    }  # fmt: skip
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if bundle:
        given["bundle"], *others = bundle
        if others:
            given["bundles"] = tuple(others)
    if no_teacher:
        given["teacher"] = None
    settings = read_settings(**given)
    limit_native_threads(settings.threads)  # before the imports below load numpy and FAISS
    # Asked to stop is no failure, and the first process of a container hears only what it has a handler for.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

    import uvicorn

    from app import logs
    from app.auth import KeyFault, Keys, exposed
    from app.loading import load
    from app.main import create_app

    logs.install(settings.log_format)
    try:
        keys = Keys.of(settings)
    except KeyFault as fault:
        raise BadInput(str(fault)) from fault
    if exposed(settings.host) and not keys.callers:
        log.warning(
            "ANYBODY WHO REACHES %s MAY SEARCH%s: no keys are set; set DSE_API_KEYS or DSE_API_KEYS_FILE, "
            "or listen on 127.0.0.1",
            settings.host,
            "" if keys.admins or settings.read_only or not settings.index else " AND CHANGE THE INDEX",
        )
    with _listening(settings.host, settings.port) as listener:  # first: a port in use is no reason to wait for models
        service = load(settings)
        typer.echo(f"model      {', '.join(student.name for student in service.models.students)}")
        typer.echo(f"teacher    {service.teacher.name if service.teacher else 'none'}")
        typer.echo(f"documents  {f'{len(service.index.view()):,}' if service.index else 'none'}")
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        typer.echo(f"open       http://{host}:{listener.getsockname()[1]}/")
        config = uvicorn.Config(
            create_app(settings, service),
            log_config=None,
            access_log=False,  # the service writes its own line a request
            timeout_graceful_shutdown=settings.drain,
        )
        try:
            uvicorn.Server(config).run(sockets=[listener])
        finally:
            _leave(sys.exception())


def _leave(reason: BaseException | None) -> None:
    """End here, if the work of a thread is left behind: Python would abort where it ends one that is inside FAISS."""
    from opentelemetry import trace

    from app.upkeep import goes_on

    asked = reason is None or isinstance(reason, (SystemExit, KeyboardInterrupt))
    if not asked or not goes_on():
        return
    if shutdown := getattr(trace.get_tracer_provider(), "shutdown", None):  # spans that were not sent yet
        shutdown()
    logging.shutdown()
    sys.stdout.flush()
    code = reason.code if isinstance(reason, SystemExit) else 0
    os._exit(code if isinstance(code, int) else 0)


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, UnicodeError) as error:  # what is no name of a host is not looked up
        reason = error.strerror if isinstance(error, OSError) else "not a host's name"
        raise BadInput(f"cannot listen on {host}:{port}: {reason}; choose another --host or --port") from error
