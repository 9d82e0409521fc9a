"""How the end of a reply is told, and that the connection is never out of step behind it."""

import os

import pytest

TEXT = ("Content-Type", "text/plain")


def replying(result, *headers, status="200 OK"):
    """An application that answers with `result()`, and "/next" with a reply of its own."""

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/next":
            start_response("200 OK", [TEXT])
            return [b"the next reply"]
        write = start_response(status, [TEXT, *headers] if status[:3] not in ("204", "304") else list(headers))
        return result(write)

    return app


def a_list(write):
    return [b"hello"]


def a_tuple(write):
    return (b"hello",)


def blocks(write):
    return [b"he", b"llo"]


def a_generator(write):
    return (block for block in (b"he", b"", b"llo"))


def writes(write):
    write(b"he")
    return [b"llo"]


def nothing(write):
    return []


WAYS = [a_list, a_tuple, blocks, a_generator, writes]


# Delimiters


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
@pytest.mark.parametrize(("result", "length"), [(a_list, "5"), (a_tuple, "5"), (nothing, "0")])
def test_a_body_of_known_length_gets_a_content_length(serve, result, length, version):
    reply = serve(replying(result)).ask(version=version)
    assert reply["Content-Length"] == length
    assert "Transfer-Encoding" not in reply
    assert len(reply.body) == int(length)


@pytest.mark.parametrize("result", [blocks, a_generator, writes])
def test_a_body_of_unknown_length_is_chunked_in_http_1_1(serve, result):
    client = serve(replying(result)).connect()
    reply = client.ask()
    assert (reply.chunks, reply.body) == ([2, 3], b"hello")
    assert client.ask("/next").body == b"the next reply"


@pytest.mark.parametrize("result", [blocks, a_generator, writes])
@pytest.mark.parametrize("lines", [[], ["Connection: keep-alive"]])
def test_a_body_of_unknown_length_ends_with_the_connection_in_http_1_0(serve, result, lines):
    client = serve(replying(result)).connect()
    reply = client.ask("/", *lines, version="HTTP/1.0")
    assert reply.body == b"hello"
    assert "Transfer-Encoding" not in reply
    assert reply.all("Connection") == ["close"]


@pytest.mark.parametrize("result", WAYS)
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
def test_a_content_length_of_the_application_is_the_only_delimiter(serve, result, version):
    client = serve(replying(result, ("Content-Length", "5"))).connect()
    reply = client.ask("/", "Connection: keep-alive", version=version)
    assert reply.all("Content-Length") == ["5"]
    assert "Transfer-Encoding" not in reply
    assert reply.body == b"hello"
    assert client.ask("/next", version=version).body == b"the next reply"


def test_an_empty_block_does_not_end_a_chunked_reply(serve):
    def result(write):
        write(b"")
        return (block for block in (b"", b"a", b"", b"", b"b", b""))

    client = serve(replying(result)).connect()
    reply = client.ask()
    assert (reply.chunks, reply.body) == ([1, 1], b"ab")
    assert client.ask("/next").body == b"the next reply"


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0", "HTTP/1.7"])
def test_the_reply_says_the_version_that_we_speak(serve, version):
    """RFC 9110 2.5: the highest version that the server conforms to, whatever the minor version asked."""
    assert serve(replying(a_list)).ask(version=version).version == "HTTP/1.1"


# Replies without a body


@pytest.mark.parametrize("result", [*WAYS, nothing])
@pytest.mark.parametrize("headers", [[], [("Content-Length", "5")]])
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
def test_head_gets_no_body_and_the_connection_goes_on(serve, result, headers, version):
    client = serve(replying(result, *headers)).connect()
    client.send(client.render("/", "Connection: keep-alive", method="HEAD", version=version))
    reply = client.reply("HEAD")
    assert reply.status == 200
    if result in (a_list, a_tuple):
        assert reply["Content-Length"] == "5"
    assert client.ask("/next", version=version).body == b"the next reply"


@pytest.mark.parametrize("result", [*WAYS, nothing])
@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_204_and_304_get_no_body_and_the_connection_goes_on(serve, result, status, method):
    client = serve(replying(result, status=status)).connect()
    reply = client.ask(method=method)
    assert reply.status == int(status[:3])
    assert "Transfer-Encoding" not in reply
    assert client.ask("/next").body == b"the next reply"


def test_204_has_no_content_length_even_when_the_application_sets_one(serve):
    """RFC 9110 8.6."""
    client = serve(replying(nothing, ("Content-Length", "0"), status="204 No Content")).connect()
    assert "Content-Length" not in client.ask()
    assert client.ask("/next").body == b"the next reply"


def test_304_may_tell_the_length_of_what_it_stands_for(serve):
    client = serve(replying(nothing, ("Content-Length", "1234"), status="304 Not Modified")).connect()
    assert client.ask()["Content-Length"] == "1234"
    assert client.ask("/next").body == b"the next reply"


# Bodies that are not what their Content-Length says


@pytest.mark.parametrize("result", [*WAYS, nothing])
def test_a_body_shorter_than_its_content_length_is_visibly_cut(serve, result, log):
    client = serve(replying(result, ("Content-Length", "6"))).connect()
    client.send(client.render() + client.render("/next"))
    head, _, body = client.rest().partition(b"\r\n\r\n")
    assert b"Content-Length: 6" in head
    assert body == (b"" if result is nothing else b"hello")
    assert any("Content-Length" in line for line in log)


@pytest.mark.parametrize("result", WAYS)
@pytest.mark.parametrize("length", [0, 1, 2, 4])
def test_a_body_longer_than_its_content_length_ends_there_and_the_connection_with_it(serve, result, length, log):
    client = serve(replying(result, ("Content-Length", str(length)))).connect()
    client.send(client.render() + client.render("/next"))
    _, _, body = client.rest().partition(b"\r\n\r\n")
    assert body == b"hello"[:length]
    assert any("Content-Length" in line for line in log)


# Large bodies

LARGE = os.urandom(5 * 2**20)


def sliced(size):
    return [LARGE[start : start + size] for start in range(0, len(LARGE), size)]


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
@pytest.mark.parametrize(
    "result",
    [
        lambda write: [LARGE],
        lambda write: sliced(2**20),
        lambda write: iter(sliced(2**20 - 1)),
        lambda write: iter(sliced(8191)),
        lambda write: [[write(block) for block in sliced(65536)].clear() or LARGE[:0]],
    ],
    ids=["one block", "a list of 1 MiB", "blocks of 1 MiB less one", "small blocks", "writes"],
)
def test_a_large_body_arrives_byte_for_byte(serve, result, version):
    client = serve(replying(result)).connect()
    assert client.ask(version=version).body == LARGE


def test_a_large_body_is_followed_by_the_next_reply(serve):
    client = serve(replying(lambda write: iter(sliced(100_000)))).connect()
    client.send(client.render() + client.render("/next"))
    assert client.reply().body == LARGE
    assert client.reply().body == b"the next reply"


def test_head_of_a_large_body_sends_none_of_it(serve):
    client = serve(replying(lambda write: [LARGE])).connect()
    assert client.ask(method="HEAD")["Content-Length"] == str(len(LARGE))
    assert client.ask("/next").body == b"the next reply"
