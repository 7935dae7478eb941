"""Check which room (folder) of the package imports which, and that pure modules import nothing impure.

The check walks the AST of every module. Imports inside functions count like all others.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import ostler

PACKAGE = Path(ostler.__file__).parent

COMMON = frozenset({"ostler.errors", "ostler.records"})
BELOW = COMMON | {"ostler.settings", "ostler.system", "ostler.logging", "ostler.tls", "ostler.ipc"}
"""The rooms below arbiter and worker, which both may import."""
HTTP_NEEDS = frozenset(
    {
        "ostler.worker.asgi",
        "ostler.worker.access_log",
        "ostler.worker.gathered_write",
        "ostler.worker.pieces",
        "ostler.worker.server_state",
        "ostler.worker.tls",
    }
)

ROOMS: Mapping[str, frozenset[str]] = {
    # Each room, and the rooms that it may import. A module belongs to the room with the longest match.
    "ostler.version": frozenset(),
    "ostler.errors": frozenset(),
    "ostler.records": frozenset(),
    "ostler.import_guard": frozenset({"ostler.errors"}),
    "ostler.settings": COMMON,
    "ostler.system": COMMON | {"ostler.settings"},
    "ostler.logging": COMMON | {"ostler.settings"},
    "ostler.tls": COMMON | {"ostler.settings"},
    "ostler.ipc": COMMON | {"ostler.settings", "ostler.system"},
    # the arbiter
    "ostler.supervisor": BELOW | {"ostler.supervisor.*"},
    "ostler.supervisor.event_loop": frozenset({"ostler.ipc"}),
    "ostler.supervisor.fleet": COMMON | {"ostler.ipc"},
    "ostler.supervisor.processes": BELOW
    | {"ostler.supervisor.event_loop", "ostler.supervisor.fleet", "ostler.supervisor.balancing"}
    | {"ostler.supervisor.reload"},
    "ostler.supervisor.upgrade": BELOW | {"ostler.supervisor.event_loop", "ostler.supervisor.fleet"},
    "ostler.supervisor.reload": BELOW | {"ostler.supervisor.event_loop"},
    "ostler.supervisor.balancing": BELOW,
    # a worker
    "ostler.worker": BELOW | {"ostler.import_guard", "ostler.worker.*"},
    "ostler.worker.asgi": frozenset(),
    "ostler.worker.patched_logging": frozenset(),
    "ostler.worker.access_log": BELOW | {"ostler.worker.asgi", "ostler.worker.patched_logging"},
    "ostler.worker.eager_tasks": BELOW | {"ostler.worker.asgi"},
    "ostler.worker.gathered_write": frozenset(),
    "ostler.worker.pieces": frozenset(),
    "ostler.worker.server_state": BELOW
    | {"ostler.worker.asgi", "ostler.worker.access_log", "ostler.worker.eager_tasks"}
    | {"ostler.worker.gathered_write"},
    "ostler.worker.proxies": BELOW,
    "ostler.worker.importer": COMMON,
    "ostler.worker.tracebacks": COMMON,
    "ostler.worker.tls": BELOW | {"ostler.worker.importer", "ostler.worker.tracebacks"},
    "ostler.worker.interfaces": BELOW | {"ostler.worker.asgi"},
    "ostler.worker.http": BELOW | HTTP_NEEDS,
    "ostler.worker.websocket": BELOW | HTTP_NEEDS | {"ostler.worker.http"},
    "ostler.worker.accept": BELOW
    | {"ostler.worker.http", "ostler.worker.proxies", "ostler.worker.tls", "ostler.worker.server_state"},
    # the entry points
    "ostler.cli": BELOW | {"ostler.version", "ostler.supervisor.*", "ostler.worker.*"},
    "ostler.embed": BELOW | {"ostler.import_guard", "ostler.cli", "ostler.supervisor.*", "ostler.worker.*"},
    "ostler.gunicorn": BELOW | {"ostler.worker.*"},
    "ostler.__main__": frozenset({"ostler.cli"}),
    "ostler": frozenset({"ostler.errors", "ostler.version", "ostler.settings", "ostler.embed"}),
}

OUTSIDE = {"ostler.gunicorn"}
"""Rooms that need a library that is no dependency of ostler: no other room imports them."""

PURE = {
    "ostler.errors",
    "ostler.ipc.contract",
    "ostler.ipc.drain_delay",
    "ostler.ipc.messages",
    "ostler.records",
    "ostler.settings.access_format",
    "ostler.settings.consistency",
    "ostler.settings.declarations",
    "ostler.settings.field_grammar",
    "ostler.settings.kinds",
    "ostler.settings.tls_kinds",
    "ostler.settings.trusted_peers",
    "ostler.supervisor.balancing.bpf",
    "ostler.supervisor.fleet",
    "ostler.supervisor.processes.stacks",
    "ostler.supervisor.systemd_status",
    "ostler.supervisor.upgrade.decision",
    "ostler.system.request_rate",
    "ostler.system.source_files",
    "ostler.worker.limits",
    "ostler.worker.proxies.forwarded",
    "ostler.worker.proxies.proxy_protocol",
    "ostler.worker.tls.distinguished_name",
}
"""Modules that do no I/O, and rooms in which all modules are such."""
COMPOSERS = {"ostler", "ostler.worker", "ostler.supervisor"}
"""Rooms whose own modules compose a process from all rooms below them."""
IMPURE = {"os", "time", "signal", "socket", "asyncio", "random", "logging"}
CONSTANTS_ONLY = {("ostler.ipc.contract", "signal")}
"""Pure modules that take nothing but constants from an impure one."""
WORKERS_ONLY = {"uvloop", "httptools", "websockets", "wsproto"}
"""Libraries that the arbiter's process never loads."""


