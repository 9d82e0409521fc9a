"""What is refused: the status, a short reply that echoes nothing, and nothing behind it is parsed."""

import random
import threading

import pytest

MARK = "MARK-4711"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n"
LIMITS = {"max_header_size": 2000, "max_body_size": 1000}


class Recorder:
    """An application that keeps the paths it was asked for."""

    def __init__(self):
        self.seen = []

    def __call__(self, environ, start_response):
        self.seen.append(environ["PATH_INFO"])
        body = environ["wsgi.input"].read()
        start_response("200 OK", [])
        return [body or b"ok"]


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def server(serve, recorder):
    return serve(recorder, **LIMITS)


def head(*lines, line="GET / HTTP/1.1"):
    return "".join(f"{text}\r\n" for text in (line, "Host: test", *lines, "")).encode("latin-1")


def chunked(rest, *lines):
    return head("Transfer-Encoding: chunked", *lines, line="POST / HTTP/1.1") + rest


MALFORMED = {
    "no request line": b"\r\n\r\n\r\n",
    "HTTP/0.9": f"GET /{MARK}\r\n".encode(),
    "SSH": f"SSH-2.0-{MARK}\r\n".encode(),
    "SMTP": f"EHLO {MARK}\r\n".encode(),
    "words": b"hello there\r\n\r\n",
    "no version": head(line=f"GET /{MARK}"),
    "two spaces": head(line=f"GET  /{MARK} HTTP/1.1"),
    "tab": head(line=f"GET\t/{MARK} HTTP/1.1"),
    "trailing space": head(line="GET / HTTP/1.1 "),
    "space in the target": head(line=f"GET /{MARK} x HTTP/1.1"),
    "control in the target": head(line=f"GET /{MARK}\x01 HTTP/1.1"),
    "raw octet in the target": head(line=f"GET /{MARK}\xe4 HTTP/1.1"),
    "fragment": head(line=f"GET /#{MARK} HTTP/1.1"),
    "relative target": head(line=f"GET {MARK} HTTP/1.1"),
    "lower-case version": head(line="GET / http/1.1"),
    "version of two digits": head(line="GET / HTTP/1.10"),
    "method with a bracket": head(line="G(T / HTTP/1.1"),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "two Hosts": head("Host: test"),
    "Host with a space": b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    "Host with a user": b"GET / HTTP/1.1\r\nHost: user@host\r\n\r\n",
    "bare LF in the head": b"GET / HTTP/1.1\nHost: test\n\n",
    "bare LF in a field": head(f"X-A: 1\nX-B: {MARK}"),
    "bare CR in a field": head(f"X-A: 1\rX-B: {MARK}"),
    "NUL in a field": head(f"X-A: {MARK}\0"),
    "folded field": head("X-A: 1", f" {MARK}"),
    "space before the colon": head(f"X-A : {MARK}"),
    "no colon": head(MARK),
    "no name": head(f": {MARK}"),
    "control in a name": head(f"X\x01A: {MARK}"),
    "raw octet in a name": head(f"X\xe4: {MARK}"),
    "length +": head("Content-Length: +5", line="POST / HTTP/1.1"),
    "length -": head("Content-Length: -5", line="POST / HTTP/1.1"),
    "length _": head("Content-Length: 1_0", line="POST / HTTP/1.1"),
    "length 0x": head("Content-Length: 0x5", line="POST / HTTP/1.1"),
    "length empty": head("Content-Length:", line="POST / HTTP/1.1"),
    "length list": head("Content-Length: 5, 6", line="POST / HTTP/1.1"),
    "length twice": head("Content-Length: 5", "Content-Length: 6", line="POST / HTTP/1.1"),
    "length superscript": head("Content-Length: \xb2", line="POST / HTTP/1.1"),
    "length no-break space": head("Content-Length: \xa05", line="POST / HTTP/1.1"),
    "both framings": chunked(b"0\r\n\r\n", "Content-Length: 5"),
    "chunked in HTTP/1.0": head("Transfer-Encoding: chunked", line="POST / HTTP/1.0") + b"0\r\n\r\n",
    "chunked twice": head("Transfer-Encoding: chunked, chunked", line="POST / HTTP/1.1"),
    "chunked first": head("Transfer-Encoding: chunked, identity", line="POST / HTTP/1.1"),
    "chunk size no hex": chunked(b"xyz\r\n"),
    "chunk size negative": chunked(b"-1\r\n"),
    "chunk size 0x": chunked(b"0x1\r\n"),
    "chunk size _": chunked(b"1_0\r\n"),
    "chunk size empty": chunked(b"\r\n"),
    "chunk size endless": chunked(b"1" * 2000),
    "chunk line with bare LF": chunked(b"1\nx\r\n0\r\n\r\n"),
    "chunk longer than its size": chunked(b"1\r\nxyz\r\n0\r\n\r\n"),
    "chunk without CRLF": chunked(b"1\r\nx0\r\n\r\n"),
    "chunk extension with bare CR": chunked(b"1;a\rb\r\nx\r\n0\r\n\r\n"),
    "trailer with bare LF": chunked(b"0\r\nX-A: 1\n\r\n"),
    "trailer without colon": chunked(b"0\r\nbroken\r\n\r\n"),
    "trailers without end": chunked(b"0\r\n" + b"X-A: 1\r\n" * 2000),
}

