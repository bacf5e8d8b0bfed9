"""The application: routes, the error table and the page, around a loaded service."""

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

from anyio import to_thread
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi_offline import FastAPIOffline
from starlette.types import Scope

from app import errors, page
from app.admission import ALWAYS, Admission
from app.auth import KeyCheck, Keys
from app.errors import ID_HEADER
from app.limits import BodyLimit
from app.loading import Service, load
from app.metrics import Metrics
from app.observer import Observer
from app.routes import documents, native, openai, probes, rerank, tei
from app.settings import Settings
from app.upkeep import Upkeep
from index.live import LiveIndex

THREADS_BESIDE = 8
"""For static files and the like, beside one thread a request in progress."""


def _unobserved(scope: Scope) -> bool:
    """What probes and Prometheus ask every few seconds is not traced."""
    return scope["path"] in ALWAYS


def create_app(settings: Settings | None = None, service: Service | None = None) -> FastAPI:
    """The service as an ASGI application: ``uvicorn --factory app.main:create_app``.

    Args:
        settings: default: from ``DSE_*`` variables.
        service: what to serve; default: loaded as the settings say.

    Raises:
        ArtifactError, IndexFault: the artifacts are missing, altered, or do not belong together.
        KeyFault: the keys cannot be used as they are given.
    """
    settings = settings or Settings()
    loaded = service or load(settings)

    keys, counted = Keys.of(settings), Metrics(loaded)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # Who is let in gets a thread: nobody waits where no limit and no deadline sees it.
        to_thread.current_default_thread_limiter().total_tokens = settings.max_requests + THREADS_BESIDE
        index = loaded.index
        with ExitStack() as stack:
            stack.callback(loaded.queues.close)
            if isinstance(index, LiveIndex):
                index.open_beside()
            if index is not None and index.writable and settings.compact_after:
                stack.enter_context(Upkeep(index, settings.compact_after))
            yield

    app = FastAPIOffline(  # /docs with Swagger's files beside it, so that it works where nothing outside is reached
        redoc_url=None,
        lifespan=lifespan,
        title="DSE",
        summary="Sentence-pair retrieval: distilled students, searched and compared with their teacher.",
        version="0.1.0",
        # Spans leave only where the OTEL_* variables name an exporter's address; nothing that holds a text does.
        telemetry={"auto_configure": True, "metrics": False, "logs": False, "exclude": _unobserved},
    )
    app.state.settings = settings
    app.state.service = loaded
    app.state.keys, app.state.metrics = keys, counted
    errors.install(app)
    # From the inside outwards: what is refused further out costs less.
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(Admission, most=settings.max_requests, queues=loaded.queues)
    app.add_middleware(KeyCheck, keys=keys)
    if origins := [origin.strip() for origin in (settings.cors_origins or "").split(",") if origin.strip()]:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["*"],  # clients send some of their own; without cookies, no header gives anything away
            expose_headers=["Retry-After", ID_HEADER],
        )
    routers = [module.router for module in (native, documents, openai, tei, rerank, probes)]
    routes = [route for router in routers for route in router.routes]
    app.add_middleware(Observer, metrics=counted, timeout=settings.timeout, routes=routes)
    for router in routers:
        app.include_router(router)
    page.install(app)
    return app
