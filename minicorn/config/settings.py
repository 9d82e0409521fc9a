"""The settings: one frozen table, one line a setting.

Flags, environment names, the keys of a file, `--help` with its groups and `--print-config` derive
from the table. Elsewhere stands only what is no property of the setting: how a kind of value is read
(`kinds`), whose word counts (`layers`), what gunicorn calls its own (`gunicorn`). Pure.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from minicorn.config.address import Address, Tcp
from minicorn.config.kinds import (
    ADDRESS,
    CERT_REQS,
    COUNTS,
    FACILITY,
    LEVEL,
    LOGFILE,
    METRIC,
    MILLISECONDS,
    NAME,
    PATH,
    PEERS,
    PIDFILE,
    PORT,
    PROXY,
    STATSD,
    SWITCH,
    TAGS,
    TARGET,
    TEXT,
    TLS_VERSION,
    UMASK,
    VARIABLE,
    WORKERS,
    Kind,
    choice,
    count,
    seconds,
    size,
    words,
)
from minicorn.http.forwarded import BELIEVABLE
from minicorn.record import Value, replace
from minicorn.typed import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from typing import Literal, Required, TypedDict, Unpack

    class More(TypedDict, total=False):
        """What a line of the table says by name: see Option."""

        help: Required[str]
        group: Required[str]
        metavar: str
        gunicorn_name: str
        fixed: bool
        managed: bool
        bare: str


T = TypeVar("T")
D = TypeVar("D")  # of a default, which may be None where a value is not

ACCESS_FORMAT = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"'


class Option(Value, quick=True):
    """A line of the table: a setting's default, how it is spelled, and what it is for."""

    default: object
    flags: tuple[str, ...]
    kind: Kind[object]
    help: str
    group: str  # its heading in --help
    metavar: str = ""  # what --help calls its value; a switch has none
    gunicorn_name: str = ""  # gunicorn's name for it, where that is another
    fixed: bool = False  # for the life of the arbiter: HUP does not change it
    managed: bool = False  # takes an arbiter: a server in its caller's process cannot do it
    bare: str = ""  # its value when the flag is given without one
    repeatable: bool = False
    switch: bool = False

    @property
    def off(self) -> str:
        """The flag that switches it off: --no-preload for --preload."""
        return self.flags[-1].replace("--", "--no-", 1)


def setting(default: D, kind: Kind[T], *flags: str, **more: Unpack[More]) -> D | T:
    """One line of the table."""
    return Option(default, flags, kind, **more)  # type: ignore[return-value, arg-type]


def repeatable(kind: Kind[T], *flags: str, **more: Unpack[More]) -> tuple[T, ...]:
    """One line of the table whose flag may be given several times."""
    return Option((), flags, kind, repeatable=True, **more)  # type: ignore[return-value, arg-type]


def switch(default: bool, *flags: str, **more: Unpack[More]) -> bool:
    """One line of the table that is on or off: its last flag switches it on, the same with --no- off."""
    return Option(default, flags, SWITCH, switch=True, **more)  # type: ignore[return-value, arg-type]