OTHERS = {
    "413 by length": (413, head("Content-Length: 1001", line="POST / HTTP/1.1")),
    "413 by a length of 18 digits": (413, head("Content-Length: " + "9" * 18, line="POST / HTTP/1.1")),
    "413 by chunks": (413, chunked(b"1f4\r\n" + b"x" * 500 + b"\r\n1f5\r\n")),
    "413 by one chunk": (413, chunked(b"FFFFFFFFF\r\n")),
    "414": (414, f"GET /{MARK * 300} HTTP/1.1\r\nHost: test\r\n\r\n".encode()),
    "414 without end": (414, b"GET /" + b"x" * 3000),
    "417": (417, head(f"Expect: {MARK}", "Content-Length: 5", line="POST / HTTP/1.1")),
    "431": (431, head(f"X-A: {MARK * 300}")),
    "431 without end": (431, b"GET / HTTP/1.1\r\nX-A: " + b"x" * 3000),
    "431 many fields": (431, head(*["X-A: 1"] * 500)),
    "501 coding": (501, head(f"Transfer-Encoding: {MARK}", line="POST / HTTP/1.1")),
    "501 codings": (501, head("Transfer-Encoding: gzip, chunked", line="POST / HTTP/1.1")),
    "501 CONNECT": (501, head(line="CONNECT test:80 HTTP/1.1")),
    "505": (505, head(line="GET / HTTP/2.0")),
    "505 preface": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "505 old": (505, head(line="GET / HTTP/0.9")),
}

REFUSED = [pytest.param(400, data, id=name) for name, data in MALFORMED.items()]
REFUSED += [pytest.param(status, data, id=name) for name, (status, data) in OTHERS.items()]


@pytest.mark.parametrize(("status", "data"), REFUSED)
def test_a_bad_request_is_refused_and_nothing_behind_it_is_parsed(server, recorder, status, data):
    client = server.connect()
    client.send(data + SMUGGLED)
    reply = client.reply()
    assert reply.status == status
    assert reply["Connection"] == "close"
    assert client.rest() == b""
    assert recorder.seen == []
    assert server.ask("/good").status == 200


@pytest.mark.parametrize(("status", "data"), REFUSED)
def test_a_refusal_is_short_and_echoes_nothing(server, status, data):
    client = server.connect()
    client.send(data)
    raw = client.rest()
    assert len(raw) < 400
    assert MARK.encode() not in raw
    assert len(raw.partition(b"\r\n\r\n")[2]) < 60


@pytest.mark.parametrize(("status", "data"), REFUSED)
def test_what_was_sent_before_a_bad_request_is_answered(server, recorder, status, data):
    client = server.connect()
    client.send(client.render("/1") + client.render("/2", method="POST", body=b"body") + data + SMUGGLED)
    assert [client.reply().body for _ in range(2)] == [b"ok", b"body"]
    assert client.reply().status == status
    assert client.rest() == b""
    assert recorder.seen == ["/1", "/2"]


@pytest.mark.parametrize("name", ["no Host", "bare LF in a field", "chunk size no hex", "trailer with bare LF"])
def test_a_request_is_refused_as_well_when_it_comes_byte_by_byte(server, recorder, name):
    client = server.connect()
    data = MALFORMED[name]
    for position in range(len(data)):
        client.send(data[position : position + 1])
    assert client.reply().status == 400
    assert recorder.seen == []


def test_a_refusal_is_logged_with_its_reason(server, log):
    server.connect().send(b"GET / HTTP/1.1\r\n\r\n")
    client = server.connect()
    client.send(head("Content-Length: 1001", line="POST / HTTP/1.1"))
    client.rest()
    assert any("413" in text and "1001" in text for text in log)


