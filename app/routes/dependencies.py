"""What do routes need? The loaded service and its settings, from the application's state."""

from typing import Annotated

from fastapi import Depends, Request

from app.errors import ServiceError
from app.loading import Service
from app.settings import Settings
from index.generations import Generation
from model.bundle import Teacher


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


ServiceDep = Annotated[Service, Depends(_service)]
SettingsDep = Annotated[Settings, Depends(_settings)]


def _teacher(service: ServiceDep) -> Teacher:
    if service.teacher is None:
        raise ServiceError(404, "no teacher is loaded; start dse serve with --teacher DIR")
    return service.teacher


def _index(service: ServiceDep) -> Generation:
    if service.index is None:
        raise ServiceError(404, "no index is loaded; start dse serve with --index DIR")
    return service.index


TeacherDep = Annotated[Teacher, Depends(_teacher)]
IndexDep = Annotated[Generation, Depends(_index)]
