"""TLS on the wire, with the real openssl and curl on the other side."""

import json
import os
import re
import socket
import ssl
import subprocess
import threading

import pytest

from minicorn.config.settings import Settings
from minicorn.errors import ConfigError
from minicorn.server import Server

BIG = os.urandom(3_000_000)


def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/big":
        body = BIG
    elif path == "/file":
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return environ["wsgi.file_wrapper"](open(environ["QUERY_STRING"], "rb"))
    elif path == "/stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return (BIG[start : start + 100_000] for start in range(0, len(BIG), 100_000))
    elif path == "/cut":
        start_response("200 OK", [])
        return interrupted()
    elif path == "/length":
        body = str(len(environ["wsgi.input"].read())).encode()
    else:
        body = json.dumps({k: v for k, v in environ.items() if isinstance(v, str)}).encode()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]


def interrupted():
    yield BIG[:1000]
    raise RuntimeError("a block that cannot be made")


@pytest.fixture
def server(serve, pair):
    return serve(app, **pair.settings)


class TlsClient:
    """A client by Python's ssl, for one connection; `version` at most."""

    def __init__(self, server, pair, version=ssl.TLSVersion.TLSv1_3, name="a.test", receive_buffer=0):
        context = ssl.create_default_context(cafile=pair.certificate)
        context.maximum_version = version
        client = server.connect(receive_buffer)  # which the server's end closes
        client.sock = self.sock = context.wrap_socket(client.sock, server_hostname=name, suppress_ragged_eofs=False)
        self.sock.settimeout(10)

    def ask(self, target="/", *lines, method="GET", body=b""):
        fields = "".join(f"{line}\r\n" for line in ("Host: a.test", f"Content-Length: {len(body)}", *lines))
        self.sock.sendall(f"{method} {target} HTTP/1.1\r\n{fields}\r\n".encode() + body)

    def reply(self):
        data = bytearray()
        while b"\r\n\r\n" not in data:
            data += self.receive()
        head, _, body = bytes(data).partition(b"\r\n\r\n")
        size = int(re.search(rb"Content-Length: (\d+)", head)[1])
        while len(body) < size:
            body += self.receive()
        return head, body

    def receive(self):
        data = self.sock.recv(65536)
        assert data, "the connection ended"
        return data


def curl(server, pair, *more, path="/"):
    command = ["curl", "-sS", "--cacert", pair.certificate, "--noproxy", "*", "--max-time", "20"]
    url = f"https://127.0.0.1:{server.address[1]}{path}"
    return subprocess.run([*command, *more, url], capture_output=True, check=False)


