"""`module:attribute` -> the application; for each mistake, a line that helps."""

import importlib
import os
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import minicorn
from minicorn.errors import AppLoadError
from minicorn.logs.explanation import explain
from minicorn.serving.loader import InvalidName, NoSuchAttribute, NoSuchModule, NotAnApplication, load_app

Write = Callable[[str, str], None]

APP = "def app(environ, start_response):\n    return [b'app']\n"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write a module into an otherwise empty current directory; all is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    path, modules = sys.path[:], set(sys.modules)

    def write(name: str, source: str) -> None:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
        importlib.invalidate_caches()

    yield write
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def called(name: str) -> object:
    """What the application that `name` stands for answers."""
    return load_app(name)({}, lambda status, headers, exc_info=None: lambda data: None)


def mistake(kind: type[AppLoadError], name: str) -> str:
    """The line that tells the mistake in `name`."""
    with pytest.raises(kind) as caught:
        load_app(name)
    text = str(caught.value)
    assert text
    assert "\n" not in text
    assert explain(caught.value) == text
    return text


# What is found


@pytest.mark.parametrize("name", ["shop:app", "shop"])
def test_a_function_is_an_application(name: str, write: Write) -> None:
    write("shop.py", APP)
    assert called(name) == [b"app"]


def test_application_comes_before_app_when_the_attribute_is_not_named(write: Write) -> None:
    write("shop.py", APP + "def application(environ, start_response):\n    return [b'application']\n")
    assert called("shop") == [b"application"]
    assert called("shop:app") == [b"app"]


def test_a_module_in_a_package_is_found(write: Write) -> None:
    write("shop/__init__.py", "")
    write("shop/web.py", APP)
    assert called("shop.web:app") == [b"app"]


def test_a_dotted_attribute_is_followed(write: Write) -> None:
    write("shop.py", APP + "class site:\n    class inner:\n        web = staticmethod(app)\n")
    assert called("shop:site.inner.web") == [b"app"]


def test_an_object_that_can_be_called_is_an_application(write: Write) -> None:
    write(
        "shop.py",
        "class Site:\n    def __call__(self, environ, start_response):\n        return [b'site']\nsite = Site()\n",
    )
    assert called("shop:site") == [b"site"]


def test_an_object_with_a_wsgi_app_stands_for_it(write: Write) -> None:
    write("shop.py", APP + "class Site:\n    wsgi_app = staticmethod(app)\nsite = Site()\n")
    assert called("shop:site") == [b"app"]


FACTORY = """
def create(name="shop", *, debug=False, ports=()):
    def app(environ, start_response):
        return [repr((name, debug, ports)).encode()]
    return app

class site:
    create = staticmethod(create)
"""


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        ("create()", b"('shop', False, ())"),
        ("create('a b')", b"('a b', False, ())"),
        ('create("a:b", debug=True)', b"('a:b', True, ())"),
        ("create(None, ports=[1, {'x': -2.5}])", b"(None, False, [1, {'x': -2.5}])"),
        ("create(debug=1, name=b'x')", b"(b'x', 1, ())"),
        ("site.create()", b"('shop', False, ())"),
    ],
)
def test_a_factory_is_called_with_literal_arguments(call: str, answer: bytes, write: Write) -> None:
    write("shop.py", FACTORY)
    assert called(f"shop:{call}") == [answer]


def test_the_current_directory_is_importable_and_comes_first(write: Write) -> None:
    write("colorsys.py", APP)  # also a module of the standard library, not imported so far
    sys.modules.pop("colorsys", None)
    sys.path[:] = [entry for entry in sys.path if entry not in ("", os.getcwd())]
    assert called("colorsys:app") == [b"app"]
    sys.modules.pop("colorsys")


def test_the_current_directory_is_put_on_the_path_once(write: Write) -> None:
    write("shop.py", APP)
    load_app("shop:app")
    load_app("shop:app")
    assert sys.path.count(os.getcwd()) == 1


# What is not


