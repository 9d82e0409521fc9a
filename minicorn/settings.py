"""The settings: one frozen table, one line a setting.

Flags, environment names and `--help` derive from the table; nothing about a setting is
written anywhere else. Pure: strings in, `Settings` out.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Generic, Literal, TypeVar

from minicorn.address import Address, Tcp, parse_address, parse_port
from minicorn.errors import ConfigError, UsageError
from minicorn.forwarded import BELIEVABLE
from minicorn.peers import Peers

T = TypeVar("T")

ACCESS_FORMAT = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"'


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """What a setting takes: in words, and as a function that raises ValueError."""

    takes: str
    parse: Callable[[str], T]


@dataclass(frozen=True, slots=True)
class Option:
    """How a setting is spelled and explained."""

    flags: tuple[str, ...]
    parse: Callable[[str], object]
    takes: str
    metavar: str
    help: str
    repeatable: bool


def setting(default: T, kind: Kind[T], *flags: str, metavar: str, help: str) -> T:
    """One line of the table."""
    option = Option(flags, kind.parse, kind.takes, metavar, help, repeatable=False)
    line: T = field(default=default, metadata={"option": option})
    return line


def repeatable(kind: Kind[T], *flags: str, metavar: str, help: str) -> tuple[T, ...]:
    """One line of the table whose flag may be given several times."""
    option = Option(flags, kind.parse, kind.takes, metavar, help, repeatable=True)
    line: tuple[T, ...] = field(default=(), metadata={"option": option})
    return line


def seconds(least: float = 0.0) -> Kind[float]:
    """A duration in seconds, fractions allowed."""

    def parse(text: str) -> float:
        value = float(text)
        if not least <= value <= 1e9:  # also refuses nan
            raise ValueError(text)
        return value

    return Kind(f"seconds, {least:g} or more", parse)


def count(least: int, most: int = 2**31) -> Kind[int]:
    """A whole number from `least` to `most`."""

    def parse(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise ValueError(text)
        return value

    return Kind(f"a whole number, {least} or more", parse)


def size(least: int = 0) -> Kind[int]:
    """A number of bytes: 65536, 64K, 10M, 2G."""
    units = {"K": 2**10, "M": 2**20, "G": 2**30}

    def parse(text: str) -> int:
        unit = units.get(text[-1:].upper(), 1)
        value = int(text[:-1] if unit > 1 else text) * unit
        if value < least:
            raise ValueError(text)
        return value

    return Kind(f"bytes, {least} or more, with K, M or G if wanted", parse)


def choice(*names: str) -> Kind[str]:
    """One of a few words."""

    def parse(text: str) -> str:
        if text.lower() not in names:
            raise ValueError(text)
        return text.lower()

    return Kind("one of " + ", ".join(names), parse)


def words(*names: str) -> Kind[str]:
    """Some of a few words, with commas; none is an empty text."""

    def parse(text: str) -> str:
        found = [word.strip().lower() for word in text.split(",") if word.strip()]
        if not set(found) <= set(names):
            raise ValueError(text)
        return ",".join(found)

    return Kind("some of " + ", ".join(names) + ", with commas", parse)


def _parse_peers(text: str) -> str:
    Peers(text)
    return text


def _parse_text(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError(text)
    return text


def _parse_target(text: str) -> str:
    if not text.startswith("/") or not text.isascii() or not text.isprintable() or " " in text or "#" in text:
        raise ValueError(text)
    return text


def _parse_workers(text: str) -> int | Literal["auto"]:
    return "auto" if text == "auto" else count(1, 1000).parse(text)


def _parse_umask(text: str) -> int:
    value = int(text, 8)
    if not 0 <= value <= 0o777:
        raise ValueError(text)
    return value


TEXT: Kind[str] = Kind("a text", _parse_text)
TARGET: Kind[str] = Kind("a path of the application, such as /health", _parse_target)
PATH: Kind[str | None] = Kind("a path", _parse_text)
LOGFILE: Kind[str | None] = Kind("a path, or - for the terminal", _parse_text)
NAME: Kind[str | None] = Kind("a text", _parse_text)
PORT: Kind[int] = Kind("a port from 0 to 65535", parse_port)
BIND: Kind[Address] = Kind("host:port, [v6]:port, unix:/path or fd://N", parse_address)
WORKERS: Kind[int | Literal["auto"]] = Kind("a whole number from 1 to 1000, or auto", _parse_workers)
UMASK: Kind[int | None] = Kind("an octal mode such as 027", _parse_umask)
MILLISECONDS = Kind("milliseconds, 0 or more", seconds().parse)
PEERS = Kind("addresses, networks such as 10.0.0.0/8, unix, or *, with commas", _parse_peers)
LEVEL = choice("debug", "info", "warning", "error", "critical")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything an operator can choose. Durations are seconds, sizes are bytes."""

    # fmt: off
    app: str = ""
    host: str = setting("127.0.0.1", TEXT, "--host", metavar="H", help="Address to listen on.")
    port: int = setting(8000, PORT, "--port", metavar="P", help="Port to listen on; 0 takes a free one.")
    bind: tuple[Address, ...] = repeatable(BIND, "-b", "--bind", metavar="ADDR", help="Listen on host:port, [v6]:port, unix:/path or fd://N instead; repeatable.")
    workers: int | Literal["auto"] = setting(1, WORKERS, "-w", "--workers", metavar="N", help="Worker processes; auto counts the CPUs we may use.")
    timeout: float = setting(30.0, seconds(), "-t", "--timeout", metavar="S", help="Longest a request may take in the application; 0: no limit.")
    boot_timeout: float = setting(60.0, seconds(0.1), "--boot-timeout", metavar="S", help="Longest a worker may take to start.")
    graceful_timeout: float = setting(30.0, seconds(), "--graceful-timeout", metavar="S", help="Longest a retiring worker may take.")
    drain_delay: float = setting(0.0, seconds(), "--drain-delay", metavar="S", help="On TERM, go on serving for so long before the stop begins.")
    recv_timeout: float = setting(10.0, seconds(0.1), "--recv-timeout", metavar="S", help="Longest for a request's whole head, then for each wait for its body.")
    send_timeout: float = setting(30.0, seconds(0.1), "--send-timeout", metavar="S", help="Longest without progress in sending a reply.")
    keep_alive: float = setting(15.0, seconds(), "--keep-alive", metavar="S", help="Idle time between requests; 0: close after each.")
    max_keepalive_requests: int = setting(100, count(0), "--max-keepalive-requests", metavar="N", help="Requests on one connection; 0: no limit.")
    max_header_size: int = setting(65536, size(256), "--max-header-size", metavar="BYTES", help="Largest request head.")
    max_body_size: int = setting(1048576, size(), "--max-body-size", metavar="BYTES", help="Largest request body; 0: no limit.")
    backlog: int = setting(2048, count(1), "--backlog", metavar="N", help="Connections the system queues for us.")
    max_requests: int = setting(0, count(0), "--max-requests", metavar="N", help="Replace a worker after so many requests; 0: never.")
    max_requests_jitter: int = setting(0, count(0), "--max-requests-jitter", metavar="N", help="Up to so many more, by chance.")
    max_worker_memory: int = setting(0, size(), "--max-worker-memory", metavar="BYTES", help="Replace a worker above this, kill it at twice this; 0: no limit.")
    max_boot_failures: int = setting(0, count(0), "--max-boot-failures", metavar="N", help="Exit with code 4 after so many failed boots in a row; 0: never.")
    warmup: tuple[str, ...] = repeatable(TARGET, "--warmup", metavar="PATH", help="Request this inside a new worker before it serves; repeatable.")
    queue_timeout: float = setting(0.0, seconds(), "--queue-timeout", metavar="S", help="Answer 503 to a request that has waited longer for a worker; 0: never.")
    handoff_after: float = setting(10.0, MILLISECONDS, "--handoff-after", metavar="MS", help="Milliseconds in the application after which waiting connections go to other workers; 0: never.")
    forwarded_allow_ips: str = setting("127.0.0.1,::1,unix", PEERS, "--forwarded-allow-ips", metavar="LIST", help="Proxies that are believed about the client: addresses, networks, unix (sockets), or * for any peer.")
    forwarded_headers: str = setting("x-forwarded-for,x-forwarded-proto", words(*BELIEVABLE), "--forwarded-headers", metavar="LIST", help="What they are believed; also x-forwarded-host, x-forwarded-port, x-forwarded-prefix, forwarded (RFC 7239).")
    chdir: str | None = setting(None, PATH, "--chdir", metavar="DIR", help="Directory to run in; importable.")
    pid: str | None = setting(None, PATH, "-p", "--pid", metavar="FILE", help="Write the arbiter's pid here.")
    name: str | None = setting(None, NAME, "-n", "--name", metavar="NAME", help="Name in process titles, instead of APP.")
    umask: int | None = setting(None, UMASK, "-m", "--umask", metavar="MODE", help="File mode creation mask, octal.")
    worker_tmp_dir: str | None = setting(None, PATH, "--worker-tmp-dir", metavar="DIR", help="Where heartbeat files live; in memory by default.")
    access_logfile: str | None = setting(None, LOGFILE, "--access-logfile", metavar="FILE", help="Access log; - is standard output.")
    access_logformat: str = setting(ACCESS_FORMAT, TEXT, "--access-logformat", metavar="FMT", help="Its format, in gunicorn's atoms.")
    error_logfile: str = setting("-", TEXT, "--error-logfile", metavar="FILE", help="Error log; - is standard error.")
    log_level: str = setting("info", LEVEL, "--log-level", metavar="L", help="Least level logged: debug, info, warning, error, critical.")
    # fmt: on

    @property
    def addresses(self) -> tuple[Address, ...]:
        """What to listen on: `bind`, or else host and port."""
        return self.bind or (Tcp(self.host, self.port),)

    @property
    def title(self) -> str:
        """What process titles call the application."""
        return self.name or self.app


