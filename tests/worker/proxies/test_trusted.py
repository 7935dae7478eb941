"""Which peers may send X-Forwarded-*, and the client and scheme that follow."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ostler.settings.declarations import Settings
from ostler.worker.proxies.trusted import TrustedProxies

PROXY = ("10.0.0.1", 4000)


def forwarded(allowed: str, *headers: tuple[str, str], type: str = "http") -> dict[str, Any]:
    """The scope of a request from a trusted peer, rewritten."""
    scope: dict[str, Any] = {
        "type": type,
        "scheme": "ws" if type == "websocket" else "http",
        "client": PROXY,
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
    }
    TrustedProxies(allowed).apply(scope)
    return scope


def client(allowed: str, *values: str) -> object:
    return forwarded(allowed, *(("x-forwarded-for", value) for value in values))["client"]


def scheme(*values: str, type: str = "http", allowed: str = "10.0.0.1") -> object:
    return forwarded(allowed, *(("x-forwarded-proto", value) for value in values), type=type)["scheme"]


@pytest.mark.parametrize(
    ("allowed", "peer"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "::ffff:127.0.0.1"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("::1", "0:0:0:0:0:0:0:1"),
        (" 10.0.0.0/8 , ::1", "10.255.0.1"),
        ("10.0.0.0/8", "::ffff:10.1.2.3"),
        ("::ffff:10.0.0.0/104", "10.1.2.3"),
        ("2001:db8::/32", "2001:db8:1::2"),
        ("unix:", None),
        ("unix:", ""),
        ("unix:", "unix:"),
        ("proxy", "proxy"),
        ("*", "203.0.113.9"),
        ("127.0.0.1,*", "203.0.113.9"),
        ("*", None),
    ],
)
def test_a_listed_peer_is_trusted(allowed: str, peer: str | None) -> None:
    assert TrustedProxies(allowed).trusts(peer)


@pytest.mark.parametrize(
    ("allowed", "peer"),
    [
        ("127.0.0.1", "127.0.0.2"),
        ("10.0.0.0/8", "11.0.0.1"),
        ("10.0.0.0/8", "::10.0.0.1"),
        ("0.0.0.0/0", "::1"),
        ("0.0.0.0/0", "x" * 100_000),
        ("127.0.0.1", None),
        ("127.0.0.1", "unix:"),
        ("127.0.0.1, unix:///foo/bar", "unix:"),
        ("127.0.0.1, unix:///foo/bar", None),
        ("/run/app.sock, proxy", None),
        ("unix:", "127.0.0.1"),
        ("", "127.0.0.1"),
        ("", None),
        ("127.0.0.1", "localhost"),
        ("127.0.0.1", "127.0.0.01"),
    ],
)
def test_any_other_peer_is_not(allowed: str, peer: str | None) -> None:
    assert not TrustedProxies(allowed).trusts(peer)


@pytest.mark.parametrize(
    ("peer", "trusted"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("127.0.0.2", False),
        ("::2", False),
        ("192.168.0.1", False),
        ("10.0.0.1", False),
        (None, False),
        ("unix:", False),
    ],
)
def test_the_default_trusts_only_this_machine(peer: str | None, trusted: bool) -> None:
    assert TrustedProxies(Settings().forwarded_allow_ips).trusts(peer) is trusted


@pytest.mark.parametrize("wrong", ["10.0.0.7/8", "10.0.0.256", "fe80::%", "10.0.*", "10.0.0.1 10.0.0.2"])
def test_an_entry_that_can_match_nothing_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(wrong))):
        TrustedProxies(f"127.0.0.1,{wrong}")


def test_a_wrong_list_is_refused() -> None:
    with pytest.raises(ValueError, match=r"10\.0\.0\.0/99"):
        TrustedProxies("10.0.0.0/99")


def test_answers_are_cached_within_bounds() -> None:
    proxies = TrustedProxies("10.0.0.0/8")

    for number in range(10_000):
        proxies.trusts(f"10.0.{number // 250}.{number % 250}")

    assert proxies._trusts.cache_info().currsize == 4096


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["203.0.113.9"], ("203.0.113.9", 0)),
        (["203.0.113.9:5678"], ("203.0.113.9", 5678)),
        (["2001:db8::7"], ("2001:db8::7", 0)),
        (["[2001:db8::7]"], ("2001:db8::7", 0)),
        (["[2001:db8::7]:5678"], ("2001:db8::7", 5678)),
        # The client itself has sent everything left of the first untrusted hop.
        (["6.6.6.6, 203.0.113.9"], ("203.0.113.9", 0)),
        (["6.6.6.6, 203.0.113.9, 10.0.0.2"], ("203.0.113.9", 0)),
        (["6.6.6.6", "203.0.113.9", "10.0.0.2:80"], ("203.0.113.9", 0)),
        (["6.6.6.6, 203.0.113.9, ::ffff:10.0.0.2"], ("203.0.113.9", 0)),
        (["203.0.113.9, unix:"], ("203.0.113.9", 0)),
        (["203.0.113.9, unix:///foo/bar, proxy"], ("203.0.113.9", 0)),
        # Trusted from end to end: a proxy's own request.
        (["10.0.0.3, 10.0.0.2"], ("10.0.0.3", 0)),
        # An empty entry names nobody, and what stands left of it may be the client's own text.
        ([" , 203.0.113.9"], ("203.0.113.9", 0)),
        ([" , 10.0.0.2"], ("10.0.0.2", 0)),
        ([",10.0.0.2"], ("10.0.0.2", 0)),
        (["6.6.6.6 , , , 10.0.0.2"], ("10.0.0.2", 0)),
        ([", , 6.6.6.6, , "], PROXY),
        (["6.6.6.6, ,"], PROXY),
        (["6.6.6.6,"], PROXY),
        (["6.6.6.6", ""], PROXY),
        (["", "203.0.113.9"], ("203.0.113.9", 0)),
        ([",, 203.0.113.9"], ("203.0.113.9", 0)),
        (["6.6.6.6, 203.0.113.9:notaport, 10.0.0.2"], ("10.0.0.2", 0)),
        (["6.6.6.6, [2001:db8::7]extra, 10.0.0.2"], ("10.0.0.2", 0)),
        (["[203.0.113.9]:80"], ("203.0.113.9", 80)),
        (["fe80::7%eth0"], ("fe80::7%eth0", 0)),
        (["\t203.0.113.9 \t"], ("203.0.113.9", 0)),
        # Only as far as a trusted proxy vouches for it.
        (["6.6.6.6, unknown"], PROXY),
        (["6.6.6.6, unknown, 10.0.0.2"], ("10.0.0.2", 0)),
    ],
)
def test_the_right_most_untrusted_hop_is_the_client(values: list[str], expected: object) -> None:
    assert client("10.0.0.0/8, unix:, unix:///foo/bar, proxy", *values) == expected


@pytest.mark.parametrize(
    "value",
    [
        "",
        " , ",
        "unknown",
        "_hidden",
        ", ,",
        "203.0.113.9:http",
        "203.0.113.9:",
        "203.0.113.9:+80",
        "203.0.113.9:8_0",
        "203.0.113.9:80:",
        "203.0.113.9:\xb2",
        "203.0.113.9:000080",
        "203.0.113.9 80",
        "203.0.113.9/32",
        "203.0.113.9extra",
        "203.0.113.9;",
        "203.0.113.9\xa0",
        "\x85203.0.113.9",
        "203.0.113.09",
        '"203.0.113.9"',
        "for=203.0.113.9",
        "2001:db8::7extra",
        "[2001:db8::7]extra",
        "[2001:db8::7]:",
        "[2001:db8::7]:http",
        "[2001:db8::7]:70000",
        "[[2001:db8::7]]",
        "2001:db8::7]",
        "fe80::7%",
        "fe80::7%<script>",
        "[fe80::7%eth 0]:80",
        "203.0.113.9:70000",
        "203.0.113.9:-1",
        "[2001:db8::7",
        "[2001:db8::7]x",
        "[]",
        ":80",
        "203.0.113.999",
        "\xff\xfe",
        "203.0.113.9\x00",
        "1" * 60_000,
        "<script>",
    ],
)
def test_garbage_leaves_the_client_as_it_is(value: str) -> None:
    assert client("10.0.0.1", value) == PROXY
    assert client("*", value) == PROXY


def test_with_a_star_the_left_most_hop_is_the_client() -> None:
    assert client("*", "203.0.113.9, 198.51.100.1", "10.0.0.2") == ("203.0.113.9", 0)


@pytest.mark.parametrize("left", ["", " , ", "unknown", "203.0.113.9:http", "[2001:db8::7]extra"])
def test_with_a_star_what_is_no_address_is_skipped(left: str) -> None:
    assert client("*", f"{left}, 198.51.100.1, 10.0.0.2") == ("198.51.100.1", 0)


def test_with_a_star_a_head_full_of_garbage_is_not_read_to_its_end() -> None:
    assert client("*", "x," * 30_000 + "198.51.100.1") == PROXY


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["https"], "https"),
        (["HTTPS"], "https"),
        (["http"], "http"),
        (["wss"], "https"),
        (["https, http"], "http"),
        (["http", "https"], "https"),
        (["https,"], "https"),
        (["ftp"], "http"),
        (["https, javascript"], "http"),
        ([""], "http"),
        (["https\x00"], "http"),
    ],
)
def test_the_nearest_proxy_says_the_scheme(values: list[str], expected: str) -> None:
    assert scheme(*values) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [("https", "wss"), ("http", "ws"), ("wss", "wss"), ("x", "ws")]
)
def test_a_websocket_has_ws_or_wss_as_its_scheme(value: str, expected: str) -> None:
    assert scheme(value, type="websocket") == expected


def test_with_a_star_the_left_most_scheme_counts_as_the_left_most_client_does() -> None:
    assert scheme("https, http", allowed="*") == "https"


def test_a_request_without_those_headers_stays_as_it_is() -> None:
    scope = forwarded("10.0.0.1", ("host", "example.com"), ("forwarded", "for=6.6.6.6;proto=https"))

    assert (scope["client"], scope["scheme"]) == (PROXY, "http")


def test_a_request_over_a_unix_socket_gets_its_client_from_the_header() -> None:
    scope: dict[str, Any] = {
        "type": "http",
        "scheme": "http",
        "client": None,
        "headers": [(b"x-forwarded-for", b"203.0.113.9"), (b"x-forwarded-proto", b"https")],
    }

    TrustedProxies("unix:").apply(scope)

    assert (scope["client"], scope["scheme"]) == (("203.0.113.9", 0), "https")
