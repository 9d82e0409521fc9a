"""What Werkzeug's and Django's test clients make of a request, and what the wire makes of it: the same environ.

They stand for what applications are tested with. Left out are the addresses, what belongs to
the server (its objects and flags), and what each client does not make, as said below.
"""

from itertools import product

import pytest
from django.conf import settings
from django.core.handlers.wsgi import WSGIRequest
from django.test import RequestFactory
from werkzeug.test import EnvironBuilder

TARGETS = ["/", "/a/b?x=1&y=%20z", "/caf%C3%A9/%25/a+b?q=%C3%A9", "/a;b=c/,d?", "/a%2Fb?u=http://h/?x"]
FIELDS = [
    {},
    {"Accept": "text/html, */*;q=0.8", "User-Agent": "x/1.0", "X-Odd-Name": "caf\xe9"},
    {"Cookie": "a=1; b=2", "Authorization": "Basic eDp5", "If-None-Match": '"x"'},
]
BODIES = [
    ("GET", None, None),
    ("POST", b"a=1&b=%20", "application/x-www-form-urlencoded"),
    ("PUT", b'{"a": 1}', "application/json"),
    ("DELETE", None, None),
]
REQUESTS = list(product(TARGETS, FIELDS, BODIES))[:50]
if not settings.configured:
    settings.configure()
ADDRESS = {"REMOTE_ADDR", "REMOTE_PORT", "SERVER_NAME", "SERVER_PORT"}
OURS = {"SERVER_SOFTWARE", "wsgi.errors", "wsgi.input", "wsgi.file_wrapper", "wsgi.input_terminated"}
OURS |= {"wsgi.multithread", "wsgi.multiprocess", "wsgi.run_once"}


@pytest.fixture
def over_the_wire(serve):
    environs = []

    def app(environ, start_response):
        environs.append(environ | {"body": environ["wsgi.input"].read()})
        start_response("204 No Content", [])
        return []

    client = serve(app, max_keepalive_requests=0).connect()

    def ask(target, fields, method, body, kind):
        lines = [f"{name}: {value}" for name, value in fields.items()]
        if kind:
            lines.append(f"Content-Type: {kind}")
        assert client.ask(target, *lines, method=method, body=body).status == 204
        return environs[-1]

    return ask


def by_werkzeug(target, fields, method, body, kind):
    builder = EnvironBuilder(
        target, "http://test/", method=method, headers=list(fields.items()), data=body, content_type=kind
    )
    return builder.get_environ()


def by_django(target, fields, method, body, kind):
    extra = {"HTTP_" + name.upper().replace("-", "_"): value for name, value in fields.items()}
    factory = RequestFactory(SERVER_NAME="test", HTTP_HOST="test")
    return factory.generic(method, target, body or b"", kind or "", **extra).environ


def alike(theirs, ours, without=frozenset()):
    """Of two environs, what should be the same."""

    def kept(environ):
        return {
            key: value
            for key, value in environ.items()
            if key not in ADDRESS | OURS | without and not key.startswith(("minicorn.", "werkzeug.", "django."))
        }

    return kept(theirs), kept({key: value for key, value in ours.items() if key != "body"})


def test_there_are_fifty_requests():
    assert len(REQUESTS) == 50


@pytest.mark.parametrize("number", range(50))
def test_the_wire_makes_what_the_test_client_of_werkzeug_makes(over_the_wire, number):
    target, fields, (method, body, kind) = REQUESTS[number]
    ours = over_the_wire(target, fields, method, body, kind)
    theirs = by_werkzeug(target, fields, method, body, kind)
    assert theirs["wsgi.input"].read() == ours["body"] == (body or b"")
    theirs, ours = alike(theirs, ours)
    assert theirs == ours


@pytest.mark.parametrize("number", range(50))
def test_the_wire_makes_what_the_test_client_of_django_makes(over_the_wire, number):
    """It makes no RAW_URI and no REQUEST_URI, always a cookie, and a request object at once, which decodes the path."""
    target, fields, (method, body, kind) = REQUESTS[number]
    ours = over_the_wire(target, fields, method, body, kind)
    theirs = by_django(target, fields, method, body, kind)
    assert theirs["wsgi.input"].read() == ours["body"] == (body or b"")
    ours = WSGIRequest({"HTTP_COOKIE": ""} | ours).environ
    theirs, ours = alike(theirs, ours, {"RAW_URI", "REQUEST_URI"})
    assert theirs == ours
