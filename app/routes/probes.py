"""Is the process up, can it answer, and how is it doing?"""

from fastapi import APIRouter, Request, Response

from app.errors import ServiceError
from app.metrics import Metrics
from app.routes.dependencies import ServiceDep

router = APIRouter(tags=["probes"])


@router.head("/livez", include_in_schema=False)
@router.get("/livez")
async def livez(service: ServiceDep) -> dict[str, str]:
    """The process is up, and no model's worker is dead or stuck: if one is for a minute, only a restart helps."""
    if fault := service.queues.fault():
        raise ServiceError(503, fault)
    return {"status": "alive"}


@router.head("/readyz", include_in_schema=False)
@router.head("/health", include_in_schema=False)
@router.get("/readyz")
@router.get("/health")
async def readyz(service: ServiceDep) -> dict[str, str | None]:
    """Artifacts are loaded and checked, and every model's worker is alive: requests will be answered.

    If not from the newest generation, why is said.
    """
    if fault := service.queues.fault():
        raise ServiceError(503, fault)
    if service.index and (away := service.index.away):
        raise ServiceError(503, away, retry_after=1)
    stays = service.index.stays_because if service.index else None
    return {
        "status": "ready",
        "model": service.student.name,
        "teacher": service.teacher.name if service.teacher else None,
        "generation": service.index.latest.name if service.index else None,
        **({} if stays is None else {"stays_because": stays}),
    }


@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request) -> Response:
    """What Prometheus reads."""
    counted: Metrics = request.app.state.metrics
    return Response(counted.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
