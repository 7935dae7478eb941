"""Every option and default of uvicorn is the same in ostler, or has a row in docs/coming-from-uvicorn.md.

The lists are copied from `uvicorn --help` of version 0.54, so that the tests do not need uvicorn.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ostler.cli import options
from ostler.settings.declarations import defaults

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
    same = name in ours and ours[name] == DEFAULTS[name]
    assert same or in_the_page(name.replace("_", "-"))


def test_there_are_as_many_options_as_uvicorn_has() -> None:
    assert len(OPTIONS) == len(set(OPTIONS)) == 57
