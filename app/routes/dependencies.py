"""What do routes need? The loaded service and its settings, from the application's state."""

from typing import Annotated

from fastapi import Depends, Request

from app.errors import ServiceError
from app.loading import Service
from app.registry import Models
from app.settings import Settings
from index.contract import Index
from index.manifest import ReadOnlyFault
from model.bundle import Teacher


# Async where nothing waits: a function that is not takes a thread of its own, which even a probe would wait for.
async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


ServiceDep = Annotated[Service, Depends(_service)]
SettingsDep = Annotated[Settings, Depends(_settings)]


def teacher_of(service: Service, param: str | None = None) -> Teacher:
    """The one teacher.

    Raises:
        ServiceError: 404, none is loaded; ``param`` is the field that asked for it.
    """
    if service.teacher is None:
        raise ServiceError(404, "no teacher is loaded; start dse serve with --teacher DIR", param)
    return service.teacher


async def _teacher(service: ServiceDep) -> Teacher:
    return teacher_of(service)


async def _live(service: ServiceDep) -> Index:
    if service.index is None:
        raise ServiceError(404, "no index is loaded; start dse serve with --index DIR")
    return service.index


LiveDep = Annotated[Index, Depends(_live)]


async def _writable(live: LiveDep) -> Index:
    if not live.writable:
        raise ReadOnlyFault("this service may not change its index (DSE_READ_ONLY); nothing was changed")
    return live


async def _models(service: ServiceDep) -> Models:
    return service.models


ModelsDep = Annotated[Models, Depends(_models)]
TeacherDep = Annotated[Teacher, Depends(_teacher)]
WritableDep = Annotated[Index, Depends(_writable)]
