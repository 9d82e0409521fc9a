"""Who the client is: what trusted proxies say of it, counted from the right."""

import pytest
from costs import FACTOR, growth

from minicorn.errors import ProtocolError
from minicorn.http.forwarded import BELIEVABLE, environ_keys
from minicorn.http.peers import Peers

ALL = frozenset(BELIEVABLE)
TRUSTED = Peers("127.0.0.1,10.0.0.0/8,2001:db8:1::/48,unix")


def settled(own_host: str = "inner", own_scheme: str = "http", **said: str) -> dict[str, str]:
    prefix = {name: "HTTP_" if name == "forwarded" else "HTTP_X_FORWARDED_" for name in said}
    fields = {prefix[name] + name.upper(): value for name, value in said.items()}
    return environ_keys(fields, ALL, TRUSTED.lists, own_host, own_scheme)


def client(hops: str) -> tuple[str | None, str | None]:
    keys = settled(**{"for": hops})
    return keys.get("REMOTE_ADDR"), keys.get("REMOTE_PORT")


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("127.0.0.1", True),
        ("10.255.0.1", True),
        ("::ffff:10.1.2.3", True),
        ("2001:db8:1:2::3", True),
        ("", True),
        ("11.0.0.1", False),
        ("2001:db8:2::1", False),
        ("::1", False),
        ("nonsense", False),
    ],
)
def test_a_peer_is_in_the_list_or_not(peer: str, expected: bool) -> None:
    assert TRUSTED.trusts(peer) is expected


def test_anybody_may_speak_but_is_no_hop_to_look_behind() -> None:
    anybody = Peers("*")
    assert anybody.trusts("203.0.113.1") and anybody.trusts("")
    assert not anybody.lists("203.0.113.1")


def test_nobody_is_believed_by_an_empty_list() -> None:
    assert not Peers("").trusts("127.0.0.1") and not Peers("").trusts("")


@pytest.mark.parametrize(
    ("hops", "expected"),
    [
        ("203.0.113.7", ("203.0.113.7", "")),
        ("6.6.6.6, 203.0.113.7", ("203.0.113.7", "")),  # what the client wrote itself never counts
        ("6.6.6.6, 203.0.113.7, 10.0.0.9", ("203.0.113.7", "")),
        ("127.0.0.1, 203.0.113.7, 10.0.0.9, 10.0.0.8", ("203.0.113.7", "")),
        ("10.0.0.9, 10.0.0.8", ("10.0.0.9", "")),  # all are ours: the first
        ("203.0.113.7:4711", ("203.0.113.7", "4711")),
        ("2001:db8::7", ("2001:db8::7", "")),
        ("[2001:db8::7]:4711", ("2001:db8::7", "4711")),
        ("6.6.6.6,unknown,10.0.0.9", ("10.0.0.9", "")),  # the last that is known
        ("6.6.6.6, _hidden", (None, None)),
        ("1.2.3", (None, None)),
        ("fe80::1%eth0.7", ("fe80::1%eth0.7", "")),
        ("fe80::1%<b>", (None, None)),
        ("fe80::1% 203.0.113.7", (None, None)),
        (" , ,", (None, None)),
        ("203.0.113.7, ", ("203.0.113.7", "")),
    ],
)
def test_hops_are_counted_from_the_right_through_trusted_ones(hops: str, expected: tuple[str, str]) -> None:
    assert client(hops) == expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"proto": "https"}, "https"),
        ({"proto": "HTTP"}, "http"),
        ({"proto": "wss"}, "https"),
        ({"proto": "http, https"}, "https"),
        ({"for": "203.0.113.7, 10.0.0.9", "proto": "https, http"}, "https"),  # what the outer proxy saw
        ({"for": "6.6.6.6, 203.0.113.7, 10.0.0.9", "proto": "http, https, http"}, "https"),
        ({"for": "203.0.113.7, 10.0.0.9", "proto": "https"}, "https"),  # handed through by the inner one
        ({"proto": ""}, None),
    ],
)
def test_the_scheme_is_what_the_outermost_trusted_proxy_saw(said: dict[str, str], expected: str | None) -> None:
    assert settled(**said).get("wsgi.url_scheme") == expected


@pytest.mark.parametrize(
    ("said", "host", "expected"),
    [
        ({"host": "shop.example"}, "inner", {"HTTP_HOST": "shop.example"}),
        ({"host": "evil.example, shop.example"}, "inner", {"HTTP_HOST": "shop.example"}),
        ({"port": "8443"}, "inner:80", {"HTTP_HOST": "inner:8443", "SERVER_PORT": "8443"}),
        ({"port": "8443"}, "[::1]", {"HTTP_HOST": "[::1]:8443", "SERVER_PORT": "8443"}),
        ({"port": "80"}, "inner:8000", {"HTTP_HOST": "inner", "SERVER_PORT": "80"}),
        ({"port": "443"}, "", {"SERVER_PORT": "443"}),
        ({"prefix": "/shop"}, "inner", {"SCRIPT_NAME": "/shop"}),
        ({"prefix": "/shop%20a/"}, "inner", {"SCRIPT_NAME": "/shop a"}),
        ({"prefix": "/"}, "inner", {"SCRIPT_NAME": ""}),
    ],
)
def test_host_port_and_prefix_are_those_of_the_outside(
    said: dict[str, str], host: str, expected: dict[str, str]
) -> None:
    assert settled(host, **said) == expected


