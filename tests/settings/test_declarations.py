"""Every kind of value by itself, and the consistency of the declarations."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest

from ostler.settings.declarations import GROUPS, Settings, declarations, defaults, flag, variables
from ostler.settings.kinds import (
    Choice,
    Foreign,
    HeaderLine,
    Host,
    ImportString,
    Integer,
    Kind,
    Loop,
    Many,
    Octal,
    Peers,
    Seconds,
    Switch,
    Text,
    Workers,
)
from ostler.settings.trusted_peers import WrongPeer, read_peers

PARSED = [
    (Text(), " as it is ", " as it is "),
    (Text(empty=True), "", ""),
    (ImportString(), "main:app", "main:app"),
    (ImportString(), "a.b.c:make.app", "a.b.c:make.app"),
    (ImportString(), "my-app:app", "my-app:app"),
    (Host(), "::1", "::1"),
    (Host(), "[::1]", "::1"),
    (Host(), "localhost", "localhost"),
    (Switch(), "1", True),
    (Switch(), " TRUE ", True),
    (Switch(), "yes", True),
    (Switch(), "on", True),
    (Switch(), "0", False),
    (Switch(), "False", False),
    (Switch(), "no", False),
    (Switch(), "OFF", False),
    (Integer(), "0", 0),
    (Integer(), " 007 ", 7),
    (Integer(1, 9), "9", 9),
    (Seconds(), "0.25", 0.25),
    (Seconds(), "1e2", 100.0),
    (Seconds(zero=True), "0", 0.0),
    (Choice("one", "two"), "Two", "two"),
    (Loop("one", "two", foreign={"none": Foreign("two", "")}), "Two", "two"),
    (Loop("one", "two", foreign={"none": Foreign("two", "")}), "my.loops:Loop.make", "my.loops:Loop.make"),
    (Octal(), "660", 0o660),
    (Octal(), "0660", 0o660),
    (Octal(), "0o777", 0o777),
    (Workers(), "3", 3),
    (Workers(), "AUTO", "auto"),
    (HeaderLine(), "X-Frame-Options: DENY", "X-Frame-Options: DENY"),
    (HeaderLine(), "X-Empty:", "X-Empty:"),
    (HeaderLine(), "X-Time: 12:30\t\xe9", "X-Time: 12:30\t\xe9"),
    (Peers(), "127.0.0.1, ::1,10.0.0.0/8,unix:,*", "127.0.0.1, ::1,10.0.0.0/8,unix:,*"),
    (Peers(), "", ""),
    (Many(Host()), "a, b,,c,", ("a", "b", "c")),
    (Many(HeaderLine(), separator="\n"), "A: 1, 2\nB: 3\n", ("A: 1, 2", "B: 3")),
]

REFUSED_TEXTS = [
    (Text(), ""),
    (Text(), "a\0b"),
    (ImportString(), ""),
    (ImportString(), "main"),
    (ImportString(), "main:"),
    (ImportString(), ":app"),
    (ImportString(), "main:app()"),
    (ImportString(), "main:app:x"),
    (ImportString(), "./main:app"),
    (ImportString(), "..main:app"),
    (ImportString(), "my main:app"),
    (Host(), ""),
    (Host(), "a b"),
    (Host(), "a,b"),
    (Host(), "http://a/"),
    (Host(), "[::1"),
    (Switch(), ""),
    (Switch(), "2"),
    (Switch(), "maybe"),
    (Integer(), ""),
    (Integer(), "-1"),
    (Integer(), "+1"),
    (Integer(), "1_000"),
    (Integer(), "1.0"),
    (Integer(), "٣"),
    (Integer(1), "0"),
    (Integer(0, 65535), "65536"),
    (Integer(), "9" * 5000),
    (Seconds(), "0"),
    (Seconds(), "-1"),
    (Seconds(), "nan"),
    (Seconds(), "inf"),
    (Seconds(), "1e10"),
    (Seconds(), "1_0"),
    (Seconds(), "5s"),
    (Seconds(zero=True), "-0.1"),
    (Choice("one", "two"), "three"),
    (Loop("one", "two", foreign={"none": Foreign("two", "")}), "three"),
    (Loop("one", "two", foreign={"none": Foreign("two", "")}), ":"),
    (Loop("one", "two", foreign={"none": Foreign("two", "")}), "my.loops:"),
    (Loop("one", "two", foreign={"none": Foreign("two", "")}), "my loops:make"),
    (Octal(), ""),
    (Octal(), "888"),
    (Octal(), "1777"),
    (Octal(), "-660"),
    (Octal(), "6_6"),
    (Workers(), "-1"),
    (Workers(), "many"),
    (HeaderLine(), "no colon"),
    (HeaderLine(), ": value"),
    (HeaderLine(), "two words: value"),
    (HeaderLine(), "X-A: b\r\nX-C: d"),
    (HeaderLine(), "X-A: b\0"),
    (HeaderLine(), "X-A: \u20ac"),
    (HeaderLine(), "\xc9: value"),
    (Peers(), "10.0.0.0/99"),
    (Many(Host(), least=1), " , "),
]

CHECKED: list[tuple[Kind, object, object]] = [
    (Text(), "a", "a"),
    (Switch(), True, True),
    (Integer(), 3, 3),
    (Seconds(), 3, 3.0),
    (Seconds(), 0.5, 0.5),
    (Choice("one", "two"), "one", "one"),
    (Octal(), "660", 0o660),
    (Workers(), 2, 2),
    (Workers(), "auto", "auto"),
    (Peers(), ["10.0.0.0/8", "unix:"], "10.0.0.0/8,unix:"),
    (Many(Host()), "one", ("one",)),
    (Many(Host()), ["one", "two"], ("one", "two")),
    (Many(Host()), (), ()),
]

REFUSED_VALUES: list[tuple[Kind, object]] = [
    (Text(), 3),
    (ImportString(), ["main:app"]),
    (Host(), 1),
    (Switch(), 1),
    (Switch(), "true"),
    (Integer(), "3"),
    (Integer(), True),
    (Integer(), 3.0),
    (Seconds(), "3"),
    (Seconds(), True),
    (Seconds(), math.nan),
    (Seconds(), math.inf),
    (Choice("one", "two"), 1),
    (Octal(), 660),
    (Workers(), "3"),
    (Workers(), True),
    (HeaderLine(), {"X-A": "b"}),
    (Peers(), 7),
    (Peers(), [7]),
    (Many(Host()), 3),
    (Many(Host()), ["one", 2]),
    (Many(Host(), least=1), []),
]


def refuses(action: Callable[[], object]) -> bool:
    """Whether `action` raises ValueError; the message does not matter, because `expected` is shown."""
    try:
        action()
    except ValueError:
        return True
    return False


@pytest.mark.parametrize(("kind", "text", "value"), PARSED)
def test_a_right_text_is_parsed(kind: Kind, text: str, value: object) -> None:
    assert kind.parse(text) == value


@pytest.mark.parametrize(("kind", "text"), REFUSED_TEXTS)
def test_a_wrong_text_is_refused(kind: Kind, text: str) -> None:
    assert refuses(lambda: kind.parse(text))


@pytest.mark.parametrize(("kind", "value", "stored"), CHECKED)
def test_a_right_value_is_accepted(kind: Kind, value: object, stored: object) -> None:
    assert kind.check(value) == stored


@pytest.mark.parametrize(("kind", "value"), REFUSED_VALUES)
def test_a_wrong_value_is_refused(kind: Kind, value: object) -> None:
    assert refuses(lambda: kind.check(value))


@pytest.mark.parametrize(("kind", "text", "value"), [row for row in PARSED if not isinstance(row[0], Many)])
def test_a_shown_value_can_be_parsed_again(kind: Kind, text: str, value: Any) -> None:
    assert kind.parse(kind.show(value)) == value


@pytest.mark.parametrize("kind", [Text(), Switch(), Integer(), Seconds(), Octal(), Workers()])
def test_a_value_that_is_not_set_is_shown_as_nothing(kind: Kind) -> None:
    assert kind.show(None) == ""


@pytest.mark.parametrize(
    "entry",
    [
        "10.0.0.300",
        "10.0.0",
        "10.0.0.0/99",
        "10.0.0.7/8",
        "fe80::/200",
        "::12345",
        "example.com/8",
        "10.0.*",
        "10.0.0.1 10.0.0.2",
        "10.0.0.1:80",
        "[::1]",
        "[::1]:80",
        "dead:beef",
        "fe80::1%",
    ],
)
def test_a_wrong_peer_is_named(entry: str) -> None:
    with pytest.raises(WrongPeer) as refusal:
        read_peers(f"127.0.0.1,{entry},::1")

    assert repr(entry) in str(refusal.value)


def test_a_peer_may_be_a_literal_that_is_no_address() -> None:
    literals = [
        "unix:",
        "unix:///foo/bar",
        "unix:/run/a",
        "/run/proxy.sock",
        "proxy",
        "face",
        "proxy:8080",
        "a/b",
    ]
    found = read_peers(f"10.0.0.1, {', '.join(literals)}, ::1/128")

    assert found.literals == set(literals)
    assert [str(address) for address in found.addresses] == ["10.0.0.1"]
    assert [str(network) for network in found.networks] == ["::1/128"]


def test_every_default_is_of_its_own_kind() -> None:
    for name, declaration in declarations().items():
        default = defaults()[name]
        # None means "not set"; the default "" of app means that no application is given.
        if default is not None and name != "app":
            shown = declaration.kind.show(default)
            assert shown == "" or declaration.kind.parse(shown) == default, name


def test_every_setting_has_a_help_text_and_a_known_group() -> None:
    for name, declaration in declarations().items():
        assert declaration.help.endswith("."), name
        assert declaration.group in GROUPS, name


def test_flag_and_variables_follow_from_the_name() -> None:
    assert flag("limit_max_requests") == "--limit-max-requests"
    assert variables("limit_max_requests") == ("OSTLER_LIMIT_MAX_REQUESTS",)
    assert variables("workers") == ("OSTLER_WORKERS", "WEB_CONCURRENCY")


def test_no_two_settings_share_a_variable() -> None:
    names = [variable for name in declarations() for variable in variables(name)]

    assert len(names) == len(set(names))


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().port = 1  # type: ignore[misc]