@pytest.mark.parametrize("name", ["", ":", ":app", "shop:"])
def test_a_name_without_module_or_attribute_is_told_the_form(name: str, write: Write) -> None:
    write("shop.py", APP)
    assert "main:app" in mistake(InvalidName, name)


@pytest.mark.parametrize("name", [".shop:app", "..shop:app", "./shop:app", "../shop:app", ".:app"])
def test_a_relative_module_is_a_mistake_told_in_one_line(name: str, write: Write) -> None:
    write("shop.py", APP)
    assert name.partition(":")[0] in mistake(AppLoadError, name)


def test_a_missing_module_is_named_with_the_place_that_was_searched(write: Write) -> None:
    text = mistake(NoSuchModule, "shop:app")
    assert "'shop'" in text
    assert os.getcwd() in text


def test_of_a_missing_package_the_missing_part_is_named(write: Write) -> None:
    write("shop/__init__.py", "")
    assert "'shop.web'" in mistake(NoSuchModule, "shop.web:app")
    assert "'store'" in mistake(NoSuchModule, "store.web:app")


@pytest.mark.parametrize(
    ("name", "better"),
    [("shop.py:app", "'shop'"), ("site/shop:app", "'site.shop'"), ("site/shop.py:app", "'site.shop'")],
)
def test_a_file_name_is_answered_with_the_module_name(name: str, better: str, write: Write) -> None:
    write("shop.py", APP)
    write("site/shop.py", APP)
    assert f"write {better}" in mistake(NoSuchModule, name)


def test_a_file_elsewhere_is_answered_with_its_directory(write: Write) -> None:
    write("site/shop.py", APP)
    os.chdir("site")
    write("other/shop.py", APP)
    assert f"write 'shop' with --chdir {os.path.dirname(os.getcwd())}/other" in mistake(
        InvalidName, "../other/shop.py:app"
    )
    assert "write 'shop', without .py" in mistake(NoSuchModule, f"{os.getcwd()}/shop.py:app")


@pytest.mark.parametrize(("wanted", "better"), [("shpo:app", "did you mean shop?"), ("shop.app", "write 'shop:app'")])
def test_a_missing_module_is_told_with_what_was_meant(wanted: str, better: str, write: Write) -> None:
    write("shop.py", APP)
    assert better in mistake(NoSuchModule, wanted)


@pytest.mark.parametrize(
    ("wanted", "near"), [("aplication", "application"), ("Application", "application"), ("site.wbe", "web")]
)
def test_a_missing_attribute_is_told_with_near_names(wanted: str, near: str, write: Write) -> None:
    write("shop.py", "def application(environ, start_response): ...\nclass site:\n    web = application\n")
    text = mistake(NoSuchAttribute, f"shop:{wanted}")
    assert repr(wanted) in text
    assert "'shop'" in text
    assert "did you mean" in text
    assert near in text.partition("did you mean")[2]


def test_no_name_is_suggested_where_none_is_near(write: Write) -> None:
    write("shop.py", APP)
    assert "did you mean" not in mistake(NoSuchAttribute, "shop:quetzalcoatl")


def test_a_missing_factory_is_told_with_near_names(write: Write) -> None:
    write("shop.py", FACTORY)
    assert "did you mean create?" in mistake(NoSuchAttribute, "shop:craete()")


def test_a_module_without_a_default_name_is_told_to_name_one(write: Write) -> None:
    write("shop.py", "web = 1\n")
    text = mistake(NoSuchAttribute, "shop")
    assert "'application' nor 'app'" in text
    assert "shop:NAME" in text


@pytest.mark.parametrize("expression", ["app app", "app(", "app)", "1app", "app;app", "app=1", " ", "import os"])
def test_what_is_neither_attribute_nor_call_is_refused(expression: str, write: Write) -> None:
    write("shop.py", APP)
    assert repr(expression) in mistake(InvalidName, f"shop:{expression}")


