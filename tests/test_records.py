"""Records behave as frozen dataclasses do, although they are cheaper to define."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError, dataclass, field, fields, replace
from typing import Any

import pytest

from ostler.records import frozen_record, record


@record
class Point:
    x: int
    y: int = 2
    tags: list[str] = field(default_factory=list)


@record
class Nothing:
    pass


@record
class Void:
    pass


@frozen_record
class Choices:
    colour: str = "red"
    secret: str = field(default="", repr=False)
    size: int = 1

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError("size")
        self.__dict__["size"] = int(self.size)


@dataclass(frozen=True)
class Model:
    """The dataclass that `record` replaces."""

    x: int
    y: int = 2
    tags: list[str] = field(default_factory=list)


def test_a_record_is_constructed_compared_and_shown_as_a_dataclass() -> None:
    assert Point(1) == Point(1, 2, [])
    assert Point(1) != Point(2)
    other: list[object] = [(1, 2, []), Model(1)]
    assert Point(1) not in other
    kinds: list[object] = [Nothing(), Void()]
    assert kinds.index(Void()) == 1
    assert repr(Point(1, tags=["a"])) == repr(Model(1, tags=["a"])).replace("Model", "Point")
    with pytest.raises(TypeError):
        Point()  # type: ignore[call-arg]


def test_a_record_works_with_dataclasses_match_and_pickle() -> None:
    assert replace(Point(1), y=5) == Point(1, 5)
    assert [each.name for each in fields(Point)] == ["x", "y", "tags"]
    assert pickle.loads(pickle.dumps(Point(1))) == Point(1)
    match Point(7):
        case Point(x, 2):
            assert x == 7
        case _:
            pytest.fail("no match")


def test_equal_records_have_the_same_hash_if_their_fields_are_hashable() -> None:
    assert len({Nothing(), Nothing(), Void()}) == 2
    with pytest.raises(TypeError):
        hash(Point(1))


def test_a_frozen_record_is_constructed_compared_and_shown_as_a_dataclass() -> None:
    assert Choices() == Choices("red", "", 1)
    assert Choices("blue", size=2) == replace(Choices(size=2), colour="blue")
    assert Choices() != Choices("blue")
    assert pickle.loads(pickle.dumps(Choices("blue"))) == Choices("blue")
    assert len({Choices(), Choices("red"), Choices("blue")}) == 2
    assert repr(Choices(secret="s")) == "Choices(colour='red', size=1)"
    with pytest.raises(ValueError, match="size"):
        Choices(size=-1)


@pytest.mark.parametrize("wrong", [{"form": 1}, {"colour": "blue"}])
def test_a_frozen_record_refuses_arguments_that_are_no_fields(wrong: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=next(iter(wrong))):
        Choices("red", **wrong)
    with pytest.raises(TypeError, match="3 fields"):
        Choices("red", "", 1, 2)  # type: ignore[call-arg]


def test_a_frozen_record_refuses_assignment_at_run_time() -> None:
    choices = Choices()
    with pytest.raises(FrozenInstanceError):
        choices.size = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        del choices.size
    assert choices == Choices()


@frozen_record
class WithConstructor(Choices):
    name: str = ""

    def __init__(self, name: str) -> None:
        super().__init__(colour="blue")
        self.__dict__["name"] = name


def test_a_frozen_record_may_have_a_constructor_of_its_own() -> None:
    made = WithConstructor("a")

    assert (made.colour, made.name) == ("blue", "a")
    assert made == WithConstructor("a") != WithConstructor("b")
    with pytest.raises(FrozenInstanceError):
        made.name = "b"  # type: ignore[misc]