@pytest.mark.parametrize(
    ("trusted", "lines", "status"),
    [
        ("", (), 421),
        ("", ("X-Forwarded-Proto: https",), 421),
        ("127.0.0.1", (), 200),
        ("127.0.0.1", ("X-Forwarded-Proto: https",), 200),
    ],
)
def test_an_https_uri_over_a_plain_connection_is_misdirected(serve, recorder, trusted, lines, status):
    client = serve(recorder, forwarded_allow_ips=trusted).connect()
    client.send(head(*lines, line="GET HTTPS://test/there HTTP/1.1"))
    assert client.reply().status == status
    assert recorder.seen == (["/there"] if status == 200 else [])


def test_a_refused_head_gets_no_body(server):
    client = server.connect()
    client.send(head("Content-Length: 1001", line="HEAD / HTTP/1.1"))
    assert client.reply("HEAD").status == 413
    assert client.rest() == b""


@pytest.mark.parametrize("seed", range(10))
def test_whatever_octets_come_the_client_gets_replies_and_an_end(server, recorder, seed):
    chance = random.Random(seed)
    valid = [
        head("Cookie: a=1", "X-A: b"),
        head("Content-Length: 10", line="POST / HTTP/1.1") + b"0123456789",
        chunked(b"5\r\nhello\r\n3;a=b\r\nabc\r\n0\r\nX-A: 1\r\n\r\n"),
    ]
    for _ in range(30):
        data = bytearray(b"".join(chance.choices(valid, k=3)))
        for _ in range(chance.randrange(1, 4)):
            position = chance.randrange(len(data))
            data[position : position + chance.randrange(3)] = chance.choice(
                [b"", b"\r", b"\n", b"\0", b" ", b":", b"\xff"]
            )
        client = server.connect()
        client.send(bytes(data))
        client.half_close()
        raw = client.rest()
        client.close()
        assert raw == b"" or raw.startswith(b"HTTP/1.1 ")
        assert raw.count(b"Connection: close") <= 1
    assert server.ask().body == b"ok"


# Expect: 100-continue


@pytest.mark.parametrize("lines", [["Content-Length: 5"], ["Transfer-Encoding: chunked"]])
@pytest.mark.parametrize("expectation", ["100-continue", "100-Continue"])
def test_a_body_that_is_waited_for_is_asked_for(server, lines, expectation):
    client = server.connect()
    for _ in range(2):
        client.send(head(f"Expect: {expectation}", *lines, line="POST / HTTP/1.1"))
        reply = client.reply()
        assert (reply.status, reply.fields) == (100, [])
        client.send(b"hello" if "5" in lines[0] else b"5\r\nhello\r\n0\r\n\r\n")
        assert client.reply().body == b"hello"


@pytest.mark.parametrize("lines", [["Content-Length: 5"], ["Transfer-Encoding: chunked"]])
def test_a_body_that_is_here_already_is_not_asked_for(server, lines):
    client = server.connect()
    body = b"hello" if "5" in lines[0] else b"5\r\nhello\r\n0\r\n\r\n"
    client.send(head("Expect: 100-continue", *lines, line="POST / HTTP/1.1") + body)
    assert client.reply().status == 200


def test_a_body_that_will_be_refused_is_not_asked_for(server):
    client = server.connect()
    client.send(head("Expect: 100-continue", "Content-Length: 1001", line="POST / HTTP/1.1"))
    assert client.reply().status == 413
    assert client.rest() == b""


@pytest.mark.parametrize(
    ("lines", "version"),
    [([], "HTTP/1.1"), (["Content-Length: 0"], "HTTP/1.1"), (["Content-Length: 5"], "HTTP/1.0")],
    ids=["no body", "empty body", "HTTP/1.0"],
)
def test_an_expectation_without_meaning_is_ignored(server, lines, version):
    """RFC 9110 10.1.1."""
    client = server.connect()
    client.send(head("Expect: 100-continue", *lines, line=f"POST / {version}"))
    client.send(b"hello" if "Content-Length: 5" in lines else b"")
    assert client.reply().status == 200


def test_the_body_is_asked_for_before_the_application_is_called(serve):
    called = threading.Event()

    def app(environ, start_response):
        called.set()
        start_response("200 OK", [])
        return [environ["wsgi.input"].read()]

    client = serve(app).connect()
    client.send(head("Expect: 100-continue", "Content-Length: 5", line="POST / HTTP/1.1"))
    assert client.reply().status == 100
    client.send(b"hell")
    assert not called.is_set()
    client.send(b"o")
    assert client.reply().body == b"hello"