OPTIONS: Mapping[str, Option] = {f.name: f.metadata["option"] for f in fields(Settings) if "option" in f.metadata}


def _convert(name: str, origin: str, raw: Sequence[str], error: type[ConfigError]) -> object:
    option = OPTIONS[name]
    values = []
    for text in raw:
        try:
            values.append(option.parse(text))
        except ValueError:
            raise error(f"{origin}: cannot take {text!r}: it takes {option.takes}") from None
    return tuple(values) if option.repeatable else values[-1]


DEFAULTS = Settings()


def from_options(app: str, **options: object) -> Settings:
    """Settings by name from Python: values of the right type, or texts as on the command line.

    Raises ConfigError for a name that is none, with the nearest, and for a text that does not fit.
    """
    values: dict[str, object] = {}
    for name, value in options.items():
        if name not in OPTIONS:
            near = difflib.get_close_matches(name, OPTIONS, n=1)
            raise ConfigError(f"{name!r} is no setting" + (f"; did you mean {near[0]!r}?" if near else ""))
        parts = value if isinstance(value, (list, tuple)) else [value]
        texts = [part for part in parts if isinstance(part, str)]
        if texts and len(texts) == len(parts):
            value = _convert(name, name, texts, ConfigError)
        values[name] = value
    return Settings(app=app, **values)  # type: ignore[arg-type]  # the caller's types


