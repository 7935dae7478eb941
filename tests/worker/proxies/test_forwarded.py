"""Forwarded (RFC 7239): how it is read, and which hop is the client."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostler.worker.proxies.forwarded import elements, node
from ostler.worker.proxies.trusted import TrustedProxies

PROXY = ("10.0.0.1", 4000)


def read(*values: str) -> list[object]:
    return list(elements([value.encode("latin-1") for value in values]))


def forwarded(allowed: str, *headers: tuple[str, str], type: str = "http") -> tuple[object, object]:
    """Client and scheme of a request from a trusted peer."""
    scope: dict[str, Any] = {
        "type": type,
        "scheme": "ws" if type == "websocket" else "http",
        "client": PROXY,
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
    }
    TrustedProxies(allowed, "forwarded").apply(scope)
    return scope["client"], scope["scheme"]


def client(*values: str, allowed: str = "10.0.0.0/8, unix:") -> object:
    return forwarded(allowed, *(("forwarded", value) for value in values))[0]


def scheme(*values: str, allowed: str = "10.0.0.0/8, unix:", type: str = "http") -> object:
    return forwarded(allowed, *(("forwarded", value) for value in values), type=type)[1]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("for=192.0.2.60;proto=http;by=a", {"for": "192.0.2.60", "proto": "http", "by": "a"}),
        ("for=192.0.2.60; proto=http; by=a", {"for": "192.0.2.60", "proto": "http", "by": "a"}),
        ('For="[2001:db8:cafe::17]:4711"', {"for": "[2001:db8:cafe::17]:4711"}),
        ('for="_gazonk"', {"for": "_gazonk"}),
        ("FOR=a;PROTO=b", {"for": "a", "proto": "b"}),
        (r'for=a;host="x\"y\\z"', {"for": "a", "host": r'x"y\z'}),
        ('for=a;host="x, for=6.6.6.6;y"', {"for": "a", "host": "x, for=6.6.6.6;y"}),
        (r'for=a;host="x\", for=6.6.6.6;y=\""', {"for": "a", "host": 'x", for=6.6.6.6;y="'}),
        ('for=a;host="x, for=6.6.6.6;y=";z=","', {"for": "a", "host": "x, for=6.6.6.6;y=", "z": ","}),
        ('for=""', {"for": ""}),
        ("for=192.0.2.60:80", {"for": "192.0.2.60:80"}),
        ("for=a;", {"for": "a"}),
    ],
)  # fmt: skip
def test_an_element_is_read(value: str, expected: object) -> None:
    assert read(value) == [expected]
    assert read("for=6.6.6.6, " + value)[0] == expected


def test_elements_come_nearest_first_over_all_fields() -> None:
    assert read("for=a, for=b", ",", 'for="c", ,') == [{"for": "c"}, {"for": "b"}, {"for": "a"}]


@pytest.mark.parametrize(
    "value",
    [
        "for", "for=", "=a", "for=a b", "for = a", 'for="a', 'for=a"', 'for="a"b', "for=a;;proto=b", "f(r=a",
        ";", "for=a;for=b", "for=\\a", 'for="a\\"', "for=\x00 \xff=", '"', "\\",
    ],
)  # fmt: skip
def test_garbage_is_none_and_ends_the_reading(value: str) -> None:
    assert read("for=6.6.6.6," + value)[0] is None
    assert None in read(value + ", for=a")


@pytest.mark.parametrize(
    "sent",
    [
        '"', 'for="', 'for="x', 'for=6.6.6.6;x="', "\\", 'for="\\', "for=6.6.6.6", ",,,", "for=6.6.6.6;",
        "x" * 60_000, "for=10.0.0.9", 'for="10.0.0.9', ";", 'for=6.6.6.6;a="b";c="', "unknown",
    ],
)  # fmt: skip
def test_the_element_that_the_proxy_appends_counts_whatever_the_client_sends(sent: str) -> None:
    assert client(f'{sent}, for="203.0.113.9:5678"') == ("203.0.113.9", 5678)
    assert client(sent, "for=203.0.113.9;proto=https") == ("203.0.113.9", 0)
    assert scheme(f"{sent};proto=https, for=203.0.113.9;proto=http") == "http"


@given(st.text(st.sampled_from('for=6.6.6.6,;"\\ proto=https'), max_size=60))
def test_no_text_of_a_client_hides_the_proxys_element(sent: str) -> None:
    assert client(sent, "for=203.0.113.9;proto=https") == ("203.0.113.9", 0)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40))
def test_no_quoted_host_of_a_client_hides_the_proxys_element(host: str) -> None:
    quoted = host.replace("\\", "\\\\").replace('"', '\\"')

    assert read(f'for=203.0.113.9;host="{quoted}"') == [{"for": "203.0.113.9", "host": host}]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("for=203.0.113.9", ("203.0.113.9", 0)),
        ('for="203.0.113.9:5678"', ("203.0.113.9", 5678)),
        ('for="203.0.113.9:_hidden"', ("203.0.113.9", 0)),
        ('for="[2001:db8::7]"', ("2001:db8::7", 0)),
        ('for="[2001:db8::7]:5678"', ("2001:db8::7", 5678)),
        ('for="[2001:db8::7]:_p"', ("2001:db8::7", 0)),
        ("for=6.6.6.6, for=203.0.113.9, for=10.0.0.2", ("203.0.113.9", 0)),
        ('for=203.0.113.9, for="unix:"', ("203.0.113.9", 0)),
        ("for=10.0.0.3, for=10.0.0.2", ("10.0.0.3", 0)),
        # No trusted proxy vouches for the hops behind these.
        ("for=6.6.6.6, for=unknown", PROXY),
        ("for=6.6.6.6, for=_SEVKISEK", PROXY),
        ("for=6.6.6.6, proto=https", PROXY),
        ("for=6.6.6.6, for=unknown, for=10.0.0.2", ("10.0.0.2", 0)),
        ("for=6.6.6.6, garbage, for=10.0.0.2", ("10.0.0.2", 0)),
        ("for=203.0.113.999", PROXY),
        ("", PROXY),
    ],
)
def test_the_right_most_untrusted_hop_is_the_client(value: str, expected: object) -> None:
    assert client(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("for=203.0.113.9;proto=https", "https"),
        ("for=203.0.113.9;proto=HTTPS", "https"),
        ("for=_hidden;proto=https", "https"),
        ("proto=https", "https"),
        # How the client itself connected, as the first trusted proxy says.
        ("for=203.0.113.9;proto=https, for=10.0.0.2;proto=http", "https"),
        ("for=203.0.113.9, for=10.0.0.2;proto=https", "https"),
        # The client has written everything left of itself.
        ("for=6.6.6.6;proto=https, for=203.0.113.9;proto=http", "http"),
        ("for=6.6.6.6;proto=https, for=203.0.113.9", "http"),
        ("for=203.0.113.9;proto=gopher", "http"),
    ],
)
def test_the_scheme_is_the_one_that_the_client_used(value: str, expected: str) -> None:
    assert scheme(value) == expected


def test_a_websocket_has_ws_or_wss_as_its_scheme() -> None:
    assert scheme("for=203.0.113.9;proto=https", type="websocket") == "wss"


def test_with_a_star_the_left_most_hop_is_the_client() -> None:
    value = "for=203.0.113.9;proto=https, for=198.51.100.1;proto=http, for=unknown"

    assert (client(value, allowed="*"), scheme(value, allowed="*")) == (("203.0.113.9", 0), "https")


def test_the_other_header_is_not_read() -> None:
    fields = (("x-forwarded-for", "6.6.6.6"), ("x-forwarded-proto", "https"))

    assert forwarded("10.0.0.1", *fields) == (PROXY, "http")
    assert forwarded("10.0.0.1", ("forwarded", "for=203.0.113.9"), *fields) == (("203.0.113.9", 0), "http")


@pytest.mark.parametrize("piece", [",", "a,", 'a",', '"a,"', "a=b,", "for=10.0.0.2,", "\\,", 'a="b,c",', ";"])
def test_a_head_full_of_elements_is_read_in_little_time(piece: str) -> None:
    value = piece * (65536 // len(piece))
    begun = time.process_time()

    client(value, allowed="*")
    client(value + '"', allowed="*")

    assert time.process_time() - begun < 0.5


def test_an_element_without_for_names_no_node() -> None:
    assert node({"proto": "https"}) == ""
