"""`wsgi.file_wrapper`: whatever the file, the client gets what reading it from its position gives."""

import gzip
import io
import os
import tempfile

import pytest

CONTENT = os.urandom(300_000)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "content"
    path.write_bytes(CONTENT)
    return path


def serving(open_file, *headers, seek=0, block_size=None):
    """An application that serves a file, the files it has opened, and "/next" without one."""
    opened = []

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/next":
            start_response("200 OK", [])
            return [b"the next reply"]
        file = open_file()
        file.seek(seek)
        opened.append(file)
        start_response("200 OK", [("Content-Type", "application/octet-stream"), *headers])
        wrapper = environ["wsgi.file_wrapper"]
        return wrapper(file, block_size) if block_size else wrapper(file)

    app.opened = opened
    return app


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
@pytest.mark.parametrize("block_size", [None, 8192])
def test_a_file_arrives_whole_with_its_length(serve, path, version, block_size):
    client = serve(serving(lambda: open(path, "rb"), block_size=block_size)).connect()
    reply = client.ask("/", "Connection: keep-alive", version=version)
    assert reply.body == CONTENT
    assert reply["Content-Length"] == str(len(CONTENT))
    assert client.ask("/next", version=version).body == b"the next reply"


@pytest.mark.parametrize("buffering", [0, -1])
@pytest.mark.parametrize("seek", [1, 4096, 299_999, 300_000, 400_000])
def test_a_file_is_sent_from_its_position(serve, path, seek, buffering):
    client = serve(serving(lambda: open(path, "rb", buffering=buffering), seek=seek)).connect()
    assert client.ask().body == CONTENT[seek:]
    assert client.ask("/next").body == b"the next reply"


@pytest.mark.parametrize("length", [0, 1, 100_000])
def test_a_content_length_smaller_than_the_file_is_respected(serve, path, length):
    client = serve(serving(lambda: open(path, "rb"), ("Content-Length", str(length)), seek=10)).connect()
    assert client.ask().body == CONTENT[10 : 10 + length]
    assert client.ask("/next").body == b"the next reply"


def test_a_content_length_larger_than_the_file_is_visibly_cut(serve, path):
    client = serve(serving(lambda: open(path, "rb"), ("Content-Length", "300001"))).connect()
    client.send(client.render() + client.render("/next"))
    assert client.rest().partition(b"\r\n\r\n")[2] == CONTENT


@pytest.mark.parametrize(
    "open_file", [lambda path: open(path, "rb"), lambda path: io.BytesIO(CONTENT)], ids=["file", "memory"]
)
def test_head_of_a_file_sends_none_of_it(serve, path, open_file):
    client = serve(serving(lambda: open_file(path), ("Content-Length", "300000"))).connect()
    reply = client.ask(method="HEAD")
    assert reply["Content-Length"] == "300000"
    assert client.ask("/next").body == b"the next reply"


def test_head_of_a_file_tells_its_length(serve, path):
    assert serve(serving(lambda: open(path, "rb"))).ask(method="HEAD")["Content-Length"] == "300000"


def test_an_empty_file_is_an_empty_body(serve, tmp_path):
    (tmp_path / "empty").touch()
    client = serve(serving(lambda: open(tmp_path / "empty", "rb"))).connect()
    assert client.ask().body == b""
    assert client.ask("/next").body == b"the next reply"


@pytest.mark.parametrize("seek", [0, 1000])
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
def test_a_file_in_memory_is_sent_from_its_position(serve, seek, version):
    server = serve(serving(lambda: io.BytesIO(CONTENT), seek=seek))
    assert server.ask(version=version).body == CONTENT[seek:]


def test_a_file_in_memory_is_sent_in_blocks_of_the_size_asked_for(serve):
    reply = serve(serving(lambda: io.BytesIO(CONTENT), block_size=100_000)).ask()
    assert reply.chunks == [100_000] * 3


def test_a_spooled_file_is_sent(serve):
    def spooled():
        file = tempfile.SpooledTemporaryFile(max_size=2**20)
        file.write(CONTENT)
        return file

    assert serve(serving(spooled)).ask().body == CONTENT


