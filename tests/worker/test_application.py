"""From an import string to one ASGI 3 callable."""

import functools
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ostler.errors import StartupError
from ostler.settings import Settings
from ostler.worker import application
from ostler.worker.asgi import Application

SOURCE = """
import functools

class Nested:
    class inner:
        async def app(scope, receive, send): ...

async def app(scope, receive, send): ...

class Callable:
    async def __call__(self, scope, receive, send): ...

instance = Callable()
partial = functools.partial(lambda extra, scope, receive, send: None, 1)
wrapped = lambda *args, **kwargs: app(*args, **kwargs)
def make(): return app
def wsgi(environ, start_response): return []
class OldStyle:
    def __init__(self, scope): ...
    async def __call__(self, receive, send): ...
text = "not callable"
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "sample_app.py").write_text(SOURCE)
    (tmp_path / "sample_broken.py").write_text("x = 1\nraise KeyError('wrong')\n")
    (tmp_path / "sample_syntax.py").write_text("x = 1\ndef (:\n")
    (tmp_path / "sample_missing.py").write_text("import no_such_module_at_all\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "sample_app"
    for name in [name for name in sys.modules if name.startswith("sample_")]:
        del sys.modules[name]


def load(app: str, **settings: Any) -> Application:
    return application.load(Settings(app=app, **settings))


@pytest.mark.parametrize("name", ["app", "instance", "partial", "wrapped", "Nested.inner.app"])
def test_whatever_takes_scope_receive_and_send_is_served(module: str, name: str) -> None:
    expected: Any = functools.reduce(getattr, name.split("."), importlib.import_module(module))
    assert load(f"{module}:{name}") is expected


def test_a_factory_is_called_on_request(module: str) -> None:
    assert load(f"{module}:make", factory=True) is sys.modules[module].app


@pytest.mark.parametrize(
    "factory", ["def make(x): return app", "class make:\n    def __init__(self, x): ..."]
)
def test_a_factory_that_needs_arguments_is_one_line(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factory: str
) -> None:
    (tmp_path / "sample_factory.py").write_text(factory)
    with pytest.raises(StartupError) as caught:
        load("sample_factory:make", factory=True)
    says = "cannot be called without arguments, as a factory is: missing a required argument: 'x'"
    assert str(caught.value) == f'"sample_factory:make" {says}'
    assert caught.value.exit_code == 3


def test_a_factory_may_have_arguments_that_it_does_not_need(module: str, tmp_path: Path) -> None:
    (tmp_path / "sample_factory.py").write_text(
        "async def app(scope, receive, send): ...\ndef make(x=1, *args, **kwargs): return app\n"
    )
    assert load("sample_factory:make", factory=True) is sys.modules["sample_factory"].app


def test_a_factory_without_the_flag_is_told_so(module: str) -> None:
    with pytest.raises(StartupError, match="--factory"):
        load(f"{module}:make")


@pytest.mark.parametrize(
    ("app", "says"),
    [
        ("sample_nowhere:app", 'Could not import module "sample_nowhere"'),
        ("sample_app:nothing", 'Attribute "nothing" not found in module "sample_app"'),
        ("sample_app.deeper:app", 'Could not import module "sample_app.deeper"'),
        ("sample_app:text", "not an ASGI application"),
        ("sample_app:wsgi", "WSGI"),
        ("sample_app:OldStyle", "ASGI 2"),
    ],
)
def test_what_does_not_fit_is_one_line(module: str, app: str, says: str) -> None:
    with pytest.raises(StartupError, match=says) as caught:
        load(app)
    assert "\n" not in str(caught.value)


def test_the_interface_can_be_insisted_on(module: str) -> None:
    assert load(f"{module}:wsgi", interface="asgi3") is sys.modules[module].wsgi


@pytest.mark.parametrize(
    ("app", "says"),
    [
        ("sample_broken:app", r"KeyError: 'wrong' \(.*sample_broken.py, line 2\)"),
        ("sample_syntax:app", r"SyntaxError: .* \(.*sample_syntax.py, line 2\)"),
        ("sample_missing:app", r"No module named 'no_such_module_at_all' \(.*sample_missing.py, line 1\)"),
    ],
)
def test_an_error_in_the_applications_own_code_is_told_with_its_line(
    module: str, app: str, says: str
) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - each case raises another
        load(app)
    assert not isinstance(caught.value, StartupError)
    line = application.one_line(caught.value)
    assert "\n" not in line
    assert re.search(says, line)
