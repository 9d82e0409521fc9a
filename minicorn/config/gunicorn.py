"""What gunicorn has and minicorn has not: which values are harmless, and what to do about others.

Pure data and one judgement. A setting with a counterpart here is in the table of `settings`,
whose lines also carry gunicorn's name where that differs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from minicorn.errors import ConfigError
from minicorn.record import Value

# gunicorn's hooks, all of which are honoured
HOOKS = (
    "on_starting", "on_reload", "when_ready", "pre_fork", "post_fork", "post_worker_init", "worker_int", "worker_abort",
    "pre_exec", "pre_request", "post_request", "child_exit", "worker_exit", "nworkers_changed", "on_exit",
)  # fmt: skip


class Foreign(Value, quick=True):
    """One of gunicorn's settings without a counterpart: values that change nothing here, and advice for others."""

    advice: str
    harmless: tuple[object, ...] | None = ()  # None: any value is
    flags: tuple[str, ...] = ()
    takes_value: bool = True


_OFF = (False, None, 0, "", "off")
_NO_ASGI = "minicorn serves WSGI; an ASGI application needs an ASGI server, or a2wsgi.ASGIMiddleware(app)"
_NO_HTTP2 = "minicorn speaks HTTP/1.1; let a proxy in front speak HTTP/2"
_STRICT = "minicorn takes what RFC 9112 allows, and nothing else: mend the client"
_NO_DIRTY = "give long work to a queue such as Celery or RQ"
_NO_TLS = "see --certfile, --ciphers and --ssl-version"
_ASKED = "ask for it on the command line"
_PROXY = "see --forwarded-allow-ips and --forwarded-headers"
_PASTE = "write it under [DEFAULT] in the PasteDeploy file"
_MANY = "a worker serves one request at a time; give --workers a higher number"


def _unused(*flags: str, takes_value: bool = True) -> Foreign:
    return Foreign("it means nothing here", None, flags, takes_value)


FOREIGN: Mapping[str, Foreign] = {
    "worker_class": Foreign(_MANY + ", and leave it out; " + _NO_ASGI, ("sync", "gunicorn.workers.sync.SyncWorker"), ("-k", "--worker-class")),
    "threads": Foreign(_MANY, (1, "1"), ("--threads",)),
    "daemon": Foreign("let systemd or a container run it in the background", _OFF, ("-D", "--daemon"), False),
    "spew": Foreign("python -m trace shows the same without a server's help", _OFF, ("--spew",), False),
    "logger_class": Foreign("name formatters and handlers by --log-config", (None, "gunicorn.glogging.Logger"), ("--logger-class",)),
    "check_config": Foreign(_ASKED, _OFF),
    "print_config": Foreign(_ASKED, _OFF),
    "control_socket": _unused("--control-socket"),
    "control_socket_disable": _unused("--no-control-socket", takes_value=False),
    "control_socket_mode": _unused("--control-socket-mode"),
    "default_proc_name": _unused(),
    "enable_stdio_inheritance": _unused("-R", "--enable-stdio-inheritance", takes_value=False),
    "http_parser": _unused("--http-parser"),
    "suppress_ragged_eofs": _unused("--suppress-ragged-eofs", takes_value=False),
    "do_handshake_on_connect": _unused("--do-handshake-on-connect", takes_value=False),
    "asgi_loop": Foreign(_NO_ASGI, None, ("--asgi-loop",)),
    "asgi_lifespan": Foreign(_NO_ASGI, None, ("--asgi-lifespan",)),
    "asgi_disconnect_grace_period": Foreign(_NO_ASGI, None, ("--asgi-disconnect-grace-period",)),
    "websocket_max_message_size": Foreign(_NO_ASGI, None, ("--websocket-max-message-size",)),
    "root_path": Foreign(_NO_ASGI + "; for WSGI let the proxy send SCRIPT_NAME", ("", None), ("--root-path",)),
    "http_protocols": Foreign(_NO_HTTP2, ("h1", ["h1"]), ("--http-protocols",)),
    "http2_cleartext": Foreign(_NO_HTTP2, _OFF, ("--http2-cleartext",)),
    "http2_initial_window_size": Foreign(_NO_HTTP2, None, ("--http2-initial-window-size",)),
    "http2_max_concurrent_streams": Foreign(_NO_HTTP2, None, ("--http2-max-concurrent-streams",)),
    "http2_max_frame_size": Foreign(_NO_HTTP2, None, ("--http2-max-frame-size",)),
    "http2_max_header_list_size": Foreign(_NO_HTTP2, None, ("--http2-max-header-list-size",)),
    "protocol": Foreign("let the proxy in front speak HTTP", ("http", None), ("--protocol",)),
    "uwsgi_allow_ips": Foreign("let the proxy in front speak HTTP", None, ("--uwsgi-allow-from",)),
    "casefold_http_method": Foreign(_STRICT, _OFF, ("--casefold-http-method",), False),
    "permit_obsolete_folding": Foreign(_STRICT, _OFF, ("--permit-obsolete-folding",), False),
    "permit_unconventional_http_method": Foreign(_STRICT, _OFF, ("--permit-unconventional-http-method",), False),
    "permit_unconventional_http_version": Foreign(_STRICT, _OFF, ("--permit-unconventional-http-version",), False),
    "strip_header_spaces": Foreign(_STRICT, _OFF, ("--strip-header-spaces",), False),
    "dirty_apps": Foreign(_NO_DIRTY, ([], None), ("--dirty-app",)),
    "dirty_workers": Foreign(_NO_DIRTY, (0, "0"), ("--dirty-workers",)),
    "dirty_threads": Foreign(_NO_DIRTY, None, ("--dirty-threads",)),
    "dirty_timeout": Foreign(_NO_DIRTY, None, ("--dirty-timeout",)),
    "on_dirty_starting": Foreign(_NO_DIRTY),
    "dirty_post_fork": Foreign(_NO_DIRTY),
    "dirty_worker_init": Foreign(_NO_DIRTY),
    "dirty_worker_exit": Foreign(_NO_DIRTY),
    "reload_engine": _unused("--reload-engine"),
    "enable_backlog_metric": Foreign("--monitor tells of the accept queue", None, ("--enable-backlog-metric",), False),
    "ssl_context": Foreign(_NO_TLS),
    "forwarder_headers": Foreign(_PROXY, ("SCRIPT_NAME,PATH_INFO", "", None), ("--forwarder-headers",)),
    "secure_scheme_headers": Foreign(_PROXY, (None, {"X-FORWARDED-PROTO": "https"})),
    "header_map": Foreign(_STRICT, ("drop", None), ("--header-map",)),
    "raw_paste_global_conf": Foreign(_PASTE, ([], None), ("--paste-global",)),
    "tmp_upload_dir": Foreign("set TMPDIR by --env, which the workers' temporary files follow", (None,)),
    "dirty_graceful_timeout": Foreign(_NO_DIRTY, None, ("--dirty-graceful-timeout",)),
}  # fmt: skip

