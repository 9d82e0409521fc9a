"""Records: classes of named fields in slots, as `dataclasses` makes them, but cheap to define.

    class Tcp(Value):
        host: str
        port: int = 8000

`dataclasses` writes and compiles the methods of each class, makes it twice for its slots, and loads
`inspect`: for the seventy classes of a server this was a third of its start. Here all share their
methods, which go by the names of the fields. That a Value does not change is mypy's to hold. Where
a record is defined, annotations are postponed (PEP 563): elsewhere Python 3.14 hides them from here.
"""

from __future__ import annotations

from collections.abc import Callable

from minicorn.typed import TYPE_CHECKING, TypeVar, dataclass_transform

if TYPE_CHECKING:
    from typing import Any

T = TypeVar("T")


class _Fresh:
    """Stands for a default that is made anew for each record."""

    def __init__(self, make: Callable[[], object]) -> None:
        self.make = make


def fresh(make: Callable[[], T]) -> T:
    """A default that is made anew for each: `orders: list[str] = fresh(list)`."""
    return _Fresh(make)  # type: ignore[return-value]


def _refuse() -> None:
    raise TypeError("a field that has no default is missing")


_REQUIRED = _Fresh(_refuse)


class _Fielded(type):
    """The kind of class whose annotations are its fields, behind those of its base."""

    __fields__: dict[str, object]  # their names, in order, and their defaults
    __match_args__: tuple[str, ...]

    def __new__(mcls, name: str, bases: tuple[type, ...], space: dict[str, object], quick: bool = False) -> _Fielded:
        """`quick` for what requests make, or a start makes by the dozen: dearer to define, a fifth as dear to make."""
        annotations = space.get("__annotations__", ())
        own = {field: space.pop(field, _REQUIRED) for field in annotations}  # type: ignore[attr-defined]
        cls = super().__new__(mcls, name, bases, space | {"__slots__": tuple(own)})
        cls.__fields__ = getattr(cls, "__fields__", {}) | own
        cls.__match_args__ = tuple(cls.__fields__)  # type: ignore[misc]
        if quick:
            cls.__init__ = _write_init(cls.__fields__)  # type: ignore[misc]
        return cls


def _write_init(fields: dict[str, object]) -> Callable[..., None]:
    takes = [name if default is _REQUIRED else f"{name}=fields[{name!r}]" for name, default in fields.items()]
    does = "; ".join(f"self.{name} = {name}" for name in fields)
    space: dict[str, Any] = {"fields": fields}
    exec(f"def init(self, {', '.join(takes)}): {does}", space)
    init: Callable[..., None] = space["init"]
    return init


class _Fields(metaclass=_Fielded):
    def __init__(self, *values: object, **named: object) -> None:
        fields = type(self).__fields__
        given = fields | dict(zip(fields, values, strict=False)) | named
        if max(len(values), len(given)) > len(fields):
            raise TypeError(f"{type(self).__name__} has the fields {', '.join(fields)}: not {values} and {named}")
        for name, value in given.items():
            setattr(self, name, value.make() if type(value) is _Fresh else value)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in as_dict(self).items())})"


@dataclass_transform()
class Record(_Fields):
    """A record that changes, and is equal to itself alone."""


@dataclass_transform(frozen_default=True)
class Value(_Fields):
    """A record that does not change, and is equal to each of its class with the same fields."""

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and as_dict(self) == as_dict(other)

    def __hash__(self) -> int:
        return hash(tuple(as_dict(self).values()))


R = TypeVar("R", bound=_Fields)


def as_dict(record: _Fields) -> dict[str, object]:
    """The fields of a record by name."""
    return {name: getattr(record, name) for name in type(record).__fields__}


def replace(record: R, **changes: object) -> R:
    """A record like `record`, with some fields changed."""
    return type(record)(**(as_dict(record) | changes))