def imports(source: str, module: str, *, package: bool = False) -> Iterator[tuple[str, int]]:
    """Yield the full name and the line of each import in `source`, the text of `module`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                here = parts[: len(parts) - node.level + package]
                base = ".".join([*here, base]) if base else ".".join(here)
            # The name may be a module (`import settings`) or a name in one (`import TRACE`).
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and _is_import_call(node.func):
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield argument.value, node.lineno


def _is_import_call(function: ast.expr) -> bool:
    return (isinstance(function, ast.Name) and function.id in {"__import__", "import_module"}) or (
        isinstance(function, ast.Attribute) and function.attr == "import_module"
    )


def room(name: str) -> str:
    """Return the room that a module, or a name in one, belongs to."""
    parts = name.split(".")
    return next(place for n in range(len(parts), 0, -1) if (place := ".".join(parts[:n])) in ROOMS)


def may_import(here: str, there: str) -> bool:
    """Whether modules of the room `here` may import from the room `there`."""
    allowed = ROOMS[here]
    wildcards = [entry[:-2] for entry in allowed if entry.endswith(".*")]
    return (
        here == there
        or there in allowed
        or any(f"{there}.".startswith(f"{wildcard}.") for wildcard in wildcards)
    )


def violations(source: str, module: str, *, package: bool = False) -> list[str]:
    """Return one line for each import in `source` that is not allowed."""
    found = []
    here = room(module)
    for name, line in imports(source, module, package=package):
        top = name.split(".")[0]
        where = f"{module} line {line}"
        if top == "ostler" and not may_import(here, room(name)):
            found.append(f"{where}: {here} imports {name}")
        elif here not in OUTSIDE and _is_outside(name):
            found.append(f"{where}: {name} is for another supervisor")
        elif _is_pure(module) and (
            (top in IMPURE and (module, top) not in CONSTANTS_ONLY)
            or (top == "ostler" and not _is_pure(name))
        ):
            found.append(f"{where}: a pure module imports {name}")
        elif not here.startswith(("ostler.worker", "ostler.gunicorn")) and top in WORKERS_ONLY:
            found.append(f"{where}: {name} is for workers")
    return found


def _is_pure(name: str) -> bool:
    """Whether `name` is a pure module or stands in one; a name that comes from an impure module is impure."""
    parts = name.split(".")
    return any(".".join(parts[:n]) in PURE for n in range(2, len(parts) + 1))


def _is_outside(name: str) -> bool:
    """Whether `name` is in a room for another supervisor (gunicorn), or in that supervisor itself."""
    return name.split(".")[0] == "gunicorn" or any(
        f"{name}.".startswith(f"{outside}.") for outside in OUTSIDE
    )


def modules() -> Iterator[tuple[str, Path]]:
    """Yield the name and the path of every module of the package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ("ostler", *path.relative_to(PACKAGE).with_suffix("").parts)
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


@pytest.mark.parametrize(("module", "path"), [pytest.param(m, p, id=m) for m, p in modules()])
def test_each_module_imports_only_what_its_room_may_import(module: str, path: Path) -> None:
    source = path.read_text(encoding="utf-8")

    assert violations(source, module, package=path.name == "__init__.py") == []


def test_every_room_and_every_pure_module_exists() -> None:
    existing = {module for module, _ in modules()}

    assert existing >= PURE
    assert existing >= set(ROOMS)
    allowed = {entry.removesuffix(".*") for rooms in ROOMS.values() for entry in rooms}
    assert allowed <= set(ROOMS)


def test_no_two_rooms_import_each_other() -> None:
    """The rooms have an order in which each may import only earlier ones."""
    allowed = {
        here: {there for there in ROOMS if there != here and may_import(here, there)}
        for here in ROOMS
        # Composers may use all rooms below them; that no room imports a composer is tested below.
        if here not in COMPOSERS
    }
    order = TopologicalSorter({here: there - COMPOSERS for here, there in allowed.items()})

    assert set(order.static_order()) == set(allowed)


