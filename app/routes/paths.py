"""How does a path name what may hold any character, slashes and line breaks as well?"""

from starlette.convertors import Convertor, register_url_convertor


class _Rest(Convertor[str]):
    """All that is left of a path. Starlette's own ``path`` ends at a line break, and overlooks one at the end."""

    regex = "(?s:.+)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("rest", _Rest())

ID = "{id:rest}"
MODEL = "{model:rest}"