def test_a_file_whose_size_the_system_does_not_tell_is_sent_as_it_reads(serve):
    """PEP 3333: as if `iter(filelike.read, b"")` had been returned."""
    with open("/proc/version", "rb") as file:
        content = file.read()
    assert os.stat("/proc/version").st_size == 0
    assert serve(serving(lambda: open("/proc/version", "rb"))).ask().body == content


def test_a_pipe_is_sent_as_it_reads(serve):
    def app(environ, start_response):
        reading, writing = os.pipe()
        with open(writing, "wb") as file:
            file.write(b"through a pipe")
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](open(reading, "rb"))

    assert serve(app).ask().body == b"through a pipe"


@pytest.mark.parametrize("buffered", [False, True])
def test_what_has_a_files_descriptor_and_reads_otherwise_is_sent_as_it_reads(serve, tmp_path, buffered):
    with gzip.open(tmp_path / "packed", "wb") as file:
        file.write(CONTENT)

    def unpacked():
        file = gzip.open(tmp_path / "packed")
        return io.BufferedReader(file) if buffered else file

    assert serve(serving(unpacked)).ask().body == CONTENT


@pytest.mark.parametrize(("kind", "source"), [(io.FileIO, str), (io.BufferedReader, io.FileIO)])
def test_a_file_class_of_the_applications_own_is_sent_as_it_reads(serve, path, kind, source):
    class Reversed(kind):
        def read(self, size=-1):
            return super().read(size)[::-1]

    assert serve(serving(lambda: Reversed(source(path)), block_size=len(CONTENT))).ask().body == CONTENT[::-1]


def test_an_object_with_read_alone_will_do(serve):
    class Reader:
        def __init__(self):
            self.blocks = [b"one", b"two", b""]

        def read(self, size):
            return self.blocks.pop(0)

    def app(environ, start_response):
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](Reader())

    assert serve(app).ask().body == b"onetwo"


def test_the_wrapper_may_be_iterated_by_a_middleware(serve, path):
    inner = serving(lambda: open(path, "rb"))

    def app(environ, start_response):
        file = inner(environ, start_response)
        yield from file
        file.close()

    assert serve(app).ask().body == CONTENT


def test_a_file_may_follow_what_was_written(serve, path):
    def app(environ, start_response):
        start_response("200 OK", [])(b"before ")
        return environ["wsgi.file_wrapper"](open(path, "rb"))

    assert serve(app).ask().body == b"before " + CONTENT


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_file_is_closed_once_its_reply_is_handed_over(serve, path, wait_until, method):
    app = serving(lambda: open(path, "rb"))
    client = serve(app).connect(receive_buffer=4096)
    client.send(client.render(method=method))
    client.until(b"\r\n\r\n")
    wait_until(lambda: app.opened and app.opened[0].closed)


def test_start_response_is_wanted_before_a_file(serve, path):
    opened = []

    def app(environ, start_response):
        opened.append(open(path, "rb"))
        return environ["wsgi.file_wrapper"](opened[0])

    assert serve(app).ask().status == 500
    assert opened[0].closed


@pytest.fixture
def huge(tmp_path):
    path = tmp_path / "huge"
    path.write_bytes(CONTENT * 40)  # 12 MB: beyond what the sockets hold
    return path


def test_a_large_file_reaches_a_slow_reader_whole_while_others_are_served(serve, huge):
    server = serve(serving(lambda: open(huge, "rb")))
    slow = server.connect(receive_buffer=65536)
    slow.send(slow.render())
    length = int(slow.until(b"\r\n\r\n").partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
    assert server.ask("/next").body == b"the next reply"
    assert slow.read(length) == CONTENT * 40
    assert slow.ask("/next").body == b"the next reply"


def test_a_file_that_shrinks_while_it_is_sent_is_visibly_cut_and_the_server_lives(serve, huge):
    server = serve(serving(lambda: open(huge, "rb")))
    client = server.connect(receive_buffer=65536)
    client.send(client.render())
    client.until(b"\r\n\r\n")
    os.truncate(huge, 0)
    with pytest.raises((EOFError, ConnectionResetError)):
        client.read(len(CONTENT) * 40)
    assert server.ask("/next").body == b"the next reply"