@pytest.mark.parametrize(
    "call",
    [
        "create(name)",
        "create(open('x'))",
        "create(1 + os)",
        "create(*[1])",
        "create(**{'debug': True})",
        "create(f'{1}')",
    ],
)
def test_a_factory_takes_nothing_but_literal_arguments(call: str, write: Write) -> None:
    write("shop.py", FACTORY)
    assert "literal" in mistake(InvalidName, f"shop:{call}")


@pytest.mark.parametrize("call", ["create(1, 2)", "create(color='red')", "create(1, name=2)"])
def test_arguments_that_do_not_fit_the_factory_are_told(call: str, write: Write) -> None:
    write("shop.py", FACTORY)
    assert repr(f"{call}") in mistake(NotAnApplication, f"shop:{call}")


def test_a_factory_that_cannot_be_called_is_told(write: Write) -> None:
    write("shop.py", "create = 5\n")
    assert "shop:create is no factory" in mistake(NotAnApplication, "shop:create()")


@pytest.mark.parametrize(("source", "kind"), [("app = 5", "int"), ("app = None", "NoneType"), ("app = 'x'", "str")])
def test_what_cannot_be_called_is_no_application(source: str, kind: str, write: Write) -> None:
    write("shop.py", source)
    assert f"shop:app is {kind}" in mistake(NotAnApplication, "shop:app")


@pytest.mark.parametrize(
    "source", ["def create():\n    pass\n", "def create(name, *, size):\n    pass\n", "class create:\n    pass\n"]
)
def test_a_factory_that_is_not_called_is_told(source: str, write: Write) -> None:
    write("shop.py", source)
    assert "write shop:create()" in mistake(NotAnApplication, "shop:create")


@pytest.mark.parametrize(
    "source",
    [
        # As werkzeug's Request.application has it
        "import functools\ndef view(request):\n    pass\n"
        "@functools.wraps(view)\ndef app(*args):\n    return [b'app']\n",
        "def app(environ, start_response, more=()):\n    return [b'app']\n",
        "class app:\n    def __init__(self, environ, start_response):\n        pass\n",
    ],
)
def test_what_two_arguments_fit_is_an_application(source: str, write: Write) -> None:
    write("shop.py", source)
    assert called("shop:app")


def test_what_a_factory_gives_must_be_an_application(write: Write) -> None:
    write("shop.py", "def create():\n    return 5\n")
    assert "shop:create() is int" in mistake(NotAnApplication, "shop:create()")


ASGI = {
    "a coroutine function": "async def app(scope, receive, send): ...",
    "an object with a coroutine method": "class A:\n    async def __call__(self, s, r, t): ...\napp = A()",
    "a function of scope, receive and send": "def app(scope, receive, send): ...",
    "what a factory gives": "def create():\n    async def app(scope, receive, send): ...\n    return app\n",
}


@pytest.mark.parametrize("kind", ASGI)
def test_an_asgi_application_is_refused_with_advice(kind: str, write: Write) -> None:
    write("shop.py", ASGI[kind])
    text = mistake(NotAnApplication, "shop:create()" if "create" in ASGI[kind] else "shop:app")
    assert "ASGI" in text
    assert "a2wsgi" in text


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("", ValueError),
        ("shop:app(", ValueError),
        ("nowhere:app", ImportError),
        ("shop:x", AttributeError),
        ("shop:five", TypeError),
    ],
)
def test_each_mistake_is_also_what_the_first_version_raised(name: str, kind: type[Exception], write: Write) -> None:
    write("shop.py", APP + "five = 5\n")
    with pytest.raises(kind):
        load_app(name)


# PasteDeploy


@pytest.mark.parametrize("place", ["site.ini", "./site.ini#admin", "/srv/site.ini"])
def test_a_missing_file_of_pastedeploy_is_told_with_its_path(place: str, write: Write) -> None:
    path = os.path.abspath(place.partition("#")[0])
    assert mistake(AppLoadError, f"paste:{place}") == f"there is no file {path}"


def test_without_pastedeploy_it_is_asked_for(tmp_path: Path) -> None:
    hide = "import sys; sys.modules['paste'] = None; from minicorn.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", hide, "paste:site.ini", "--check-config"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (3, "paste:site.ini needs PasteDeploy: pip install PasteDeploy\n")