def test_no_room_imports_a_module_that_composes_a_process() -> None:
    """`ostler.worker` and `ostler.supervisor` compose; the rooms inside them import only downward."""
    for here, allowed in ROOMS.items():
        if here.startswith(("ostler.worker.", "ostler.supervisor.")):
            assert not allowed & COMPOSERS, here


def test_the_package_has_few_top_modules_and_every_folder_has_a_docstring() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 6
    for init in PACKAGE.rglob("__init__.py"):
        first = init.read_text(encoding="utf-8").splitlines()[0]
        assert first.startswith('"""'), init
        assert len(first) > 20, init


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("ostler.worker.server", "from ostler.supervisor.fleet.fleet import Fleet"),
        ("ostler.worker.server", "from ostler import supervisor"),
        ("ostler.worker.server", "from ..supervisor.fleet import fleet"),
        ("ostler.worker.http.cycle", "from ... import cli"),
        ("ostler.worker.http.cycle", "from ostler.worker.websocket.cycle import WebSocketCycle"),
        ("ostler.worker.http.cycle", "from ostler.worker.interfaces.wsgi import WSGI"),
        ("ostler.worker.http.cycle", "from ostler.worker.proxies import trusted"),
        ("ostler.worker.http.cycle", "from ostler.worker.server import Server"),
        ("ostler.worker.proxies.trusted", "from ostler.worker.http.request import RequestHead"),
        ("ostler.worker.interfaces.wsgi", "from ostler.worker.http.cycle import Cycle"),
        ("ostler.worker.websocket.cycle", "from ostler.worker.accept import handshake"),
        ("ostler.worker.main", "import ostler.cli.run"),
        ("ostler.supervisor.arbiter", "def start():\n    from ostler.worker.main import run"),
        ("ostler.supervisor.arbiter", "import importlib\nimportlib.import_module('ostler.worker.main')"),
        ("ostler.supervisor.processes.child", "__import__('ostler.cli.main')"),
        ("ostler.supervisor.processes.child", "from ostler.supervisor.arbiter import Arbiter"),
        ("ostler.supervisor.arbiter", "try:\n    import uvloop\nexcept ImportError:\n    pass"),
        ("ostler.cli.run", "from httptools import HttpRequestParser"),
        ("ostler.cli.run", "from ostler.embed.config import Config"),
        ("ostler.system.sockets", "from ostler.worker import server"),
        ("ostler.logging.setup", "class A:\n    import websockets.server"),
        ("ostler.settings.declarations", "import os.path"),
        ("ostler.supervisor.fleet.slot", "from time import monotonic"),
        ("ostler.supervisor.fleet.fleet", "def pick():\n    import random"),
        ("ostler.ipc.messages", "import asyncio as a"),
        ("ostler.settings.declarations", "from ostler.settings.sources import Sources"),
        ("ostler.supervisor.fleet.fleet", "from ostler.ipc import assignment"),
        ("ostler", "from ostler.worker.main import run"),
        ("ostler.gunicorn.worker", "from ostler.cli.main import main"),
        ("ostler.gunicorn.access_log", "from ostler.supervisor.fleet.fleet import Fleet"),
        ("ostler.worker.main", "from ostler import gunicorn"),
        ("ostler.cli.run", "from ostler.gunicorn import Worker"),
        ("ostler.worker.server", "import gunicorn.arbiter"),
    ],
)
def test_the_checker_refuses_an_import_that_is_not_allowed(module: str, source: str) -> None:
    assert len(violations(source, module, package=module == "ostler")) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("ostler", "def run():\n    from ostler.embed.run import run"),
        ("ostler", "from ostler.embed.server import Server"),
        ("ostler", "from .errors import OstlerError"),
        ("ostler.__main__", "from ostler.cli.main import main"),
        ("ostler.gunicorn.worker", "from gunicorn import sock\nfrom ostler.worker.server import Server"),
        ("ostler.gunicorn.worker", "from ostler.gunicorn.access_log import GunicornAccessLog"),
        ("ostler.worker.main", "import uvloop, os, ostler.logging.setup"),
        ("ostler.worker.http.cycle", "from .request import Refusal\nfrom ..server_state import ServerState"),
        ("ostler.supervisor.fleet.fleet", "from .slot import Slot\nimport ostler.ipc.messages"),
        ("ostler.cli.run", "from ostler.worker.main import run\nfrom ostler.supervisor import arbiter"),
    ],
)
def test_the_checker_accepts_an_import_that_is_allowed(module: str, source: str) -> None:
    assert violations(source, module, package=module == "ostler") == []
