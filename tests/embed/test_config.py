"""`ostler.Config`: settings from keyword arguments, under ostler's names and uvicorn's."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import pytest

import ostler
from ostler.settings.declarations import Settings, declarations, defaults
from ostler.settings.sources import ALIASES


async def app(scope: Any, receive: Any, send: Any) -> None:
    """An application, to be passed as an object."""


def test_config_takes_the_application_first_and_every_setting_by_name() -> None:
    config = ostler.Config("main:app", port=5000, log_level="info")

    assert isinstance(config, Settings)
    assert (config.app, config.port, config.log_level) == ("main:app", 5000, "info")
    bare = ostler.Config(app)
    assert {name: getattr(bare, name) for name in declarations()} == {**defaults(), "app": app}


@pytest.mark.parametrize(
    ("given", "name", "stored"),
    [
        ({"headers": [("X-A", "b"), ("X-C", "d")]}, "header", ("X-A:b", "X-C:d")),
        ({"headers": [["X-A", "b"]]}, "header", ("X-A:b",)),
        ({"headers": []}, "header", ()),
        ({"header": "X-A: b"}, "header", ("X-A: b",)),
        ({"h11_max_incomplete_event_size": 4096}, "limit_request_head", 4096),
        ({"app_dir": Path("src")}, "app_dir", "src"),
        ({"uds": Path("o.sock")}, "uds", "o.sock"),
        ({"host": "0.0.0.0"}, "host", ("0.0.0.0",)),
        ({"host": ["a", "b"]}, "host", ("a", "b")),
        ({"host": None}, "host", ("127.0.0.1",)),
        ({"timeout_graceful_shutdown": None}, "timeout_graceful_shutdown", 30.0),
        ({"forwarded_allow_ips": ["10.0.0.1", "::1"]}, "forwarded_allow_ips", "10.0.0.1,::1"),
        ({"log_level": 20}, "log_level", "info"),
        ({"log_level": 25}, "log_level", "warning"),
        ({"log_level": 5}, "log_level", "trace"),
        ({"log_level": 0}, "log_level", "trace"),
        ({"log_level": 60}, "log_level", "critical"),
        ({"log_level": "INFO"}, "log_level", "info"),
        ({"uds_permissions": "660"}, "uds_permissions", 0o660),
        ({"uds_permissions": 0o660}, "uds_permissions", 0o660),
        ({"workers": "auto"}, "workers", "auto"),
    ],
)
def test_config_accepts_uvicorns_names_and_values(given: dict[str, Any], name: str, stored: object) -> None:
    assert getattr(ostler.Config(app, **given), name) == stored


def test_is_ssl_and_should_reload_are_as_in_uvicorn() -> None:
    plain = ostler.Config("main:app")
    assert (plain.is_ssl, plain.should_reload) == (False, False)
    assert ostler.Config("main:app", ssl_certfile="cert.pem").is_ssl
    assert ostler.Config("main:app", ssl_context_factory="main:tls").is_ssl
    assert ostler.Config("main:app", reload=True).should_reload
    assert not ostler.Config(app, reload=True).should_reload


def test_log_config_none_is_a_value_and_not_the_default() -> None:
    assert ostler.Config(app, log_config=None).log_config is None
    assert ostler.Config(app).log_config is not None
    assert dataclasses.replace(ostler.Config(app), port=1) == ostler.Config(app, port=1)
    copy = pickle.loads(pickle.dumps(ostler.Config("main:app")))
    assert copy == ostler.Config("main:app")


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"portt": 1}, "unknown setting 'portt', did you mean port?"),
        ({"header_": []}, "unknown setting 'header_', did you mean header?"),
        ({"uds_permissions": 660}, "uds_permissions from argument uds_permissions is 660: expected file "),
        ({"uds_permissions": True}, "uds_permissions from argument uds_permissions is true: expected file "),
        ({"log_level": True}, "log_level from argument log_level is true: expected one of critical, error, "),
        (
            {"headers": [("a:b", "c")]},
            "header from argument headers is [('a:b', 'c')]: expected a header as ",
        ),
        ({"headers": {"a": "b"}}, "header from argument headers is {'a': 'b'}: expected a header as "),
        ({"host": []}, "host from argument host is []: expected a host name or an address"),
    ],
)
def test_config_refuses_a_wrong_setting_in_one_line(given: dict[str, Any], line: str) -> None:
    with pytest.raises(ostler.SettingsError) as error:
        ostler.Config(app, **given)

    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)


def test_of_the_environment_only_forwarded_allow_ips_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.ostler]\nport = 3\n")
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "OSTLER_PORT": "2",
        "WEB_CONCURRENCY": "2",
        "OSTLER_CONFIG": "none.toml",
        "FORWARDED_ALLOW_IPS": "10.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)

    config = ostler.Config(app)

    assert (config.port, config.workers, config.forwarded_allow_ips) == (8000, None, "10.0.0.1")
    assert ostler.Config(app, forwarded_allow_ips="*").forwarded_allow_ips == "*"


def test_no_alias_is_the_name_of_a_setting() -> None:
    uvicorns = {name for declaration in declarations().values() if (name := declaration.uvicorn)}
    assert uvicorns == {"h11_max_incomplete_event_size"}
    assert not (set(ALIASES) | uvicorns) & set(declarations())


def test_a_config_can_be_pickled_for_a_worker() -> None:
    config = ostler.Config("main:app", port=80)

    assert pickle.loads(pickle.dumps(config)) == config