def s_client(server, *more, send=b"", wait=True):
    """What `openssl s_client` prints, having sent `send`; it waits for the server's end."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{server.address[1]}", *more]
    if wait:
        command.append("-ign_eof")
    ran = subprocess.run(command, input=send, capture_output=True, timeout=20, check=False)
    return (ran.stdout + ran.stderr).decode("latin-1")


REQUEST = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(("version", "flag"), [("TLSv1.2", "1.2"), ("TLSv1.3", "1.3")])
def test_curl_is_served_and_the_environ_says_how(server, pair, version, flag):
    ran = curl(server, pair, f"--tlsv{flag}", "--tls-max", flag, path="/path?query")
    environ = json.loads(ran.stdout)
    assert (environ["wsgi.url_scheme"], environ["HTTPS"], environ["SSL_PROTOCOL"]) == ("https", "on", version)
    assert environ["SSL_CIPHER"] and environ["SSL_CLIENT_VERIFY"] == "NONE"
    assert environ["PATH_INFO"] == "/path" and environ["REMOTE_ADDR"] == "127.0.0.1"


@pytest.mark.parametrize("flag", ["-tls1", "-tls1_1"])
def test_versions_before_are_refused_even_by_a_client_that_would(server, flag):
    said = s_client(server, flag, "-cipher", "DEFAULT:@SECLEVEL=0", send=REQUEST)
    assert "alert protocol version" in said and "HTTP/1.1 200" not in said


def test_the_least_version_can_be_raised(serve, pair):
    server = serve(app, ssl_version="1.3", **pair.settings)
    assert "alert protocol version" in s_client(server, "-tls1_2", send=REQUEST)
    assert "HTTP/1.1 200" in s_client(server, "-tls1_3", send=REQUEST)


def test_renegotiation_is_refused_and_the_connection_serves_on(server, pair):
    process = subprocess.Popen(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{server.address[1]}", "-tls1_2"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    said, _ = process.communicate(b"R\n", timeout=20)
    assert b"RENEGOTIATING" in said and b"no renegotiation" in said
    assert curl(server, pair).returncode == 0


def test_several_certificates_are_chosen_by_name(serve, pair, other_pair):
    server = serve(
        app,
        certfile=(pair.certificate, other_pair.certificate),
        keyfile=(pair.key, other_pair.key),
    )
    for asked, served in (("a.test", "a"), ("b.test", "b"), ("www.B.test", "b"), ("c.test", "a"), (None, "a")):
        flags = ("-servername", asked) if asked else ("-noservername",)
        said = s_client(server, *flags, send=REQUEST)
        assert re.search(r"subject=CN ?= ?([ab])\.test", said)[1] == served
        assert f'"SSL_TLS_SNI": "{(asked or "").lower()}"' in said


def test_close_notify_ends_a_reply(server):
    for version in ("-tls1_2", "-tls1_3"):
        said = s_client(server, version, "-msg", send=REQUEST)
        alerts = re.findall(r"(<<<|>>>) TLS.*Alert.*\n.*\n?.*", said)
        assert "HTTP/1.1 200" in said
        assert alerts[0] == "<<<", said  # the server's comes first


def test_a_reply_that_was_cut_ends_without_close_notify(server, pair):
    """Nothing else would tell it from a whole one: it has no length (RFC 9112 9.8)."""
    client = TlsClient(server, pair)
    client.sock.sendall(b"GET /cut HTTP/1.0\r\nHost: a.test\r\n\r\n")
    with pytest.raises((ssl.SSLEOFError, ConnectionResetError)):
        while client.receive():
            pass


def test_the_connection_says_the_scheme_whatever_an_absolute_target_says(server, pair):
    client = TlsClient(server, pair)
    for target in ("http://other.test/path", "https://other.test/path"):
        client.ask(target)
        environ = json.loads(client.reply()[1])
        assert (environ["wsgi.url_scheme"], environ["HTTP_HOST"]) == ("https", "other.test")


def test_tls_compresses_nothing(server):
    """RFC 9110 17.6: else its length would tell of secrets."""
    assert "Compression: NONE" in s_client(server, "-tls1_2", "-comp", send=REQUEST)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_keep_alive_pipelining_and_bodies_of_many_records(serve, pair, version):
    client = TlsClient(serve(app, max_body_size=5_000_000, **pair.settings), pair, version)
    client.ask("/length", method="POST", body=BIG)
    assert client.reply()[1] == str(len(BIG)).encode()
    for _ in range(3):
        client.ask()
        assert json.loads(client.reply()[1])["SSL_TLS_SNI"] == "a.test"
    head = b"GET /length HTTP/1.1\r\nHost: a.test\r\n\r\n"
    client.sock.sendall(head * 2)
    received = b""
    while received.count(b"HTTP/1.1 200") < 2:
        received += client.receive()


@pytest.mark.parametrize("path", ["/big", "/stream", "/file"])
def test_a_large_reply_reaches_a_slow_reader_whole(server, pair, tmp_path, path):
    (tmp_path / "file").write_bytes(BIG)
    client = TlsClient(server, pair, receive_buffer=4096)
    client.ask(f"{path}?{tmp_path / 'file'}", "Connection: close")
    received = bytearray()
    while data := client.sock.recv(3000):  # b"" is close_notify: a ragged end would raise
        received += data
    if path == "/stream":
        assert len(received) > len(BIG) and received.endswith(BIG[-1000:] + b"\r\n0\r\n\r\n")
    else:
        assert bytes(received).endswith(b"\r\n\r\n" + BIG)


def test_a_half_closed_client_has_its_reply(server, pair):
    said = s_client(server, "-tls1_3", send=REQUEST, wait=True)
    assert "HTTP/1.1 200" in said
    client = TlsClient(server, pair)
    client.ask("/big", "Connection: close")
    client.sock.setblocking(False)
    with pytest.raises((ssl.SSLWantReadError, ssl.SSLError)):
        client.sock.unwrap()  # our close_notify goes out, the reply is still to come
    socket.socket.shutdown(client.sock, socket.SHUT_WR)
    received, raw = 0, socket.socket(fileno=os.dup(client.sock.fileno()))
    raw.settimeout(10)
    while data := raw.recv(1 << 20):
        received += len(data)
    raw.close()
    assert received > len(BIG)


def test_who_vanishes_without_close_notify_costs_nothing(server, pair, open_descriptors, wait_until):
    before = open_descriptors()
    client = TlsClient(server, pair)
    client.ask()
    client.reply()
    socket.socket.shutdown(client.sock, socket.SHUT_RDWR)
    client.sock.close()
    wait_until(lambda: open_descriptors() == before)
    assert curl(server, pair).returncode == 0


@pytest.mark.parametrize("beginning", [b"", b"\x16\x03\x01", b"\x16\x03\x01\x02\x00" + bytes(100)])
def test_a_handshake_that_stops_has_the_heads_deadline(serve, pair, beginning):
    server = serve(app, recv_timeout=0.5, **pair.settings)
    client = server.connect()
    client.send(beginning)
    client.rest()
    assert curl(server, pair).returncode == 0


@pytest.mark.parametrize("nonsense", [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\x80" * 200, os.urandom(300)])
def test_what_is_no_handshake_is_ended(server, pair, log, nonsense):
    client = server.connect()
    client.send(nonsense)
    try:
        assert b"HTTP/1.1 200" not in client.rest()
    except ConnectionResetError:
        pass
    assert any("its TLS handshake failed" in line for line in log)
    assert curl(server, pair).returncode == 0


def test_who_leaves_before_or_in_its_handshake_is_not_worth_a_line(server, pair, log, wait_until):
    """Health checks by TCP alone come every second."""
    for number, said in enumerate((b"", b"\x16\x03\x01"), 1):
        client = server.connect()
        client.send(said)
        client.close()
        wait_until(lambda number=number: sum("has gone" in line for line in log) == number)
    assert not any("its TLS handshake failed" in line and "has gone" not in line for line in log)


def test_two_hundred_silent_connections_hinder_nobody(serve, pair, open_descriptors, wait_until):
    server = serve(app, recv_timeout=2.0, **pair.settings)
    before = open_descriptors()
    silent = [server.connect() for _ in range(200)]
    for client in silent[::2]:
        client.send(b"\x16\x03\x01")
    assert curl(server, pair).returncode == 0
    for client in silent:
        client.rest()
        client.close()
    wait_until(lambda: open_descriptors() == before)


def test_clients_certificates_are_described(serve, pair, client_pair):
    shown = ("--cert", client_pair.certificate, "--key", client_pair.key)
    server = serve(app, cert_reqs="optional", ca_certs=client_pair.certificate, **pair.settings)
    assert json.loads(curl(server, pair).stdout)["SSL_CLIENT_VERIFY"] == "NONE"
    environ = json.loads(curl(server, pair, *shown).stdout)
    assert environ["SSL_CLIENT_VERIFY"] == "SUCCESS"
    name = "Jörg".encode().decode("latin-1")
    assert environ["SSL_CLIENT_S_DN"] == f"CN={name},O=Shop\\, Inc,C=CH"
    assert (environ["SSL_CLIENT_S_DN_CN"], environ["SSL_CLIENT_I_DN_O"]) == (name, "Shop, Inc")
    assert environ["SSL_CLIENT_M_SERIAL"] and environ["SSL_CLIENT_V_END"].endswith("GMT")
    with open(client_pair.certificate) as file:
        assert environ["SSL_CLIENT_CERT"] == file.read()


def test_clients_without_a_certificate_are_kept_out_where_it_is_required(serve, pair, other_pair, client_pair):
    server = serve(app, cert_reqs="required", ca_certs=client_pair.certificate, **pair.settings)
    assert curl(server, pair).returncode != 0
    assert curl(server, pair, "--cert", other_pair.certificate, "--key", other_pair.key).returncode != 0
    ran = curl(server, pair, "--cert", client_pair.certificate, "--key", client_pair.key)
    assert json.loads(ran.stdout)["SSL_CLIENT_VERIFY"] == "SUCCESS"


def test_headers_never_pass_for_what_tls_says(server, pair):
    environ = json.loads(curl(server, pair, "-H", "SSL_CLIENT_VERIFY: SUCCESS", "-H", "SSL-CLIENT-S-DN: CN=me").stdout)
    assert environ["SSL_CLIENT_VERIFY"] == "NONE" and "SSL_CLIENT_S_DN" not in environ


def test_a_proxy_header_comes_before_the_handshake(serve, pair):
    server = serve(app, proxy_protocol="auto", **pair.settings)
    ran = curl(server, pair, "--haproxy-protocol")
    assert json.loads(ran.stdout)["REMOTE_ADDR"] == "127.0.0.1"
    assert curl(server, pair).returncode != 0
    client = server.connect()
    client.send(b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443\r\n")
    context = ssl.create_default_context(cafile=pair.certificate)
    with context.wrap_socket(client.sock, server_hostname="a.test") as sock:
        sock.sendall(REQUEST)
        received = b""
        while data := sock.recv(65536):
            received += data
    assert b'"REMOTE_ADDR": "203.0.113.7"' in received


def test_many_clients_at_once(server, pair):
    failures = []

    def run():
        client = TlsClient(server, pair)
        for _ in range(20):
            client.ask("/length", method="POST", body=b"x" * 20_000)
            if client.reply()[1] != b"20000":
                failures.append(client)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert not failures


def test_an_idle_connection_ends_with_close_notify(serve, pair):
    client = TlsClient(serve(app, keep_alive=0.5, **pair.settings), pair)
    client.ask()
    client.reply()
    assert client.sock.recv(1) == b""


def test_a_server_that_stops_ends_with_close_notify(serve, pair):
    server = serve(app, **pair.settings)
    client = TlsClient(server, pair)
    client.ask()
    client.reply()
    server.server.signal_exit()
    assert client.sock.recv(1) == b""
    server.join(10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"certfile": ("none.pem",), "keyfile": ()}, "--certfile none.pem, --keyfile none.pem: No such file"),
        ({"keyfile": ("{other}",)}, "the key is not the certificate's"),
        ({"keyfile": ("{certificate}",)}, "no certificate and key in PEM form"),
        ({"keyfile": ("a", "b")}, "1 --certfile and 2 --keyfile"),
        ({"certfile": ()}, "0 --certfile and 1 --keyfile"),
        ({"ciphers": "nonsense"}, "--ciphers 'nonsense'"),
        ({"cert_reqs": "required"}, "--cert-reqs needs --ca-certs"),
        ({"cert_reqs": "optional", "certfile": (), "keyfile": ()}, "--cert-reqs needs --certfile"),
        ({"ca_certs": "none.pem"}, "--ca-certs none.pem: No such file"),
        ({"ca_certs": "{key}"}, "no certificates in PEM form"),
    ],
)
def test_what_cannot_work_is_told_in_a_line(pair, other_pair, settings, message):
    names = {"certificate": pair.certificate, "key": pair.key, "other": other_pair.key}

    def fill(value):
        return tuple(text.format(**names) for text in value) if isinstance(value, tuple) else value.format(**names)

    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        Server(app, settings=Settings(**(pair.settings | {key: fill(value) for key, value in settings.items()})))
    assert "\n" not in str(caught.value)


def test_keys_that_openssl_refuses_are_told_in_a_line(pair, tmp_path):
    weak = str(tmp_path / "weak.pem")
    command = ["openssl", "req", "-x509", "-nodes", "-newkey", "rsa:512", "-keyout", weak, "-out", weak]
    subprocess.run([*command, "-subj", "/CN=weak"], check=True, capture_output=True)
    with pytest.raises(ConfigError, match="the key is not the certificate's"):  # but of another kind
        Server(app, settings=Settings(certfile=(pair.certificate,), keyfile=(weak,)))
    with pytest.raises(ConfigError, match="OpenSSL takes no such weak one"):
        Server(app, settings=Settings(certfile=(weak,), keyfile=(weak,)))


def test_an_encrypted_key_is_told_and_not_asked_for(pair, tmp_path):
    encrypted = tmp_path / "key"
    command = ["openssl", "ec", "-in", pair.key, "-out", encrypted, "-aes128", "-passout", "pass:secret"]
    subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(ConfigError, match="the key is encrypted"):
        Server(app, settings=Settings(certfile=(pair.certificate,), keyfile=(str(encrypted),)))
