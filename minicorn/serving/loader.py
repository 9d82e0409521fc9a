"""`main:app` -> the application, or an error that a person can act on.

What is wrong with the name, the attribute or the object is one line; what goes wrong inside
the application's own import is its traceback, without our frames and the import system's.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from types import FunctionType, ModuleType

from minicorn.errors import AppLoadError, ExitCode
from minicorn.logs.explanation import explain
from minicorn.logs.logger import LOGGER
from minicorn.system import spawn
from minicorn.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NoReturn
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

DEFAULT_NAMES = ("application", "app")
_CO_COROUTINE = 0x80  # inspect.CO_COROUTINE, without the import


# Each is also of the class that 0.1.0 raised in its place
class InvalidName(AppLoadError, ValueError):
    """APP has not the form module:attribute."""


class NoSuchModule(AppLoadError, ImportError):
    """There is no such module."""


class NoSuchAttribute(AppLoadError, AttributeError):
    """The module has no such attribute."""


class NotAnApplication(AppLoadError, TypeError):
    """The object is no WSGI application."""


def load_app(name: str) -> WSGIApplication:
    """The application that `name` stands for.

    `module:attribute` (dotted attributes allowed), `module:factory()` with literal arguments,
    or `module` alone, then `application` or `app` in it; or `paste:FILE.ini` with `#NAME` if
    wanted, of PasteDeploy. The current directory is importable.
    Raises AppLoadError with a line for a person; what the import itself raises passes.
    """
    process = os.getpid()
    try:
        return _load(name)
    finally:
        if os.getpid() != process:
            end_fork()


def _load(name: str) -> WSGIApplication:
    module_name, colon, expression = name.partition(":")
    if not module_name or (colon and not expression):
        raise InvalidName(f"{name!r} is not of the form module:attribute, such as main:app")
    if module_name.startswith("."):
        advice = _advise(module_name) if "/" in module_name else ", such as main:app, without a path"
        raise InvalidName(f"{name!r}: name the module as it is imported{advice}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    if paste := name.startswith("paste:") and re.fullmatch(r"paste:([^()#]+\.ini(?:#.+)?)", name):
        return _checked(_deploy(paste[1]), name)
    module = _import(module_name)
    found = _evaluate(module, expression) if colon else _default(module)
    if not callable(found):
        found = getattr(found, "wsgi_app", found)
    return _checked(found, name)


def _deploy(place: str) -> object:
    """The application of a PasteDeploy file."""
    try:
        from paste.deploy import loadapp
    except ImportError:
        raise AppLoadError(f"paste:{place} needs PasteDeploy: pip install PasteDeploy") from None
    path = os.path.abspath(place.partition("#")[0])
    if not os.path.exists(path):
        raise NoSuchModule(f"there is no file {path}")
    found: object = loadapp(f"config:{place}", relative_to=os.getcwd())
    return found


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise  # a module that the application wants
        raise NoSuchModule(f"no module named {error.name!r} in {os.getcwd()} or on sys.path{_advise(name)}") from None


def _advise(name: str) -> str:
    """What to write in place of the name of a module that is not there, as far as that can be guessed."""
    if "/" in name or name.endswith(".py"):
        path = os.path.relpath(name.removesuffix(".py").removesuffix("/__init__"))
        directory = ""
        if path.startswith(".."):
            directory, path = os.path.split(os.path.abspath(path))
        written = path.replace("/", ".")
        there = f" with --chdir {directory}" if directory else ""
        return f"; write {written!r}{there}{', without .py' if name.endswith('.py') else ''}"
    module, _, attribute = name.rpartition(".")
    if hasattr(sys.modules.get(module), attribute):
        return f"; write {module + ':' + attribute!r}"
    import difflib  # for mistakes alone

    here = [entry.removesuffix(".py") for entry in os.listdir() if entry.endswith(".py") or os.path.isdir(entry)]
    return _guess(difflib.get_close_matches(name.partition(".")[0], here))


def _guess(near: list[str]) -> str:
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _default(module: ModuleType) -> object:
    for name in DEFAULT_NAMES:
        if hasattr(module, name):
            found: object = getattr(module, name)
            return found
    raise NoSuchAttribute(
        f"module {module.__name__!r} has neither 'application' nor 'app'; name the attribute: {module.__name__}:NAME"
    )


def _evaluate(module: ModuleType, expression: str) -> object:
    """A dotted attribute, or a call of one with literal arguments."""
    if all(map(str.isidentifier, expression.split("."))):
        return _attribute(module, expression)
    import ast  # dear, and so is `inspect`: for factories alone
    import inspect

    try:
        tree = ast.parse(expression, mode="eval").body
    except SyntaxError:
        raise InvalidName(f"{expression!r} is neither an attribute nor a call of one") from None
    if not isinstance(tree, ast.Call):
        return _attribute(module, expression)
    try:
        if any(argument.arg is None for argument in tree.keywords):
            raise ValueError("**")
        positional = [ast.literal_eval(argument) for argument in tree.args]
        named = {argument.arg: ast.literal_eval(argument.value) for argument in tree.keywords if argument.arg}
    except ValueError:
        raise InvalidName(f"{expression!r}: a factory takes literal arguments only") from None
    factory = _attribute(module, ast.unparse(tree.func))
    if not callable(factory):
        raise NotAnApplication(f"{module.__name__}:{ast.unparse(tree.func)} is no factory: it cannot be called")
    try:
        inspect.signature(factory).bind(*positional, **named)
    except TypeError as error:
        raise NotAnApplication(f"{expression!r} does not fit the factory: {error}") from None
    except ValueError:
        pass  # a builtin without a signature
    built: object = factory(*positional, **named)
    return built


def _attribute(module: ModuleType, dotted: str) -> object:
    found: object = module
    for part in dotted.split("."):
        if not hasattr(found, part):
            import difflib  # for mistakes alone

            hint = _guess(difflib.get_close_matches(part, dir(found)))
            raise NoSuchAttribute(f"module {module.__name__!r} has no attribute {dotted!r}{hint}")
        found = getattr(found, part)
    return found


def _checked(found: object, name: str) -> WSGIApplication:
    if not callable(found):
        raise NotAnApplication(f"{name} is {type(found).__name__}, which cannot be called: no WSGI application")
    if _is_asgi(found):
        raise NotAnApplication(
            f"{name} is an ASGI application and minicorn serves WSGI; wrap it: a2wsgi.ASGIMiddleware(app), "
            "or run it by an ASGI server"
        )
    if misfit := _misfit(found):
        raise NotAnApplication(
            f"{name} cannot take environ and start_response: {misfit}; if it makes the application, write {name}()"
        )
    application: WSGIApplication = found
    return application


def _is_asgi(found: object) -> bool:
    own = isinstance(found, FunctionType)
    call = found if own else getattr(type(found), "__call__", None)  # noqa: B004
    if isinstance(call, FunctionType) and call.__code__.co_argcount == (2 if own else 3):
        return bool(call.__code__.co_flags & _CO_COROUTINE)
    import inspect  # dear, and not needed for what takes environ and start_response

    call = found if inspect.isroutine(found) else call
    if inspect.iscoroutinefunction(call):
        return True
    try:
        return list(inspect.signature(found).parameters) == ["scope", "receive", "send"]  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False


def _misfit(found: object) -> str:
    """Why a function or a class cannot be called as an application is; "" if it can, or nobody knows."""
    if not isinstance(found, (FunctionType, type)) or (isinstance(found, FunctionType) and _has_two(found)):
        return ""
    import inspect

    try:
        # What a decorator says of the function in it may be anything but how it is called itself
        inspect.signature(found, follow_wrapped=False).bind(None, None)
    except TypeError as error:
        return str(error)
    except ValueError:
        pass  # a builtin without a signature
    return ""


def _has_two(function: FunctionType) -> bool:
    return function.__code__.co_argcount == 2 and not function.__code__.co_kwonlyargcount


def mount(app: WSGIApplication) -> WSGIApplication:
    """`app` below the path that SCRIPT_NAME in the environment names, as gunicorn has it; itself where none is named.

    A path that does not begin with it stays as it came: a proxy may have taken it off.
    """
    prefix = os.fsencode(os.environ.get("SCRIPT_NAME", "").rstrip("/")).decode("latin-1")
    if not prefix:
        return app

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not environ["SCRIPT_NAME"]:  # else a proxy that is trusted has named one
            environ["SCRIPT_NAME"], path = prefix, environ["PATH_INFO"]
            if f"{path}/".startswith(f"{prefix}/"):
                environ["PATH_INFO"] = path[len(prefix) :]
        return app(environ, start_response)

    return application


def end_fork() -> NoReturn:
    """End this process, which the application has forked: it comes back to us, where only its parent goes on."""
    error = sys.exception()
    if not isinstance(error, SystemExit):
        raised = f", having raised\n{explain(error)}" if error is not None else ""
        LOGGER.error("a process that the application has forked came back to the server: it is ended%s", raised)
    spawn.leave(ExitCode.OK if error is None or isinstance(error, SystemExit) else ExitCode.APP)
