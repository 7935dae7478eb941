"""The grammar of header fields."""

from __future__ import annotations

import pytest

from ostler.settings.field_grammar import is_field_value, is_token


@pytest.mark.parametrize("text", [b"x", b"Content-Type", b"!#$%&'*+-.^_`|~0aZ"])
def test_a_token_has_the_characters_of_rfc_9110(text: bytes) -> None:
    assert is_token(text)


@pytest.mark.parametrize("text", [b"", b"a b", b"a\n", b"a:", b"(a)", b"\xe4", b"a\x00", b'"a"', b"a\x7f"])
def test_anything_else_is_no_token(text: bytes) -> None:
    assert not is_token(text)


def test_a_value_may_hold_every_byte_but_controls_other_than_the_tab() -> None:
    allowed = [byte for byte in range(256) if is_field_value(b"a" + bytes((byte,)) + b"b")]
    assert allowed == [9, *range(32, 127), *range(128, 256)]
    assert is_field_value(b"")
