"""environ: every key of PEP 3333 and of the contract, by TCP, IPv6 and a Unix socket."""

import os
import socket
import stat
import sys
import threading

import pytest

from minicorn.config.address import Unix
from minicorn.figures.heartbeat import private_page
from minicorn.logs.output import Output
from minicorn.system import listeners


class Recorder:
    """An application that keeps every environ it is given."""

    def __init__(self):
        self.environs = []

    def __call__(self, environ, start_response):
        self.environs.append(dict(environ))
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"ok"]

    @property
    def last(self):
        return self.environs[-1]


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def server(serve, recorder):
    return serve(recorder)


def test_the_keys_of_a_plain_request(server, recorder):
    client = server.connect()
    client.ask("/some/path?some=query", "Accept: text/html", "X-Custom-Name: value")
    environ = recorder.last
    assert {key: value for key, value in environ.items() if "." not in key} == {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/some/path",
        "QUERY_STRING": "some=query",
        "RAW_URI": "/some/path?some=query",
        "REQUEST_URI": "/some/path?some=query",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": str(server.server.port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": environ["SERVER_SOFTWARE"],
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": str(client.port),
        "HTTP_HOST": "test",
        "HTTP_ACCEPT": "text/html",
        "HTTP_X_CUSTOM_NAME": "value",
    }
    assert environ["SERVER_SOFTWARE"].startswith("minicorn")


def test_the_keys_of_wsgi(server, recorder):
    server.ask()
    environ = recorder.last
    assert environ["wsgi.version"] == (1, 0)
    assert environ["wsgi.url_scheme"] == "http"
    assert environ["wsgi.errors"] is sys.stderr
    assert environ["wsgi.multithread"] is False
    assert environ["wsgi.multiprocess"] is False
    assert environ["wsgi.run_once"] is False
    assert environ["wsgi.input_terminated"] is True
    assert callable(environ["wsgi.file_wrapper"])
    assert hasattr(environ["wsgi.input"], "read")


def test_multiprocess_is_true_when_there_are_several_workers(serve, recorder):
    serve(recorder, workers=2).ask()
    assert recorder.last["wsgi.multiprocess"] is True


def test_environ_is_a_plain_dict_with_plain_str_values(serve):
    kinds = []

    def app(environ, start_response):
        kinds.append(type(environ))
        kinds.extend(type(value) for key, value in environ.items() if "." not in key)
        start_response("200 OK", [])
        return [b""]

    assert serve(app).ask("/?a", "Cookie: a", body=b"body").status == 200
    assert kinds[0] is dict
    assert set(kinds[1:]) == {str}


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", ""),
        ("/?", "/", ""),
        ("/a%20b", "/a b", ""),
        ("/caf%C3%A9", "/café".encode().decode("latin-1"), ""),
        ("/a%2Fb%3Fc", "/a/b?c", ""),
        ("/%ff%00", "/\xff\0", ""),
        ("/100%", "/100%", ""),
        ("/%zz", "/%zz", ""),
        ("/a+b", "/a+b", ""),
        ("//double//slash", "//double//slash", ""),
        ("/a/../b/./c", "/a/../b/./c", ""),
        ("/;p=1", "/;p=1", ""),
        ("/?a=%20b&c=%C3%A9", "/", "a=%20b&c=%C3%A9"),
        ("/?a?b/c", "/", "a?b/c"),
    ],
)
def test_the_path_is_percent_decoded_and_the_query_is_not(server, recorder, target, path, query):
    assert server.ask(target).status == 200
    environ = recorder.last
    assert (environ["PATH_INFO"], environ["QUERY_STRING"]) == (path, query)
    assert environ["RAW_URI"] == environ["REQUEST_URI"] == target


def test_an_absolute_target_names_the_host(server, recorder):
    """RFC 9112 3.2.2."""
    server.ask("http://example.org:81/path?query")
    environ = recorder.last
    assert (environ["HTTP_HOST"], environ["PATH_INFO"], environ["QUERY_STRING"]) == ("example.org:81", "/path", "query")
    assert environ["RAW_URI"] == "http://example.org:81/path?query"


