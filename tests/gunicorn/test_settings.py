"""gunicorn's configuration as ostler's settings."""

from __future__ import annotations

import pytest
from gunicorn.config import Config

from ostler.gunicorn.settings import from_gunicorn, load
from ostler.settings.sources import Sources
from ostler.settings.trusted_peers import read_peers


def given(**values: object) -> dict[str, object]:
    """Return ostler's settings for a gunicorn that is configured with `values`."""
    cfg = Config()
    for name, value in values.items():
        cfg.set(name, value)
    return from_gunicorn(cfg, max_requests=2**63 - 1)


def test_gunicorns_defaults_are_taken_over() -> None:
    assert given() == {
        "timeout_keep_alive": 2,
        "timeout_graceful_shutdown": 27,
        "timeout_worker_healthcheck": 30,
        "limit_max_requests": None,
        "limit_request_head": None,
        "proxy_protocol": False,
        "forwarded_allow_ips": ["127.0.0.1", "::1", "unix:"],
        "sendfile": None,
        "loop": None,
        "lifespan": None,
        "root_path": None,
    }


def test_every_one_is_a_valid_setting_of_ostler() -> None:
    assert Sources(values=given()).load(complete=False)


def test_the_limit_of_requests_includes_gunicorns_jitter() -> None:
    assert from_gunicorn(Config(), max_requests=1017)["limit_max_requests"] == 1017


@pytest.mark.parametrize(("graceful_timeout", "grace"), [(0, 0), (1, 0.9), (10, 9), (30, 27), (600, 597)])
def test_the_end_of_the_graceful_timeout_is_left_for_shutting_down(
    graceful_timeout: int, grace: float
) -> None:
    assert given(graceful_timeout=graceful_timeout)["timeout_graceful_shutdown"] == grace


def test_no_sendfile_in_gunicorn_counts() -> None:
    assert given(sendfile=False)["sendfile"] is False


def test_without_a_timeout_the_heartbeat_keeps_its_default_period() -> None:
    assert given(timeout=0)["timeout_worker_healthcheck"] is None


def test_a_higher_limit_in_gunicorn_raises_ours() -> None:
    assert given(limit_request_field_size=100_000)["limit_request_head"] == 104_094


@pytest.mark.parametrize("value", [True, "v1", "v2", "auto"])
def test_the_proxy_protocol_joins_both_lists_of_peers(value: object) -> None:
    found = given(proxy_protocol=value, proxy_allow_ips="10.0.0.1", forwarded_allow_ips="10.0.0.2")
    assert found["proxy_protocol"] is True
    assert found["forwarded_allow_ips"] == ["10.0.0.2", "10.0.0.1", "unix:"]


def test_a_star_trusts_forwarded_headers_but_no_proxy_header() -> None:
    found = given(proxy_protocol=True, proxy_allow_ips="10.0.0.1", forwarded_allow_ips="*")
    assert found["forwarded_allow_ips"] == ["10.0.0.1", "unix:"]
    assert given(forwarded_allow_ips="*")["forwarded_allow_ips"] == ["*", "unix:"]


def test_networks_are_taken_as_they_are() -> None:
    peers = given(forwarded_allow_ips="10.0.0.0/8, fd00::/8")["forwarded_allow_ips"]
    assert isinstance(peers, list)
    assert read_peers(",".join(peers)).networks


def test_settings_of_gunicorns_own_asgi_worker_count_if_they_are_set() -> None:
    found = given(asgi_loop="asyncio", asgi_lifespan="off", root_path="/api")
    assert (found["loop"], found["lifespan"], found["root_path"]) == ("asyncio", "off", "/api")


def test_overrides_count_before_gunicorn_and_gunicorn_before_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OSTLER_TIMEOUT_KEEP_ALIVE", "9")
    monkeypatch.setenv("OSTLER_LIMIT_CONCURRENCY", "100")

    settings, warnings = load(Config(), 2**63 - 1, {"http": "h11", "loop": None})

    assert (settings.timeout_keep_alive, settings.limit_concurrency, settings.http) == (2, 100, "h11")
    assert settings.loop == "auto"
    assert warnings == [
        "variable OSTLER_TIMEOUT_KEEP_ALIVE is ignored: under gunicorn its own setting counts"
    ]


def test_variables_of_settings_that_have_no_effect_under_gunicorn_are_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OSTLER_PORT", "no number")
    monkeypatch.setenv("OSTLER_WORKERS", "no number")

    _, warnings = load(Config(), 2**63 - 1, {})

    assert warnings == []
