"""Every option and default of uvicorn is the same in ostler, or has a row in docs/coming-from-uvicorn.md.

The lists are copied from `uvicorn --help` of version 0.54, so that the tests do not need uvicorn.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ostler.cli import options
from ostler.settings.declarations import defaults
from ostler.settings.sources import Sources

PAGE = (Path(__file__).parent.parent / "docs" / "coming-from-uvicorn.md").read_text(encoding="utf-8")

OPTIONS = """
    --host --port --uds --fd --reload --reload-dir --reload-include --reload-exclude --reload-delay --workers
    --loop --http --http2 --ws --ws-max-size --ws-max-queue --ws-ping-interval --ws-ping-timeout
    --ws-per-message-deflate --lifespan --interface --env-file --log-config --log-level --access-log
    --no-access-log --use-colors --no-use-colors --proxy-headers --no-proxy-headers --server-header
    --no-server-header --date-header --no-date-header --forwarded-allow-ips --root-path --limit-concurrency
    --backlog --limit-max-requests --limit-max-requests-jitter --timeout-keep-alive
    --timeout-graceful-shutdown --timeout-worker-healthcheck --ssl-keyfile --ssl-certfile
    --ssl-keyfile-password --ssl-version --ssl-cert-reqs --ssl-ca-certs --ssl-ciphers --header --version
    --app-dir --h11-max-incomplete-event-size --reset-contextvars --factory --help
