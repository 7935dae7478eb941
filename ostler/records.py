"""Decorators for records: classes that only hold fields, cheaper to define than `dataclass(frozen=True)`.

A process defines dozens of them while it starts. For each, `dataclass(frozen=True)` compiles six methods,
which took a third of the arbiter's start. `record` compiles one method, `frozen_record` none; the others are
shared. Both tell type checkers that the fields cannot be assigned. Only `frozen_record` refuses it at run
time too.
"""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_: object) -> object:
        """Do nothing at run time; `typing` has it since Python 3.11."""
        return lambda function: function


T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[T]) -> type[T]:
    """Make `cls` a record: constructor, equality, hash and repr follow from its fields.

    The fields can be assigned at run time; the type checker refuses it.
    """
    created: Any = dataclass(eq=False, repr=False)(cls)
    created.__eq__ = _eq
    created.__hash__ = _hash
    if "__repr__" not in cls.__dict__:
        created.__repr__ = _repr
    return cls


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen_record(cls: type[T]) -> type[T]:
    """Make `cls` a record that refuses assignment at run time too; each field needs a default value.

    For a class of many fields: nothing is compiled for it. The constructor, unless `cls` has one, stores the
    fields and then calls `__post_init__`, which may store other values in `__dict__`.
    """
    created: Any = dataclass(init=False, eq=False, repr=False)(cls)
    if "__init__" not in cls.__dict__:
        created.__init__ = _init_fields
    created.__eq__ = _eq
    created.__hash__ = _hash
    created.__repr__ = _repr_of_fields
    created.__setattr__ = created.__delattr__ = _refuse_change
    return cls


def _init_fields(self: Any, *positional: object, **named: object) -> None:
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


def _refuse_change(self: object, name: str, _: object = None) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _repr_of_fields(self: Any) -> str:
    shown = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if f.repr)
    return f"{type(self).__qualname__}({shown})"


def _eq(self: object, other: object) -> bool:
    return self.__dict__ == other.__dict__ if type(self) is type(other) else NotImplemented


def _hash(self: object) -> int:
    return hash((type(self), *self.__dict__.values()))


def _repr(self: object) -> str:
    shown = ", ".join(f"{name}={value!r}" for name, value in self.__dict__.items())
    return f"{type(self).__qualname__}({shown})"
