"""What classes and type checkers need of `typing`, without its import, which took a thirtieth of a start.

It says nothing to a program that runs: here are the same names, with nothing behind them. What
annotations alone mention comes from `typing` itself, where TYPE_CHECKING.
"""

from __future__ import annotations

TYPE_CHECKING = False  # checkers take it for True, wherever it comes from

if TYPE_CHECKING:
    from typing import Generic, Protocol, TypeVar, dataclass_transform
else:

    class Protocol:
        __slots__ = ()

    class Generic:
        __slots__ = ()

        def __class_getitem__(cls, parameter: object) -> type:
            return cls

    def TypeVar(name: str, *constraints: type, bound: object = None) -> str:  # noqa: N802
        return name

    def dataclass_transform(frozen_default: bool = False) -> object:
        return lambda cls: cls


__all__ = ["TYPE_CHECKING", "Generic", "Protocol", "TypeVar", "dataclass_transform"]