def from_strings(app: str, argv: Mapping[str, Sequence[str]], environ: Mapping[str, str]) -> Settings:
    """Settings from the command line's values by setting name, then the environment, then defaults.

    `WEB_CONCURRENCY` stands for --workers, `FORWARDED_ALLOW_IPS` for --forwarded-allow-ips; `PORT` for --port, and then for all interfaces
    unless --host says otherwise (the convention of Heroku and its kin).
    Raises UsageError for a wrong flag, ConfigError for a wrong variable; each is one line.
    """
    values: dict[str, object] = {}
    if environ.get("WEB_CONCURRENCY") and "workers" not in argv:
        values["workers"] = _convert("workers", "WEB_CONCURRENCY", [environ["WEB_CONCURRENCY"]], ConfigError)
    if environ.get("PORT") and "port" not in argv:
        values["port"] = _convert("port", "PORT", [environ["PORT"]], ConfigError)
        values["host"] = "0.0.0.0"
    if environ.get("FORWARDED_ALLOW_IPS") and "forwarded_allow_ips" not in argv:
        raw_peers = [environ["FORWARDED_ALLOW_IPS"]]
        values["forwarded_allow_ips"] = _convert("forwarded_allow_ips", "FORWARDED_ALLOW_IPS", raw_peers, ConfigError)
    for name, raw in argv.items():
        values[name] = _convert(name, "/".join(OPTIONS[name].flags), raw, UsageError)
    return Settings(app=app, **values)  # type: ignore[arg-type]  # each value came from its own Kind
