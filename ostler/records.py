"""Classes that are nothing but their fields: `dataclass(frozen=True)`, for a fifth of what that costs.

While it starts, a process makes dozens of them, and dataclasses compiles six methods for each: a third of the
arbiter's start. Here one is compiled, and what compares, hashes and shows is shared. That nobody assigns to a
field is for the type checker to see.
"""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_: object) -> object:
        """Do nothing; typing has it since Python 3.11."""
        return lambda function: function


T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[T]) -> type[T]:
    """Make a class of its fields. Instances are equal where these are, and can be hashed where these can."""
    made: Any = dataclass(eq=False, repr=False)(cls)
    made.__eq__ = _equals
    made.__hash__ = _hash
    if "__repr__" not in cls.__dict__:
        made.__repr__ = _show
    return cls


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen_record(cls: type[T]) -> type[T]:
    """Make a class of many fields, each with a default: nothing is compiled, and to assign to one raises."""
    made: Any = dataclass(init=False, eq=False, repr=False)(cls)
    if "__init__" not in cls.__dict__:
        made.__init__ = _take
    made.__eq__ = _equals
    made.__hash__ = _hash
    made.__repr__ = _show_public
    made.__setattr__ = made.__delattr__ = _refuse
    return cls


def _take(self: Any, *positional: object, **named: object) -> None:
    owner = type(self).__qualname__
    values = {f.name: f.default for f in fields(self)}
    if len(positional) > len(values):
        raise TypeError(f"{owner} takes {len(values)} fields, but {len(positional)} were given")
    for name, value in zip(values, positional, strict=False):
        if name in named:
            raise TypeError(f"{owner} got multiple values for field {name!r}")
        named[name] = value
    for name in named:
        if name not in values:
            raise TypeError(f"{owner} got an unexpected field {name!r}")
    self.__dict__.update(values, **named)
    self.__post_init__()


def _refuse(self: object, name: str, _: object = None) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _show_public(self: Any) -> str:
    shown = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if f.repr)
    return f"{type(self).__qualname__}({shown})"


def _equals(self: object, other: object) -> bool:
    return self.__dict__ == other.__dict__ if type(self) is type(other) else NotImplemented


def _hash(self: object) -> int:
    return hash((type(self), *self.__dict__.values()))


def _show(self: object) -> str:
    fields = ", ".join(f"{name}={value!r}" for name, value in self.__dict__.items())
    return f"{type(self).__qualname__}({fields})"
