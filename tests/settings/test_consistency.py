"""Settings that contradict each other or have no effect, and names that are nearly right."""

from __future__ import annotations

from typing import Any

import pytest

from ostler.errors import SettingsError
from ostler.settings.declarations import Settings
from ostler.settings.sources import Sources
from tests.settings.test_sources import GOOD, load, refusal


@pytest.mark.parametrize(
    ("one", "other"), [("uds", "fd"), ("uds", "host"), ("uds", "port"), ("fd", "host"), ("fd", "port")]
)
def test_only_one_place_to_listen_on_can_be_given(one: str, other: str) -> None:
    flags = {one: (GOOD[one][0],)}
    environ = {f"OSTLER_{other.upper()}": GOOD[other][0]}

    line = refusal(flags=flags, environ=environ)

    assert line.startswith(
        f"{one} from flag --{one} and {other} from variable OSTLER_{other.upper()} exclude"
    )


@pytest.mark.parametrize("peers", ["10.0.0.1,*", "*, unix:", "*,proxy", "*,*,10.0.0.0/8"])
def test_a_star_among_other_peers_is_refused_unless_the_proxy_protocol_gives_it_a_meaning(peers: str) -> None:
    environ = {"FORWARDED_ALLOW_IPS": peers}
    with pytest.raises(SettingsError) as caught:
        Sources(environ=environ).load(complete=False)
    assert str(caught.value) == (
        f"forwarded_allow_ips from variable FORWARDED_ALLOW_IPS is {peers!r}: * trusts everyone, so expected "
        "* alone, or the others without it"
    )
    # Every peer may then send a PROXY header, which may name the others as the client.
    environ["OSTLER_PROXY_PROTOCOL"] = "1"
    assert Sources(environ=environ).load(complete=False).settings.forwarded_allow_ips == peers


@pytest.mark.parametrize("peers", ["*", " * ", "*,", "*,*"])
def test_a_star_alone_trusts_everyone(peers: str) -> None:
    assert Sources(environ={"FORWARDED_ALLOW_IPS": peers}).load(complete=False).settings


def test_jitter_needs_a_limit() -> None:
    line = refusal(flags={"limit_max_requests_jitter": ("5",)})

    assert "limit_max_requests_jitter from flag --limit-max-requests-jitter is 5" in line
    assert load(flags={"limit_max_requests_jitter": ("5",), "limit_max_requests": ("9",)})
    line = refusal(flags={"limit_worker_lifetime_jitter": ("0.5",)})
    assert "limit_worker_lifetime_jitter from flag --limit-worker-lifetime-jitter is 0.5" in line


def test_a_limit_of_requests_needs_no_workers() -> None:
    assert load(flags={"limit_max_requests": ("9",)}).settings.workers is None


@pytest.mark.parametrize(
    ("name", "warnings"),
    [
        ("OSTLER_WORKER", 1),
        ("OSTLER_LOGLEVEL", 1),
        ("OSTLER_SLOT", 0),
        ("OSTLER_GENERATION", 0),
        ("OSTLER_CONFIG_DIR", 0),
        ("OSTLER_SERVICE_HOST", 0),
        ("OSTLER_PORT_80_TCP", 0),
        ("OSTLER", 0),
    ],
)
def test_a_variable_that_is_named_almost_like_a_setting_is_warned_of(name: str, warnings: int) -> None:
    found = load(environ={name: "x"}).warnings

    assert len(found) == warnings
    assert all(line.startswith(f"variable {name} is ignored: ") for line in found)


def test_a_setting_of_reload_without_reload_is_warned_of() -> None:
    [warning] = load(flags={"reload_dir": ("src",)}).warnings

    assert warning == "reload_dir from flag --reload-dir does nothing without --reload"
    assert load(flags={"reload_dir": ("src",), "reload": ("true",)}).warnings == ()


# -- TLS


@pytest.mark.parametrize(
    ("name", "value"), [("ssl_keyfile", "k"), ("ssl_keyfile_password", "s3cret"), ("ssl_ca_certs", "c")]
)
def test_a_setting_of_tls_without_a_certificate_is_refused(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{name} is given by .* expected ssl_certfile") as caught:
        load(values={name: value})
    assert "s3cret" not in str(caught.value)


def test_a_client_certificate_cannot_be_required_without_authorities() -> None:
    with pytest.raises(SettingsError, match="expected ssl_ca_certs with it"):
        load(values={"ssl_certfile": "c", "ssl_cert_reqs": "required"})


def test_authorities_that_check_no_client_are_warned_of() -> None:
    [warning] = load(values={"ssl_certfile": "c", "ssl_ca_certs": "a"}).warnings
    assert "checks nobody" in warning


@pytest.mark.parametrize("fleet", [{"workers": 1}, {"reload": True}], ids=str)
def test_a_function_that_workers_cannot_import_is_for_a_plain_server_only(fleet: dict[str, Any]) -> None:
    def local(settings: Settings, default: Any) -> Any:
        return default()

    assert load(values={"ssl_context_factory": local}).settings.ssl_context_factory is local
    with pytest.raises(SettingsError, match="top level of a module"):
        load(values={"ssl_context_factory": local, **fleet})
