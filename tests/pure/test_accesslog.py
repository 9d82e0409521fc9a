"""Access log lines: each atom, and nothing that a client sends can forge one."""

import base64
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicorn.config.settings import ACCESS_FORMAT
from minicorn.errors import ConfigError
from minicorn.logs import accesslog
from minicorn.logs.accesslog import ATOMS, EXTRAS, compile_format
from minicorn.logs.entry import Entry, Origin

ENVIRON = {
    "REMOTE_ADDR": "192.0.2.7",
    "REQUEST_METHOD": "GET",
    "RAW_URI": "/caf%C3%A9?q=1",
    "PATH_INFO": "/caf\xc3\xa9",
    "QUERY_STRING": "q=1",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "HTTP_REFERER": "http://example.com/",
    "HTTP_USER_AGENT": "curl/8.0",
    "HTTP_X_REQUEST_ID": "abc",
    "CONTENT_TYPE": "text/plain",
    "CONTENT_LENGTH": "12",
    "minicorn.worker": 7,
}


ORIGIN = Origin(slot=2, generation=3, pid=4711)


def entry(status: str = "200 OK", sent: int = 512, seconds: float = 1.25, **environ: object) -> Entry:
    headers = [("Content-Type", "text/html"), ("X-Cache", "hit"), ("x-cache", "miss")]
    return Entry({**ENVIRON, **environ}, status, headers, sent, seconds, ORIGIN)


def line(format: str, of: Entry | None = None) -> str:
    """The line without its end."""
    rendered = compile_format(format)(of or entry())
    assert rendered.endswith(b"\n")
    return rendered[:-1].decode("ascii")


@pytest.mark.parametrize(
    ("atom", "text"),
    [
        ("h", "192.0.2.7"),
        ("l", "-"),
        ("u", "-"),
        ("r", "GET /caf%C3%A9?q=1 HTTP/1.1"),
        ("s", "200"),
        ("m", "GET"),
        ("U", "/caf\\xc3\\xa9"),
        ("q", "q=1"),
        ("H", "HTTP/1.1"),
        ("b", "512"),
        ("B", "512"),
        ("f", "http://example.com/"),
        ("a", "curl/8.0"),
        ("T", "1"),
        ("D", "1250000"),
        ("M", "1250"),
        ("L", "1.250000"),
        ("p", "<4711>"),
        ("{X-Request-Id}i", "abc"),
        ("{x-request-id}i", "abc"),
        ("{Content-Type}i", "text/plain"),
        ("{content-length}i", "12"),
        ("{X-Missing}i", "-"),
        ("{Content-Type}o", "text/html"),
        ("{X-CACHE}o", "miss"),
        ("{X-Missing}o", "-"),
        ("{REMOTE_ADDR}e", "192.0.2.7"),
        ("{minicorn.worker}e", "7"),
        ("{MISSING}e", "-"),
    ],
)
def test_each_atom_stands_for_its_value(atom: str, text: str) -> None:
    assert line(f"%({atom})s") == text


def test_every_atom_of_gunicorn_is_there() -> None:
    assert set("hlutrmUqHsBbfaTDMLp") <= set(ATOMS)


def test_the_time_is_local_with_its_offset() -> None:
    assert re.fullmatch(r"\[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]", line("%(t)s"))


def test_no_body_is_a_0_as_in_gunicorn() -> None:
    assert line("%(b)s %(B)s", entry(sent=0)) == "0 0"


def test_the_default_format_is_the_combined_one() -> None:
    rendered = line(ACCESS_FORMAT)
    wanted = r'192\.0\.2\.7 - - \[[^]]+\] "GET /caf%C3%A9\?q=1 HTTP/1\.1" 200 512 "http://example\.com/" "curl/8\.0"'
    assert re.fullmatch(wanted, rendered)


