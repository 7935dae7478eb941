"""Imports run one way, and what is pure stays pure: an AST walk over the whole package.

Imports inside functions count as any other: a layer is not kept by being late.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import ostler

PACKAGE = Path(ostler.__file__).parent

MAY_IMPORT = {
    "ostler": {"ostler"},
    "worker": {"ostler", "worker"},
    "supervisor": {"ostler", "supervisor"},
    "cli": {"ostler", "worker", "supervisor", "cli"},
}
"""Which layers each layer may import; `ostler` is the modules of the package itself."""

FRONT_DOORS: Mapping[str, tuple[str, ...]] = {
    "ostler": ("ostler.cli.from_code", "ostler.worker.embedding"),
    "ostler.__main__": ("ostler.cli.main",),
    "ostler.gunicorn": ("ostler.worker.",),
    "ostler.gunicorn_access": ("ostler.worker.",),
}
"""They open on what is public above, or serve under another supervisor, and so may import that."""

OUTSIDE = {"ostler.gunicorn", "ostler.gunicorn_access"}
"""They need a library that is no dependency: nothing else imports them."""

PURE = {
    "ostler.errors",
    "ostler.frozen",
    "ostler.atoms",
    "ostler.kinds",
    "ostler.messages",
    "ostler.meter",
    "ostler.peers",
    "ostler.settings",
    "ostler.supervisor.crew",
    "ostler.supervisor.events",
    "ostler.supervisor.fleet",
    "ostler.supervisor.orders",
    "ostler.supervisor.place",
    "ostler.supervisor.reloading",
    "ostler.supervisor.service_manager",
    "ostler.supervisor.silence",
    "ostler.supervisor.slot",
    "ostler.supervisor.steering",
    "ostler.tls_kinds",
    "ostler.worker.distinguished_name",
    "ostler.worker.limits",
    "ostler.worker.middleware.forwarded",
    "ostler.worker.proxy_protocol",
}
IMPURE = {"os", "time", "signal", "socket", "asyncio", "random", "logging"}
WORKERS_ONLY = {"uvloop", "httptools", "websockets", "wsproto"}
"""What the arbiter's process never loads."""


def imports(source: str, module: str, *, package: bool = False) -> Iterator[tuple[str, int]]:
    """Yield the full name of whatever `source`, the text of `module`, imports anywhere, with its line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                here = parts[: len(parts) - node.level + package]
                base = ".".join([*here, base]) if base else ".".join(here)
            # `from ostler import logs` imports a module, `from ostler.logs import TRACE` a name.
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and _is_import_call(node.func):
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield argument.value, node.lineno


def _is_import_call(function: ast.expr) -> bool:
    return (isinstance(function, ast.Name) and function.id in {"__import__", "import_module"}) or (
        isinstance(function, ast.Attribute) and function.attr == "import_module"
    )


def layer(name: str) -> str:
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in MAY_IMPORT else "ostler"


def complaints(source: str, module: str, *, package: bool = False) -> list[str]:
    """What `source` must not import, one line each."""
    found = []
    for name, line in imports(source, module, package=package):
        top = name.split(".")[0]
        where = f"{module} line {line}"
        if top == "ostler" and layer(name) not in MAY_IMPORT[layer(module)]:
            if not name.startswith(FRONT_DOORS.get(module, ())):
                found.append(f"{where}: {layer(module)} imports {name}")
        elif module not in OUTSIDE and _is_outside(name):
            found.append(f"{where}: {name} is for another supervisor")
        elif module in PURE and (top in IMPURE or (top == "ostler" and not _is_pure(name))):
            found.append(f"{where}: a pure module imports {name}")
        elif layer(module) != "worker" and top in WORKERS_ONLY:
            found.append(f"{where}: {name} is for workers")
    return found


def _is_pure(name: str) -> bool:
    """Whether `name`, a module or something in one, is pure: purity by way of an impure module is none."""
    return name in PURE or name.rpartition(".")[0] in PURE


def _is_outside(name: str) -> bool:
    """Whether `name` is, or is in, a module for another supervisor, or is that supervisor."""
    return name.split(".")[0] == "gunicorn" or any(f"{name}.".startswith(f"{door}.") for door in OUTSIDE)


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ("ostler", *path.relative_to(PACKAGE).with_suffix("").parts)
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


@pytest.mark.parametrize(("module", "path"), [pytest.param(m, p, id=m) for m, p in modules()])
def test_each_module_imports_only_what_its_layer_may(module: str, path: Path) -> None:
    source = path.read_text(encoding="utf-8")

    assert complaints(source, module, package=path.name == "__init__.py") == []


def test_every_pure_module_exists() -> None:
    assert {module for module, _ in modules()} >= PURE


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("ostler.worker.server", "from ostler.supervisor.fleet import Fleet"),
        ("ostler.worker.server", "from ostler import supervisor"),
        ("ostler.worker.server", "from ..supervisor import fleet"),
        ("ostler.worker.http.cycle", "from ... import cli"),
        ("ostler.worker.main", "import ostler.cli.run"),
        ("ostler.supervisor.arbiter", "def start():\n    from ostler.worker.main import run"),
        ("ostler.supervisor.arbiter", "import importlib\nimportlib.import_module('ostler.worker.main')"),
        ("ostler.supervisor.child", "__import__('ostler.cli.main')"),
        ("ostler.supervisor.arbiter", "try:\n    import uvloop\nexcept ImportError:\n    pass"),
        ("ostler.cli.run", "from httptools import HttpRequestParser"),
        ("ostler.sockets", "from ostler.worker import server"),
        ("ostler.logs", "class A:\n    import websockets.server"),
        ("ostler.settings", "import os.path"),
        ("ostler.supervisor.slot", "from time import monotonic"),
        ("ostler.supervisor.fleet", "def pick():\n    import random"),
        ("ostler.messages", "import asyncio as a"),
        ("ostler.settings", "from ostler.sources import Sources"),
        ("ostler.supervisor.fleet", "from ostler import logs"),
        ("ostler", "from ostler.worker.main import run"),
        ("ostler.config", "from ostler.worker.embedding import Server"),
        ("ostler.gunicorn", "from ostler.cli.main import main"),
        ("ostler.gunicorn_access", "from ostler.supervisor.fleet import Fleet"),
        ("ostler.worker.main", "from ostler import gunicorn"),
        ("ostler.cli.run", "from ostler.gunicorn import Worker"),
        ("ostler.worker.server", "import gunicorn.arbiter"),
    ],
)
def test_the_checker_objects_to_an_import_against_the_grain(module: str, source: str) -> None:
    assert len(complaints(source, module, package=module == "ostler")) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("ostler", "def run():\n    from ostler.cli.from_code import run"),
        ("ostler", "from ostler.worker.embedding import Server"),
        ("ostler", "from .errors import OstlerError"),
        ("ostler.__main__", "from ostler.cli.main import main"),
        ("ostler.gunicorn", "from gunicorn import sock\nfrom ostler.worker.server import Server"),
        ("ostler.gunicorn", "from ostler.gunicorn_access import Account"),
        ("ostler.worker.main", "import uvloop, os, ostler.logs"),
        ("ostler.worker.http.cycle", "from ..lifespan import Lifespan\nfrom .head import Head"),
        ("ostler.supervisor.fleet", "from ostler.supervisor.slot import Slot\nimport ostler.messages"),
        ("ostler.cli.run", "from ostler.worker.main import run\nfrom ostler.supervisor import arbiter"),
    ],
)
def test_the_checker_lets_an_import_along_the_grain_pass(module: str, source: str) -> None:
    assert complaints(source, module, package=module == "ostler") == []
