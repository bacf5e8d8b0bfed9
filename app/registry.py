"""Who answers to which name? The models that are served, and the names that clients send for them."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from app.errors import ServiceError
from model.bundle import Student, Teacher
from model.manifest import ArtifactError

DEFAULT, TEACHER = "default", "teacher"


@dataclass(frozen=True)
class Models:
    """Loaded models by name."""

    students: Sequence[Student]  # the first is the default
    teacher: Teacher | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)
    created: int = field(default_factory=lambda: int(time.time()))  # seconds since 1970: when they were loaded

    @property
    def default(self) -> Student:
        """Who answers where nobody is named."""
        return self.students[0]

    @property
    def all(self) -> list[Student | Teacher]:
        """Every model, the default first."""
        return [*self.students, *([self.teacher] if self.teacher else [])]

    @property
    def names(self) -> list[str]:
        """Every name that is answered to."""
        own = [model.name for model in self.all]
        return [*own, DEFAULT, *([TEACHER] if self.teacher else []), *self.aliases]

    def named(self, name: str | None) -> Student | Teacher:
        """The model that a client means; the default where it names none.

        Raises:
            ServiceError: 404, with the names that are known.
        """
        meant = self.aliases.get(name or DEFAULT, name or DEFAULT)
        if meant == DEFAULT:
            return self.default
        for model in self.all:
            if meant == model.name or (meant == TEACHER and model is self.teacher):
                return model
        raise ServiceError(
            404,
            f"no model is called {meant[:100]!r}; this service has: {', '.join(self.names)} "
            "(DSE_BUNDLES loads more, DSE_MODEL_ALIASES gives them other names)",
            "model",
        )

    def student(self, name: str | None) -> Student:
        """The model that a client means, which has to embed.

        Raises:
            ServiceError: 404 for an unknown name, 422 for the teacher's.
        """
        model = self.named(name)
        if isinstance(model, Teacher):
            students = ", ".join(student.name for student in self.students)
            message = f"{model.name} is the teacher: it scores pairs and embeds nothing; models that embed: {students}"
            raise ServiceError(422, message, "model")
        return model

    def check(self) -> None:
        """See that every name means one model.

        Raises:
            ArtifactError: two models share a name, a model has a reserved one, or an alias hides or misses a model.
        """
        own = [model.name for model in self.all]
        if twice := sorted({name for name in own if own.count(name) > 1}):
            raise ArtifactError(f"several bundles are called {twice[0]}: serve one of them, or export with other names")
        if reserved := sorted({DEFAULT, TEACHER} & set(own)):
            raise ArtifactError(f"a bundle is called {reserved[0]}, a name that the service gives; export it again")
        for alias, meant in self.aliases.items():
            if alias in (*own, DEFAULT, TEACHER):
                raise ArtifactError(f"DSE_MODEL_ALIASES: {alias} is already a model's name; choose another alias")
            if meant not in (*own, DEFAULT, *([TEACHER] if self.teacher else [])):
                raise ArtifactError(
                    f"DSE_MODEL_ALIASES: {alias} stands for {meant}, which is not loaded; loaded are {', '.join(own)}"
                )
