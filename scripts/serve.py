"""dse serve: the HTTP service."""

import logging
from pathlib import Path
from typing import Annotated, Any

import typer


def serve(
    bundle: Annotated[Path | None, typer.Option(help="The student's bundle.", show_default="shipped")] = None,
    teacher: Annotated[Path | None, typer.Option(help="The teacher's bundle.", show_default="shipped")] = None,
    no_teacher: Annotated[bool, typer.Option("--no-teacher", help="Serve without a teacher.")] = False,
    index: Annotated[Path | None, typer.Option(help="The index folder.")] = None,
    host: Annotated[str | None, typer.Option(show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(show_default="8000")] = None,
    threads: Annotated[int | None, typer.Option(show_default="the container's CPUs")] = None,
) -> None:
    """Serve similarity, search and comparison over HTTP. Every option is also a DSE_* variable."""
    import uvicorn

    from app.loading import load
    from app.main import create_app
    from app.settings import Settings

    options = {
        "bundle": bundle, "teacher": teacher, "index": index, "host": host, "port": port, "threads": threads
    }  # fmt: skip
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if no_teacher:
        given["teacher"] = None
    settings = Settings(**given)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    service = load(settings)
    typer.echo(f"model      {service.student.name}")
    typer.echo(f"teacher    {service.teacher.name if service.teacher else 'none'}")
    typer.echo(f"documents  {f'{len(service.index):,}' if service.index else 'none'}")
    typer.echo(f"open       http://{settings.host}:{settings.port}/")
    uvicorn.run(create_app(settings, service), host=settings.host, port=settings.port, log_level="info")
