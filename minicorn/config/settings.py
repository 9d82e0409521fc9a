"""The settings: one frozen table, one line a setting.

Flags, environment names, keys of a file and `--help` derive from the table; nothing about a
setting is written anywhere else. Pure: what was given in layers, `Settings` out.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

from minicorn.config import gunicorn
from minicorn.config.address import Address, Tcp, parse_address, parse_port, render_address
from minicorn.errors import ConfigError, UsageError
from minicorn.http.forwarded import BELIEVABLE
from minicorn.http.peers import Peers
from minicorn.record import Value, replace
from minicorn.typed import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from typing import Literal

T = TypeVar("T")
D = TypeVar("D")  # of a default, which may be None where a value is not

ACCESS_FORMAT = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"'


class Kind(Value, Generic[T], quick=True):
    """What a setting takes: in words, and as a function that raises ValueError.

    `show` gives the text that stands for a value; `types` are those of Python's that may stand
    for a text in a file; `words` are all that it takes, where those are few.
    """

    takes: str
    parse: Callable[[str], T]
    show: Callable[[T], str] = str
    types: tuple[type, ...] = ()
    words: tuple[str, ...] = ()


class Option(Value, quick=True):
    """A line of the table: a setting's default, how it is spelled, and what it is for."""

    default: object
    flags: tuple[str, ...]
    kind: Kind[object]
    metavar: str
    help: str
    called: str = ""  # gunicorn's name for it, where that is another
    fixed: bool = False  # for the life of the arbiter: HUP does not change it
    repeatable: bool = False
    switch: bool = False
    bare: str = ""  # its value when the flag is given without one
    managed: bool = False  # takes an arbiter: a server in its caller's process cannot do it

    @property
    def off(self) -> str:
        """The flag that switches it off: --no-preload for --preload."""
        return self.flags[-1].replace("--", "--no-", 1)


def setting(
    default: D,
    kind: Kind[T],
    *flags: str,
    metavar: str,
    help: str,
    called: str = "",
    fixed: bool = False,
    bare: str = "",
    managed: bool = False,
) -> D | T:
    """One line of the table."""
    return Option(default, flags, kind, metavar, help, called, fixed, bare=bare, managed=managed)  # type: ignore[return-value, arg-type]


def repeatable(
    kind: Kind[T], *flags: str, metavar: str, help: str, called: str = "", fixed: bool = False, managed: bool = False
) -> tuple[T, ...]:
    """One line of the table whose flag may be given several times."""
    return Option((), flags, kind, metavar, help, called, fixed, repeatable=True, managed=managed)  # type: ignore[return-value, arg-type]


def switch(default: bool, *flags: str, help: str, called: str = "", fixed: bool = False, managed: bool = False) -> bool:
    """One line of the table that is on or off: its last flag, and the same with --no-."""
    return Option(default, flags, SWITCH, "", help, called, fixed, switch=True, managed=managed)  # type: ignore[return-value, arg-type]


def _show_number(value: float) -> str:
    """All its digits, without a fraction that is none."""
    return repr(value).removesuffix(".0")


def seconds(least: float = 0.0) -> Kind[float]:
    """A duration in seconds, fractions allowed."""

    def parse(text: str) -> float:
        value = float(text)
        if not least <= value <= 1e9:  # also refuses nan
            raise ValueError(text)
        return value

    return Kind(f"seconds, {least:g} or more, at most 1e9", parse, _show_number, (int, float))