# What the application's own import raises

FAILURES = {
    "an error": ("shop.py", "1 / 0\n", ZeroDivisionError),
    "an error in a module that it imports": ("shop.py", "import helper\n", KeyError),
    "a missing dependency": ("shop.py", "import no_such_dependency\n", ModuleNotFoundError),
    "a missing part of its package": ("shop.py", "import shop.nothing\n", ModuleNotFoundError),
    "a missing name in a module": ("shop.py", "from os import no_such_name\n", ImportError),
    "a syntax error": ("shop.py", "def app(:\n", SyntaxError),
    "a syntax error in a module that it imports": ("shop.py", "import broken\n", SyntaxError),
    "an exit": ("shop.py", "raise SystemExit(3)\n", SystemExit),
    "an attribute error": ("shop.py", "import os\nos.nothing\n", AttributeError),
    "a type error": ("shop.py", "len(5)\n", TypeError),
    "an error with a cause": (
        "shop.py",
        "try:\n    1 / 0\nexcept Exception as e:\n    raise OSError('no db') from e\n",
        OSError,
    ),
}


def failure(name: str) -> BaseException:
    """What `load_app` raises, with its traceback as minicorn catches it: our own frames come first."""
    with pytest.raises(BaseException) as caught:
        load_app(name)
    return caught.value.with_traceback(caught.tb.tb_next)


def check_traceback(text: str, *parts: str) -> None:
    """A traceback of the application's, with `parts`, and without our frames or the import system's."""
    assert all(part in text for part in parts)
    assert str(Path(minicorn.__file__).parent) not in text
    assert "frozen importlib" not in text
    assert importlib.__file__ not in text
    assert not text.endswith("\n")


@pytest.mark.parametrize("kind", FAILURES)
def test_an_error_in_the_applications_import_passes_and_is_explained_by_its_own_frames(kind: str, write: Write) -> None:
    file, source, raised = FAILURES[kind]
    write("helper.py", "{}['key']\n")
    write("broken.py", "def app(:\n")
    write(file, source)
    error = failure("shop:app")
    assert type(error) is raised
    assert not isinstance(error, AppLoadError)
    check_traceback(explain(error), raised.__name__, 'File "', ".py")


def test_the_explanation_names_file_line_and_reason(write: Write) -> None:
    write("helper.py", "\n\n{}['key']\n")
    write("shop.py", "import helper\n")
    text = explain(failure("shop:app"))
    check_traceback(
        text, "Traceback (most recent call last)", 'shop.py", line 1', 'helper.py", line 3', "KeyError: 'key'"
    )


def test_a_syntax_error_is_explained_by_its_line(write: Write) -> None:
    write("shop.py", "x = 1\ndef app(:\n")
    check_traceback(explain(failure("shop:app")), 'shop.py", line 2', "def app(:", "SyntaxError")


def test_the_cause_of_an_error_is_told_too(write: Write) -> None:
    write("shop.py", FAILURES["an error with a cause"][1])
    check_traceback(explain(failure("shop:app")), "ZeroDivisionError", "direct cause", "OSError: no db")


def test_an_error_inside_a_factory_passes_and_starts_with_the_factory(write: Write) -> None:
    write("shop.py", "def create(name):\n    return len(5)\n")
    error = failure("shop:create('x')")
    assert type(error) is TypeError
    check_traceback(explain(error), 'shop.py", line 2, in create', "TypeError")


def test_an_error_of_a_property_on_the_way_passes(write: Write) -> None:
    write("shop.py", "class Site:\n    @property\n    def app(self):\n        return 1 / 0\nsite = Site()\n")
    assert type(failure("shop:site.app")) is ZeroDivisionError


def test_a_module_of_that_name_that_was_imported_before_is_used(write: Write) -> None:
    made = types.ModuleType("shop_made_before")
    made.app = lambda environ, start_response: [b"made"]  # type: ignore[attr-defined]
    sys.modules["shop_made_before"] = made
    assert called("shop_made_before:app") == [b"made"]
