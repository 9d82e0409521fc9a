"""What a message means is the application's: its method, fields and content pass as they came, and so
do the status and fields of its reply (RFC 9110 8 to 15). Each line asks for what a server might
be tempted to do itself."""

import gzip
import re

import pytest

GZIP = gzip.compress(b"hello")
DATES = ["Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994", "Sun, 06 Nov 1994 08:49:37 GMT"]

# By section of RFC 9110: method, fields and content of a request; status and fields of its reply
PASSING = {
    "7.6": ("OPTIONS", ["Via: 1.0 fred, 1.1 p.example", "Max-Forwards: 0"], b"", "200 OK", ["Via: 1.1 shop"]),
    "8.3": ("POST", ['Content-Type: Text/HTML;Charset="utf-8"'], b"a\nb\rc\r\n", "200 OK", ["Content-Type: x/y; z=1"]),
    "8.4": ("POST", ["Content-Encoding: gzip"], GZIP, "200 OK", ["Content-Encoding: gzip"]),
    "8.5": ("POST", ["Content-Language: mi, en"], b"x", "200 OK", ["Content-Language: da"]),
    "8.7": ("POST", ["Content-Location: /elsewhere"], b"x", "200 OK", ["Content-Location: /here"]),
    "8.8": ("GET", [], b"", "200 OK", ['ETag: W/"a"', f"Last-Modified: {DATES[2]}"]),
    "9.2": ("delete", [], b"", "200 OK", []),
    "9.3.1": ("GET", ["Content-Type: text/plain"], b"content of a GET", "200 OK", []),
    "9.3.3": ("POST", [], b"x", "201 Created", ["Location: /new"]),
    "9.3.4": ("PUT", ["Content-Type: text/plain"], b"x", "201 Created", ['ETag: "a"']),
    "9.3.5": ("DELETE", [], b"content of a DELETE", "202 Accepted", []),
    "9.3.7": ("OPTIONS", [], b"", "200 OK", ["Allow: GET, HEAD"]),
    "9.3.8": ("TRACE", ["Max-Forwards: 0", "Cookie: secret=1"], b"", "405 Method Not Allowed", ["Allow: GET"]),
    "10.1.2": ("GET", ["From: a@b.example"], b"", "200 OK", []),
    "10.1.3": ("GET", ["Referer: http://user:word@elsewhere.example/?q#f"], b"", "200 OK", []),
    "10.1.4": ("GET", ["Connection: TE", "TE: trailers, gzip;q=0.5"], b"", "200 OK", []),
    "10.1.5": ("GET", ["User-Agent: a/1 (b; c)"], b"", "200 OK", []),
    "10.2.1": ("PUT", [], b"x", "405 Method Not Allowed", ["Allow: GET, HEAD"]),
    "10.2.2": ("GET", [], b"", "302 Found", ["Location: ../a?b#c"]),
    "10.2.3": ("GET", [], b"", "503 Service Unavailable", ["Retry-After: 120"]),
    "11.6": ("GET", ["Authorization: Basic YTpi"], b"", "401 No", ["WWW-Authenticate: A b=c", "WWW-Authenticate: D"]),
    "11.7": ("GET", ["Proxy-Authorization: Basic YTpi"], b"", "407 No", ["Proxy-Authenticate: A"]),
    "12.5": ("GET", ["Accept: a/b;q=0", "Accept-Encoding: gzip", "Accept-Language: da"], b"", "200 OK", ["Vary: *"]),
    "13.1.1": ("PUT", ['If-Match: "other"'], b"x", "200 OK", ['ETag: "a"']),
    "13.1.2": ("GET", ['If-None-Match: *, "a"'], b"", "200 OK", ['ETag: "a"']),
    "13.1.3": ("GET", [f"If-Modified-Since: {DATES[0]}"], b"", "200 OK", [f"Last-Modified: {DATES[2]}"]),
    "13.1.4": ("PUT", [f"If-Unmodified-Since: {DATES[1]}"], b"x", "412 Precondition Failed", []),
    "13.1.5": ("GET", ['If-Range: "a"', "Range: bytes=0-1"], b"", "200 OK", ['ETag: "a"']),
    "13.2": ("OPTIONS", ["If-Match: *", "If-None-Match: *"], b"", "200 OK", []),
    "14.2": ("GET", ["Range: bytes=0-0,1-1,2-2,-1"], b"", "200 OK", ["Accept-Ranges: bytes"]),
    "14.4": ("GET", ["Range: bytes=1-2"], b"", "206 Partial Content", ["Content-Range: bytes 1-4/9"]),
    "14.5": ("PUT", ["Content-Range: bytes 1-1/9"], b"x", "400 Bad Request", []),
    "14.6": ("GET", ["Range: bytes=0-0,2-2"], b"", "206 Part", ["Content-Type: multipart/byteranges; boundary=b"]),
    "15.4": ("GET", [], b"", "308 Permanent Redirect", ["Location: //other.example/"]),
    "15.5": ("GET", [], b"", "404 Not Found", []),
    "15.5.17": ("GET", ["Range: bytes=99-"], b"", "416 Range Not Satisfiable", ["Content-Range: bytes */9"]),
    "16.3": ("GET", ["X-New.Field!: a"], b"", "299 New", ["X-New.Field!: b"]),
}  # fmt: skip
OURS = {"date", "server", "content-length"}


def pairs(lines):
    return [tuple(line.split(": ", 1)) for line in lines]


def key(name):
    name = name.upper().replace("-", "_")
    return name if name == "CONTENT_TYPE" else f"HTTP_{name}"


@pytest.mark.parametrize("section", PASSING)
def test_what_a_message_means_is_the_applications(serve, section):
    method, lines, content, status, fields = PASSING[section]
    seen = {}

    def app(environ, start_response):
        seen.update(environ, content=environ["wsgi.input"].read())
        start_response(status, pairs(fields))
        return [b"<body>"]

    client = serve(app).connect()
    for _ in range(2):  # and the connection goes on
        reply = client.ask("/a", *lines, method=method, body=content or None)
        assert f"{reply.status} {reply.reason}" == status and reply.body == b"<body>"
        assert [field for field in reply.fields if field[0].lower() not in OURS] == pairs(fields)
        assert (seen["REQUEST_METHOD"], seen["content"]) == (method, content)
        assert {name: seen[key(name)] for name, _ in pairs(lines)} == dict(pairs(lines))


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
@pytest.mark.parametrize("protocol", ["websocket", "h2c", "TLS/1.0, HTTP/2.0"])
def test_an_offer_to_upgrade_is_passed_on_and_not_taken_up(serve, version, protocol):
    def app(environ, start_response):
        start_response("200 OK", [])
        return [environ["HTTP_UPGRADE"].encode()]

    client = serve(app).connect()
    lines = ["Connection: upgrade, keep-alive, HTTP2-Settings", f"Upgrade: {protocol}", "HTTP2-Settings: AAMAAABkAAQ"]
    for _ in range(2):
        reply = client.ask("/", *lines, version=version)
        assert (reply.status, reply.body) == (200, protocol.encode())
        assert "Upgrade" not in reply and not re.search("upgrade", ", ".join(reply.all("Connection")))
