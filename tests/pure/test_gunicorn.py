"""The table for those who come from gunicorn, held against the installed gunicorn's own list of settings."""

import re
import shlex
import ssl
from pathlib import Path

import gunicorn.config
import pytest

from minicorn.cli import main
from minicorn.config import gunicorn as foreign
from minicorn.config.layers import Given, from_argv, from_values, settle
from minicorn.config.settings import NAMES, OPTIONS
from minicorn.errors import ConfigError
from minicorn.parser import build_parser

TABLE = Path(__file__).parents[2] / "deploy" / "from-gunicorn.md"
FOUND = re.findall(r"^\| `(\w+)` \| (same|different|not here) \| (.*) ?\|$", TABLE.read_text(), re.MULTILINE)
ROWS = {name: kind for name, kind, _ in FOUND}
THEIRS = {setting.name: setting for setting in gunicorn.config.KNOWN_SETTINGS}
ACTIONS = {"config", "check_config", "print_config"}  # the command's, no settings

# For each setting that both have: a value on the command line (None: a switch), and in a file
SHARED: dict[str, tuple[str | None, object]] = {
    "access_log_format": ("%(h)s", "%(h)s"),
    "accesslog": ("access.log", "access.log"),
    "backlog": ("64", 64),
    "bind": ("0.0.0.0:80", ["0.0.0.0:80"]),
    "ca_certs": ("ca.pem", "ca.pem"),
    "capture_output": (None, True),
    "cert_reqs": ("2", ssl.CERT_REQUIRED.value),
    "certfile": ("a.pem", "a.pem"),
    "chdir": ("/srv", "/srv"),
    "ciphers": ("ECDHE", "ECDHE"),
    "disable_redirect_access_to_syslog": (None, True),
    "dogstatsd_tags": ("a:b", "a:b"),
    "errorlog": ("error.log", "error.log"),
    "forwarded_allow_ips": ("10.0.0.1", "10.0.0.1"),
    "graceful_timeout": ("7", 7),
    "group": ("www", "www"),
    "initgroups": (None, True),
    "keepalive": ("2", 2),
    "keyfile": ("a.key", "a.key"),
    "limit_request_field_size": ("8190", 8190),
    "limit_request_fields": ("50", 50),
    "limit_request_line": ("4094", 4094),
    "logconfig": ("log.ini", "log.ini"),
    "logconfig_json": ("log.json", "log.json"),
    "loglevel": ("debug", "debug"),
    "max_requests": ("1000", 1000),
    "max_requests_jitter": ("50", 50),
    "pidfile": ("/run/pid", "/run/pid"),
    "preload_app": (None, True),
    "proc_name": ("shop", "shop"),
    "proxy_allow_ips": ("10.0.0.1", "10.0.0.1"),
    "proxy_protocol": ("v2", "v2"),
    "pythonpath": ("/srv/a,/srv/b", "/srv/a,/srv/b"),
    "raw_env": ("A=1", ["A=1"]),
    "reload": (None, True),
    "reload_extra_files": ("a.yaml", ["a.yaml"]),
    "reuse_port": (None, True),
    "sendfile": (None, False),
    "ssl_version": ("tlsv1_3", "tlsv1_3"),
    "statsd_host": ("localhost:8125", "localhost:8125"),
    "statsd_prefix": ("shop", "shop"),
    "syslog": (None, True),
    "syslog_addr": ("unix:///dev/log", "unix:///dev/log"),
    "syslog_facility": ("local7", "local7"),
    "syslog_prefix": ("shop", "shop"),
    "timeout": ("60", 60),
    "umask": ("027", 0o027),
    "user": ("www", "www"),
    "worker_connections": ("500", 500),
    "worker_tmp_dir": ("/dev/shm", "/dev/shm"),
    "workers": ("3", 3),
}
TRANSLATED = {"wsgi_app", "paste", "logconfig_dict"}


def test_the_table_has_every_setting_of_gunicorn_and_no_other() -> None:
    assert set(ROWS) == set(THEIRS)


@pytest.mark.parametrize("name", sorted(set(ROWS) - ACTIONS))
def test_a_row_says_what_is_so(name: str) -> None:
    here = name in NAMES or name in foreign.HOOKS or name in TRANSLATED
    assert (ROWS[name] != "not here") == here
    assert here or name in foreign.FOREIGN


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, _, text in FOUND])
def test_a_row_tells_what_the_command_tells_and_what_hup_changes(name: str, text: str) -> None:
    entry = foreign.FOREIGN.get(name)
    if entry and name not in ACTIONS:
        taken = "taken and ignored: " if entry.harmless is None else ""
        assert text.replace("`", "").strip() == taken + entry.advice
    elif option := OPTIONS.get(NAMES.get(foreign.translate(name, "")[0], "")):
        assert ("not at HUP" in text) == option.fixed


def test_every_shared_row_is_tried() -> None:
    shared = {name for name, kind in ROWS.items() if kind != "not here"}
    assert shared - set(foreign.HOOKS) - ACTIONS - TRANSLATED == set(SHARED)


