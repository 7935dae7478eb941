"""Settings that contradict each other or have no effect, and names that are nearly right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ostler.errors import SettingsError
from ostler.settings.declarations import DEFAULT, Settings, defaults
from ostler.settings.sources import Sources
from tests.settings.test_sources import GOOD, load, refusal

PLACES = ("fd", "uds", "host", "port")
"""In the order in which they count: host and port together are the last."""


@pytest.mark.parametrize(
    ("winner", "loser"),
    [(winner, loser) for winner in ("fd", "uds") for loser in PLACES[PLACES.index(winner) + 1 :]],
)
@pytest.mark.parametrize(
    "sources", [("flag", "flag"), ("flag", "variable"), ("variable", "flag"), ("toml", "toml")]
)
def test_fd_counts_before_uds_and_that_before_host_and_port(
    winner: str, loser: str, sources: tuple[str, str], tmp_path: Path
) -> None:
    flags: dict[str, tuple[str, ...]] = {}
    environ: dict[str, str] = {}
    toml = ""
    for name, source in zip((winner, loser), sources, strict=True):
        text, key, _ = GOOD[name]
        if source == "flag":
            flags[name] = (text,)
        elif source == "variable":
            environ[f"OSTLER_{name.upper()}"] = text
        else:
            toml += f"{name} = {key}\n"
    (tmp_path / "o.toml").write_text(toml)

    found = load(tmp_path, flags=flags, environ=environ, config="o.toml")

    assert getattr(found.settings, winner) == GOOD[winner][2]
    assert getattr(found.settings, loser) == defaults()[loser]
    assert found.origins[loser] == DEFAULT
    lost = f"{loser} from flag --{loser} is not used: {winner} says where to listen"
    assert found.warnings == ((lost,) if sources == ("flag", "flag") else ())


def test_of_all_places_to_listen_on_only_one_is_left() -> None:
    found = load(values={"fd": 3, "uds": "x", "host": "::1", "port": 1})

    assert [getattr(found.settings, name) for name in PLACES] == [3, None, ("127.0.0.1",), 8000]
    assert found.warnings == ()


@pytest.mark.parametrize(
    "sources",
    [{"flags": {"http2": ("true",)}}, {"values": {"http2": True}}, {"environ": {"OSTLER_HTTP2": "1"}}],
)
def test_http2_is_refused_in_one_line(sources: dict[str, Any]) -> None:
    assert "ostler does not speak HTTP/2 yet; without this setting, clients are" in refusal(**sources)


def test_http2_may_be_switched_off() -> None:
    assert load(values={"http2": False}).settings
    assert load(flags={"http2": ("false",)}).warnings == ()


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


@pytest.mark.parametrize("limit", ["limit_max_requests", "limit_worker_lifetime"])
def test_jitter_without_a_limit_is_warned_of(limit: str) -> None:
    jitter = {f"{limit}_jitter": ("5",)}
    [warning] = load(flags=jitter).warnings

    shown = f"--{limit}-jitter".replace("_", "-")
    assert warning == f"{limit}_jitter from flag {shown} does nothing without {limit}"
    assert load(flags={**jitter, limit: ("9",)}).warnings == ()


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


@pytest.mark.parametrize(
    ("environ", "meant"),
    [
        ({"UVICORN_PORT": "80"}, "OSTLER_PORT"),
        ({"UVICORN_RELOAD_DIRS": "src"}, "OSTLER_RELOAD_DIR"),
        ({"UVICORN_H11_MAX_INCOMPLETE_EVENT_SIZE": "9"}, "OSTLER_H11_MAX_INCOMPLETE_EVENT_SIZE"),
        ({"UVICORN_PORT": "80", "OSTLER_PORT": "80"}, ""),
        ({"UVICORN_PORT": ""}, ""),
        ({"UVICORN_OF_SOMEBODY": "x"}, ""),
    ],
    ids=str,
)
def test_a_variable_of_uvicorn_is_warned_of(environ: dict[str, str], meant: str) -> None:
    expected = (f"variable {next(iter(environ))} is ignored: expected {meant}",) if meant else ()

    assert load(environ=environ).warnings == expected


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
