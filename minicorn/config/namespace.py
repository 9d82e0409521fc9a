"""What the names in a configuration file mean: settings, hooks, or in a Python file variables of its own.

A Python file computes as well, so its names are told apart: what is a setting's name is one, and so is what the file
sets and never uses, which is a mistake then that is told. Values are made data, which goes from process to process.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Iterator

from minicorn.config import gunicorn
from minicorn.config.settings import NAMES
from minicorn.errors import ConfigError
from minicorn.typed import TYPE_CHECKING

if TYPE_CHECKING:  # dear: imported in the child that reads a Python file
    import ast

# Settings of ours whose names a Python file may well use for itself
EVERYDAY = {"name", "env", "app", "pid"}


def find_unread(place: str, source: bytes) -> set[str] | None:
    """The names that a Python file sets and never uses: they are meant for us. None: all are."""
    if place.endswith(".toml"):
        return None
    import ast

    bound: set[str] = set()
    tree = ast.parse(source)
    for node in _outermost(tree.body):
        if isinstance(node, ast.FunctionDef):
            bound.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            bound |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return bound - {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def _outermost(statements: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module, those under an `if` or `try` too, those in a function or class not."""
    import ast

    for node in statements:
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield from _outermost([inner for inner in ast.iter_child_nodes(node) if isinstance(inner, ast.stmt)])


def as_data(namespace: dict[str, object], unread: set[str] | None) -> dict[str, object]:
    """The settings among `namespace`, and what was meant to be one; ConfigError for a value that is no data."""
    values: dict[str, object] = {}
    hooks: list[str] = []
    for name, value in namespace.items():
        if name in gunicorn.HOOKS:
            if not callable(value):
                raise ConfigError(f"{name}: a hook is a function, not {type(value).__name__}")
            hooks.append(name)
        elif unread is None or _is_meant(name, unread):
            values[name] = _plain(name, value)
    return {"values": values, "hooks": hooks}


def _is_meant(name: str, unread: set[str]) -> bool:
    """Whether a Python file's name is meant for us, be it no setting at all, or is a variable of its own."""
    if name in gunicorn.NAMES or name in gunicorn.FOREIGN:
        return True
    if name.startswith("_") or (name.isupper() and name.lower() not in NAMES):
        return False
    return name in unread or (NAMES.get(name) == name and name not in EVERYDAY)


def _plain(name: str, value: object) -> object:
    if isinstance(value, enum.Enum):
        return _plain(name, value.value)
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(name, each) for each in value]
    if isinstance(value, dict):
        return {str(key): _plain(name, each) for key, each in value.items()}
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    if callable(value) and name in gunicorn.FOREIGN:
        raise ConfigError(f"{name} cannot be honoured: {gunicorn.FOREIGN[name].advice}")
    if callable(value):
        raise ConfigError(f"{name!r} is no hook; those are {', '.join(gunicorn.HOOKS)}")
    raise ConfigError(f"{name}: {type(value).__name__} is no value of a setting")