@pytest.mark.parametrize("name", SHARED)
def test_a_shared_row_is_set_by_each_flag_and_in_a_file(name: str) -> None:
    text, value = SHARED[name]
    field = NAMES[name]
    by_file = getattr(settle([from_values("gunicorn.conf.py", {name: value})], {}).settings, field)
    assert by_file != getattr(settle([], {}).settings, field)
    for flag in THEIRS[name].cli:
        argv = [flag] + ([text] if text is not None else [])
        given = vars(build_parser().parse_args([*argv, "m:app"]))
        assert getattr(settle([from_argv({field: given[field]})], {}).settings, field) == by_file


@pytest.mark.parametrize(
    "value", [None, False, True, "off", "False", "0", "none", "true", "1", "auto", "v1", "V1", "v2"], ids=repr
)
def test_a_file_says_of_the_proxy_protocol_what_it_says_to_gunicorn(value: object) -> None:
    ours = settle([from_values("gunicorn.conf.py", {"proxy_protocol": value})], {}).settings.proxy_protocol
    assert ours == gunicorn.config.validate_proxy_protocol(value)


@pytest.mark.parametrize(
    ("line", "mode"),
    [
        ("--proxy-protocol m:app", "auto"),
        ("m:app --proxy-protocol", "auto"),
        ("--proxy-protocol --workers 2 m:app", "auto"),
        ("--proxy-protocol v1 m:app", "v1"),
        ("--proxy-protocol=v2 m:app", "v2"),
        ("m:app --proxy-protocol v1 --proxy-protocol off", "off"),
    ],
)
def test_the_proxy_protocol_may_go_without_a_value_even_before_app(
    line: str, mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*line.split(), "--print-config"]) == 0
    shown = capsys.readouterr().out
    assert re.search(rf"^proxy_protocol = '{mode}' +# --proxy-protocol$", shown, re.MULTILINE)
    assert re.search(r"^wsgi_app = 'm:app' ", shown, re.MULTILINE)


def test_paste_is_an_application_by_flag_and_in_a_file() -> None:
    for flag in THEIRS["paste"].cli:
        assert vars(build_parser().parse_args([flag, "site.ini#admin"]))["app"] == "paste:site.ini#admin"
    values = {"paste": "site.ini#admin", "raw_paste_global_conf": []}
    assert settle([from_values("gunicorn.conf.py", values)], {}).settings.app == "paste:site.ini#admin"
    assert settle([from_values("gunicorn.conf.py", {"paste": None})], {}).settings.app == ""


def test_a_dict_for_logging_stands_for_its_file_if_it_says_anything() -> None:
    values = {"logconfig": "log.ini", "logconfig_dict": {"version": 1}}
    assert settle([from_values("gunicorn.conf.py", values)], {}).settings.log_config == '{"version": 1}'
    values["logconfig_dict"] = {}
    assert settle([from_values("gunicorn.conf.py", values)], {}).settings.log_config == "log.ini"


@pytest.mark.parametrize("name", sorted(set(ROWS) - ACTIONS))
def test_gunicorns_flags_are_all_known(name: str) -> None:
    parser = build_parser()
    for flag in THEIRS[name].cli or ():
        assert flag in parser._option_string_actions, flag


@pytest.mark.parametrize("name", sorted(foreign.FOREIGN))
def test_what_is_foreign_is_harmless_or_refused_with_advice(name: str) -> None:
    if name in NAMES:
        return
    entry = foreign.FOREIGN[name]
    foreign.judge(name, entry.harmless[0] if entry.harmless else "", "x") if entry.harmless != () else None
    if entry.harmless is not None:
        with pytest.raises(ConfigError, match=re.escape(entry.advice)):
            foreign.judge(name, "something else", f"gunicorn.conf.py: {name}")


def test_gunicorns_defaults_are_all_taken() -> None:
    """Whoever writes out what gunicorn does anyway is not refused."""
    for name, kind in ROWS.items():
        default = THEIRS[name].default
        if kind == "not here" and not callable(default) and name not in ("secure_scheme_headers", "cert_reqs"):
            foreign.judge(name, default, name)


def test_a_procfiles_flags_are_read_as_a_shell_gives_them() -> None:
    line = "-w 4 -b 0.0.0.0:$PORT --log-file - --access-logfile=- -k sync --threads 1 shop.wsgi"
    given = vars(build_parser().parse_args(shlex.split(line.replace("$PORT", "5000"))))
    settings = settle([from_argv({name: given[name] for name in ("workers", "bind", "error_logfile")})], {}).settings
    assert (settings.workers, settings.error_logfile) == (4, "-")
    assert given["app"] == "shop.wsgi"


def test_a_layer_above_wins_and_one_below_is_still_judged() -> None:
    below, above = {"workers": Given(("none",), "below")}, {"workers": Given(("2",), "above")}
    with pytest.raises(ConfigError, match="below"):
        settle([below, above], {})


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_complete_flags(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--print-completion", shell]) == 0
    assert "graceful-timeout" in capsys.readouterr().out
