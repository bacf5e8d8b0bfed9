"""Is the process up, and can it answer?"""

from fastapi import APIRouter

from app.routes.dependencies import ServiceDep

router = APIRouter(tags=["probes"])


@router.get("/livez")
async def livez() -> dict[str, str]:
    """The process is up."""
    return {"status": "alive"}


@router.get("/readyz")
@router.get("/health")
async def readyz(service: ServiceDep) -> dict[str, str | None]:
    """Artifacts are loaded and checked: requests will be answered. If not from the newest generation, why is said."""
    stays = service.index.stays_because if service.index else None
    return {
        "status": "ready",
        "model": service.student.name,
        "teacher": service.teacher.name if service.teacher else None,
        "generation": service.index.latest.name if service.index else None,
        **({} if stays is None else {"stays_because": stays}),
    }
