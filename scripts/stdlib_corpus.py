"""Real text that every machine has: what Python's standard library says of itself."""

import importlib
import inspect
from collections.abc import Iterator
from types import ModuleType

_NAMES = """
abc argparse array ast asyncio asyncio.subprocess base64 bdb binascii bisect builtins bz2 calendar cmath cmd
code codecs codeop collections collections.abc colorsys compileall concurrent.futures configparser contextlib
contextvars copy copyreg cProfile csv ctypes ctypes.util dataclasses datetime dbm decimal difflib dis doctest
email email.charset email.contentmanager email.encoders email.generator email.header email.headerregistry
email.message email.mime.base email.mime.multipart email.mime.text email.parser email.policy email.utils
encodings.idna enum errno faulthandler filecmp fileinput fnmatch fractions ftplib functools gc getopt getpass
gettext glob graphlib gzip hashlib heapq hmac html html.entities html.parser http http.client http.cookiejar
http.cookies http.server imaplib importlib importlib.abc importlib.machinery importlib.metadata
importlib.resources importlib.util inspect io ipaddress itertools json json.decoder json.encoder keyword
linecache locale logging logging.config logging.handlers lzma mailbox marshal math mimetypes mmap modulefinder
multiprocessing multiprocessing.connection multiprocessing.managers multiprocessing.pool
multiprocessing.shared_memory netrc numbers operator optparse os os.path pathlib pdb pickle pickletools
pkgutil platform plistlib poplib pprint profile pstats py_compile pyclbr pydoc queue quopri random
re reprlib rlcompleter runpy sched secrets select selectors shelve shlex shutil signal site smtplib socket
socketserver sqlite3 ssl stat statistics string stringprep struct subprocess symtable sys sysconfig tabnanny
tarfile tempfile textwrap threading time timeit token tokenize tomllib trace traceback tracemalloc types
typing unicodedata unittest unittest.mock urllib.error urllib.parse urllib.request urllib.response
urllib.robotparser uuid venv warnings wave weakref webbrowser wsgiref.handlers wsgiref.headers
wsgiref.simple_server wsgiref.util wsgiref.validate xml.dom xml.dom.minidom xml.dom.pulldom
xml.etree.ElementTree xml.sax xml.sax.handler xml.sax.saxutils xmlrpc.client xmlrpc.server zipapp zipfile
zipimport zlib zoneinfo
"""

MODULES = _NAMES.split()
"""Modules that do nothing when they are imported."""


def documents() -> Iterator[dict[str, str]]:
    """Modules, functions, classes and public methods with a docstring: ``{"id", "text"}``.

    The id is the qualified name, the text ``name: first paragraph of the docstring``. Modules that this installation
    lacks are passed over; so is a name that another module of the list defines.
    """
    seen: set[str] = set()
    for name in MODULES:
        try:
            module = importlib.import_module(name)
        except ImportError:  # a build of Python without an optional part (ssl, sqlite3, ...)
            continue
        for id_, documented in _described(name, module):
            paragraph = first_paragraph(documented)
            if paragraph and id_ not in seen:
                seen.add(id_)
                yield {"id": id_, "text": f"{id_}: {paragraph}"}


def _described(name: str, module: ModuleType) -> Iterator[tuple[str, object]]:
    yield name, module
    public = getattr(module, "__all__", None) or [n for n in vars(module) if not n.startswith("_")]
    for member_name in public:
        member = getattr(module, member_name, None)
        home = getattr(member, "__module__", None) or name
        if home != name and home in MODULES:
            continue
        if inspect.isclass(member):
            yield f"{name}.{member_name}", member
            for method_name, method in vars(member).items():
                if not method_name.startswith("_") and (callable(method) or isinstance(method, property)):
                    yield f"{name}.{member_name}.{method_name}", method
        elif inspect.isroutine(member):
            yield f"{name}.{member_name}", member


def first_paragraph(documented: object) -> str:
    """The first paragraph of an object's own docstring, on one line; empty where there is none.

    A first paragraph that only repeats the signature is followed by the next one.
    """
    docstring = getattr(documented, "__doc__", None)
    if not isinstance(docstring, str):
        return ""
    paragraphs = [" ".join(part.split()) for part in inspect.cleandoc(docstring).split("\n\n")]
    first = paragraphs[0]
    if first.endswith(")") and "(" in first and len(paragraphs) > 1 and len(first.split()) < 8:
        return f"{first} {paragraphs[1]}"
    return first