def basic(text: bytes) -> str:
    return "Basic " + base64.b64encode(text).decode()


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (basic(b"ann:secret"), "ann"),
        (basic(b"ann"), "ann"),
        (basic(b"ann:a:b").replace("Basic", "basic"), "ann"),
        (basic(b":secret"), "-"),
        (basic(b"\xff:x"), "-"),
        ("Basic", "-"),
        ("Basic !!!", "-"),
        ("Basic \xe9", "-"),
        ("Bearer YW5uOng=", "-"),
        ("", "-"),
    ],
)
def test_the_user_is_the_name_in_basic_credentials(header: str, name: str) -> None:
    assert line("%(u)s", entry(HTTP_AUTHORIZATION=header)) == name


# What a client sends

SHOWN = ["%(U)s", "%(r)s", "%(q)s", "%(f)s", "%(a)s", "%(u)s", "%(h)s", "%({x-request-id}i)s", "%({PATH_INFO}e)s"]


def hostile(text: str) -> Entry:
    """An entry in which all that a client chooses is `text`."""
    return entry(
        RAW_URI=text,
        PATH_INFO=text,
        QUERY_STRING=text,
        HTTP_REFERER=text,
        HTTP_USER_AGENT=text,
        HTTP_X_REQUEST_ID=text,
        HTTP_AUTHORIZATION=basic(text.encode()),
    )


@pytest.mark.parametrize(
    "text", ["a\nb", "a\r\nb", "\n", "a\x1b[2Jb", "a\0b", "a\x7fb", "a\x85b", "a\u2028b"], ids=ascii
)
def test_a_client_cannot_make_a_second_line_nor_reach_the_terminal(text: str) -> None:
    # The path is percent-decoded: "GET /a%0ab" has a line feed in PATH_INFO
    for atom in SHOWN:
        assert re.fullmatch(r"[\x20-\x7e]*", line(atom, hostile(text)))


def quoted_field(rendered: str) -> str:
    """What stands between the first quote and the next one that no backslash escapes."""
    match = re.match(r'"((?:[^"\\]|\\.)*)"', rendered)
    assert match is not None
    return match[1]


@pytest.mark.parametrize("text", ['a"b', '"', 'a" 200 1 "b', "a\\", '\\"', 'a\\" 200 1 "b', '\\\\" x'], ids=ascii)
def test_a_client_cannot_end_the_quotes_around_its_text(text: str) -> None:
    for atom in SHOWN:
        rendered = line(f'"{atom}" END', hostile(text))
        assert rendered == f'"{quoted_field(rendered)}" END'


@settings(max_examples=100)
@given(st.text(st.characters(codec="latin-1"), max_size=20) | st.text(st.sampled_from('a"\\ %\n'), max_size=10))
def test_whatever_a_client_sends_is_one_quoted_field_of_one_line(text: str) -> None:
    for atom in SHOWN:
        rendered = line(f'"{atom}" END', hostile(text))
        assert rendered == f'"{quoted_field(rendered)}" END'
        assert re.fullmatch(r"[\t\x20-\x7e]*", rendered)


def test_a_percent_sign_of_a_client_is_no_format() -> None:
    assert line('"%(a)s" %(U)s', hostile("%s %(h)s %%")) == '"%s %(h)s %%" %s %(h)s %%'


@pytest.mark.parametrize("atom", [*ATOMS, "{x}i", "{x}o", "{x}e"])
def test_an_environ_that_the_application_has_emptied_still_gives_a_line(atom: str) -> None:
    # PEP 3333: the application may modify the dictionary in any way it desires
    bare = Entry({}, "200 OK", [], 0, 0.0, ORIGIN)
    assert "\n" not in line(f"%({atom})s", bare)


@pytest.mark.parametrize("format", [ACCESS_FORMAT, "json"])
def test_what_the_application_has_put_in_place_of_text_is_shown_as_text(format: str) -> None:
    made = compile_format(format)(entry(HTTP_REFERER=["no", "text"], REQUEST_METHOD={}))
    assert b"['no', 'text']" in made and b"{}" in made


class Unprintable:
    """Werkzeug's proxies are such, outside of a request."""

    def __str__(self) -> str:
        raise RuntimeError("not now")


