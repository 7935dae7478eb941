"""Classes of fields that are cheaper to make than dataclasses."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field, fields, replace

import pytest

from ostler.frozen import frozen


@frozen
class Point:
    x: int
    y: int = 2
    tags: list[str] = field(default_factory=list)


@frozen
class Nothing:
    pass


@frozen
class Void:
    pass


@dataclass(frozen=True)
class Model:
    """What `frozen` stands in for."""

    x: int
    y: int = 2
    tags: list[str] = field(default_factory=list)


def test_instances_are_made_compared_and_shown_as_a_dataclass_does() -> None:
    assert Point(1) == Point(1, 2, [])
    assert Point(1) != Point(2)
    other: list[object] = [(1, 2, []), Model(1)]
    assert Point(1) not in other
    kinds: list[object] = [Nothing(), Void()]
    assert kinds.index(Void()) == 1
    assert repr(Point(1, tags=["a"])) == repr(Model(1, tags=["a"])).replace("Model", "Point")
    with pytest.raises(TypeError):
        Point()  # type: ignore[call-arg]


def test_they_are_known_to_dataclasses_to_match_and_to_pickle() -> None:
    assert replace(Point(1), y=5) == Point(1, 5)
    assert [each.name for each in fields(Point)] == ["x", "y", "tags"]
    assert pickle.loads(pickle.dumps(Point(1))) == Point(1)
    match Point(7):
        case Point(x, 2):
            assert x == 7
        case _:
            pytest.fail("no match")


def test_equal_ones_have_one_hash_if_their_fields_have() -> None:
    assert len({Nothing(), Nothing(), Void()}) == 2
    with pytest.raises(TypeError):
        hash(Point(1))
