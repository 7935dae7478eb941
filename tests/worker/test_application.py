"""Loading the application: every kind of object becomes one ASGI 3 callable."""

import functools
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ostler.errors import StartupError
from ostler.settings.declarations import Settings
from ostler.worker import application
from ostler.worker.asgi import Application
from ostler.worker.interfaces.wsgi import WsgiAdapter

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
def make_wsgi(config=None): return wsgi
def make_old(): return OldStyle
class WsgiObject:
    def __call__(self, env, start_response, more=None): return []
class WsgiClass:
    def __init__(self, environ, start_response): ...
    def __iter__(self): ...
wsgi_object = WsgiObject()
def two(request, response): ...
async def two_async(environ, start_response): ...
async def one_async(scope): ...
def old_function(scope): ...
async def make_async(): return app
class OldStyle:
    def __init__(self, scope): ...
    async def __call__(self, receive, send): ...
text = "not callable"
"""

FRAMEWORKS = """
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.conf import settings
from fastapi import FastAPI
from flask import Flask
from starlette.applications import Starlette

if not settings.configured:
    settings.configure()
flask_app = Flask("sample")
django_app = WSGIHandler()
django_asgi = ASGIHandler()
fastapi_app = FastAPI()
starlette_app = Starlette()
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
def test_a_callable_that_takes_scope_receive_and_send_is_served(module: str, name: str) -> None:
    expected: Any = functools.reduce(getattr, name.split("."), importlib.import_module(module))
    assert load(f"{module}:{name}") is expected


def test_a_factory_is_called_on_request(module: str) -> None:
    assert load(f"{module}:make", factory=True) is sys.modules[module].app


def test_a_factory_may_have_arguments_that_it_does_not_need(module: str, tmp_path: Path) -> None:
    (tmp_path / "sample_factory.py").write_text(
        "async def app(scope, receive, send): ...\ndef make(x=1, *args, **kwargs): return app\n"
    )
    assert load("sample_factory:make", factory=True) is sys.modules["sample_factory"].app


def test_a_factory_without_the_flag_is_called_with_a_warning(
    module: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert load(f"{module}:make") is sys.modules[module].app
    assert "--factory" in caplog.text


@pytest.mark.parametrize("name", ["wsgi", "wsgi_object", "WsgiClass", "make_wsgi"])
def test_a_callable_that_takes_environ_and_start_response_is_wsgi(module: str, name: str) -> None:
    assert isinstance(load(f"{module}:{name}"), WsgiAdapter)


@pytest.mark.parametrize(("name", "factory"), [("make_wsgi", True), ("make_old", True), ("make_old", False)])
def test_a_factory_may_make_every_kind_of_application(module: str, name: str, factory: bool) -> None:
    made = load(f"{module}:{name}", factory=factory)
    assert isinstance(made, WsgiAdapter) == (name == "make_wsgi")
    assert inspect.iscoroutinefunction(made) == (name == "make_old")


def test_frameworks_are_recognized_by_their_signatures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sample_frameworks.py").write_text(FRAMEWORKS)
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        for name in ("flask_app", "django_app"):
            assert isinstance(load(f"sample_frameworks:{name}"), WsgiAdapter)
        for name in ("fastapi_app", "starlette_app", "django_asgi"):
            assert load(f"sample_frameworks:{name}") is getattr(sys.modules["sample_frameworks"], name)
    finally:
        sys.modules.pop("sample_frameworks", None)


@pytest.mark.parametrize("interface", ["asgi2", "auto"])
@pytest.mark.parametrize("name", ["OldStyle", "old_function"])
def test_a_callable_that_takes_only_the_scope_is_asgi_2(module: str, name: str, interface: str) -> None:
    adapted = load(f"{module}:{name}", interface=interface)
    assert adapted is not getattr(sys.modules[module], name)
    assert inspect.iscoroutinefunction(adapted)


def test_a_wsgi_application_with_lifespan_on_is_refused(module: str) -> None:
    with pytest.raises(StartupError, match="omit --lifespan on") as caught:
        load(f"{module}:wsgi", lifespan="on")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("app", "says"),
    [
        ("sample_nowhere:app", 'Could not import module "sample_nowhere"'),
        ("sample_app:nothing", 'Attribute "nothing" not found in module "sample_app"'),
        ("sample_app.deeper:app", 'Could not import module "sample_app.deeper"'),
        ("sample_app:text", "is not an application: str is not callable"),
        ("sample_app:functools", "is not an application: module is not callable"),
        ("sample_app:two", "takes request, response, .* --interface wsgi"),
        ("sample_app:two_async", "takes environ, start_response"),
        ("sample_app:one_async", "takes scope, and"),
    ],
)
def test_an_object_that_is_no_application_is_one_line(module: str, app: str, says: str) -> None:
    with pytest.raises(StartupError, match=says) as caught:
        load(app)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("text", "is not callable; with --factory it must be"),
        ("wsgi", "missing a required argument: 'environ'; .* omit --factory"),
        ("make_async", "async factory"),
    ],
)
def test_an_object_that_is_no_factory_is_one_line(module: str, name: str, says: str) -> None:
    with pytest.raises(StartupError, match=says) as caught:
        load(f"{module}:{name}", factory=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("interface", ["asgi3", "wsgi"])
def test_the_interface_can_be_set(module: str, interface: str) -> None:
    loaded = load(f"{module}:two", interface=interface)
    assert isinstance(loaded, WsgiAdapter) == (interface == "wsgi")
    assert (loaded is sys.modules[module].two) == (interface == "asgi3")


@pytest.mark.parametrize(
    ("app", "says"),
    [
        ("sample_broken:app", r"KeyError: 'wrong' \(.*sample_broken.py, line 2\)"),
        ("sample_syntax:app", r"SyntaxError: .* \(.*sample_syntax.py, line 2\)"),
        ("sample_missing:app", r"No module named 'no_such_module_at_all' \(.*sample_missing.py, line 1\)"),
    ],
)
def test_an_error_in_the_applications_code_is_shown_with_its_line(module: str, app: str, says: str) -> None:
    with pytest.raises(StartupError) as caught:
        load(app)
    line = str(caught.value)
    assert "\n" not in line
    assert re.search(f"{app} could not be imported: .*{says}", line)