class Odd(str):
    """A str that is none: whoever works on it gets what he does not expect."""

    def __str__(self) -> str:
        return self

    def _fail(self, *arguments: object) -> object:
        raise RuntimeError("odd")

    isascii = isprintable = translate = removeprefix = partition = lower = __hash__ = __format__ = _fail  # type: ignore


ANYTHING = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.binary(max_size=3) | st.text(max_size=5)
    | st.lists(st.integers(), max_size=2) | st.builds(Unprintable) | st.builds(Odd, st.just("a\nb"))
    | st.sampled_from([basic(b"a:b"), basic(b"\n"), "Basic \ud800", "\ud800", 10**5000])
)  # fmt: skip
KEYS = st.sampled_from([*ENVIRON, "HTTP_AUTHORIZATION", "HTTP_HOST", "REMOTE_PORT", "wsgi.url_scheme", "x"])
HEADERS = ANYTHING | st.lists(ANYTHING, max_size=3) | st.tuples(ANYTHING, ANYTHING) | st.tuples(*[st.text()] * 3)
EVERY_ATOM = " ".join(f"%({atom})s" for atom in [*ATOMS, *(f"{{{name}}}x" for name in EXTRAS)])
EVERY_ATOM += " ".join(f" %({{{key}}}e)s" for key in ENVIRON) + " %({Content-Length}i)s %({X-Cache}o)s %({x}o)9s"


@settings(max_examples=100)
@given(
    st.dictionaries(KEYS | st.integers() | st.none(), ANYTHING, max_size=12),
    st.sets(st.sampled_from([*ENVIRON])),
    st.lists(HEADERS, max_size=3),
)
def test_whatever_the_application_leaves_in_environ_and_headers_is_one_line(
    put: dict[str, object], deleted: set[str], headers: list[tuple[str, str]]
) -> None:
    environ = {key: value for key, value in ENVIRON.items() if key not in deleted} | put
    made = Entry(environ, "200 OK", headers, 512, 1.25, ORIGIN)
    assert re.fullmatch(r"[\t\x20-\x7e]*", line(EVERY_ATOM, made))
    assert parsed(made)["http.response.status_code"] == 200


@pytest.mark.parametrize(("value", "size"), [(5, {"http.request.body.size": 5}), (None, {}), (Unprintable(), {})])
def test_a_number_in_environ_is_as_good_as_its_text(value: object, size: dict[str, int]) -> None:
    found = parsed(entry(CONTENT_LENGTH=value))
    assert {key: found[key] for key in found.keys() & {"http.request.body.size"}} == size
    assert found["url.path"] == "/caf\xc3\xa9"


def test_what_clients_choose_is_remembered_within_bounds() -> None:
    for number in range(3000):
        line("%(a)s", entry(HTTP_USER_AGENT=f"browser {number}"))
    line("%(a)s", entry(HTTP_USER_AGENT="x" * 100_000))
    assert 0 < sum(map(len, accesslog._quoted.values())) < 1024 * 256
    assert line("%(a)s", entry(HTTP_USER_AGENT="browser 7")) == "browser 7"


# Formats


@pytest.mark.parametrize(
    ("format", "text"),
    [
        ("plain", "plain"),
        ("", ""),
        ("100%%", "100%"),
        ("%%(h)s", "%(h)s"),
        ("%(m)s%%", "GET%"),
        ("%%%(m)s", "%GET"),
        ("%%s", "%s"),
        ("%(m)s%(m)s", "GETGET"),
        ("é", "\\xe9"),
        ("{v0} {{%(m)s}}", "{v0} {{GET}}"),
        ("'%(m)s\" \\n", "'GET\" \\n"),
    ],
)
def test_a_format_may_hold_any_text_and_doubled_percent_signs(format: str, text: str) -> None:
    assert line(format) == text


