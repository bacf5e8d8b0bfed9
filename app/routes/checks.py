"""What does every route refuse?"""

from app.errors import ServiceError
from app.settings import Settings
from model.bundle import Student, Teacher


def within(count: int, limit: int, what: str, setting: str) -> None:
    """Refuse more than a limit of something in one request, naming the setting that moves it."""
    if count > limit:
        raise ServiceError(413, f"{count} {what} in one request; the limit is {limit} ({setting})")


def within_reach(model: Student | Teacher, count: int, what: str, settings: Settings) -> None:
    """Refuse more pairs than a request may have a model score: of the teacher's, fewer."""
    if isinstance(model, Teacher):
        within(count, settings.max_teacher_pairs, what, "DSE_MAX_TEACHER_PAIRS")
    else:
        within(count, settings.max_batch, what, "DSE_MAX_BATCH")
