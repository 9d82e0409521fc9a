"""The PROXY protocol on the wire: from listed peers, once, before byte one."""

import socket
import struct

import pytest

from minicorn.serving.handoff import Parcel

V1 = b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443\r\n"
SECURE = b"\x20\x00\x05\x01\0\0\0\0"
V2_HEAD = b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack("!H", 12 + len(SECURE))
V2 = V2_HEAD + bytes([203, 0, 113, 7, 10, 0, 0, 1]) + struct.pack("!HH", 4711, 443) + SECURE


def who(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    keys = ("REMOTE_ADDR", "REMOTE_PORT", "wsgi.url_scheme")
    return [" ".join(environ[key] for key in keys).encode()]


@pytest.fixture
def server(serve):
    return serve(who, proxy_protocol="auto")


@pytest.mark.parametrize(("header", "scheme"), [(V1, b"http"), (V2, b"https")], ids=["v1", "v2"])
def test_the_header_names_the_client_of_all_requests_behind_it(server, header, scheme):
    client = server.connect()
    client.send(header + client.render("/") + client.render("/"))
    for _ in range(2):
        assert client.reply().body == b"203.0.113.7 4711 " + scheme
    assert client.ask("/").body == b"203.0.113.7 4711 " + scheme


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
def test_a_header_byte_by_byte(server, header):
    client = server.connect()
    for byte in header + client.render("/"):
        client.send(bytes([byte]))
    assert client.reply().body.startswith(b"203.0.113.7 4711 ")


def test_a_header_without_addresses_leaves_the_peer(server):
    client = server.connect()
    client.send(b"PROXY UNKNOWN\r\n")
    assert client.ask("/").body == b"127.0.0.1 %d http" % client.port


def test_a_listed_peer_must_send_it(server, log):
    client = server.connect()
    client.send(client.render("/"))
    assert client.reply().status == 400
    assert client.rest() == b""
    assert any("no PROXY header, which --proxy-protocol asks" in line for line in log)


def test_it_is_read_once(server):
    client = server.connect()
    client.send(V1 + V1 + client.render("/"))
    assert client.reply().status == 400
    client = server.connect()
    client.send(V1 + client.render("/"))
    assert client.reply().status == 200
    client.send(V1.replace(b".7 ", b".8 ") + client.render("/"))
    assert client.reply().status == 400


@pytest.mark.parametrize("settings", [{"proxy_allow_from": "10.0.0.1"}, {"proxy_protocol": "off"}])
def test_from_nobody_else_is_it_heard(serve, settings):
    server = serve(who, **({"proxy_protocol": "auto"} | settings))
    for header in (V1, V2):
        client = server.connect()
        client.send(header + client.render("/"))
        assert client.reply().status == 400
    assert server.ask("/").body.startswith(b"127.0.0.1 ")


def test_who_has_connected_to_the_proxy_is_who_speaks_in_headers(serve):
    """A proxy of TCP passes what its client writes: that its own address is trusted says nothing of it."""
    server = serve(who, proxy_protocol="auto", forwarded_allow_ips="127.0.0.1,10.0.0.1")
    for source, seen in ((b"203.0.113.7", b"203.0.113.7 "), (b"10.0.0.1", b"6.6.6.6 ")):
        client = server.connect()
        client.send(V1.replace(b"203.0.113.7", source))
        assert client.ask("/", "X-Forwarded-For: 6.6.6.6").body.startswith(seen)


def test_who_is_silent_in_it_has_no_longer_than_in_a_head(serve):
    server = serve(who, proxy_protocol="auto", recv_timeout=0.5)
    clients = [server.connect() for _ in range(3)]
    for client, beginning in zip(clients, (b"", V1[:9], V2[:14]), strict=True):
        client.send(beginning)
    assert [client.rest() for client in clients] == [b"", b"", b""]


def test_who_leaves_in_it_is_forgotten(server, open_descriptors, wait_until):
    before = open_descriptors()
    for beginning in (b"", V1[:9], V2[:14]):
        client = server.connect()
        client.send(beginning)
        client.close()
    wait_until(lambda: open_descriptors() == before)
    assert server.connect().sock.fileno() >= 0


def test_what_it_said_travels_with_the_connection():
    for secure in (False, True):
        parcel = Parcel(1, 2, 3.0, 4.0, "203.0.113.7", "4711", b"GET", secure)
        assert Parcel.unpack(parcel.pack()) == parcel


def test_a_connection_that_is_taken_over_is_secure_still(serve):
    from minicorn.config.address import Tcp
    from minicorn.config.settings import Settings
    from minicorn.serving.reception import Reception
    from minicorn.system.listeners import bind

    listener = bind(Tcp("127.0.0.1", 0))
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    settings = Settings(proxy_protocol="auto")
    reception = Reception(settings)
    reception.expect(listener, {})
    parcel = Parcel(0, 0, 5.0, 0.0, "203.0.113.7", "4711", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", True)
    connection = reception.take_over(ours, parcel, listener, 0.0)
    assert connection.resume(parcel, 0.0)
    again = connection.parcel()
    assert again is not None and again.secure and again.peer == "203.0.113.7"
    assert connection.take_up().meta["wsgi.url_scheme"] == "https"
    connection.close()
    theirs.close()
    listener.close()