@pytest.mark.parametrize(
    "format",
    [
        "%(x)s",
        "%(Z)s",
        "%(hh)s",
        "%()s",
        "%",
        "50%",
        "%h",
        "%(h)",
        "%(h)d",
        "%(h)q",
        "%({nothing}x)s",
        "%({x}z)s",
        "%({}i)s",
        "%s",
        "%(h)s %s",
        "%d",
    ],
)
def test_what_is_no_atom_is_a_config_error_in_one_line_before_the_first_request(format: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compile_format(format)
    assert str(caught.value).startswith("--access-logformat: ")
    assert "\n" not in str(caught.value)


def test_an_unknown_letter_is_named_and_the_known_ones_listed() -> None:
    with pytest.raises(ConfigError, match=r"%\(Z\)s is no atom.* h l u t r s"):
        compile_format("%(h)s %(Z)s")


# Beyond gunicorn's


def full(**more: object) -> Entry:
    """An entry in which every duration is another."""
    made = entry(seconds=2.0)
    made.request_id, made.reading, made.queued, made.inside = "ab-1", 0.25, 0.5, 1.5
    for name, value in more.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("request_id", "ab-1"),
        ("worker", "2"),
        ("generation", "3"),
        ("queue", "0.500000"),
        ("read", "0.250000"),
        ("app", "1.500000"),
        ("write", "0.500000"),
        ("cause", "-"),
    ],
)
def test_what_gunicorn_does_not_know_is_an_x(name: str, text: str) -> None:
    assert line(f"%({{{name}}}x)s", full()) == text
    assert name in EXTRAS


@pytest.mark.parametrize(("format", "text"), [("%(D)012d", "000001250000"), ("%(m)5s|", "  GET|"), ("%(L).4s", "1.25")])
def test_a_conversion_may_have_width_and_kind_as_in_gunicorn(format: str, text: str) -> None:
    assert line(format) == text


def test_a_request_that_nobody_answered_says_why() -> None:
    killed = full(status="", cause="timeout", sent=0)
    assert line('"%(r)s" %(s)s %(b)s', killed) == '"GET /caf%C3%A9?q=1 HTTP/1.1" - - killed=timeout'


def parsed(of: Entry) -> dict[str, object]:
    """The one object in the one line of JSON."""
    rendered = compile_format("json")(of)
    assert rendered.endswith(b"}\n")
    assert rendered.count(b"\n") == 1
    found = json.loads(rendered)
    assert isinstance(found, dict)
    return found


def test_json_is_typed_and_named_as_opentelemetry_does() -> None:
    found = parsed(full())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(found.pop("timestamp")))
    assert found == {
        "client.address": "192.0.2.7",
        "http.request.method": "GET",
        "url.path": "/caf\xc3\xa9",
        "url.query": "q=1",
        "url.scheme": "",
        "network.protocol.version": "1.1",
        "http.request.body.size": 12,
        "http.response.body.size": 512,
        "http.response.status_code": 200,
        "http.server.request.duration": 2.0,
        "user_agent.original": "curl/8.0",
        "http.request.header.referer": ["http://example.com/"],
        "minicorn.request.id": "ab-1",
        "minicorn.duration.queue": 0.5,
        "minicorn.duration.read": 0.25,
        "minicorn.duration.app": 1.5,
        "minicorn.duration.write": 0.5,
        "minicorn.worker": 2,
        "minicorn.generation": 3,
        "process.pid": 4711,
    }


def test_json_names_the_error() -> None:
    assert parsed(full(status="503 Service Unavailable"))["error.type"] == "503"
    killed = parsed(full(status="", cause="signal"))
    assert killed["error.type"] == "signal"
    assert "http.response.status_code" not in killed


def test_json_names_the_user() -> None:
    assert parsed(entry(HTTP_AUTHORIZATION=basic(b'a"nn:secret')))["user.name"] == 'a"nn'


@settings(max_examples=100)
@given(st.text(st.characters(codec="latin-1"), max_size=20) | st.text(st.sampled_from('a"\\ %\n\x00\x85'), max_size=10))
def test_json_survives_whatever_a_client_sends(text: str) -> None:
    found = parsed(hostile(text))
    assert (found["url.path"], found["user_agent.original"]) == (text, text)


def test_json_survives_what_the_application_has_put_into_environ() -> None:
    bare = parsed(Entry({"REMOTE_ADDR": object()}, "200 OK", [], 0, 0.0, ORIGIN))
    assert "object" in str(bare["client.address"])
