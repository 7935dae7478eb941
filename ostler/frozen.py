"""Classes that are nothing but their fields: `dataclass(frozen=True)`, for a fifth of what that costs.

While it starts, a process makes dozens of them, and dataclasses compiles six methods for each: a third of the
arbiter's start. Here one is compiled, and what compares, hashes and shows is shared. That nobody assigns to a
field is for the type checker to see.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_: object) -> object:
        """Do nothing; typing has it since Python 3.11."""
        return lambda function: function


T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: type[T]) -> type[T]:
    """Make a class of its fields. Instances are equal where these are, and can be hashed where these can."""
    made: Any = dataclass(eq=False, repr=False)(cls)
    made.__eq__ = _equals
    made.__hash__ = _hash
    if "__repr__" not in cls.__dict__:
        made.__repr__ = _show
    return cls


def _equals(self: object, other: object) -> bool:
    return self.__dict__ == other.__dict__ if type(self) is type(other) else NotImplemented


def _hash(self: object) -> int:
    return hash((type(self), *self.__dict__.values()))


def _show(self: object) -> str:
    fields = ", ".join(f"{name}={value!r}" for name, value in self.__dict__.items())
    return f"{type(self).__qualname__}({fields})"
