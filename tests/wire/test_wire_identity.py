"""Who the client is, on the wire: believed from a trusted peer, dropped from any other, told once."""

import pytest

from minicorn.config.address import Unix
from minicorn.system import listeners

SAID = ("X-Forwarded-For: 6.6.6.6, 203.0.113.7", "X-Forwarded-Proto: https", "X-Real-IP: 203.0.113.7")


@pytest.fixture
def environs():
    return []


@pytest.fixture
def app(environs):
    def app(environ, start_response):
        environs.append(environ)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"ok"]

    return app


def names(environ):
    return {key for key in environ if "FORWARDED" in key or "REAL_IP" in key}


def test_a_trusted_peer_says_who_the_client_is(serve, app, environs, log):
    server = serve(app)
    assert server.ask("/", *SAID).status == 200
    environ = environs[0]
    assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"]) == ("203.0.113.7", "")
    assert environ["wsgi.url_scheme"] == "https"
    # As they came, for the application's own middleware
    assert environ["HTTP_X_FORWARDED_FOR"] == "6.6.6.6, 203.0.113.7"
    assert environ["HTTP_X_FORWARDED_PROTO"] == "https"
    assert environ["HTTP_X_REAL_IP"] == "203.0.113.7"
    assert not [line for line in log if "dropped" in line]


def test_the_next_request_on_the_connection_says_for_itself(serve, app, environs):
    client = serve(app).connect()
    client.ask("/", *SAID)
    client.ask("/", "X-Forwarded-For: 203.0.113.8")
    client.ask("/")
    assert [environ["REMOTE_ADDR"] for environ in environs] == ["203.0.113.7", "203.0.113.8", "127.0.0.1"]
    assert [environ["wsgi.url_scheme"] for environ in environs] == ["https", "http", "http"]


def test_from_anybody_else_they_are_dropped_and_told_once_a_name(serve, app, environs, log):
    server = serve(app, forwarded_allow_ips="10.0.0.0/8,unix")
    for _ in range(3):
        assert server.ask("/", *SAID, "Forwarded: for=203.0.113.7", "X-Forwarded-Host: evil").status == 200
    for environ in environs:
        assert not names(environ)
        assert (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"]) == ("127.0.0.1", "http")
        assert environ["HTTP_HOST"] == "test"
    told = sorted(line for line in log if "dropped" in line)
    assert [line.split()[1] for line in told] == [
        "Forwarded",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Real-IP",
    ]
    assert all("127.0.0.1, where it came from, is not in --forwarded-allow-ips" in line for line in told)


def test_names_with_an_underscore_are_dropped_from_everybody_and_told_once(serve, app, environs, log):
    server = serve(app)
    for _ in range(2):
        server.ask("/", "X_Forwarded_For: 6.6.6.6", "SCRIPT_NAME: /evil", "REMOTE_USER: root")
    assert not names(environs[0]) and environs[0]["REMOTE_ADDR"] == "127.0.0.1"
    assert environs[0]["SCRIPT_NAME"] == "" and "REMOTE_USER" not in environs[0]
    told = [line for line in log if "underscore" in line]
    assert len(told) == 3


def test_proxy_is_dropped_from_everybody_for_it_would_be_http_proxy(serve, app, environs, log):
    """CVE-2016-5385: whoever gives environ to a program would give it a proxy of the client's choice."""
    for trusted in ("", "127.0.0.1"):
        serve(app, forwarded_allow_ips=trusted).ask("/", "pRoxy: http://evil.example:3128", "Proxy-Connection: a")
        assert "HTTP_PROXY" not in environs[-1] and environs[-1]["HTTP_PROXY_CONNECTION"] == "a"
    assert len([line for line in log if "header pRoxy is dropped" in line and "HTTP_PROXY" in line]) == 2


def test_clients_cannot_fill_the_log_with_names(serve, app, log):
    server = serve(app, forwarded_allow_ips="")
    client = server.connect()
    for start in range(0, 300, 75):
        client.ask("/", *(f"X-Forwarded-{number}: a" for number in range(start, start + 75)))
    assert len([line for line in log if "dropped" in line]) == 100


def test_host_and_prefix_count_only_where_they_are_believed(serve, app, environs):
    said = ("X-Forwarded-Host: shop.example", "X-Forwarded-Prefix: /shop", "X-Forwarded-Port: 8443")
    serve(app).ask("/path", *said)
    assert (environs[0]["HTTP_HOST"], environs[0]["SCRIPT_NAME"]) == ("test", "")
    serve(app, forwarded_headers="x-forwarded-host,x-forwarded-prefix,x-forwarded-port").ask("/path", *said)
    assert environs[1]["HTTP_HOST"] == "shop.example:8443"
    assert (environs[1]["SCRIPT_NAME"], environs[1]["PATH_INFO"]) == ("/shop", "/path")
    assert environs[1]["SERVER_PORT"] == "8443"


@pytest.mark.parametrize("said", ["Forwarded: for=203.0.113.8", "Forwarded: for", "X-Forwarded-Proto: gopher"])
def test_contradictions_and_nonsense_are_refused_and_nothing_behind_them_is_read(serve, app, environs, log, said):
    server = serve(app, forwarded_headers="forwarded,x-forwarded-for,x-forwarded-proto")
    client = server.connect()
    client.send(client.render("/", "X-Forwarded-For: 203.0.113.7", said) + client.render("/second"))
    reply = client.reply()
    assert (reply.status, reply["Connection"]) == (400, "close")
    assert client.rest() == b"" and environs == []
    assert [line for line in log if "127.0.0.1: refused with 400" in line]
    assert server.ask("/").status == 200


def test_a_unix_socket_is_trusted_by_default_and_by_name(serve, app, environs, tmp_path):
    for number, trusted in enumerate(["127.0.0.1,::1,unix", "127.0.0.1"]):
        listener = listeners.bind(Unix(str(tmp_path / f"{number}.sock")))
        serve(app, bound=listener, forwarded_allow_ips=trusted).ask("/", *SAID)
    assert [environ["REMOTE_ADDR"] for environ in environs] == ["203.0.113.7", ""]


def test_many_lines_of_one_name_are_one_list(serve, app, environs):
    server = serve(app, limit_request_fields=0)
    server.ask("/", *(f"X-Forwarded-For: 127.0.0.{number % 250 + 1}" for number in range(1000)), "X-A: b")
    assert environs[0]["HTTP_X_FORWARDED_FOR"].count(",") == 999