def test_options_of_the_whole_server_has_no_path(server, recorder):
    server.ask("*", method="OPTIONS")
    assert (recorder.last["PATH_INFO"], recorder.last["RAW_URI"]) == ("", "*")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["X-A: 1", "X-A: 2"], {"HTTP_X_A": "1, 2"}),
        (["x-a: 1", "X-A: 2"], {"HTTP_X_A": "1, 2"}),
        (["Cookie: a=1", "Cookie: b=2"], {"HTTP_COOKIE": "a=1; b=2"}),
        (["X-A:   padded \t "], {"HTTP_X_A": "padded"}),
        (["X-A:"], {"HTTP_X_A": ""}),
        (["X-A: K\xe4se"], {"HTTP_X_A": "K\xe4se"}),
        (["X-A: \xa0kept\x85"], {"HTTP_X_A": "\xa0kept\x85"}),
        (["Content-Type: text/html"], {"CONTENT_TYPE": "text/html", "HTTP_CONTENT_TYPE": None}),
        (["X_A: 1"], {"HTTP_X_A": None}),
        (["X-A: 1", "X_A: 2"], {"HTTP_X_A": "1"}),
        (["Content_Length: 5"], {"CONTENT_LENGTH": None, "HTTP_CONTENT_LENGTH": None}),
        (["Proxy: http://evil"], {"HTTP_PROXY": None, "PROXY": None}),
        (["Script-Name: /x", "Remote-User: root"], {"SCRIPT_NAME": "", "REMOTE_USER": None}),
    ],
    ids=str,
)
def test_fields_become_their_cgi_names(server, recorder, lines, expected):
    assert server.ask("/", *lines).status == 200
    assert {key: recorder.last.get(key) for key in expected} == expected


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
def test_the_protocol_is_the_request_s(server, recorder, version):
    server.ask(version=version)
    assert recorder.last["SERVER_PROTOCOL"] == version


def test_http_1_0_needs_no_host(server, recorder):
    client = server.connect()
    client.send(b"GET / HTTP/1.0\r\n\r\n")
    assert client.reply().status == 200
    assert "HTTP_HOST" not in recorder.last


# Bodies


def test_a_body_of_known_length_has_it(server, recorder):
    server.ask(method="POST", body=b"12345")
    assert recorder.last["CONTENT_LENGTH"] == "5"
    assert "HTTP_CONTENT_LENGTH" not in recorder.last


def test_a_request_without_a_body_has_no_content_length(server, recorder):
    server.ask()
    assert "CONTENT_LENGTH" not in recorder.last


@pytest.mark.parametrize(
    ("body", "length"),
    [
        (b"0\r\n\r\n", "0"),
        (b"5\r\n12345\r\n0\r\n\r\n", "5"),
        (b"A;ext=1\r\n0123456789\r\n00001\r\nx\r\n000\r\nTrailer: 1\r\n\r\n", "11"),
        (b"20000\r\n" + b"x" * 0x20000 + b"\r\n0\r\n\r\n", "131072"),
    ],
    ids=["empty", "one chunk", "extension and trailer", "large"],
)
def test_a_chunked_body_has_the_length_it_turned_out_to_have(server, recorder, body, length):
    client = server.connect()
    client.send(client.render("/", "Transfer-Encoding: chunked", method="POST") + body)
    assert client.reply().status == 200
    assert recorder.last["CONTENT_LENGTH"] == length
    assert "HTTP_TRANSFER_ENCODING" not in recorder.last
    assert "HTTP_TRAILER" not in recorder.last


# Other listeners


def has_ipv6():
    with socket.socket(socket.AF_INET6) as sock:
        return sock.connect_ex(("::1", 9)) != 99  # EADDRNOTAVAIL


@pytest.mark.skipif(not socket.has_ipv6 or not has_ipv6(), reason="no ::1 here")
def test_an_ipv6_listener(serve, recorder):
    server = serve(recorder, host="::1")
    client = server.connect()
    assert client.ask().status == 200
    environ = recorder.last
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("::1", str(server.server.port))
    assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"]) == ("::1", str(client.port))


@pytest.fixture
def unix(serve, recorder, tmp_path):
    listener = listeners.bind(Unix(str(tmp_path / "socket")))
    return serve(recorder, bound=listener)


def test_a_unix_listener_serves(unix, recorder):
    client = unix.connect()
    assert client.ask("/1").body == b"ok"
    assert client.ask("/2", method="POST", body=b"x" * 100_000).body == b"ok"
    assert [environ["PATH_INFO"] for environ in recorder.environs] == ["/1", "/2"]
    assert {type(recorder.last[key]) for key in ("REMOTE_ADDR", "REMOTE_PORT", "SERVER_NAME", "SERVER_PORT")} == {str}


def test_server_name_and_port_are_never_empty(unix, recorder):
    """PEP 3333: "SERVER_NAME and SERVER_PORT are required strings and must never be empty"."""
    unix.ask()
    assert recorder.last["SERVER_NAME"] != ""
    assert recorder.last["SERVER_PORT"] != ""


def test_a_worker_leaves_the_path_and_the_queue_to_the_one_who_bound_them(serve, recorder, tmp_path):
    path = str(tmp_path / "socket")
    listener = listeners.bind(Unix(path))
    with listener.socket.dup() as parents:
        server = serve(recorder, bound=listener)
        assert server.ask().status == 200
        server.stop()
        assert stat.S_ISSOCK(os.stat(path).st_mode)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            parents.accept()[0].close()


