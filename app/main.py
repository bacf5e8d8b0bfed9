"""The application: routes, the error table and the page, around a loaded service."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline

from app import errors
from app.limits import BodyLimit
from app.loading import Service, load
from app.routes import documents, native, openai, probes, rerank, tei
from app.settings import Settings
from app.upkeep import Upkeep

UI = Path(__file__).parent / "ui"
_POLICY = {"Content-Security-Policy": "default-src 'self'", "X-Content-Type-Options": "nosniff"}


def create_app(settings: Settings | None = None, service: Service | None = None) -> FastAPI:
    """The service as an ASGI application: ``uvicorn --factory app.main:create_app``.

    Args:
        settings: default: from ``DSE_*`` variables.
        service: what to serve; default: loaded as the settings say.

    Raises:
        ArtifactError, IndexFault: the artifacts are missing, altered, or do not belong together.
    """
    settings = settings or Settings()
    loaded = service or load(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        index = loaded.index
        if index is None or not index.writable or not settings.compact_after:
            yield
            return
        with Upkeep(index, settings.compact_after):
            yield

    app = FastAPIOffline(  # /docs with Swagger's files beside it, so that it works where nothing outside is reached
        redoc_url=None,
        lifespan=lifespan,
        title="DSE",
        summary="Sentence-pair retrieval: distilled students, searched and compared with their teacher.",
        version="0.1.0",
    )
    app.state.settings = settings
    app.state.service = loaded
    errors.install(app)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.include_router(native.router)
    app.include_router(documents.router)
    app.include_router(openai.router)
    app.include_router(tei.router)
    app.include_router(rerank.router)
    app.include_router(probes.router)
    app.mount("/ui", StaticFiles(directory=UI), name="ui")

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(UI / "index.html", headers=_POLICY)

    return app
