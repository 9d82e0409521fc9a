"""PEP 3333, the application's side: start_response, write, blocks, and what is refused of them."""

import sys
import threading
import time
from email.utils import parsedate_to_datetime
from wsgiref.validate import validator

import pytest

TEXT = ("Content-Type", "text/plain")


def echo(environ):
    return environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)) or b"hello"


def as_list(environ, start_response):
    start_response("200 OK", [TEXT])
    return [echo(environ)]


def as_blocks(environ, start_response):
    start_response("200 OK", [TEXT])
    return [b"", echo(environ), b"", b"!"]


def as_generator(environ, start_response):
    start_response("200 OK", [TEXT])
    return (block for block in (echo(environ), b"!"))


def as_writes(environ, start_response):
    write = start_response("200 OK", [TEXT])
    write(echo(environ))
    return [b"!"]


@pytest.mark.parametrize("app", [as_list, as_blocks, as_generator, as_writes])
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
def test_the_validator_has_no_complaint(serve, app, version):
    server = serve(validator(app))
    tail = b"" if app is as_list else b"!"
    assert server.ask("/path?query", version=version).body == b"hello" + tail
    assert server.ask(method="HEAD", version=version).status == 200
    assert server.ask(method="POST", body=b"content", version=version).body == b"content" + tail


@pytest.mark.parametrize("app", [as_list, as_blocks, as_generator, as_writes])
def test_the_validator_has_no_complaint_about_a_chunked_body(serve, app):
    client = serve(validator(app)).connect()
    client.send(client.render("/", "Transfer-Encoding: chunked", method="POST") + b"4\r\nchun\r\n3\r\nked\r\n0\r\n\r\n")
    assert client.reply().body.startswith(b"chunked")


# Calling it twice


def test_a_second_call_without_exc_info_is_an_error_in_the_application(serve):
    raised = []

    def app(environ, start_response):
        start_response("200 OK", [TEXT])
        try:
            start_response("201 Created", [TEXT])
        except Exception as error:
            raised.append(error)
            raise
        return [b"never"]

    assert serve(app).ask().status == 500
    assert len(raised) == 1


def test_exc_info_without_an_exception_is_none(serve):
    def app(environ, start_response):
        start_response("200 OK", [TEXT], sys.exc_info())
        if environ["PATH_INFO"] == "/twice":
            start_response("201 Created", [TEXT], sys.exc_info())
        return [b"once"]

    server = serve(app)
    assert [server.ask(target).status for target in ("/", "/twice")] == [200, 500]


def test_a_second_call_without_exc_info_behind_the_head_cuts_the_reply(serve):
    def app(environ, start_response):
        start_response("200 OK", [TEXT])
        yield b"first"
        start_response("201 Created", [TEXT])
        yield b"never"

    client = serve(app).connect()
    client.send(client.render())
    raw = client.rest()
    assert raw.endswith(b"5\r\nfirst\r\n")
    assert b"201 Created" not in raw


def test_a_call_with_exc_info_before_the_head_replaces_status_and_headers(serve):
    def app(environ, start_response):
        start_response("200 OK", [TEXT, ("X-First", "1")])
        try:
            raise ValueError
        except ValueError:
            start_response("503 Service Unavailable", [TEXT, ("X-Second", "2")], sys.exc_info())
        return [b"sorry"]

    reply = serve(app).ask()
    assert (reply.status, reply.reason, reply.body) == (503, "Service Unavailable", b"sorry")
    assert "X-First" not in reply
    assert reply["X-Second"] == "2"


def test_empty_blocks_leave_the_head_unsent_so_that_exc_info_still_replaces_it(serve):
    def app(environ, start_response):
        start_response("200 OK", [TEXT])
        yield b""
        try:
            raise ValueError
        except ValueError:
            start_response("502 Bad Gateway", [TEXT], sys.exc_info())
        yield b"upstream"

    reply = serve(app).ask()
    assert (reply.status, reply.body) == (502, b"upstream")


def test_a_first_call_may_have_exc_info(serve):
    def app(environ, start_response):
        try:
            raise ValueError
        except ValueError:
            start_response("500 Oops", [TEXT], sys.exc_info())
        return [b"page of the application's own"]

    reply = serve(app).ask()
    assert (reply.reason, reply.body) == ("Oops", b"page of the application's own")