class Settings(Value):
    """Everything an operator can choose. Durations are seconds, sizes are bytes."""

    # fmt: off
    app: str = ""
    config: str = ""  # the file that was read, absolute, or python:MODULE
    hooks: tuple[str, ...] = ()  # those that it defines
    source: bytes = b""  # what it said, if it defines any
    host: str = setting("127.0.0.1", TEXT, "--host", metavar="H", help="Address to listen on.", fixed=True, group="where to listen")
    port: int = setting(8000, PORT, "--port", metavar="P", help="Port to listen on; 0 takes a free one.", fixed=True, group="where to listen")
    bind: tuple[Address, ...] = repeatable(ADDRESS, "-b", "--bind", metavar="ADDR", help="Listen on host:port, [v6]:port, unix:/path or fd://N instead; repeatable.", fixed=True, group="where to listen")
    backlog: int = setting(2048, count(1), "--backlog", metavar="N", help="Connections the system queues for us.", fixed=True, group="where to listen")
    reuse_port: bool = switch(False, "--reuse-port", help="Let another server listen on the same port (SO_REUSEPORT).", fixed=True, group="where to listen")
    workers: int | Literal["auto"] = setting(1, WORKERS, "-w", "--workers", metavar="N", help="Worker processes; auto: one for each CPU that we may use, where memory is limited one for each 64 MiB at most.", group="workers and their time")
    timeout: float = setting(30.0, seconds(), "-t", "--timeout", metavar="S", help="Longest a request may take in the application; 0: no limit.", managed=True, group="workers and their time")
    boot_timeout: float = setting(60.0, seconds(0.1), "--boot-timeout", metavar="S", help="Longest a worker may take to start.", managed=True, group="workers and their time")
    graceful_timeout: float = setting(30.0, seconds(), "--graceful-timeout", metavar="S", help="Longest a retiring worker may take.", group="workers and their time")
    drain_delay: float = setting(0.0, seconds(), "--drain-delay", metavar="S", help="On TERM, go on serving for so long before the stop begins.", managed=True, group="workers and their time")
    queue_timeout: float = setting(0.0, seconds(), "--queue-timeout", metavar="S", help="Answer 503 to a request that has waited longer for a worker; 0: never.", group="workers and their time")
    handoff_after: float = setting(10.0, MILLISECONDS, "--handoff-after", metavar="MS", help="Milliseconds in the application after which waiting connections go to other workers; 0: never.", group="workers and their time")
    recv_timeout: float = setting(10.0, seconds(0.1), "--recv-timeout", metavar="S", help="Longest for a request's whole head, then for each wait for its body.", group="clients")
    send_timeout: float = setting(30.0, seconds(0.1), "--send-timeout", metavar="S", help="Longest without progress in sending a reply.", group="clients")
    keep_alive: float = setting(15.0, seconds(), "--keep-alive", metavar="S", help="Idle time between requests; 0: close after each.", gunicorn_name="keepalive", group="clients")
    max_keepalive_requests: int = setting(100, count(0), "--max-keepalive-requests", metavar="N", help="Requests on one connection; 0: no limit.", group="clients")
    max_header_size: int = setting(65536, size(256), "--max-header-size", metavar="BYTES", help="Largest request head.", group="clients")
    max_body_size: int = setting(1048576, size(), "--max-body-size", metavar="BYTES", help="Largest request body; 0: no limit.", group="clients")
    limit_request_fields: int = setting(100, count(0), "--limit-request-fields", metavar="N", help="Most field lines in a request head; 0: no limit.", group="clients")
    limit_request_line: int = setting(0, count(0), "--limit-request-line", metavar="BYTES", help="Longest request line; 0: what --max-header-size allows.", group="clients")
    limit_request_field_size: int = setting(0, count(0), "--limit-request-field_size", "--limit-request-field-size", metavar="BYTES", help="Longest field line, its end included; 0: what --max-header-size allows.", group="clients")
    min_body_rate: int = setting(240, count(0), "--min-body-rate", metavar="BYTES", help="Slowest a request body may come, in bytes a second after a first --recv-timeout; 0: no limit.", group="clients")
    worker_connections: int = setting(10000, count(0), "--worker-connections", metavar="N", help="Connections of one worker; the oldest idle or the slowest make room; 0: as many as it may have descriptors.", group="clients")
    max_buffered_size: int = setting(128 * 2**20, size(), "--max-buffered-size", metavar="BYTES", help="Memory that clients may make one worker hold; beyond it the slowest are dropped; 0: no limit.", group="clients")
    sendfile: bool = switch(True, "--sendfile", help="Send files by the kernel; --no-sendfile: block by block.", group="clients")
    max_requests: int = setting(0, count(0), "--max-requests", metavar="N", help="Replace a worker after so many requests; 0: never.", managed=True, group="starting and recycling")
    max_requests_jitter: int = setting(0, count(0), "--max-requests-jitter", metavar="N", help="Up to so many more, by chance.", group="starting and recycling")
    max_worker_memory: int = setting(0, size(), "--max-worker-memory", metavar="BYTES", help="Replace a worker above this, kill it at twice this; 0: no limit.", managed=True, group="starting and recycling")
    max_boot_failures: int = setting(0, count(0), "--max-boot-failures", metavar="N", help="Exit with code 4 after so many failed boots in a row; 0: never.", managed=True, group="starting and recycling")
    warmup: tuple[str, ...] = repeatable(TARGET, "--warmup", metavar="PATH", help="Request this inside a new worker before it serves; repeatable.", managed=True, group="starting and recycling")
    config_timeout: float = setting(10.0, seconds(0.1), "--config-timeout", metavar="S", help="Longest that reading the configuration file, or a hook of the arbiter, may take.", group="starting and recycling")
    preload: bool = switch(False, "--preload", help="Import the application once, in a template from which workers are forked.", gunicorn_name="preload_app", fixed=True, managed=True, group="starting and recycling")
    preload_strict: bool = switch(False, "--preload-strict", help="With --preload, refuse an application whose import leaves threads, sockets or files open.", group="starting and recycling")
    refork_after: tuple[int, ...] = setting((), COUNTS, "--refork-after", metavar="N[,N...]", help="With --preload, fork all workers anew from one that has answered so many requests: what those have loaded is shared too; each number counts once.", fixed=True, group="starting and recycling")
    forwarded_allow_ips: str = setting("127.0.0.1,::1,unix", PEERS, "--forwarded-allow-ips", metavar="LIST", help="Proxies that are believed about the client: addresses, networks, unix (sockets), or * for any peer.", group="proxies")
    forwarded_headers: str = setting("x-forwarded-for,x-forwarded-proto", words(*BELIEVABLE), "--forwarded-headers", metavar="LIST", help="What they are believed; also x-forwarded-host, x-forwarded-port, x-forwarded-prefix, forwarded (RFC 7239).", group="proxies")
    proxy_protocol: str = setting("off", PROXY, "--proxy-protocol", metavar="[V]", help="Expect a PROXY header before each connection from --proxy-allow-from: v1, v2, or auto for either, as without a value.", bare="auto", group="proxies")
    proxy_allow_from: str = setting("127.0.0.1,::1,unix", PEERS, "--proxy-allow-from", metavar="LIST", help="Who sends it; from others it is a malformed request.", gunicorn_name="proxy_allow_ips", group="proxies")
    certfile: tuple[str, ...] = repeatable(PATH, "--certfile", metavar="FILE", help="Speak TLS, with this certificate and its chain, PEM; repeatable, chosen by the name that a client asks for, else the first.", group="TLS")
    keyfile: tuple[str, ...] = repeatable(PATH, "--keyfile", metavar="FILE", help="Its key, where that is not in the same file; one for each.", group="TLS")
    ca_certs: str | None = setting(None, PATH, "--ca-certs", metavar="FILE", help="Authorities of clients' certificates, PEM.", group="TLS")
    cert_reqs: str = setting("none", CERT_REQS, "--cert-reqs", metavar="R", help="Whether clients show a certificate: none, optional, required (0, 1, 2).", group="TLS")
    ciphers: str | None = setting(None, TEXT, "--ciphers", metavar="LIST", help="Ciphers up to TLS 1.2, as OpenSSL writes them.", group="TLS")
    ssl_version: str = setting("1.2", TLS_VERSION, "--ssl-version", metavar="V", help="Least version of TLS: 1.2, 1.3.", group="TLS")
    reload: bool = switch(False, "--reload", fixed=True, help="Development: serve new code as soon as a file is saved; errors are shown in the browser.", managed=True, group="development")
    reload_dir: tuple[str, ...] = repeatable(PATH, "--reload-dir", fixed=True, metavar="DIR", help="Watch this directory too; repeatable.", group="development")
    reload_include: tuple[str, ...] = repeatable(TEXT, "--reload-include", fixed=True, metavar="GLOB", help="Watch files with names or paths like this instead of *.py, *.mo, templates/* and */templates/*; repeatable.", group="development")
    reload_exclude: tuple[str, ...] = repeatable(TEXT, "--reload-exclude", fixed=True, metavar="GLOB", help="Never watch files or directories with names or paths like this; repeatable.", group="development")
    reload_extra_file: tuple[str, ...] = repeatable(PATH, "--reload-extra-file", fixed=True, metavar="FILE", help="Watch this file too; repeatable.", gunicorn_name="reload_extra_files", group="development")
    reload_template: bool = switch(True, "--reload-template", fixed=True, help="With --reload, keep installed modules imported in a process that forks the workers; --no-reload-template does not.", group="development")
    debug_page: bool = switch(True, "--debug-page", help="With --reload, show the traceback of a request's exception in the browser; --no-debug-page does not.", group="development")
    debug_page_remote: bool = switch(False, "--debug-page-remote", help="With --reload, show tracebacks to other machines too.", group="development")
    chdir: str | None = setting(None, PATH, "--chdir", metavar="DIR", help="Directory to run in; importable.", group="process")
    pid: str | None = setting(None, PIDFILE, "-p", "--pid", metavar="FILE", help="Write the arbiter's pid here.", gunicorn_name="pidfile", fixed=True, managed=True, group="process")
    name: str | None = setting(None, NAME, "-n", "--name", metavar="NAME", help="Name in process titles, instead of APP.", gunicorn_name="proc_name", group="process")
    env: tuple[str, ...] = repeatable(VARIABLE, "-e", "--env", metavar="K=V", help="Set this variable for the application; repeatable.", gunicorn_name="raw_env", group="process")
    pythonpath: str | None = setting(None, PATH, "--pythonpath", metavar="DIRS", help="Directories to import from as well, with commas between.", group="process")
    user: str | None = setting(None, NAME, "-u", "--user", metavar="USER", help="Whom workers are, by name or number; needs root.", fixed=True, managed=True, group="process")
    group: str | None = setting(None, NAME, "-g", "--group", metavar="GROUP", help="Their group, by name or number.", fixed=True, managed=True, group="process")
    initgroups: bool = switch(False, "--initgroups", help="Give workers all groups of --user.", group="process")
    umask: int | None = setting(None, UMASK, "-m", "--umask", metavar="MODE", help="File mode creation mask, octal.", group="process")
    worker_tmp_dir: str | None = setting(None, PATH, "--worker-tmp-dir", metavar="DIR", help="Where heartbeat files live; in memory by default.", fixed=True, managed=True, group="process")
    access_logfile: str | None = setting(None, LOGFILE, "--access-logfile", metavar="FILE", help="Access log; - is standard output.", gunicorn_name="accesslog", fixed=True, group="logs")
    access_logformat: str = setting(ACCESS_FORMAT, TEXT, "--access-logformat", metavar="FMT", help="Its format, in gunicorn's atoms; or json, one object a line.", gunicorn_name="access_log_format", group="logs")
    error_logfile: str = setting("-", LOGFILE, "--log-file", "--error-logfile", metavar="FILE", help="Error log; - is standard error.", gunicorn_name="errorlog", fixed=True, group="logs")
    log_level: str = setting("info", LEVEL, "--log-level", metavar="L", help="Least level logged: debug, info, warning, error, critical.", gunicorn_name="loglevel", group="logs")
    log_format: str = setting("text", choice("text", "json"), "--log-format", metavar="F", help="Of the error log: text, or json, one object a line.", fixed=True, group="logs")
    slow_request: float = setting(0.0, seconds(), "--slow-request", metavar="S", help="Log the stack of a request that has been in the application so long, once; it goes on. 0: never.", managed=True, group="logs")
    log_config: str | None = setting(None, PATH, "--log-config", "--log-config-json", metavar="FILE", help="Handlers and formatters of Python's logging: dictConfig as .json or .toml, or an ini file.", gunicorn_name="logconfig", fixed=True, group="logs")
    log_syslog: bool = switch(False, "--log-syslog", help="Send the logs to syslog too.", gunicorn_name="syslog", fixed=True, group="logs")
    log_syslog_to: str = setting("udp://localhost:514", TEXT, "--log-syslog-to", metavar="ADDR", help="Where syslog listens: unix:///dev/log, udp://host:port or tcp://host:port.", gunicorn_name="syslog_addr", fixed=True, group="logs")
    log_syslog_prefix: str | None = setting(None, NAME, "--log-syslog-prefix", metavar="NAME", help="Name in syslog, behind minicorn.", gunicorn_name="syslog_prefix", fixed=True, group="logs")
    log_syslog_facility: str = setting("user", FACILITY, "--log-syslog-facility", metavar="F", help="Facility in syslog.", gunicorn_name="syslog_facility", fixed=True, group="logs")
    disable_redirect_access_to_syslog: bool = switch(False, "--disable-redirect-access-to-syslog", help="The access log does not go to syslog.", fixed=True, group="logs")
    capture_output: bool = switch(False, "--capture-output", help="What the application prints goes to the error log.", managed=True, group="logs")
    monitor: Address | None = setting(None, ADDRESS, "--monitor", metavar="ADDR", help="Serve metrics, status and a page about this server here: host:port, unix:/path or fd://N.", fixed=True, managed=True, group="figures")
    monitor_allow: bool = switch(False, "--monitor-allow", help="Let the monitor listen where other machines reach it.", fixed=True, group="figures")
    statsd_host: str | None = setting(None, STATSD, "--statsd-host", metavar="HOST:PORT", help="Send figures to statsd here, once a second.", fixed=True, managed=True, group="figures")
    statsd_prefix: str = setting("", METRIC, "--statsd-prefix", metavar="NAME", help="Before their names.", fixed=True, group="figures")
    dogstatsd_tags: str = setting("", TAGS, "--dogstatsd-tags", metavar="TAGS", help="DogStatsD tags on each: name:value, with commas between.", fixed=True, group="figures")
    # fmt: on

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The addresses to listen on: `bind`, or else host and port."""
        return self.bind or (Tcp(self.host, self.port),)

    @property
    def scheme(self) -> str:
        """The scheme of our URLs: http, or https with certificates."""
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
        """The name of the application in process titles."""
        return self.name or self.app

    @property
    def variables(self) -> dict[str, str]:
        """The variables that `env` sets."""
        return dict(pair.partition("=")[::2] for pair in self.env)

    def directory(self, called_in: str) -> str:
        """Where the application of a server that was called in `called_in` lives, its path as it was
        given, so that whoever enters it again follows a symlink in it anew."""
        return posixpath.join(called_in, self.chdir or "").rstrip("/") or "/"


OPTIONS: Mapping[str, Option] = {name: line for name, line in Settings.__fields__.items() if isinstance(line, Option)}
# In the class body a field's default is its line of the table, so that a setting is one line; its type is that of the
# value. From here on the record has the defaults that the lines name
Settings.__fields__ |= {name: option.default for name, option in OPTIONS.items()}
# Each setting by all that a file or the environment may call it: our name, gunicorn's, and the long flags
NAMES: Mapping[str, str] = (
    {flag[2:].replace("-", "_"): name for name, o in OPTIONS.items() for flag in o.flags if flag.startswith("--")}
    | {name: name for name in OPTIONS}
    | {option.gunicorn_name: name for name, option in OPTIONS.items() if option.gunicorn_name}
    | {"app": "app", "wsgi_app": "app", "logconfig_json": "log_config"}
)
DEFAULTS = Settings()


def keep_fixed(new: Settings, old: Settings) -> tuple[Settings, list[str]]:
    """`new` with what HUP cannot change as in `old`, and the names of what that holds back."""
    held = {name: getattr(old, name) for name, option in OPTIONS.items() if option.fixed}
    changed = [name for name, value in held.items() if getattr(new, name) != value]
    return replace(new, **held), changed


def to_data(settings: Settings) -> dict[str, object]:
    """All of `settings` that is not fixed, as JSON can hold it."""
    names = [name for name in Settings.__fields__ if name not in OPTIONS or not OPTIONS[name].fixed]
    return {name: getattr(settings, name) for name in names} | {"source": settings.source.decode("latin-1")}


def from_data(data: Mapping[str, object], settings: Settings) -> Settings:
    """`settings` with what `to_data` has given as `data`, by a version that may know more settings, or fewer."""
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
    known = {name: value for name, value in values.items() if name in Settings.__fields__}
    return replace(settings, **known | {"source": str(data["source"]).encode("latin-1")})
