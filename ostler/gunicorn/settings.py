"""Reads gunicorn's configuration as ostler's settings."""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Mapping
from typing import Any

from gunicorn import sock

from ostler.errors import SettingsError, StartupError
from ostler.ipc.contract import WORKER_EXIT_MARGIN
from ostler.settings.declarations import Settings, variables
from ostler.settings.sources import Sources
from ostler.worker.tls.credentials import Credentials

_GUNICORNS_OWN = (
    "app", "factory", "app_dir", "host", "port", "uds", "fd", "workers", "limit_max_requests_jitter",
)  # fmt: skip
"""Settings that have no effect here, so that their variables are not read: gunicorn listens, loads the
application and supervises."""

_NO_LIMIT = sys.maxsize
"""The worker's `max_requests` in gunicorn when `--max-requests` is 0."""


def load(cfg: Any, max_requests: int, overrides: Mapping[str, object]) -> tuple[Settings, list[str]]:
    """Return the settings of a worker, with warnings for the log.

    Args:
        cfg: gunicorn's configuration.
        max_requests: the worker's limit, to which gunicorn has added the jitter.
        overrides: settings of ostler by name; they count before gunicorn's, None is not given.

    Raises:
        SettingsError: a setting is wrong.
    """
    merged = {**from_gunicorn(cfg, max_requests), **overrides}
    values = {name: value for name, value in merged.items() if value is not None}
    hidden = {variable for name in _GUNICORNS_OWN for variable in variables(name)}
    environ = {name: value for name, value in os.environ.items() if name not in hidden}
    loaded = Sources(environ=environ, directory=os.getcwd(), values=values).load(complete=False)
    ignored = [variable for name in values if (variable := f"OSTLER_{name.upper()}") in environ]
    warnings = [f"variable {name} is ignored: under gunicorn its own setting counts" for name in ignored]
    return loaded.settings, [*warnings, *loaded.warnings]


def from_gunicorn(cfg: Any, max_requests: int) -> dict[str, object]:
    """Return gunicorn's settings under ostler's names; None for a setting that gunicorn leaves open."""
    proxied = str(cfg.proxy_protocol).lower() not in ("off", "false", "none")
    return {
        "timeout_keep_alive": cfg.keepalive,
        "timeout_graceful_shutdown": _grace(cfg.graceful_timeout),
        # Only sets how often the heartbeat is sent: the time-out itself is gunicorn's to enforce.
        "timeout_worker_healthcheck": cfg.timeout or None,
        "limit_max_requests": max_requests if max_requests != _NO_LIMIT else None,
        "limit_request_head": _head_limit(cfg),
        "proxy_protocol": proxied,
        "forwarded_allow_ips": _peers(cfg, proxied),
        "sendfile": None if cfg.sendfile else False,
        # gunicorn 24 and newer have these for their own asgi worker; at their defaults, ostler's count.
        "loop": _unless(cfg, "asgi_loop", "auto"),
        "lifespan": _unless(cfg, "asgi_lifespan", "auto"),
        "root_path": _unless(cfg, "root_path", ""),
    }


def _grace(graceful_timeout: int) -> float:
    # gunicorn kills the worker when its time-out is over. The last part of it is left for cancelling requests
    # that still run, and for the application's shutdown.
    return graceful_timeout - min(WORKER_EXIT_MARGIN, graceful_timeout / 10)


def _head_limit(cfg: Any) -> int | None:
    # ostler has one limit for the whole head. It must not refuse what gunicorn's two limits allow.
    needed: int = cfg.limit_request_line + cfg.limit_request_field_size
    return needed if needed > Settings.limit_request_head else None


def _peers(cfg: Any, proxied: bool) -> list[str]:
    """Return the trusted peers. Peers on a Unix socket always are: gunicorn's documentation says so."""
    trusted = _entries(cfg.forwarded_allow_ips)
    if proxied:
        # ostler has one list for both headers. "*" must not trust the client that a PROXY header names.
        trusted = [*(entry for entry in trusted if entry != "*"), *_entries(cfg.proxy_allow_ips)]
    return [*trusted, "unix:"]


def _entries(value: Any) -> list[str]:
    return value.split(",") if isinstance(value, str) else [str(entry) for entry in value]


def _unless(cfg: Any, name: str, default: str) -> str | None:
    if name not in cfg.settings:
        return None
    value: str = cfg.settings[name].get()
    return None if value == default else value


class GunicornCredentials(Credentials):
    """Credentials whose TLS context is made by gunicorn."""

    def __init__(self, settings: Settings, cfg: Any) -> None:
        self._cfg = cfg
        super().__init__(settings)

    def _make(self) -> ssl.SSLContext:
        return _ssl_context(self._cfg)


def _ssl_context(cfg: Any) -> ssl.SSLContext:
    """Return the TLS context from gunicorn's settings and its ssl_context() hook.

    Raises:
        StartupError: a file cannot be read, or OpenSSL refuses a value.
        SettingsError: this version of gunicorn cannot make a context.
    """
    if not hasattr(sock, "ssl_context"):
        raise SettingsError("TLS needs gunicorn 21 or newer: pip install -U gunicorn")
    try:
        context: ssl.SSLContext = sock.ssl_context(cfg)
    except (OSError, ValueError) as exc:  # an SSLError is an OSError
        raise StartupError(
            f"TLS cannot be set up: {exc}; check certfile, keyfile, ca_certs and ciphers"
        ) from exc
    # gunicorn's `http_protocols` may offer more, but ostler speaks HTTP/1.1 only.
    context.set_alpn_protocols(["http/1.1"])
    return context