def test_exc_info_behind_the_head_is_raised_in_the_application(serve):
    raised = []

    def app(environ, start_response):
        start_response("200 OK", [TEXT])
        yield b"first"
        original = ValueError("the original")
        try:
            raise original
        except ValueError:
            try:
                start_response("500 Oops", [TEXT], sys.exc_info())
            except ValueError as error:
                raised.append(error is original)
                raise
        yield b"never"

    client = serve(app).connect()
    client.send(client.render())
    assert client.rest().endswith(b"5\r\nfirst\r\n")
    assert raised == [True]


# When it is called, and when blocks are sent


@pytest.mark.parametrize("blocks", [[], [b""], [b"a"], [b"", b"a", b"b"]])
def test_start_response_may_be_called_as_late_as_the_first_block(serve, blocks):
    def app(environ, start_response):
        start_response("203 Late", [TEXT])
        yield from blocks

    reply = serve(app).ask()
    assert (reply.status, reply.body) == (203, b"".join(blocks))


def early_block(environ, start_response):
    yield b"too early"
    start_response("200 OK", [TEXT])


@pytest.mark.parametrize(
    "app",
    [lambda e, s: [b"body"], lambda e, s: [], lambda e, s: iter([b"body"]), early_block],
    ids=["one block", "no block", "iterator", "too early"],
)
def test_a_body_without_start_response_is_500(serve, app):
    assert serve(app).ask().status == 500


def test_start_response_sends_nothing(serve):
    asked, go = threading.Event(), threading.Event()

    def app(environ, start_response):
        start_response("200 OK", [TEXT])
        asked.set()
        assert go.wait(5)
        return [b"body"]

    client = serve(app).connect()
    client.send(client.render())
    assert asked.wait(5)
    client.sock.settimeout(0.1)
    with pytest.raises(TimeoutError):
        client.read(1)
    go.set()
    client.sock.settimeout(5)
    assert client.reply().body == b"body"


@pytest.mark.parametrize("way", ["yield", "write"])
def test_each_block_is_sent_before_the_next_is_asked_for(serve, way):
    seen = threading.Event()

    def by_yield(environ, start_response):
        start_response("200 OK", [TEXT])
        yield b"first"
        yield b"second" if seen.wait(5) else b"nobody saw the first"

    def by_write(environ, start_response):
        write = start_response("200 OK", [TEXT])
        write(b"first")
        write(b"second" if seen.wait(5) else b"nobody saw the first")
        return []

    client = serve(by_yield if way == "yield" else by_write).connect()
    client.send(client.render())
    assert b"\r\n\r\n5\r\nfirst\r\n" in client.until(b"first\r\n")
    seen.set()
    assert client.read(11) == b"6\r\nsecond\r\n"


def test_writes_come_before_the_iterable_and_in_order(serve):
    def app(environ, start_response):
        write = start_response("200 OK", [TEXT])
        for number in range(10):
            write(b"%d" % number)
        write(b"")
        return (b"%d" % number for number in range(10, 13))

    assert serve(app).ask().body == b"0123456789101112"


# Headers and status


@pytest.mark.parametrize(
    "field",
    [
        ("X-A", "value\r\nX-Injected: 1"),
        ("X-A", "value\r\n"),
        ("X-A", "value\r"),
        ("X-A", "value\nX-Injected: 1"),
        ("X-A", "value\0"),
        ("Location", "/\x1bX-Injected"),
        ("X-A\r\nX-Injected", "1"),
        ("X-A:", "1"),
        ("X A", "1"),
        (" X-A", "1"),
        ("", "1"),
        ("X-Ä", "1"),
        ("X-A", b"bytes"),
        ("X-A", 1),
        ("X-A", None),
        (b"X-A", "1"),
        (1, "1"),
        ("X-A", "beyond latin-1: €"),
        ("Content-Length", "abc"),
        ("Content-Length", "-1"),
        ("Content-Length", "+4"),
        ("Content-Length", "4_0"),
        ("Content-Length", ""),
        ("Content-Length", 4),
        ("Connection", "keep-alive"),
        ("connection", "close"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "close"),
        ("TE", "trailers"),
        ("Trailer", "X-A"),
        ("Transfer-Encoding", "chunked"),
        ("TRANSFER-ENCODING", "identity"),
        ("Upgrade", "h2c"),
    ],
    ids=repr,
)
def test_a_header_that_is_not_to_be_sent_is_500(serve, field):
    def app(environ, start_response):
        start_response("200 OK", [TEXT, field])
        return [b"body"]

    client = serve(app).connect()
    client.send(client.render())
    raw = client.rest()
    assert raw.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert b"Injected" not in raw