# What is minicorn's own


def test_the_worker_is_named(server, recorder):
    server.ask()
    worker = recorder.last["minicorn.worker"]
    assert (worker.slot, worker.generation, worker.pid) == (1, 1, os.getpid())


def test_the_worker_counts_the_requests_before_this_one(serve):
    counts = []

    def app(environ, start_response):
        counts.append(environ["minicorn.worker"].requests)
        start_response("200 OK", [])
        return [b"ok"]

    client = serve(app).connect()
    for _ in range(3):
        client.ask()
    assert counts == [0, 1, 2]


def test_a_request_may_ask_for_more_time(serve):
    page = private_page()
    deadlines = []

    def app(environ, start_response):
        deadlines.append(page.deadline)
        environ["minicorn.extend_deadline"](100)
        deadlines.append(page.deadline)
        start_response("200 OK", [])
        return [b"ok"]

    server = serve(app, page=page, timeout=30)
    assert server.ask().body == b"ok"
    assert deadlines[1] - deadlines[0] == pytest.approx(100)
    server.ask()
    assert deadlines[2] < deadlines[1]  # it was this request's


def test_an_application_can_see_that_the_server_is_stopping(serve):
    inside, go = threading.Event(), threading.Event()
    answers = []

    def app(environ, start_response):
        answers.append(environ["minicorn.shutting_down"]())
        inside.set()
        assert go.wait(5)
        answers.append(environ["minicorn.shutting_down"]())
        start_response("200 OK", [])
        return [b"ok"]

    server = serve(app)
    client = server.connect()
    client.send(client.render())
    assert inside.wait(5)
    server.server.signal_exit()
    go.set()
    assert client.reply().body == b"ok"
    assert answers == [False, True]


# It is the application's


def test_what_the_application_does_to_environ_is_gone_at_the_next_request(serve):
    seen = []

    def app(environ, start_response):
        seen.append(environ.get("mine"))
        environ.update({"mine": 1, "SERVER_NAME": "changed", "wsgi.version": None})
        seen.append(environ["wsgi.url_scheme"])
        start_response("200 OK", [])
        return [b"ok"]

    client = serve(app).connect()
    for _ in range(2):
        client.ask()
    assert seen == [None, "http"] * 2


@pytest.mark.parametrize("logged", [False, True])
@pytest.mark.parametrize("spoil", [lambda environ: environ.clear(), lambda environ: environ.update(QUERY_STRING=None)])
def test_the_application_may_do_to_environ_what_it_likes(serve, tmp_path, logged, spoil):
    """PEP 3333: "the application is allowed to modify the dictionary in any way it desires"."""

    def app(environ, start_response):
        spoil(environ)
        start_response("200 OK", [])
        return [b"ok"]

    client = serve(app, access=Output(str(tmp_path / "access.log"), 1) if logged else None).connect()
    for _ in range(3):
        assert client.ask().body == b"ok"


def test_each_request_is_one_line_of_the_access_log(serve, recorder, tmp_path, wait_until):
    path = tmp_path / "access.log"
    client = serve(recorder, access=Output(str(path), 1), access_logformat='%(h)s "%(r)s" %(s)s %(B)s').connect()
    client.ask("/1?a=%22")
    client.ask("/2", method="HEAD")
    client.ask('/"3')
    wait_until(lambda: path.read_text().count("\n") == 3)
    assert path.read_text().splitlines() == [
        '127.0.0.1 "GET /1?a=%22 HTTP/1.1" 200 2',
        '127.0.0.1 "HEAD /2 HTTP/1.1" 200 0',
        '127.0.0.1 "GET /\\"3 HTTP/1.1" 200 2',
    ]


def test_the_bytes_in_the_access_log_are_those_of_the_body_that_went(serve, tmp_path, wait_until):
    def app(environ, start_response):
        if environ["PATH_INFO"] == "/fails":
            raise ValueError
        start_response("200 OK", [("Content-Length", "3")] if environ["PATH_INFO"] == "/more-than-said" else [])
        yield b"some"
        yield b"more"

    path = tmp_path / "access.log"
    server = serve(app, access=Output(str(path), 1), access_logformat="%(U)s %(B)s")
    sizes = {target: len(server.ask(target).body) for target in ("/fails", "/more-than-said", "/chunked")}
    assert (sizes["/more-than-said"], sizes["/chunked"]) == (3, 8) and sizes["/fails"]
    wait_until(lambda: path.read_text().count("\n") == 3)
    assert path.read_text().splitlines() == [f"{target} {size}" for target, size in sizes.items()]
