"""How flags, variables, files and code give the settings; each mistake is one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ostler.errors import SettingsError
from ostler.settings.declarations import Settings, declarations
from ostler.settings.kinds import LogConfig
from ostler.settings.sources import Configuration, Sources

LOG_CONFIG = str(Path(__file__).parents[1] / "logging" / "log_config.json")
UVICORNS = json.loads(Path(LOG_CONFIG).read_text())

GOOD: dict[str, tuple[str, str, Any]] = {
    # field: (text for flag and variable, TOML, value)
    "app": ("main:app", '"main:app"', "main:app"),
    "factory": ("true", "true", True),
    "app_dir": ("src", '"src"', "src"),
    "interface": ("asgi3", '"asgi3"', "asgi3"),
    "lifespan": ("off", '"off"', "off"),
    "root_path": ("/api", '"/api"', "/api"),
    "reset_contextvars": ("true", "true", True),
    "wsgi_threads": ("8", "8", 8),
    "host": ("::1", '["::1"]', ("::1",)),
    "port": ("0", "0", 0),
    "uds": ("/run/o.sock", '"/run/o.sock"', "/run/o.sock"),
    "uds_permissions": ("600", '"600"', 0o600),
    "fd": ("3", "3", 3),
    "backlog": ("16", "16", 16),
    "reuse_port": ("off", '"off"', "off"),
    "ssl_certfile": ("cert.pem", '"cert.pem"', "cert.pem"),
    "ssl_keyfile": ("key.pem", '"key.pem"', "key.pem"),
    "ssl_keyfile_password": ("sesame", '"sesame"', "sesame"),
    "ssl_version": ("TLSv1.3", '"TLSv1.3"', "TLSv1.3"),
    "ssl_cert_reqs": ("2", "2", "required"),
    "ssl_ca_certs": ("ca.pem", '"ca.pem"', "ca.pem"),
    "ssl_ciphers": ("ECDHE+AESGCM", '"ECDHE+AESGCM"', "ECDHE+AESGCM"),
    "ssl_context_factory": ("main:tls", '"main:tls"', "main:tls"),
    "workers": ("4", "4", 4),
    "limit_max_requests": ("1000", "1000", 1000),
    "limit_max_requests_jitter": ("0", "0", 0),
    "limit_worker_lifetime": ("3600", "3600", 3600.0),
    "limit_worker_lifetime_jitter": ("0", "0", 0.0),
    "limit_worker_rss": ("512M", '"512M"', 2**29),
    "timeout_worker_healthcheck": ("2.5", "2.5", 2.5),
    "timeout_worker_startup": ("60", "60", 60.0),
    "health_path": ("/healthz", '"/healthz"', "/healthz"),
    "loop": ("asyncio", '"asyncio"', "asyncio"),
    "http": ("h11", '"h11"', "h11"),
    "http2": ("false", "false", False),
    "ws": ("wsproto", '"wsproto"', "wsproto"),
    "ws_max_size": ("1024", "1024", 1024),
    "ws_max_queue": ("8", "8", 8),
    "ws_ping_interval": ("2.5", "2.5", 2.5),
    "ws_ping_timeout": ("0", "0", 0.0),
    "ws_per_message_deflate": ("false", "false", False),
    "limit_concurrency": ("100", "100", 100),
    "limit_connections": ("9", "9", 9),
    "limit_request_head": ("8192", "8192", 8192),
    "timeout_keep_alive": ("0", "0", 0.0),
    "timeout_request_header": ("3", "3", 3.0),
    "timeout_graceful_shutdown": ("0", "0", 0.0),
    "drain_delay": ("7.5", "7.5", 7.5),
    "server_header": ("false", "false", False),
    "date_header": ("false", "false", False),
    "sendfile": ("false", "false", False),
    "header": ("X-A: b, c", '["X-A: b, c"]', ("X-A: b, c",)),
    "proxy_headers": ("false", "false", False),
    "forwarded_header": ("forwarded", '"forwarded"', "forwarded"),
    "proxy_protocol": ("true", "true", True),
    "forwarded_allow_ips": ("10.0.0.0/8", '["10.0.0.0/8"]', "10.0.0.0/8"),
    "log_config": (LOG_CONFIG, json.dumps(LOG_CONFIG), LogConfig(LOG_CONFIG, UVICORNS)),
    "log_level": ("debug", '"debug"', "debug"),
    "log_format": ("json", '"json"', "json"),
    "access_log": ("false", "false", False),
    "access_log_format": ("%(h)s", '"%(h)s"', "%(h)s"),
    "use_colors": ("true", "true", True),
    "pid_file": ("run/o.pid", '"run/o.pid"', "run/o.pid"),
    "user": ("www-data", '"www-data"', "www-data"),
    "group": ("33", '"33"', "33"),
    "umask": ("027", '"027"', 0o027),
    "reload": ("true", "true", True),
    "reload_dir": ("src", '["src"]', ("src",)),
    "reload_include": ("*.html", '["*.html"]', ("*.html",)),
    "reload_exclude": ("tests", '["tests"]', ("tests",)),
    "reload_delay": ("0.5", "0.5", 0.5),
}

BAD: dict[str, tuple[str, str]] = {
    # field: (text, TOML)
    "app": ("main", '"main"'),
    "factory": ("maybe", '"true"'),
    "app_dir": ("a\0b", "1"),
    "interface": ("asgi4", '"asgi4"'),
    "lifespan": ("perhaps", "true"),
    "root_path": ("\0", "[]"),
    "reset_contextvars": ("2", '"yes"'),
    "wsgi_threads": ("0", "0"),
    "host": ("a b", '["a", 1]'),
    "port": ("65536", "65536"),
    "uds": ("\0", "1"),
    "uds_permissions": ("999", "660"),
    "fd": ("-1", '"3"'),
    "backlog": ("-1", "-1"),
    "reuse_port": ("yes", "true"),
    "ssl_certfile": ("\0", "1"),
    "ssl_keyfile": ("\0", "1"),
    "ssl_keyfile_password": ("\0", "1234"),
    "ssl_version": ("TLSv1.1", "16"),
    "ssl_cert_reqs": ("maybe", "true"),
    "ssl_ca_certs": ("\0", "1"),
    "ssl_ciphers": ("\0", "1"),
    "ssl_context_factory": ("main", "1"),
    "workers": ("-1", "-1"),
    "limit_max_requests": ("0", "true"),
    "limit_max_requests_jitter": ("x", "1.5"),
    "limit_worker_lifetime": ("0", "-1"),
    "limit_worker_lifetime_jitter": ("-1", '"x"'),
    "limit_worker_rss": ("512MB", "0"),
    "timeout_worker_healthcheck": ("0", "0"),
    "timeout_worker_startup": ("nan", "nan"),
    "health_path": ("healthz", '"/health check"'),
    "loop": ("trio", '"trio"'),
    "http": ("h2", '"h2"'),
    "http2": ("2", "2"),
    "ws": ("wsaccel", '"wsaccel"'),
    "ws_max_size": ("0", "0"),
    "ws_max_queue": ("0", "-1"),
    "ws_ping_interval": ("-1", "-1"),
    "ws_ping_timeout": ("inf", "inf"),
    "ws_per_message_deflate": ("2", "0"),
    "limit_concurrency": ("0", "-1"),
    "limit_connections": ("0", "0"),
    "limit_request_head": ("0", "0"),
    "timeout_keep_alive": ("-1", "-1"),
    "timeout_request_header": ("0", "0.0"),
    "timeout_graceful_shutdown": ("inf", "inf"),
    "drain_delay": ("-1", "-1"),
    "server_header": ("2", "1"),
    "date_header": ("2", "1"),
    "sendfile": ("2", "1"),
    "header": ("nothing", '["nothing"]'),
    "proxy_headers": ("2", '"yes"'),
    "forwarded_header": ("both", '["forwarded"]'),
    "proxy_protocol": ("2", "2"),
    "forwarded_allow_ips": ("10.0.0.0/99", '["10.0.0.0/99"]'),
    "log_config": ("\0", "1"),
    "log_level": ("loud", '"loud"'),
    "log_format": ("xml", "1"),
    "access_log": ("2", "0"),
    "access_log_format": ("%(nothing)s", '""'),
    "use_colors": ("2", '"auto"'),
    "pid_file": ("a\0b", "1"),
    "user": ("a\0b", "33"),
    "group": ("a\0b", "33"),
    "umask": ("888", "27"),
    "reload": ("2", '"auto"'),
    "reload_dir": ("\0", "[1]"),
    "reload_include": ("\0", "[1]"),
    "reload_exclude": ("\0", "[1]"),
    "reload_delay": ("-1", "-1"),
}

FIELDS = list(declarations())


def load(directory: Path | str = "/nowhere", **sources: Any) -> Configuration:
    return Sources(directory=str(directory), **sources).load(complete=False)


def refusal(directory: Path | str = "/nowhere", *, complete: bool = False, **sources: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        Sources(directory=str(directory), **sources).load(complete=complete)
    line = str(caught.value)
    assert "\n" not in line
    return line


def with_tls(name: str) -> dict[str, str]:
    """Values without which a TLS setting is refused; an ssl_context_factory goes with any of them."""
    alone = name == "ssl_context_factory" or not name.startswith("ssl_")
    return {} if alone else {"ssl_context_factory": "main:tls"}


def shown(name: str, text: str) -> str:
    return "***" if declarations()[name].kind.secret else repr(text)


def test_every_setting_is_tested_here() -> None:
    assert list(GOOD) == list(BAD) == FIELDS


# -- each setting from each source


@pytest.mark.parametrize("name", FIELDS)
def test_a_flag_gives_the_setting(name: str) -> None:
    text, _, value = GOOD[name]

    configuration = load(flags={name: (text,)}, values=with_tls(name))

    assert getattr(configuration.settings, name) == value
    dashed = name.replace("_", "-")
    expected = f"flag --no-{dashed}" if text == "false" else f"flag --{dashed}"
    assert configuration.origins[name] == ("argument APP" if name == "app" else expected)


@pytest.mark.parametrize("name", FIELDS)
def test_a_variable_gives_the_setting(name: str) -> None:
    text, _, value = GOOD[name]

    configuration = load(environ={f"OSTLER_{name.upper()}": text}, values=with_tls(name))

    assert getattr(configuration.settings, name) == value
    assert configuration.origins[name] == f"variable OSTLER_{name.upper()}"


@pytest.mark.parametrize("name", FIELDS)
def test_a_toml_key_gives_the_setting(name: str, tmp_path: Path) -> None:
    _, toml, value = GOOD[name]
    (tmp_path / "o.toml").write_text(f"# ours\n\n{name} = {toml}\n")

    configuration = load(tmp_path, config="o.toml", values=with_tls(name))

    assert getattr(configuration.settings, name) == value
    assert configuration.origins[name] == "o.toml line 3"


@pytest.mark.parametrize("name", FIELDS)
def test_a_wrong_flag_is_one_line_that_names_setting_source_and_expectation(name: str) -> None:
    text, _ = BAD[name]

    line = refusal(flags={name: (text,)})

    origin = "argument APP" if name == "app" else f"flag --{name.replace('_', '-')}"
    assert line.startswith(f"{name} from {origin} is {shown(name, text)}: ")
    assert line.endswith(f"expected {declarations()[name].kind.expected}")


@pytest.mark.parametrize("name", FIELDS)
def test_a_wrong_variable_is_one_line_that_names_setting_source_and_expectation(name: str) -> None:
    text, _ = BAD[name]

    line = refusal(environ={f"OSTLER_{name.upper()}": text})

    assert line.startswith(f"{name} from variable OSTLER_{name.upper()} is {shown(name, text)}: ")
    assert line.endswith(f"expected {declarations()[name].kind.expected}")


@pytest.mark.parametrize("name", FIELDS)
def test_a_wrong_toml_value_is_one_line_that_names_setting_source_and_expectation(
    name: str, tmp_path: Path
) -> None:
    _, toml = BAD[name]
    (tmp_path / "o.toml").write_text(f"\n{name} = {toml}\n")

    line = refusal(tmp_path, config="o.toml")

    assert line.startswith(f"{name} from o.toml line 2 is ")
    assert line.endswith(f"expected {declarations()[name].kind.expected}")


# -- precedence


def test_without_any_source_every_setting_has_its_default() -> None:
    configuration = load()

    assert configuration.settings == Settings()
    assert set(configuration.origins.values()) == {"default"}
    assert configuration.environment == {}


def test_the_source_of_highest_precedence_counts(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("OSTLER_BACKLOG=2\nOSTLER_LIMIT_CONCURRENCY=2\nOSTLER_WORKERS=2\n")
    environ = {"OSTLER_LIMIT_CONCURRENCY": "3", "OSTLER_WORKERS": "3"}
    (tmp_path / "o.toml").write_text("port = 1\nbacklog = 1\nlimit_concurrency = 1\nworkers = 1\n")

    configuration = load(
        tmp_path, config="o.toml", env_file=".env", environ=environ, flags={"workers": ("4",)}
    )

    settings = configuration.settings
    assert (settings.port, settings.backlog, settings.limit_concurrency, settings.workers) == (1, 2, 3, 4)
    assert configuration.origins["backlog"] == "variable OSTLER_BACKLOG in .env"


@pytest.mark.parametrize(("name", "value"), [("WEB_CONCURRENCY", "3"), ("FORWARDED_ALLOW_IPS", "10.0.0.1")])
def test_variables_that_platforms_set_count_after_those_of_ostler(name: str, value: str) -> None:
    field = {"WEB_CONCURRENCY": "workers", "FORWARDED_ALLOW_IPS": "forwarded_allow_ips"}[name]
    ours = GOOD[field][0]

    alone = load(environ={name: value})
    both = load(environ={name: value, f"OSTLER_{field.upper()}": ours})

    assert str(getattr(alone.settings, field)) == value
    assert alone.origins[field] == f"variable {name}"
    assert getattr(both.settings, field) == GOOD[field][2]


def test_an_empty_variable_counts_as_unset() -> None:
    assert load(environ={"OSTLER_UDS": "", "WEB_CONCURRENCY": "", "OSTLER_CONFIG": ""}).settings == Settings()


def test_of_a_flag_that_is_given_twice_the_last_one_counts() -> None:
    assert load(flags={"port": ("1", "2")}).settings.port == 2


def test_of_a_flag_that_may_be_given_several_times_all_count() -> None:
    settings = load(flags={"host": ("::1", "127.0.0.1"), "header": ("A: 1, 2", "B: 3")}).settings

    assert settings.host == ("::1", "127.0.0.1")
    assert settings.header == ("A: 1, 2", "B: 3")


def test_of_several_flags_the_wrong_one_is_named() -> None:
    assert "is 'nothing': " in refusal(flags={"header": ("A: 1", "nothing", "B: 3")})


def test_a_value_given_in_code_counts_after_flags_and_before_variables() -> None:
    values = {"port": 1, "backlog": 1, "uds": None}

    configuration = load(values=values, flags={"port": ("2",)}, environ={"OSTLER_BACKLOG": "3"})

    assert (configuration.settings.port, configuration.settings.backlog) == (2, 1)
    assert configuration.origins["backlog"] == "argument backlog"


def test_a_wrong_or_unknown_value_given_in_code_is_refused() -> None:
    assert refusal(values={"port": "80"}).startswith("port from argument port is '80': ")
    assert refusal(values={"prot": 80}) == "unknown setting 'prot', did you mean port?"


def test_a_long_wrong_value_is_cut_in_the_message() -> None:
    assert len(refusal(environ={"OSTLER_PORT": "x" * 10_000})) < 300


def test_every_load_reads_the_files_again(tmp_path: Path) -> None:
    file = tmp_path / "o.toml"
    file.write_text("port = 1\n")
    sources = Sources(config="o.toml", directory=str(tmp_path))
    before = sources.load(complete=False)
    file.write_text("port = 2\n")

    assert (before.settings.port, sources.load(complete=False).settings.port) == (1, 2)


def test_an_application_must_be_given_to_serve() -> None:
    line = refusal(complete=True)

    assert line == "no application given: expected APP as module:attribute, such as main:app"