def test_two_content_lengths_that_differ_are_500(serve):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", "4"), ("Content-Length", "5")])
        return [b"body"]

    assert serve(app).ask().status == 500


@pytest.mark.parametrize(
    "status",
    [
        "200",
        "200OK",
        "2000 OK",
        "20 OK",
        "٢٠٠ OK",
        "abc OK",
        "",
        "200 OK\r\nX-Injected: 1",
        "200 OK\n",
        "200 \0",
        "100 Continue",
        "101 Switching Protocols",
        b"200 OK",
        200,
        None,
    ],
    ids=repr,
)
def test_a_status_that_is_none_is_500(serve, status):
    def app(environ, start_response):
        start_response(status, [TEXT])
        return [b"body"]

    client = serve(app).connect()
    client.send(client.render())
    raw = client.rest()
    assert raw.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert b"Injected" not in raw


@pytest.mark.parametrize("code", [299, 599, 600, 777, 999])
def test_any_other_status_is_sent_even_of_a_class_that_there_is_not(serve, code):
    def app(environ, start_response):
        start_response(f"{code} Odd", [TEXT])
        return [b"body"]

    client = serve(app).connect()
    for _ in range(2):
        assert client.ask().status == code


@pytest.mark.parametrize(
    ("status", "headers"),
    [("200 OK", [("X-A", "1\r\nX-Injected: 1")]), ("200 OK", [("Connection", "close")]), ("200", [TEXT])],
    ids=repr,
)
def test_a_fault_in_the_head_is_raised_while_the_application_is_running(serve, status, headers):
    """PEP 3333: "Servers should check for errors in the headers at the time start_response is called, so
    that an error can be raised while the application is still running." """
    raised = []

    def app(environ, start_response):
        try:
            start_response(status, headers)
        except Exception as error:
            raised.append(error)
            raise
        return [b"body"]

    assert serve(app).ask().status == 500
    assert len(raised) == 1


@pytest.mark.parametrize("headers", [(TEXT,), iter([TEXT]), {"Content-Type": "text/plain"}, None], ids=type)
def test_headers_that_are_no_list_are_500(serve, headers):
    def app(environ, start_response):
        start_response("200 OK", headers)
        return [b"body"]

    assert serve(app).ask().status == 500


def test_headers_are_sent_as_they_are_in_latin_1_and_in_order(serve):
    sent = [
        ("Set-Cookie", "a=1"),
        ("X-Latin", "Käse"),
        ("Set-Cookie", "b=2; Path=/"),
        ("x-EMPTY", ""),
        ("X-Tab", "a\tb"),
    ]

    def app(environ, start_response):
        start_response("200 Grün", list(sent))
        return [b"body"]

    reply = serve(app).ask()
    assert reply.reason == "Grün"
    assert [field for field in reply.fields if field in sent] == sent


def test_date_and_server_are_added_once(serve):
    def app(environ, start_response):
        own = [("date", "Sun, 06 Nov 1994 08:49:37 GMT"), ("SERVER", "mine")]
        start_response("200 OK", own if environ["PATH_INFO"] == "/own" else [])
        return [b"body"]

    server = serve(app)
    own, plain = server.ask("/own"), server.ask("/")
    assert (own["Date"], own["Server"]) == ("Sun, 06 Nov 1994 08:49:37 GMT", "mine")
    assert plain["Server"] == "minicorn"
    age = time.time() - parsedate_to_datetime(plain["Date"]).timestamp()
    assert plain["Date"].endswith(" GMT") and -1 <= age <= 5


# Blocks


@pytest.mark.parametrize(
    "body", [["text"], ["text", b"bytes"], "text", b"bytes", [1], None, 5, [bytearray(b"x")]], ids=repr
)
def test_a_body_that_is_no_iterable_of_bytes_is_500(serve, body):
    def app(environ, start_response):
        start_response("200 OK", [TEXT])
        return body

    assert serve(app).ask().status == 500


def test_a_str_block_behind_the_head_cuts_the_reply(serve):
    def app(environ, start_response):
        start_response("200 OK", [TEXT])
        yield b"bytes"
        yield "text"

    client = serve(app).connect()
    client.send(client.render())
    assert client.rest().endswith(b"5\r\nbytes\r\n")


def test_write_refuses_str(serve):
    def app(environ, start_response):
        start_response("200 OK", [TEXT])("text")
        return [b"bytes"]

    assert serve(app).ask().status == 500
