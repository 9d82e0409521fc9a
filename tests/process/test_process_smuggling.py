"""Hidden requests: sent direct and through a real nginx with keep-alive upstream, they never reach the application.

Each pair is a request that two parsers might end at different places, and what is hidden in
it. What has been refused or swallowed is gone; a later, honest request gets its own reply.
nginx is lenient in chunked bodies, and so takes some for two requests: then nothing is hidden
from it. So what counts there is that the application sees no request that nginx has not seen.
"""

import os
import shutil
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Server, Starter, wait_until

APP = """
def app(environ, start_response):
    path, body = environ["PATH_INFO"], environ["wsgi.input"].read()
    with open("seen", "a") as seen:
        seen.write(path + "\\\\n")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [path.encode("latin-1")]
""".replace("\\\\", "\\")
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n"


def post(*lines: str, body: bytes = b"", start: str = "POST /outer HTTP/1.1") -> bytes:
    return "".join(f"{line}\r\n" for line in (start, "Host: h", *lines, "")).encode("latin-1") + body


def both(*lines: str) -> bytes:
    """Hidden behind an empty chunked body, inside a body by length."""
    body = b"0\r\n\r\n" + HIDDEN
    return post(f"Content-Length: {len(body)}", *lines, body=body)


def short(*lines: str) -> bytes:
    """Hidden behind a body of one byte, inside a chunk."""
    inside = b"%x\r\n%b\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)
    return post("Content-Length: 4", *lines, body=inside)


def chunked(body: bytes) -> bytes:
    return post("Transfer-Encoding: chunked", body=body)


PAIRS = {
    "CL.TE": both("Transfer-Encoding: chunked"),
    "TE.CL": short("Transfer-Encoding: chunked"),
    "TE.TE other coding": both("Transfer-Encoding: chunked", "Transfer-Encoding: cow"),
    "TE space before the colon": both("Transfer-Encoding : chunked"),
    "TE tab before the value": both("Transfer-Encoding:\tchunked"),
    "TE vertical tab": both("Transfer-Encoding: \x0bchunked"),
    "TE quoted": both('Transfer-Encoding: "chunked"'),
    "TE xchunked": both("Transfer-Encoding: xchunked"),
    "TE in capitals": both("Transfer-Encoding: CHUNKED"),
    "TE with a comma": both("Transfer-Encoding: ,chunked"),
    "TE identity": both("Transfer-Encoding: identity, chunked"),
    "TE folded": both("Transfer-Encoding:", " chunked"),
    "TE behind a bare LF": both("X: y\nTransfer-Encoding: chunked"),
    "TE behind a bare CR": both("X: y\rTransfer-Encoding: chunked"),
    "TE behind a NUL": both("X: y\0Transfer-Encoding: chunked"),
    "TE underscore": both("Transfer_Encoding: chunked"),
    "CL underscore": post("Content_Length: 0", f"Content-Length: {len(HIDDEN)}", body=HIDDEN),
    "CL twice": post("Content-Length: 0", f"Content-Length: {len(HIDDEN)}", body=HIDDEN),
    "CL list": post(f"Content-Length: 0, {len(HIDDEN)}", body=HIDDEN),
    "CL plus": post(f"Content-Length: +{len(HIDDEN)}", body=HIDDEN),
    "CL hexadecimal": post("Content-Length: 0x0", body=HIDDEN),
    "CL no-break space": post("Content-Length: \xa00", body=HIDDEN),
    "CL space before the colon": post(f"Content-Length : {len(HIDDEN)}", body=HIDDEN),
    "CL in a GET": post(f"Content-Length: {len(HIDDEN)}", body=HIDDEN, start="GET /outer HTTP/1.1"),
    "HTTP/1.0 chunked": both("Transfer-Encoding: chunked").replace(b"HTTP/1.1", b"HTTP/1.0", 1),
    "chunk size with a space": chunked(b"5 \r\nhello\r\n0\r\n\r\n" + HIDDEN),
    "chunk size wraps": chunked(b"10000000000000000\r\n0\r\n\r\n" + HIDDEN),
    "chunk extension with bare LF": chunked(b"5;a\nhello\r\n0\r\n\r\n" + HIDDEN),
    "chunk longer than its size": chunked(b"5\r\nhelloX\r\n0\r\n\r\n" + HIDDEN),
    "chunk ended by LF": chunked(b"5\r\nhello\n0\r\n\r\n" + HIDDEN),
    "trailer with bare LF": chunked(b"0\r\nX: y\n\r\n" + HIDDEN),
    "trailer without colon": chunked(b"0\r\nGET /hidden HTTP/1.1\r\nHost: h\r\n\r\n"),
    "trailer that frames": chunked(b"%x\r\n%b\r\n0\r\nContent-Length: 4\r\n\r\n" % (len(HIDDEN), HIDDEN)),
    "target with a line end": post(start="GET /outer\r\nHost: h\r\n\r\nGET /hidden HTTP/1.1"),
    "bad Expect": post("Expect: x", f"Content-Length: {len(HIDDEN)}", body=HIDDEN),
    "body refused by its size": post("Content-Length: 99999999", body=HIDDEN),
    "upgrade": post("Connection: upgrade", "Upgrade: h2c", f"Content-Length: {len(HIDDEN)}", body=HIDDEN),
}

NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr warn;
events {{ worker_connections 64; }}
http {{
    log_format target '$request_uri'; access_log {folder}/log target;
    keepalive_timeout 300ms; client_header_timeout 1s; client_body_timeout 1s;
    client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    upstream app {{ server 127.0.0.1:{port}; keepalive 4; }}
    server {{
        listen unix:{folder}/front;
        client_max_body_size 0; ignore_invalid_headers off; underscores_in_headers on;
        location / {{
            proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_request_buffering {buffering};
        }}
    }}
}}
"""


@pytest.fixture(scope="module")
def server(start_for_module: Starter) -> Server:
    start_for_module.write("echo.py", APP)
    return start_for_module("echo:app", "--recv-timeout", "2")


@pytest.fixture(scope="module", params=["on", "off"])
def front(request: pytest.FixtureRequest, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of an nginx before the server, which buffers requests or streams them."""
    nginx = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
    if nginx is None:
        pytest.skip("nginx is not installed")
    folder = tmp_path_factory.mktemp("nginx")
    (folder / "conf").write_text(NGINX.format(folder=folder, port=server.port, buffering=request.param))
    command = [nginx, "-p", str(folder), "-e", "stderr", "-c", str(folder / "conf"), "-g", "user root;"]
    process = subprocess.Popen(command[: None if os.geteuid() == 0 else -2], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: listens(folder / "front"), "nginx listens")
        yield folder / "front"
    finally:
        process.terminate()
        process.wait()


def listens(path: Path) -> bool:
    """A socket's file is there a moment earlier."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def talk(client: socket.socket, data: bytes, ends: bool = True) -> bytes:
    """Send all, and read until the other side closes. `ends`: say so, which nginx takes for having gone."""
    with client:
        client.settimeout(10)
        raw = b""
        try:
            client.sendall(data)
            if ends:
                client.shutdown(socket.SHUT_WR)
            while block := client.recv(65536):
                raw += block
        except ConnectionError:
            pass  # refused while we were sending
        return raw


def over_tcp(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port))


def over(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(path))
    return client


def lines(path: Path) -> Counter[str]:
    return Counter(path.read_text().splitlines() if path.exists() else [])


def seen(server: Server) -> Counter[str]:
    """The paths that the application was asked for."""
    return lines(Path(f"/proc/{server.pid}/cwd/seen"))


@pytest.mark.parametrize("name", PAIRS)
def test_a_hidden_request_sent_direct_never_arrives(server: Server, name: str) -> None:
    before = seen(server)
    raw = talk(over_tcp(server), PAIRS[name])
    assert b"/hidden" not in raw
    assert raw.count(b"HTTP/1.1 ") <= 1
    assert talk(over_tcp(server), post(start="GET /after HTTP/1.1")).endswith(b"/after")
    assert set(seen(server) - before) <= {"/outer", "/after"}


@pytest.mark.parametrize("name", PAIRS)
def test_a_hidden_request_sent_through_nginx_never_arrives(server: Server, front: Path, name: str) -> None:
    log = front.with_name("log")
    before, before_log = seen(server), lines(log)
    talk(over(front), PAIRS[name], ends=False)
    for number in range(3):  # over connections that nginx has kept, each reply is its own
        path = f"/after/{name.replace(' ', '-')}/{number}"
        raw = talk(over(front), post("Connection: close", start=f"GET {path} HTTP/1.1"), ends=False)
        assert path.encode() in raw and b"200 OK" in raw
    # It writes its log when a reply has gone
    wait_until(lambda: seen(server) - before <= lines(log) - before_log, "the application saw what nginx did not")


def test_an_open_second_request_does_arrive(server: Server, front: Path) -> None:
    """Without this, a server that answers nothing would pass."""
    for client, ends in ((over_tcp(server), True), (over(front), False)):
        raw = talk(client, post("Content-Length: 2", body=b"ab") + post(start="GET /open HTTP/1.1"), ends)
        assert b"/outer" in raw and b"/open" in raw