def count(least: int, most: int = 2**31 - 1) -> Kind[int]:
    """A whole number from `least` to `most`, by default what a C int holds."""

    def parse(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise ValueError(text)
        return value

    return Kind(f"a whole number from {least} to {most}", parse, types=(int,))


def size(least: int = 0) -> Kind[int]:
    """A number of bytes: 65536, 64K, 10M, 2G."""
    units = {"G": 2**30, "M": 2**20, "K": 2**10}

    def show(value: int) -> str:
        for letter, unit in units.items():
            if value and value % unit == 0:
                return f"{value // unit}{letter}"
        return str(value)

    def parse(text: str) -> int:
        unit = units.get(text[-1:].upper(), 1)
        value = int(text[:-1] if unit > 1 else text) * unit
        if not least <= value < 2**63:
            raise ValueError(text)
        return value

    return Kind(f"bytes, {least} or more, with K, M or G if wanted", parse, show, (int,))


def choice(*names: str, also: Mapping[str, str] = MappingProxyType({})) -> Kind[str]:
    """One of a few words; `also` has other spellings for some."""

    def parse(text: str) -> str:
        word = also.get(text.lower(), text.lower())
        if word not in names:
            raise ValueError(text)
        return word

    return Kind("one of " + ", ".join(names), parse, types=(int,) if also else (), words=names)


def words(*names: str) -> Kind[str]:
    """Some of a few words, with commas; none is an empty text."""

    def parse(text: str) -> str:
        found = [word.strip().lower() for word in text.split(",") if word.strip()]
        if not set(found) <= set(names):
            raise ValueError(text)
        return ",".join(found)

    return Kind("some of " + ", ".join(names) + ", with commas", parse)


def _parse_peers(text: str) -> str:
    Peers(text).check()
    return text


def _parse_text(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError(text)
    return text


def _parse_name(text: str) -> str:
    _parse_text(text).encode()  # a UnicodeEncodeError, which is a ValueError, for bytes that were no UTF-8
    return text


def _parse_target(text: str) -> str:
    if not text.startswith("/") or not text.isascii() or not text.isprintable() or " " in text or "#" in text:
        raise ValueError(text)
    return text


def _parse_workers(text: str) -> int | Literal["auto"]:
    return "auto" if text == "auto" else count(1, 1000).parse(text)


def _parse_statsd(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not host or not colon or not parse_port(port):
        raise ValueError(text)
    return text


def _parse_metric(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]*", text):
        raise ValueError(text)
    return text


def _parse_tags(text: str) -> str:
    if not text.isprintable() or not text.isascii() or "|" in text:
        raise ValueError(text)
    return text


def _parse_umask(text: str) -> int:
    value = int(text, 8)
    if not 0 <= value <= 0o777:
        raise ValueError(text)
    return value


def _parse_counts(text: str) -> tuple[int, ...]:
    return tuple(count(1).parse(each) for each in text.split(",") if text)


def _show_counts(value: int | Sequence[int]) -> str:
    return str(value) if isinstance(value, int) else ",".join(map(str, value))


def _parse_switch(text: str) -> bool:
    word = text.lower()
    if word not in _SWITCHED:
        raise ValueError(text)
    return _SWITCHED[word]


def _parse_variable(text: str) -> str:
    if not re.fullmatch(r"[^=\0]+=[^\0]*", text):
        raise ValueError(text)
    return text


_SWITCHED = {"true": True, "1": True, "on": True, "yes": True, "false": False, "0": False, "off": False, "no": False}
SWITCH: Kind[bool] = Kind("true or false", _parse_switch, lambda value: str(value).lower(), (bool,))
VARIABLE: Kind[str] = Kind("NAME=VALUE", _parse_variable)


TEXT: Kind[str] = Kind("a text", _parse_text)
TARGET: Kind[str] = Kind("a path of the application, such as /health", _parse_target)
PATH: Kind[str] = Kind("a path", _parse_text)
LOGFILE: Kind[str] = Kind("a path, or - for the terminal", _parse_text)
NAME: Kind[str] = Kind("a text", _parse_name, types=(int,))
APP: Kind[str] = Kind("a text", _parse_name)
PORT: Kind[int] = Kind("a port from 0 to 65535", parse_port, types=(int,))
ADDRESS: Kind[Address] = Kind("host:port, [v6]:port, unix:/path or fd://N", parse_address, render_address)
WORKERS: Kind[int | Literal["auto"]] = Kind("a whole number from 1 to 1000, or auto", _parse_workers, types=(int,))
UMASK: Kind[int] = Kind("an octal mode such as 027", _parse_umask, "{:03o}".format, (int,))
COUNTS: Kind[tuple[int, ...]] = Kind(
    "whole numbers from 1 to 2147483647, with commas", _parse_counts, _show_counts, (int, tuple, list)
)
MILLISECONDS = Kind("milliseconds, 0 or more", seconds().parse, _show_number, (int, float))
PEERS = Kind("addresses, networks such as 10.0.0.0/8, unix, or *, with commas", _parse_peers)
# With the spellings of gunicorn and the numbers of Python's ssl, which its files have
CERT_REQS = choice("none", "optional", "required", also={"0": "none", "1": "optional", "2": "required"})
TLS_VERSION = choice(
    "1.2", "1.3", also=dict.fromkeys(("2", "5", "16", "tls", "tls_server", "tlsv1_2"), "1.2") | {"tlsv1_3": "1.3"}
)
PROXY = replace(
    choice(
        "off",
        "v1",
        "v2",
        "auto",
        also={word: "auto" if on else "off" for word, on in _SWITCHED.items()} | {"none": "off"},
    ),
    types=(bool,),
)
FACILITY = choice(
    *["auth", "authpriv", "cron", "daemon", "ftp", "kern", "lpr", "mail", "news", "security", "syslog", "user", "uucp"],
    *(f"local{n}" for n in range(8)),
)
STATSD: Kind[str] = Kind("host:port", _parse_statsd)
TAGS = Kind("name:value, with commas between", _parse_tags)
METRIC = Kind("a name of letters, digits, dots, - and _", _parse_metric)
LEVEL = choice("debug", "info", "warning", "error", "critical")


class Settings(Value):
    """Everything an operator can choose. Durations are seconds, sizes are bytes."""

    # fmt: off
    app: str = ""
    config: str = ""  # the file that was read, absolute, or python:MODULE
    hooks: tuple[str, ...] = ()  # those that it defines
    source: bytes = b""  # what it said, if it defines any
    host: str = setting("127.0.0.1", TEXT, "--host", metavar="H", help="Address to listen on.", fixed=True)
    port: int = setting(8000, PORT, "--port", metavar="P", help="Port to listen on; 0 takes a free one.", fixed=True)
    bind: tuple[Address, ...] = repeatable(ADDRESS, "-b", "--bind", metavar="ADDR", help="Listen on host:port, [v6]:port, unix:/path or fd://N instead; repeatable.", fixed=True)
    workers: int | Literal["auto"] = setting(1, WORKERS, "-w", "--workers", metavar="N", help="Worker processes; auto: one for each CPU that we may use, where memory is limited one for each 64 MiB at most.")
    timeout: float = setting(30.0, seconds(), "-t", "--timeout", metavar="S", help="Longest a request may take in the application; 0: no limit.", managed=True)
    boot_timeout: float = setting(60.0, seconds(0.1), "--boot-timeout", metavar="S", help="Longest a worker may take to start.", managed=True)
    graceful_timeout: float = setting(30.0, seconds(), "--graceful-timeout", metavar="S", help="Longest a retiring worker may take.")
    drain_delay: float = setting(0.0, seconds(), "--drain-delay", metavar="S", help="On TERM, go on serving for so long before the stop begins.", managed=True)
    recv_timeout: float = setting(10.0, seconds(0.1), "--recv-timeout", metavar="S", help="Longest for a request's whole head, then for each wait for its body.")
    send_timeout: float = setting(30.0, seconds(0.1), "--send-timeout", metavar="S", help="Longest without progress in sending a reply.")
    keep_alive: float = setting(15.0, seconds(), "--keep-alive", metavar="S", help="Idle time between requests; 0: close after each.", called="keepalive")
    max_keepalive_requests: int = setting(100, count(0), "--max-keepalive-requests", metavar="N", help="Requests on one connection; 0: no limit.")
    max_header_size: int = setting(65536, size(256), "--max-header-size", metavar="BYTES", help="Largest request head.")
    max_body_size: int = setting(1048576, size(), "--max-body-size", metavar="BYTES", help="Largest request body; 0: no limit.")
    limit_request_fields: int = setting(100, count(0), "--limit-request-fields", metavar="N", help="Most field lines in a request head; 0: no limit.")
    limit_request_line: int = setting(0, count(0), "--limit-request-line", metavar="BYTES", help="Longest request line; 0: what --max-header-size allows.")
    limit_request_field_size: int = setting(0, count(0), "--limit-request-field_size", "--limit-request-field-size", metavar="BYTES", help="Longest field line, its end included; 0: what --max-header-size allows.")
    min_body_rate: int = setting(240, count(0), "--min-body-rate", metavar="BYTES", help="Slowest a request body may come, in bytes a second after a first --recv-timeout; 0: no limit.")
    worker_connections: int = setting(10000, count(0), "--worker-connections", metavar="N", help="Connections of one worker; the oldest idle or the slowest make room; 0: as many as it may have descriptors.")
    max_buffered_size: int = setting(128 * 2**20, size(), "--max-buffered-size", metavar="BYTES", help="Memory that clients may make one worker hold; beyond it the slowest are dropped; 0: no limit.")
    backlog: int = setting(2048, count(1), "--backlog", metavar="N", help="Connections the system queues for us.", fixed=True)
    max_requests: int = setting(0, count(0), "--max-requests", metavar="N", help="Replace a worker after so many requests; 0: never.", managed=True)
    max_requests_jitter: int = setting(0, count(0), "--max-requests-jitter", metavar="N", help="Up to so many more, by chance.")
    max_worker_memory: int = setting(0, size(), "--max-worker-memory", metavar="BYTES", help="Replace a worker above this, kill it at twice this; 0: no limit.", managed=True)
    max_boot_failures: int = setting(0, count(0), "--max-boot-failures", metavar="N", help="Exit with code 4 after so many failed boots in a row; 0: never.", managed=True)
    warmup: tuple[str, ...] = repeatable(TARGET, "--warmup", metavar="PATH", help="Request this inside a new worker before it serves; repeatable.", managed=True)
    config_timeout: float = setting(10.0, seconds(0.1), "--config-timeout", metavar="S", help="Longest that reading the configuration file, or a hook of the arbiter, may take.")
    preload: bool = switch(False, "--preload", help="Import the application once, in a template from which workers are forked.", called="preload_app", fixed=True, managed=True)
    preload_strict: bool = switch(False, "--preload-strict", help="With --preload, refuse an application whose import leaves threads, sockets or files open.")
    refork_after: tuple[int, ...] = setting((), COUNTS, "--refork-after", metavar="N[,N...]", help="With --preload, fork all workers anew from one that has answered so many requests: what those have loaded is shared too; each number counts once.", fixed=True)
    queue_timeout: float = setting(0.0, seconds(), "--queue-timeout", metavar="S", help="Answer 503 to a request that has waited longer for a worker; 0: never.")
    reuse_port: bool = switch(False, "--reuse-port", help="Let another server listen on the same port (SO_REUSEPORT).", fixed=True)
    sendfile: bool = switch(True, "--sendfile", help="Send files by the kernel; --no-sendfile: block by block.")
    handoff_after: float = setting(10.0, MILLISECONDS, "--handoff-after", metavar="MS", help="Milliseconds in the application after which waiting connections go to other workers; 0: never.")
    forwarded_allow_ips: str = setting("127.0.0.1,::1,unix", PEERS, "--forwarded-allow-ips", metavar="LIST", help="Proxies that are believed about the client: addresses, networks, unix (sockets), or * for any peer.")
    forwarded_headers: str = setting("x-forwarded-for,x-forwarded-proto", words(*BELIEVABLE), "--forwarded-headers", metavar="LIST", help="What they are believed; also x-forwarded-host, x-forwarded-port, x-forwarded-prefix, forwarded (RFC 7239).")
    proxy_protocol: str = setting("off", PROXY, "--proxy-protocol", metavar="[V]", help="Expect a PROXY header before each connection from --proxy-allow-from: v1, v2, or auto for either, as without a value.", bare="auto")
    proxy_allow_from: str = setting("127.0.0.1,::1,unix", PEERS, "--proxy-allow-from", metavar="LIST", help="Who sends it; from others it is a malformed request.", called="proxy_allow_ips")
    certfile: tuple[str, ...] = repeatable(PATH, "--certfile", metavar="FILE", help="Speak TLS, with this certificate and its chain, PEM; repeatable, chosen by the name that a client asks for, else the first.")
    keyfile: tuple[str, ...] = repeatable(PATH, "--keyfile", metavar="FILE", help="Its key, where that is not in the same file; one for each.")
    ca_certs: str | None = setting(None, PATH, "--ca-certs", metavar="FILE", help="Authorities of clients' certificates, PEM.")
    cert_reqs: str = setting("none", CERT_REQS, "--cert-reqs", metavar="R", help="Whether clients show a certificate: none, optional, required (0, 1, 2).")
    ciphers: str | None = setting(None, PATH, "--ciphers", metavar="LIST", help="Ciphers up to TLS 1.2, as OpenSSL writes them.")
    ssl_version: str = setting("1.2", TLS_VERSION, "--ssl-version", metavar="V", help="Least version of TLS: 1.2, 1.3.")
    reload: bool = switch(False, "--reload", fixed=True, help="Development: serve new code as soon as a file is saved; errors are shown in the browser.", managed=True)
    reload_dir: tuple[str, ...] = repeatable(TEXT, "--reload-dir", fixed=True, metavar="DIR", help="Watch this directory too; repeatable.")
    reload_include: tuple[str, ...] = repeatable(TEXT, "--reload-include", fixed=True, metavar="GLOB", help="Watch files with names like this instead of *.py; repeatable: *.py and *.html for templates too.")
    reload_exclude: tuple[str, ...] = repeatable(TEXT, "--reload-exclude", fixed=True, metavar="GLOB", help="Never watch files or directories with names or paths like this; repeatable.")
    reload_extra_file: tuple[str, ...] = repeatable(TEXT, "--reload-extra-file", fixed=True, metavar="FILE", help="Watch this file too; repeatable.", called="reload_extra_files")
    reload_template: bool = switch(True, "--reload-template", fixed=True, help="With --reload, keep installed modules imported in a process that forks the workers; --no-reload-template does not.")
    debug_page: bool = switch(True, "--debug-page", help="With --reload, show the traceback of a request's exception in the browser; --no-debug-page does not.")
    debug_page_remote: bool = switch(False, "--debug-page-remote", help="With --reload, show tracebacks to other machines too.")
    chdir: str | None = setting(None, PATH, "--chdir", metavar="DIR", help="Directory to run in; importable.")
    pid: str | None = setting(None, PATH, "-p", "--pid", metavar="FILE", help="Write the arbiter's pid here.", called="pidfile", fixed=True, managed=True)
    name: str | None = setting(None, NAME, "-n", "--name", metavar="NAME", help="Name in process titles, instead of APP.", called="proc_name")
    env: tuple[str, ...] = repeatable(VARIABLE, "-e", "--env", metavar="K=V", help="Set this variable for the application; repeatable.", called="raw_env")
    pythonpath: str | None = setting(None, PATH, "--pythonpath", metavar="DIRS", help="Directories to import from as well, with commas between.")
    user: str | None = setting(None, NAME, "-u", "--user", metavar="USER", help="Whom workers are, by name or number; needs root.", fixed=True, managed=True)
    group: str | None = setting(None, NAME, "-g", "--group", metavar="GROUP", help="Their group, by name or number.", fixed=True, managed=True)
    initgroups: bool = switch(False, "--initgroups", help="Give workers all groups of --user.")
    umask: int | None = setting(None, UMASK, "-m", "--umask", metavar="MODE", help="File mode creation mask, octal.")
    worker_tmp_dir: str | None = setting(None, PATH, "--worker-tmp-dir", metavar="DIR", help="Where heartbeat files live; in memory by default.", fixed=True, managed=True)
    access_logfile: str | None = setting(None, LOGFILE, "--access-logfile", metavar="FILE", help="Access log; - is standard output.", called="accesslog", fixed=True)
    access_logformat: str = setting(ACCESS_FORMAT, TEXT, "--access-logformat", metavar="FMT", help="Its format, in gunicorn's atoms; or json, one object a line.", called="access_log_format")
    error_logfile: str = setting("-", TEXT, "--log-file", "--error-logfile", metavar="FILE", help="Error log; - is standard error.", called="errorlog", fixed=True)
    log_level: str = setting("info", LEVEL, "--log-level", metavar="L", help="Least level logged: debug, info, warning, error, critical.", called="loglevel")
    log_format: str = setting("text", choice("text", "json"), "--log-format", metavar="F", help="Of the error log: text, or json, one object a line.", fixed=True)
    slow_request: float = setting(0.0, seconds(), "--slow-request", metavar="S", help="Log the stack of a request that has been in the application so long, once; it goes on. 0: never.", managed=True)
    log_config: str | None = setting(None, PATH, "--log-config", "--log-config-json", metavar="FILE", help="Handlers and formatters of Python's logging: dictConfig as .json or .toml, or an ini file.", called="logconfig", fixed=True)
    log_syslog: bool = switch(False, "--log-syslog", help="Send the logs to syslog too.", called="syslog", fixed=True)
    log_syslog_to: str = setting("udp://localhost:514", TEXT, "--log-syslog-to", metavar="ADDR", help="Where syslog listens: unix:///dev/log, udp://host:port or tcp://host:port.", called="syslog_addr", fixed=True)
    log_syslog_prefix: str | None = setting(None, NAME, "--log-syslog-prefix", metavar="NAME", help="Name in syslog, behind minicorn.", called="syslog_prefix", fixed=True)
    log_syslog_facility: str = setting("user", FACILITY, "--log-syslog-facility", metavar="F", help="Facility in syslog.", called="syslog_facility", fixed=True)
    disable_redirect_access_to_syslog: bool = switch(False, "--disable-redirect-access-to-syslog", help="The access log does not go to syslog.", fixed=True)
    capture_output: bool = switch(False, "--capture-output", help="What the application prints goes to the error log.", managed=True)
    monitor: Address | None = setting(None, ADDRESS, "--monitor", metavar="ADDR", help="Serve metrics, status and a page about this server here: host:port, unix:/path or fd://N.", fixed=True, managed=True)
    monitor_allow: bool = switch(False, "--monitor-allow", help="Let the monitor listen where other machines reach it.", fixed=True)
    statsd_host: str | None = setting(None, STATSD, "--statsd-host", metavar="HOST:PORT", help="Send figures to statsd here, once a second.", fixed=True, managed=True)
    statsd_prefix: str = setting("", METRIC, "--statsd-prefix", metavar="NAME", help="Before their names.", fixed=True)
    dogstatsd_tags: str = setting("", TAGS, "--dogstatsd-tags", metavar="TAGS", help="DogStatsD tags on each: name:value, with commas between.", fixed=True)
    # fmt: on

    @property
    def addresses(self) -> tuple[Address, ...]:
        """What to listen on: `bind`, or else host and port."""
        return self.bind or (Tcp(self.host, self.port),)

    @property
    def scheme(self) -> str:
        """What clients speak to us."""
        return "https" if self.certfile else "http"

    @property
    def is_monitored(self) -> bool:
        """Whether there is anything for a monitor to do."""
        return self.monitor is not None or self.statsd_host is not None

    @property
    def has_log_handlers(self) -> bool:
        """Whether handlers of the logging package take what is logged."""
        return self.log_config is not None or self.log_syslog

    @property
    def title(self) -> str:
        """What process titles call the application."""
        return self.name or self.app

    @property
    def variables(self) -> dict[str, str]:
        """What `env` asks for."""
        return dict(pair.partition("=")[::2] for pair in self.env)

    def directory(self, called_in: str) -> str:
        """Where the application of a server that was called in `called_in` lives, its path as it was
        given, so that whoever enters it again follows a symlink in it anew."""
        return posixpath.join(called_in, self.chdir or "").rstrip("/") or "/"


OPTIONS: Mapping[str, Option] = {name: line for name, line in Settings.__fields__.items() if isinstance(line, Option)}
Settings.__fields__ |= {name: option.default for name, option in OPTIONS.items()}
# By what a file or the environment may call it: our name, gunicorn's, and the long flags
NAMES: Mapping[str, str] = (
    {flag[2:].replace("-", "_"): name for name, o in OPTIONS.items() for flag in o.flags if flag.startswith("--")}
    | {name: name for name in OPTIONS}
    | {option.called: name for name, option in OPTIONS.items() if option.called}
    | {"app": "app", "wsgi_app": "app", "logconfig_json": "log_config"}
)
PREFIX = "MINICORN_"
# Variables of ours that are no settings
OWN_VARIABLES = {"MINICORN_WORKER", "MINICORN_CMD_ARGS", "MINICORN_CONFIG", "MINICORN_SUCCESSION", "MINICORN_CHECK"}
# What Kubernetes sets in each pod beside a service that is called minicorn: under a name that is a setting's too, a link
_SERVICE_LINK = (
    r"(?s)MINICORN_(?:\w+_)?"
    r"(?:(?:SERVICE_(?:HOST|PORT)\w*|PORT_[0-9]+_(?:TCP|UDP|SCTP)\w*)=.*|PORT=(?:tcp|udp|sctp)://.*)"
)
DEFAULTS = Settings()


class Given(Value):
    """What one place says of a setting: texts, or a file's Python values."""

    raw: tuple[object, ...]
    origin: str  # the place, for errors and --print-config
    error: type[ConfigError] = ConfigError


Layer = Mapping[str, Given]


def _from_value(name: str, value: object, origin: str) -> Given:
    """Of a Python value: several, where the setting takes as many."""
    several = isinstance(value, (list, tuple)) and name in OPTIONS and OPTIONS[name].repeatable
    return Given(tuple(value) if several else (value,), origin)  # type: ignore[arg-type]


def convert(name: str, given: Given) -> object:
    """The setting's value; an error in one line when it cannot be."""
    option = OPTIONS.get(name)
    kind: Kind[object] = option.kind if option else APP  # type: ignore[assignment]
    values: list[object] = []
    for raw in given.raw:
        typed = isinstance(raw, kind.types) and (bool in kind.types or not isinstance(raw, bool))
        try:
            if not typed and not isinstance(raw, str):
                raise ValueError(raw)
            values.append(kind.parse(raw if isinstance(raw, str) else kind.show(raw)))
        except ValueError:
            raise given.error(f"{given.origin}: cannot take {raw!r}: it takes {kind.takes}") from None
    return tuple(values) if option and option.repeatable else values[-1]


def unknown(name: str, names: Iterable[str]) -> str:
    """That `name` is no setting, with the nearest."""
    import difflib  # for mistakes alone

    spelled = {known.lower(): known for known in names}
    near = difflib.get_close_matches(name.lower(), spelled, n=1)
    return f"{name!r} is no setting" + (f"; did you mean {spelled[near[0]]!r}?" if near else "")


def from_argv(argv: Mapping[str, Sequence[str]], origin: str = "") -> Layer:
    """The layer of a command line's values by setting name; `origin`: the variable that holds it."""
    before, error = (f"{origin}: ", ConfigError) if origin else ("", UsageError)
    return {
        name: Given(tuple(raw), before + ("/".join(OPTIONS[name].flags) if name in OPTIONS else "APP"), error)
        for name, raw in argv.items()
    }


def from_environ(environ: Mapping[str, str]) -> Layer:
    """The layer of the MINICORN_* variables; of a repeatable setting, words as in a shell.

    Raises ConfigError for one that is no setting, Kubernetes' service links left out.
    """
    layer: dict[str, Given] = {}
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or variable in OWN_VARIABLES or not text:
            continue
        if re.fullmatch(_SERVICE_LINK, f"{variable}={text}"):
            continue
        name = NAMES.get(variable.removeprefix(PREFIX).lower())
        if name is None:
            raise ConfigError(unknown(variable, [PREFIX + known.upper() for known in NAMES]))
        several = name in OPTIONS and OPTIONS[name].repeatable
        import shlex  # not before a variable is set

        try:
            layer[name] = Given(tuple(shlex.split(text)) if several else (text,), variable)
        except ValueError as error:
            raise ConfigError(f"{variable}: {error}") from None
    return layer


def from_values(origin: str, values: Mapping[str, object]) -> Layer:
    """The layer of a file's values by name; None stands for the default.

    Of two names of one setting gunicorn's counts: in its files ours are the author's own.
    Raises ConfigError for what is no setting, or one of gunicorn's that cannot be honoured.
    """
    layer: dict[str, Given] = {}
    for key, value in sorted(values.items(), key=lambda item: item[0] in gunicorn.NAMES):
        key, value = gunicorn.translate(key, value)
        name = NAMES.get(key.replace("-", "_"))
        if name is None and key in gunicorn.FOREIGN:
            gunicorn.judge(key, value, f"{origin}: {key}")
        elif name is None:
            raise ConfigError(f"{origin}: {unknown(key, [*NAMES, *gunicorn.FOREIGN, *gunicorn.HOOKS])}")
        elif value is not None:
            layer[name] = _from_value(name, value, f"{origin}: {key}")
    return layer


def _values(layer: Layer) -> dict[str, object]:
    return {name: convert(name, given) for name, given in layer.items()}


class Outcome(Value):
    """What the layers come to, and where each value that is no default came from."""

    settings: Settings
    origins: Mapping[str, str]


def settle(layers: Iterable[Layer], environ: Mapping[str, str]) -> Outcome:
    """The settings of `layers`, each above those before it, and each judged.

    Below all, `WEB_CONCURRENCY` stands for --workers, `FORWARDED_ALLOW_IPS` for
    --forwarded-allow-ips; `PORT` for --port, and then for all interfaces unless --host says
    otherwise (the convention of Heroku and its kin).
    """
    platform: dict[str, Given] = {}
    if environ.get("WEB_CONCURRENCY"):
        platform["workers"] = Given((environ["WEB_CONCURRENCY"],), "WEB_CONCURRENCY")
    if environ.get("FORWARDED_ALLOW_IPS"):
        platform["forwarded_allow_ips"] = Given((environ["FORWARDED_ALLOW_IPS"],), "FORWARDED_ALLOW_IPS")
    merged: dict[str, Given] = dict(platform)
    values = _values(platform)
    for layer in layers:
        values |= _values(layer)
        if layer.keys() & {"host", "port"} and "bind" not in layer and "bind" in merged:
            del merged["bind"], values["bind"]  # it would hide what is said above it
        merged.update(layer)
    if environ.get("PORT") and "port" not in merged:
        port = {"port": Given((environ["PORT"],), "PORT"), "host": Given(("0.0.0.0",), "PORT")}
        merged, values = port | merged, _values(port) | values
    settings = Settings(**values)  # type: ignore[arg-type]
    if settings.refork_after and not settings.preload:
        given = merged["refork_after"]
        raise given.error(f"{given.origin} needs --preload: without a template there is nothing to share")
    return Outcome(settings, {name: given.origin for name, given in merged.items()})


def from_options(app: str, **options: object) -> Settings:
    """Settings by name from Python: values of the right type, or texts as on the command line.

    Raises ConfigError for a name that is none, with the nearest, and for a value that does not fit.
    """
    given: dict[str, Given] = {}
    for name, value in options.items():
        if name not in OPTIONS:
            raise ConfigError(unknown(name, OPTIONS))
        if value is not None:
            given[name] = _from_value(name, value, name)
    return replace(settle([given], {}).settings, app=app)


def keep_fixed(new: Settings, old: Settings) -> tuple[Settings, list[str]]:
    """`new` with what HUP cannot change as in `old`, and the names of what that holds back."""
    held = {name: getattr(old, name) for name, option in OPTIONS.items() if option.fixed}
    changed = [name for name, value in held.items() if getattr(new, name) != value]
    return replace(new, **held), changed


def tell(settings: Settings) -> dict[str, object]:
    """What is not fixed of `settings`, as JSON has it."""
    names = [name for name in Settings.__fields__ if name not in OPTIONS or not OPTIONS[name].fixed]
    return {name: getattr(settings, name) for name in names} | {"source": settings.source.decode("latin-1")}


def retold(told: Mapping[str, object], settings: Settings) -> Settings:
    """`settings` with what `tell` has told, of which another version may know more, or less."""
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in told.items()}
    known = {name: value for name, value in values.items() if name in Settings.__fields__}
    return replace(settings, **known | {"source": str(told["source"]).encode("latin-1")})


def render(outcome: Outcome) -> str:
    """All settings as a file would have them, and takes them back, each with where it came from."""
    told: dict[str, tuple[str, object]] = {"app": ("wsgi_app", outcome.settings.app or None)}
    for name, option in OPTIONS.items():
        told[name] = option.called or name, _literal(option, getattr(outcome.settings, name))
    return "\n".join(
        # An origin may be a file of any name: as repr has it, it is part of one line
        f"{f'{label} = {value!r}':<40}  # {repr(outcome.origins.get(name, 'default'))[1:-1]}"
        for name, (label, value) in told.items()
    )


def _literal(option: Option, value: object) -> object:
    if option.repeatable:
        return [option.kind.show(each) for each in value]  # type: ignore[attr-defined]
    if option.kind in (ADDRESS, UMASK) and value is not None:  # no literals, or hard to read
        return option.kind.show(value)
    return value