""".split()  # noqa: SIM905 - sixty quoted words are not easier to read

DEFAULTS = {
    "host": "127.0.0.1",
    "port": 8000,
    "uds": None,
    "fd": None,
    "reload": False,
    "reload_delay": 0.25,
    "workers": None,
    "loop": "auto",
    "http": "auto",
    "ws": "auto",
    "ws_max_size": 16_777_216,
    "ws_max_queue": 32,
    "ws_ping_interval": 20.0,
    "ws_ping_timeout": 20.0,
    "ws_per_message_deflate": True,
    "lifespan": "auto",
    "interface": "auto",
    "log_config": None,
    "log_level": None,
    "access_log": True,
    "use_colors": None,
    "proxy_headers": True,
    "server_header": True,
    "date_header": True,
    "forwarded_allow_ips": "127.0.0.1,::1",
    "root_path": "",
    "limit_concurrency": None,
    "backlog": 2048,
    "limit_max_requests": None,
    "limit_max_requests_jitter": 0,
    "timeout_keep_alive": 5,
    "timeout_graceful_shutdown": None,
    "timeout_worker_healthcheck": 5,
    "ssl_keyfile": None,
    "ssl_certfile": None,
    "ssl_keyfile_password": None,
    "ssl_version": 17,
    "ssl_cert_reqs": 0,
    "ssl_ca_certs": None,
    "ssl_ciphers": None,
    "app_dir": "",
    "h11_max_incomplete_event_size": 65_536,
    "reset_contextvars": False,
    "factory": False,
}

VALUES = [
    # option, a value that `uvicorn --help` lists, and the words of the warning if it has one
    *(("--loop", value, "") for value in ("auto", "asyncio", "uvloop", "none")),
    ("--loop", "zuvloop", "loop from flag --loop is 'zuvloop': uvloop runs instead"),
    *(("--http", value, "") for value in ("auto", "h11", "httptools")),
    ("--http", "zttp", "http from flag --http is 'zttp': httptools parses instead"),
    *(("--ws", value, "") for value in ("auto", "none", "websockets", "websockets-sansio", "wsproto")),
    *(("--lifespan", value, "") for value in ("auto", "on", "off")),
    *(("--interface", value, "") for value in ("auto", "asgi3", "asgi2", "wsgi")),
    *(("--log-level", value, "") for value in ("critical", "error", "warning", "info", "debug", "trace")),
    *(
        ("--ws-per-message-deflate", value, "")
        for value in (
            "true",
            "false",
            "True",
            "FALSE",
            "1",
            "0",
            "t",
            "f",
            "y",
            "n",
            "yes",
            "no",
            "on",
            "off",
        )
    ),
    *(("--ssl-version", value, "") for value in ("17", "5", "2")),
    ("--ssl-version", "4", "TLSv1.1 is deprecated (RFC 8996), and not spoken"),
    ("--ssl-version", "3", "TLSv1 is deprecated (RFC 8996), and not spoken"),
    ("--ssl-cert-reqs", "0", ""),
    ("--ssl-cert-reqs", "1", ""),
    ("--ssl-cert-reqs", "2", ""),
    ("--h11-max-incomplete-event-size", "65536", ""),
    ("--h11-max-incomplete-event-size", "100", "is '100': counts as 1024, the least"),
    *(("--workers", value, "") for value in ("0", "1", "4")),
    *(("--backlog", value, "") for value in ("0", "2048")),
    *(("--timeout-keep-alive", value, "") for value in ("0", "5")),
    *(("--timeout-graceful-shutdown", value, "") for value in ("0", "5")),
    *(("--ws-ping-interval", value, "") for value in ("0", "20.5")),
    *(("--ws-ping-timeout", value, "") for value in ("0", "20.5")),
    ("--limit-max-requests-jitter", "5", "does nothing without limit_max_requests"),
    *(("--forwarded-allow-ips", value, "") for value in ("*", "10.0.0.1,10.0.0.0/8,::1", "unix:")),
    *(
        (
            "--forwarded-allow-ips",
            f"127.0.0.1,{literal}",
            f"so {literal} matches only this text in X-Forwarded-For",
        )
        for literal in ("unix:///foo/bar", "unix:/run/app.sock", "/run/app.sock", "proxy", "proxy.local:8080")
    ),
]


def in_the_page(name: str) -> bool:
    """Whether the table of differences has a row for exactly this option."""
    return any(
        line.startswith("|") and re.search(rf"--{name}\b(?!-)", line) is not None
        for line in PAGE.splitlines()
    )


@pytest.mark.parametrize("option", OPTIONS)
def test_every_flag_of_uvicorn_is_accepted_or_has_a_row(option: str) -> None:
    command = options.build()
    known = [
        *command.params,
        *filter(None, [command.get_help_option(command.make_context("x", ["main:app"]))]),
    ]
    ours = {text for parameter in known for text in (*parameter.opts, *parameter.secondary_opts)}
    assert option in ours or in_the_page(option[2:])


@pytest.mark.parametrize("name", DEFAULTS)
def test_every_default_is_that_of_uvicorn_or_has_a_row(name: str) -> None:
    ours = dict(defaults())
    # A tuple in ostler, because several hosts can be given.
    ours["host"] = ",".join(ours["host"])
    ours["h11_max_incomplete_event_size"] = ours["limit_request_head"]  # two names of one setting
    same = name in ours and ours[name] == DEFAULTS[name]
    assert same or in_the_page(name.replace("_", "-"))


@pytest.mark.parametrize(("option", "value", "words"), VALUES)
def test_a_value_that_uvicorn_takes_is_taken_with_at_most_one_line_of_warning(
    option: str, value: str, words: str
) -> None:
    needed = ["--ssl-certfile", "c"] if option.startswith("--ssl-") else []
    needed += ["--ssl-ca-certs", "c"] if option == "--ssl-cert-reqs" and value != "0" else []
    command_line = options.parse(["main:app", *needed, option, value])
    assert command_line is not None

    found = Sources(flags=command_line.flags, pyproject=False).load()

    assert len(found.warnings) == (1 if words else 0)
    assert all(words in warning and "\n" not in warning for warning in found.warnings)


@pytest.mark.parametrize(
    "sources",
    [
        {"environ": {"OSTLER_H11_MAX_INCOMPLETE_EVENT_SIZE": "8192"}},
        {"values": {"h11_max_incomplete_event_size": 8192}},
        {"config": "o.toml"},
    ],
    ids=str,
)
def test_h11s_limit_of_the_head_is_that_of_both_parsers(tmp_path: Path, sources: dict[str, Any]) -> None:
    (tmp_path / "o.toml").write_text("h11_max_incomplete_event_size = 8192\n")

    found = Sources(directory=str(tmp_path), **sources).load(complete=False)

    assert (found.settings.limit_request_head, found.warnings) == (8192, ())


def test_what_uvicorns_words_mean_here() -> None:
    flags = {"loop": ("none",), "http": ("zttp",), "ssl_version": ("3",), "workers": ("0",)}
    settings = Sources(flags={**flags, "ssl_certfile": ("c",)}, pyproject=False).load(complete=False).settings

    assert (settings.loop, settings.http, settings.ssl_version) == ("asyncio", "auto", "TLSv1.2")
    assert settings.workers is None  # a plain server


def test_there_are_as_many_options_as_uvicorn_has() -> None:
    assert len(OPTIONS) == len(set(OPTIONS)) == 57
