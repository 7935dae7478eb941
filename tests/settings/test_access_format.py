"""Formats of access log lines: how they are parsed, and the messages for wrong ones."""

from __future__ import annotations

import pytest

from ostler.settings.access_format import FIELDS, FORMATS, NUMBERS, TEXTS, WrongAtom, parse


def test_every_atom_is_accepted() -> None:
    named = [f"{{x-y}}{kind}" for kind in FIELDS]
    for name in (*NUMBERS, *TEXTS, *named):
        assert parse(f"a %({name})s b") == ("a %s b", (name,))


def test_a_format_becomes_a_template_and_the_names_of_its_atoms() -> None:
    assert parse('%(h)s "%(r)s" %(s)d 100%% %(D)08d|%(a)-20.10s') == (
        '%s "%s" %d 100%% %08d|%-20.10s',
        ("h", "r", "s", "D", "a"),
    )


def test_a_name_stands_for_a_format() -> None:
    for name, format in FORMATS.items():
        assert parse(name) == parse(format)
    assert parse("combined")[0] == '%s %s %s %s "%s" %s %s "%s" "%s"'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("%(nothing)s", "there is no atom %(nothing)s"),
        ("%(x)s", "there is no atom %(x)s"),
        ("%({x}z)s", "there is no atom %({x}z)s"),
        ("%()s", "there is no atom %()s"),
        ("%(h)d", "%(h)d cannot be written so: expected s"),
        ("%(s)q", "%(s)q cannot be written so: expected s"),
        ("100%", "'%' begins no atom (a plain % is %%)"),
        ("%h %s", "'%h %s' begins no atom"),
        ("%(h", "'%(h' begins no atom"),
        ("%(h)", "'%(h)' begins no atom"),
        ("%(h)s\n%(m)s", "control characters"),
    ],
)
def test_a_wrong_format_is_refused(text: str, message: str) -> None:
    with pytest.raises(WrongAtom) as caught:
        parse(text)
    assert message in str(caught.value)