def test_a_default_port_is_not_written_into_the_host() -> None:
    keys = settled(proto="https", port="443", host="inner")
    assert keys == {"wsgi.url_scheme": "https", "HTTP_HOST": "inner", "SERVER_PORT": "443"}
    assert settled("shop:443", "https", port="443")["HTTP_HOST"] == "shop"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("for=203.0.113.7", {"REMOTE_ADDR": "203.0.113.7", "REMOTE_PORT": ""}),
        ('For="[2001:db8::7]:4711"', {"REMOTE_ADDR": "2001:db8::7", "REMOTE_PORT": "4711"}),
        ("for=203.0.113.7:_obfuscated", {"REMOTE_ADDR": "203.0.113.7", "REMOTE_PORT": ""}),
        (
            "for=6.6.6.6;proto=http, for=203.0.113.7;proto=https;host=shop.example , for=10.0.0.9;proto=http;by=_x",
            {"REMOTE_ADDR": "203.0.113.7", "REMOTE_PORT": "", "wsgi.url_scheme": "https", "HTTP_HOST": "shop.example"},
        ),
        ('proto="ht\\tps"', {"wsgi.url_scheme": "https"}),
        (";;for=203.0.113.7;,,", {"REMOTE_ADDR": "203.0.113.7", "REMOTE_PORT": ""}),
        ("for=unknown;proto=https", {"wsgi.url_scheme": "https"}),
        ("", {}),
        (" , ;", {}),
    ],
)
def test_forwarded_says_it_all_in_one_field(text: str, expected: dict[str, str]) -> None:
    assert settled(forwarded=text) == expected


@pytest.mark.parametrize(
    "said",
    [
        {"proto": "ftp"},
        {"proto": "https http"},
        {"host": "a b"},
        {"host": "user@shop"},
        {"host": ":80"},
        {"host": "[::::]"},
        {"port": "0"},
        {"port": "+80"},
        {"port": "123456"},
        {"port": "65536"},
        {"port": "٣"},
        {"prefix": "shop"},
        {"prefix": "//evil.example"},
        {"prefix": "/a?b"},
        {"prefix": "/%zz"},
        {"prefix": "/%2fevil.example"},
        {"prefix": "/%5Cevil.example"},
        {"prefix": "/a/%2fb"},
        {"prefix": "/a%0d%0aSet-Cookie:b"},
        {"forwarded": "for"},
        {"forwarded": 'for="1.2.3.4'},
        {"forwarded": "for=1.2.3.4 proto=http"},
        {"forwarded": "for=1.2.3.4;for=5.6.7.8"},
        {"forwarded": "=1.2.3.4"},
        {"forwarded": "proto=gopher"},
    ],
)
def test_what_is_malformed_is_refused(said: dict[str, str]) -> None:
    with pytest.raises(ProtocolError) as caught:
        settled(**said)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "said",
    [
        {"for": "203.0.113.7", "forwarded": "for=203.0.113.8"},
        {"proto": "https", "forwarded": "proto=http"},
        {"host": "a", "forwarded": "host=b"},
        {"host": "a:80", "port": "81"},
    ],
)
def test_contradictions_are_refused(said: dict[str, str]) -> None:
    with pytest.raises(ProtocolError, match="contradict"):
        settled(**said)


def test_what_agrees_or_completes_is_taken() -> None:
    keys = settled(forwarded="for=203.0.113.7;proto=https", proto="https", prefix="/shop")
    assert keys == {
        "REMOTE_ADDR": "203.0.113.7",
        "REMOTE_PORT": "",
        "wsgi.url_scheme": "https",
        "SCRIPT_NAME": "/shop",
    }
    keys = settled(forwarded='for="203.0.113.7:5"', **{"for": "203.0.113.7"})
    assert keys == {"REMOTE_ADDR": "203.0.113.7", "REMOTE_PORT": "5"}


@pytest.mark.parametrize("name", BELIEVABLE)
def test_only_what_is_believed_counts(name: str) -> None:
    said = {
        "HTTP_X_FORWARDED_FOR": "203.0.113.7",
        "HTTP_X_FORWARDED_PROTO": "https",
        "HTTP_X_FORWARDED_HOST": "a",
        "HTTP_X_FORWARDED_PORT": "81",
        "HTTP_X_FORWARDED_PREFIX": "/a",
        "HTTP_FORWARDED": "for=203.0.113.9",
    }
    keys = environ_keys(said, frozenset({name}), TRUSTED.lists, "", "http")
    expected = {
        "x-forwarded-for": {"REMOTE_ADDR", "REMOTE_PORT"},
        "x-forwarded-proto": {"wsgi.url_scheme"},
        "x-forwarded-host": {"HTTP_HOST"},
        "x-forwarded-port": {"SERVER_PORT"},
        "x-forwarded-prefix": {"SCRIPT_NAME"},
        "forwarded": {"REMOTE_ADDR", "REMOTE_PORT"},
    }
    assert set(keys) == expected[name]
    assert environ_keys(said, frozenset(), TRUSTED.lists, "", "http") == {}


def read(said: dict[str, str]) -> None:
    try:
        settled(**said)
    except ProtocolError:
        pass


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("for", "127.0.0.1,"),
        ("for", " ,"),
        ("for", "x,"),
        ("forwarded", "for=127.0.0.1,"),
        ("forwarded", ";"),
        ("forwarded", ","),
        ("forwarded", 'for="\\a\\a",'),
        ("forwarded", "a"),
        ("prefix", "/a"),
    ],
)
def test_long_values_take_linear_time(name: str, unit: str) -> None:
    assert growth(read, lambda size: {name: unit * (size // len(unit))}, 2**15) <= FACTOR