# gunicorn's names for settings that both have; in its files these count before our own
NAMES = frozenset(
    "wsgi_app bind backlog workers timeout graceful_timeout keepalive max_requests max_requests_jitter chdir pidfile "
    "proc_name umask user group initgroups worker_tmp_dir accesslog access_log_format errorlog loglevel raw_env "
    "pythonpath preload_app reload forwarded_allow_ips proxy_protocol proxy_allow_ips certfile keyfile ca_certs "
    "cert_reqs ciphers ssl_version capture_output reuse_port sendfile reload_extra_files "
    "limit_request_line limit_request_fields limit_request_field_size "
    "worker_connections logconfig logconfig_json logconfig_dict syslog syslog_addr syslog_prefix syslog_facility "
    "disable_redirect_access_to_syslog paste".split()
)


def paste_app(file: str) -> str:
    """APP, for what gunicorn calls --paste FILE."""
    return f"paste:{file}"


def translate(name: str, value: object) -> tuple[str, object]:
    """A file's setting and its value, or what says the same here."""
    if name == "paste":
        return "wsgi_app", value and paste_app(str(value))
    if name == "logconfig_dict":
        return "logconfig", json.dumps(value) if value else None
    return name, value


def judge(name: str, value: object, origin: str) -> None:
    """Pass over a value that is harmless; ConfigError, which says what to do, for any other."""
    foreign = FOREIGN[name]
    if foreign.harmless is None or value in foreign.harmless:
        return
    said = "" if value is True else f": {value!r}"  # of a switch its name says all
    raise ConfigError(f"{origin}{said} cannot be honoured: {foreign.advice}")


def nearest(name: str, flags: list[str]) -> str:
    """The end of an error's line that asks whether one of `flags` was meant by `name`; "" if none is like it."""
    import difflib  # for mistakes alone

    named = {flag.lstrip("-"): flag for flag in flags}  # dashes alike are no likeness
    near = difflib.get_close_matches(name.lstrip("-"), named, n=1)
    return f"; did you mean {named[near[0]]}?" if near else ""
