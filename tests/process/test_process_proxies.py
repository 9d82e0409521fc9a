"""Behind a real nginx: the application sees who the client is, and what a client writes itself never counts."""

import http.client
import json
import ssl
from pathlib import Path

import psutil
import pytest
from harness import Starter, free_port
from nginx import nginx

# nginx comes from 127.0.0.1, which is trusted; the client from another address, which is not
CLIENT = ("127.0.0.9", 0)

SPOOFED = {
    "X-Forwarded-For": "127.0.0.1",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Port": "666",
    "X-Forwarded-Prefix": "/evil",
    "Forwarded": "for=6.6.6.6;proto=https;host=evil.example",
    "X_Forwarded_For": "6.6.6.6",
    "Host": "shop.example",
}

HTTP = """
upstream minicorn {{ server 127.0.0.1:{port}; keepalive 4; }}
server {{
    listen 127.0.0.1:{plain} {more}; listen 127.0.0.1:{secure} ssl {more};
    ssl_certificate {pair.certificate}; ssl_certificate_key {pair.key}; underscores_in_headers on;
    location / {{
        proxy_pass http://minicorn; proxy_http_version 1.1; proxy_set_header Connection "";
        proxy_set_header Host $host; proxy_set_header X-Forwarded-Proto $scheme;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }}
}}
"""


def ask(port: int, headers: dict[str, str] | None = None, tls: object = None, times: int = 1) -> list[dict[str, str]]:
    """The environs of so many requests on one connection."""
    if tls is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=15, source_address=CLIENT)
    else:
        context = ssl.create_default_context(cafile=tls.certificate)
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=15, source_address=CLIENT, context=context)
    environs = []
    for _ in range(times):
        connection.request("GET", "/path", headers=headers or {})
        reply = connection.getresponse()
        assert reply.status == 200
        environs.append(json.loads(reply.read()))
    connection.close()
    return environs


@pytest.mark.parametrize("spoofed", [{}, SPOOFED], ids=["honest", "spoofed"])
def test_behind_nginx_address_and_scheme_are_the_clients(start: Starter, pair, tmp_path: Path, spoofed) -> None:
    server = start("who:app", "--workers", "2")
    plain, secure = free_port(), free_port()
    with nginx(
        tmp_path / "n", plain, HTTP.format(port=server.port, plain=plain, secure=secure, pair=pair, more="")
    ) as it:
        for port, tls, scheme in ((plain, None, "http"), (secure, pair, "https")):
            for environ in ask(port, spoofed, tls, times=5):
                assert (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"]) == ("127.0.0.9", scheme)
                assert environ["SCRIPT_NAME"] == "" and "666" not in environ["HTTP_HOST"]
                assert environ["HTTP_HOST"] == spoofed.get("Host", "127.0.0.1")
        upstream = [each for each in psutil.Process(it.pid).net_connections() if each.raddr]
        assert len([each for each in upstream if each.raddr.port == server.port]) <= 4, "it keeps them alive"


def test_a_client_that_comes_by_itself_is_not_believed(start: Starter) -> None:
    server = start("who:app")
    (environ,) = ask(server.port, SPOOFED)
    assert (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"]) == ("127.0.0.9", "http")
    assert environ["HTTP_HOST"] == "shop.example" and not [key for key in environ if "FORWARDED" in key]
    for name in ("X-Forwarded-For", "X-Forwarded-Proto", "Forwarded"):
        server.wait_log(rf"header {name} is dropped: 127\.0\.0\.9, where it came from, is not in")


def test_behind_nginx_by_the_proxy_protocol(start: Starter, tmp_path: Path) -> None:
    server = start("who:app", "--proxy-protocol")
    port = free_port()
    stream = f"server {{ listen 127.0.0.1:{port}; proxy_pass 127.0.0.1:{server.port}; proxy_protocol on; }}"
    with nginx(tmp_path / "n", port, stream=stream):
        for headers in ({}, SPOOFED):
            for environ in ask(port, headers, times=3):
                assert (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"]) == ("127.0.0.9", "http")
                assert int(environ["REMOTE_PORT"]) > 0


def test_tls_through_an_nginx_that_sends_the_proxy_protocol(start: Starter, pair, tmp_path: Path) -> None:
    server = start("who:app", "--proxy-protocol", *pair.flags)
    port = free_port()
    stream = f"server {{ listen 127.0.0.1:{port}; proxy_pass 127.0.0.1:{server.port}; proxy_protocol on; }}"
    with nginx(tmp_path / "n", port, stream=stream):
        (environ,) = ask(port, SPOOFED, pair)
        assert (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"]) == ("127.0.0.9", "https")


def test_the_proxy_protocol_into_nginx_and_headers_out_of_it(start: Starter, pair, tmp_path: Path) -> None:
    server = start("who:app")
    front, plain, secure = free_port(), free_port(), free_port()
    more = "proxy_protocol"
    blocks = "set_real_ip_from 127.0.0.1; real_ip_header proxy_protocol;"
    blocks += HTTP.format(port=server.port, plain=plain, secure=secure, pair=pair, more=more)
    stream = f"server {{ listen 127.0.0.1:{front}; proxy_pass 127.0.0.1:{secure}; proxy_protocol on; }}"
    with nginx(tmp_path / "n", front, blocks, stream):
        for environ in ask(front, SPOOFED, pair, times=2):
            assert (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"]) == ("127.0.0.9", "https")


def test_what_the_proxy_protocol_said_stays_when_a_worker_is_replaced(start: Starter, tmp_path: Path) -> None:
    server = start("who:app", "--proxy-protocol")
    port = free_port()
    stream = f"server {{ listen 127.0.0.1:{port}; proxy_pass 127.0.0.1:{server.port}; proxy_protocol on; }}"
    with nginx(tmp_path / "n", port, stream=stream):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=15, source_address=CLIENT)
        environs = []
        for roll in (1, 2, 0):
            connection.request("GET", "/")
            environs.append(json.loads(connection.getresponse().read()))
            if roll:
                server.hup(roll)
        connection.close()
    assert {environ["REMOTE_ADDR"] for environ in environs} == {"127.0.0.9"}
    assert len({environ["pid"] for environ in environs}) == 3
    assert len({environ["REMOTE_PORT"] for environ in environs}) == 1
