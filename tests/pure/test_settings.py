"""Settings and the command line: the contract's defaults, one line for each mistake."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

import minicorn
from minicorn.cli import main
from minicorn.config.address import Descriptor, Tcp, Unix
from minicorn.config.layers import OWN_VARIABLES, from_argv, from_environ, from_options, from_values, render, settle
from minicorn.config.settings import ACCESS_FORMAT, OPTIONS, Settings
from minicorn.errors import ConfigError, UsageError

GUNICORN_FORMAT = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"'

# What users and their scripts rely on: flags and default of each setting
CONTRACT: dict[str, tuple[str, object]] = {
    "host": ("--host", "127.0.0.1"),
    "port": ("--port", 8000),
    "bind": ("-b --bind", ()),
    "workers": ("-w --workers", 1),
    "timeout": ("-t --timeout", 30.0),
    "boot_timeout": ("--boot-timeout", 60.0),
    "graceful_timeout": ("--graceful-timeout", 30.0),
    "drain_delay": ("--drain-delay", 0.0),
    "max_requests": ("--max-requests", 0),
    "max_requests_jitter": ("--max-requests-jitter", 0),
    "max_worker_memory": ("--max-worker-memory", 0),
    "max_boot_failures": ("--max-boot-failures", 0),
    "warmup": ("--warmup", ()),
    "preload": ("--preload", False),
    "preload_strict": ("--preload-strict", False),
    "refork_after": ("--refork-after", ()),
    "queue_timeout": ("--queue-timeout", 0.0),
    "handoff_after": ("--handoff-after", 10.0),
    "recv_timeout": ("--recv-timeout", 10.0),
    "send_timeout": ("--send-timeout", 30.0),
    "keep_alive": ("--keep-alive", 15.0),
    "max_keepalive_requests": ("--max-keepalive-requests", 100),
    "max_header_size": ("--max-header-size", 65536),
    "max_body_size": ("--max-body-size", 1048576),
    "limit_request_fields": ("--limit-request-fields", 100),
    "limit_request_line": ("--limit-request-line", 0),
    "limit_request_field_size": ("--limit-request-field_size --limit-request-field-size", 0),
    "min_body_rate": ("--min-body-rate", 240),
    "worker_connections": ("--worker-connections", 10000),
    "max_buffered_size": ("--max-buffered-size", 128 * 2**20),
    "backlog": ("--backlog", 2048),
    "forwarded_allow_ips": ("--forwarded-allow-ips", "127.0.0.1,::1,unix"),
    "forwarded_headers": ("--forwarded-headers", "x-forwarded-for,x-forwarded-proto"),
    "proxy_protocol": ("--proxy-protocol", "off"),
    "proxy_allow_from": ("--proxy-allow-from", "127.0.0.1,::1,unix"),
    "certfile": ("--certfile", ()),
    "keyfile": ("--keyfile", ()),
    "ca_certs": ("--ca-certs", None),
    "cert_reqs": ("--cert-reqs", "none"),
    "ciphers": ("--ciphers", None),
    "ssl_version": ("--ssl-version", "1.2"),
    "reload": ("--reload", False),
    "reload_dir": ("--reload-dir", ()),
    "reload_include": ("--reload-include", ()),
    "reload_exclude": ("--reload-exclude", ()),
    "reload_extra_file": ("--reload-extra-file", ()),
    "reload_template": ("--reload-template", True),
    "debug_page": ("--debug-page", True),
    "debug_page_remote": ("--debug-page-remote", False),
    "chdir": ("--chdir", None),
    "pid": ("-p --pid", None),
    "name": ("-n --name", None),
    "user": ("-u --user", None),
    "group": ("-g --group", None),
    "initgroups": ("--initgroups", False),
    "reuse_port": ("--reuse-port", False),
    "sendfile": ("--sendfile", True),
    "config_timeout": ("--config-timeout", 10.0),
    "env": ("-e --env", ()),
    "pythonpath": ("--pythonpath", None),
    "umask": ("-m --umask", None),
    "worker_tmp_dir": ("--worker-tmp-dir", None),
    "access_logfile": ("--access-logfile", None),
    "access_logformat": ("--access-logformat", GUNICORN_FORMAT),
    "error_logfile": ("--log-file --error-logfile", "-"),
    "log_level": ("--log-level", "info"),
    "log_format": ("--log-format", "text"),
    "log_config": ("--log-config --log-config-json", None),
    "log_syslog": ("--log-syslog", False),
    "log_syslog_to": ("--log-syslog-to", "udp://localhost:514"),
    "log_syslog_prefix": ("--log-syslog-prefix", None),
    "log_syslog_facility": ("--log-syslog-facility", "user"),
    "disable_redirect_access_to_syslog": ("--disable-redirect-access-to-syslog", False),
    "capture_output": ("--capture-output", False),
    "slow_request": ("--slow-request", 0.0),
    "monitor": ("--monitor", None),
    "monitor_allow": ("--monitor-allow", False),
    "statsd_host": ("--statsd-host", None),
    "statsd_prefix": ("--statsd-prefix", ""),
    "dogstatsd_tags": ("--dogstatsd-tags", ""),
}


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line reads these."""
    for name in ("PORT", "WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS"):
        monkeypatch.delenv(name, raising=False)


def given(environ: dict[str, str] | None = None, **argv: str | list[str]) -> Settings:
    """Settings from these flags and variables."""
    values = {name: [value] if isinstance(value, str) else value for name, value in argv.items()}
    variables = environ or {}
    return settle([from_environ(variables), from_argv({"app": ["main:app"], **values})], variables).settings


def test_every_setting_is_in_the_contract() -> None:
    assert set(OPTIONS) == set(CONTRACT)


@pytest.mark.parametrize("name", CONTRACT)
def test_flags_and_defaults_are_the_contracts(name: str) -> None:
    flags, default = CONTRACT[name]
    assert OPTIONS[name].flags == tuple(flags.split())
    assert getattr(given(), name) == default
    assert getattr(Settings(), name) == default


def test_the_access_log_has_gunicorns_format() -> None:
    assert ACCESS_FORMAT == GUNICORN_FORMAT


# Values

GOOD = [
    ("proxy_protocol", "yes", "auto"),
    ("proxy_protocol", "V2", "v2"),
    ("certfile", "a.pem", ("a.pem",)),
    ("cert_reqs", "2", "required"),
    ("cert_reqs", "Optional", "optional"),
    ("ssl_version", "TLSv1_3", "1.3"),
    ("ssl_version", "TLS", "1.2"),
    ("forwarded_allow_ips", "::1, 10.0.0.0/8,unix,*", "::1, 10.0.0.0/8,unix,*"),
    ("forwarded_allow_ips", "", ""),
    ("forwarded_headers", "Forwarded, X-Forwarded-For", "forwarded,x-forwarded-for"),
    ("host", "::1", "::1"),
    ("port", "0", 0),
    ("port", "65535", 65535),
    ("workers", "8", 8),
    ("workers", "auto", "auto"),
    ("timeout", "0", 0.0),
    ("timeout", "2.5", 2.5),
    ("boot_timeout", "0.1", 0.1),
    ("max_keepalive_requests", "0", 0),
    ("max_header_size", "8K", 8192),
    ("max_body_size", "0", 0),
    ("max_body_size", "10M", 10 * 2**20),
    ("max_body_size", "2g", 2 * 2**30),
    ("umask", "027", 0o27),
    ("umask", "0", 0),
    ("chdir", "/srv/my app", "/srv/my app"),
    ("access_logfile", "-", "-"),
    ("log_level", "DEBUG", "debug"),
    ("preload", "on", True),
    ("preload", "off", False),
    ("reload", "Yes", True),
    ("reload", "0", False),
]


@pytest.mark.parametrize(("name", "text", "value"), GOOD)
def test_a_good_value_is_taken(name: str, text: str, value: object) -> None:
    assert getattr(given(**{name: text}), name) == value


WRONG: dict[str, list[str]] = {
    "host": ["", "a\0b"],
    "port": ["", "-1", "65536", "http", "+80", "8_0", "80 ", "٣", "1e3", "99999999"],
    "bind": ["", "nonsense:port", "::1:80", "unix:", "fd://", "fd://-x", "h:70000", "http://h:80"],
    "workers": ["", "0", "-1", "1001", "two", "1.5", "AUTOMATIC"],
    "timeout": ["", "-1", "nan", "inf", "-inf", "soon", "30s", "1e10"],
    "boot_timeout": ["0", "-1", "nan", "never"],
    "graceful_timeout": ["-0.5", "inf", "x"],
    "drain_delay": ["-1", "nan", "x"],
    "max_requests": ["-1", "1.5", "x"],
    "max_requests_jitter": ["-1", "1.5", "x"],
    "max_worker_memory": ["-1", "1X", "1.5G", ""],
    "max_boot_failures": ["-1", "x"],
    "warmup": ["", "health", "/a b", "/a\r\nHost: b", "/ä", "/#top"],
    "preload": ["", "perhaps"],
    "preload_strict": ["", "perhaps"],
    "refork_after": ["0", "-1", "1,,2", "1,", "soon", "1.5", "1 2"],
    "queue_timeout": ["-1", "nan", "x"],
    "handoff_after": ["-1", "nan", "x"],
    "recv_timeout": ["0", "nan", "x"],
    "send_timeout": ["0", "nan", "x"],
    "keep_alive": ["-1", "nan", "x"],
    "max_keepalive_requests": ["-1", "1.5", "many", "99999999999"],
    "max_header_size": ["0", "255", "-1", "1X", "K", "1.5K", ""],
    "max_body_size": ["-1", "-1M", "M", "big", "1MB", "", "8589934592G"],
    "limit_request_fields": ["-1", "x"],
    "limit_request_line": ["-1", "x", "4K"],
    "limit_request_field_size": ["-1", "x"],
    "min_body_rate": ["-1", "1.5", "fast"],
    "worker_connections": ["-1", "all"],
    "max_buffered_size": ["-1", "big"],
    "backlog": ["0", "-1", "x", "2147483648"],
    "reload": ["", "maybe", "2"],
    "reload_dir": ["", "a\0b"],
    "reload_include": ["", "a\0b"],
    "reload_exclude": ["", "a\0b"],
    "reload_extra_file": ["", "a\0b"],
    "reload_template": ["", "maybe", "2"],
    "debug_page": ["", "maybe", "2"],
    "debug_page_remote": ["", "maybe", "2"],
    "forwarded_allow_ips": ["10.0.0.1/8", "localhost", "10.0.0", "1.2.3.4 5.6.7.8", "::1/200", "UNIX"],
    "forwarded_headers": ["x-real-ip", "x-forwarded-for x-forwarded-proto", "for"],
    "proxy_protocol": ["", "perhaps", "v3", "2"],
    "proxy_allow_from": ["10.0.0.1/8", "localhost"],
    "certfile": ["", "a\0b"],
    "keyfile": [""],
    "ca_certs": [""],
    "cert_reqs": ["", "3", "always"],
    "ciphers": [""],
    "ssl_version": ["", "1.1", "sslv3", "3"],
    "chdir": ["", "a\0b"],
    "pid": [""],
    "name": [""],
    "user": [""],
    "group": [""],
    "initgroups": ["maybe", ""],
    "reuse_port": ["2"],
    "sendfile": ["x"],
    "config_timeout": ["0", "nan", "x"],
    "env": ["", "A", "=1", "A=\0"],
    "pythonpath": [""],
    "umask": ["9", "-1", "1000", "rwx", ""],
    "worker_tmp_dir": [""],
    "access_logfile": [""],
    "access_logformat": [""],
    "error_logfile": [""],
    "log_level": ["", "loud", "warn ing"],
    "log_format": ["", "xml"],
    "log_config": [""],
    "log_syslog": ["", "perhaps"],
    "log_syslog_to": [""],
    "log_syslog_prefix": [""],
    "log_syslog_facility": ["", "local8"],
    "disable_redirect_access_to_syslog": ["", "perhaps"],
    "capture_output": ["", "perhaps"],
    "slow_request": ["-1", "nan", "x"],
    "monitor": ["nonsense:port", "::1:80"],
    "monitor_allow": ["", "perhaps"],
    "statsd_host": ["", "localhost", ":8125", "localhost:x", "localhost:0", "localhost:"],
    "statsd_prefix": ["a b", "a:b", "a|b", "ä"],
    "dogstatsd_tags": ["a|b", "ä:b", "a\nb"],
}


def test_every_setting_has_wrong_values() -> None:
    assert set(WRONG) == set(OPTIONS)


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in WRONG.items() for text in texts])
def test_a_wrong_value_gives_one_line_that_names_flag_and_value(name: str, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        given(**{name: text})
    line = str(caught.value)
    assert all(flag in line for flag in OPTIONS[name].flags)
    assert repr(text) in line
    assert OPTIONS[name].kind.takes in line
    assert "\n" not in line
    assert caught.value.__cause__ is None


def test_of_a_flag_given_twice_the_last_counts_and_each_is_judged() -> None:
    assert given(workers=["2", "3"]).workers == 3
    with pytest.raises(UsageError, match="--workers"):
        given(workers=["none", "3"])


def test_a_line_end_in_a_value_does_not_make_two_lines() -> None:
    with pytest.raises(UsageError) as caught:
        given(port="80\n81")
    assert "\n" not in str(caught.value)


def test_reforks_need_a_template() -> None:
    assert given(preload="on", refork_after="50,1000").refork_after == (50, 1000)
    assert from_options("main:app", preload=True, refork_after=[50, 1000]).refork_after == (50, 1000)
    assert from_options("main:app", preload=True, refork_after=50).refork_after == (50,)
    with pytest.raises(UsageError, match=r"^--refork-after needs --preload") as caught:
        given(refork_after="50")
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="MINICORN_REFORK_AFTER needs --preload"):
        given({"MINICORN_REFORK_AFTER": "50"})


# Where to listen, and what titles say


def test_host_and_port_are_the_address() -> None:
    assert given().addresses == (Tcp("127.0.0.1", 8000),)
    assert given(host="::1", port="0").addresses == (Tcp("::1", 0),)


def test_bind_is_repeatable_and_replaces_host_and_port() -> None:
    settings = given(host="h", port="1", bind=["[::1]:80", "unix:/run/x", "fd://3"])
    assert settings.addresses == (Tcp("::1", 80), Unix("/run/x"), Descriptor(3))
    assert given({"PORT": "9000"}, bind="h:80").addresses == (Tcp("h", 80),)
    below = {"MINICORN_BIND": "h:80"}
    assert given(below, host="g").addresses == (Tcp("g", 8000),)
    assert given(below, port="81").addresses == (Tcp("127.0.0.1", 81),)
    assert given(below, workers="2").addresses == (Tcp("h", 80),)
    assert given(below, port="81", bind="g:82").addresses == (Tcp("g", 82),)


def test_the_name_stands_for_the_application_in_titles() -> None:
    assert given().title == "main:app"
    assert given(name="shop").title == "shop"


# Variables


def test_port_in_the_environment_means_all_interfaces() -> None:
    assert given({"PORT": "9000"}).addresses == (Tcp("0.0.0.0", 9000),)


def test_a_flag_beats_its_variable() -> None:
    assert given({"PORT": "9000"}, host="127.0.0.1").addresses == (Tcp("127.0.0.1", 9000),)
    assert given({"PORT": "9000"}, port="81").addresses == (Tcp("127.0.0.1", 81),)
    assert given({"WEB_CONCURRENCY": "4"}, workers="2").workers == 2


def test_web_concurrency_is_the_number_of_workers() -> None:
    assert given({"WEB_CONCURRENCY": "4"}).workers == 4
    assert given({"WEB_CONCURRENCY": "auto"}).workers == "auto"


def test_an_empty_variable_is_none() -> None:
    assert given({"PORT": "", "WEB_CONCURRENCY": "", "MINICORN_TIMEOUT": ""}) == given()


def test_a_variable_has_as_many_values_as_words_where_the_setting_takes_several() -> None:
    assert given({"MINICORN_ENV": "A=1 'B=two words'"}).env == ("A=1", "B=two words")
    assert given({"MINICORN_CHDIR": "/srv/my app"}).chdir == "/srv/my app"


def test_a_variable_of_ours_that_is_no_setting_is_let_be() -> None:
    assert given(dict.fromkeys(OWN_VARIABLES, "x")) == given()


def test_of_two_names_of_a_setting_in_a_file_gunicorns_counts() -> None:
    said = {"keep_alive": 3, "keepalive": 4, "env": ["A=1"], "raw_env": ("B=2", "C=3")}
    settings = settle([from_values("file", said)], {}).settings
    assert (settings.keep_alive, settings.env) == (4.0, ("B=2", "C=3"))


def test_from_python_a_name_that_is_no_setting_is_told_with_the_nearest() -> None:
    assert from_options("main:app", workers=2, timeout=None) == given(workers="2")
    with pytest.raises(ConfigError, match=r"^'worker' is no setting; did you mean 'workers'\?$"):
        from_options("main:app", worker=2)


@pytest.mark.parametrize(("variable", "text"), [("PORT", "http"), ("PORT", "-1"), ("WEB_CONCURRENCY", "0")])
def test_a_wrong_variable_gives_one_line_that_names_it(variable: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        given({variable: text})
    assert not isinstance(caught.value, UsageError)
    assert str(caught.value).startswith(f"{variable}: ")
    assert "\n" not in str(caught.value)


# The command


def only_line(captured: pytest.CaptureFixture[str]) -> str:
    """The one line on standard error; nothing is on standard output."""
    out, err = captured.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("minicorn: error: ")
    return err


@pytest.mark.parametrize(
    ("argv", "mention"),
    [
        ([], "APP"),
        (["main:app", "more"], "more"),
        (["main:app", "--no-such-flag"], "--no-such-flag"),
        (["main:app", "--worker", "2"], "--worker"),
        (["main:app", "--workers"], "--workers"),
        (["main:app", "--workers", "0"], "--workers"),
        (["main:app", "-w", "-1"], "--workers"),
        (["main:app", "-wx"], "--workers"),
        (["main:app", "--port=http"], "--port"),
        (["main:app", "-b", "h:80", "-b", "h:x"], "--bind"),
        (["main:app", "-m", "999"], "--umask"),
        (["main:app", "--timeout", "-1"], "--timeout"),
        (["--log-level", "loud", "main:app"], "--log-level"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2_and_one_line(
    argv: list[str], mention: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    assert mention in only_line(capsys)


@pytest.mark.parametrize("variable", ["PORT", "WEB_CONCURRENCY"])
def test_a_wrong_variable_is_exit_code_1_and_one_line(
    variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, "nonsense")
    assert main(["main:app"]) == 1
    assert variable in only_line(capsys)


def test_help_names_every_flag_and_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = "".join(capsys.readouterr().out.split())  # lines break at a hyphen too
    for name, option in OPTIONS.items():
        assert all(flag in text for flag in option.flags)
        default = CONTRACT[name][1]
        hidden = default in (None, (), "") or option.switch
        shown = "" if hidden else f" (default: {option.kind.show(default)})"
        assert "".join(f"{option.flags[-1]} {option.metavar} {option.help}{shown}".split()) in text


def test_help_has_each_setting_under_its_heading_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    blocks = [block.partition(":\n") for block in capsys.readouterr().out.split("\n\n")]
    found = {heading: set(re.findall(r"(?m)^  (?:-\w, )?(--[\w-]+)", rest)) for heading, _, rest in blocks}
    for group in {option.group for option in OPTIONS.values()}:
        assert found[group] == {next(f for f in o.flags if f[1] == "-") for o in OPTIONS.values() if o.group == group}


def test_sizes_and_durations_are_shown_as_a_person_writes_them_and_read_back_as_they_were() -> None:
    size, seconds = OPTIONS["max_body_size"].kind, OPTIONS["timeout"].kind
    for value, shown in ((0, "0"), (1000, "1000"), (1024, "1K"), (1536, "1536"), (3 * 2**20, "3M"), (2**31, "2G")):
        assert (size.show(value), size.parse(shown)) == (shown, value)
    assert (seconds.show(30.0), seconds.show(0.5), seconds.show(1234567.25)) == ("30", "0.5", "1234567.25")


POOL = ["1", "auto", "true", "h:80", "unix:/run/x", "[::1]:0", "fd://3", "0.125", "1234567", "50,1000", "/a", "A=1", ""]


def said_of(name: str) -> st.SearchStrategy[tuple[str, list[str]]]:
    """The setting with one or two texts that it takes."""
    option = OPTIONS[name]

    def is_taken(text: str) -> bool:
        try:
            option.kind.parse(text)
        except ValueError:
            return False
        return True

    pool = [*POOL, *option.kind.words, *(text for setting, text, _ in GOOD if setting == name)]
    texts = st.sampled_from(list(filter(is_taken, pool)))
    if is_taken("any text"):
        texts |= st.text(min_size=1, max_size=9).filter(is_taken)
    return st.tuples(st.just(name), st.lists(texts, min_size=1, max_size=2))


@hypothesis.settings(max_examples=40)
@hypothesis.given(st.lists(st.sampled_from(list(OPTIONS)).flatmap(said_of), max_size=4).map(dict))
def test_what_is_printed_is_a_file_with_the_same_settings(values: dict[str, list[str]]) -> None:
    if "refork_after" in values:
        values["preload"] = ["true"]
    outcome = settle([from_argv({"app": ["main:app"], **values})], {})
    said: dict[str, object] = {}
    exec(render(outcome), {}, said)
    assert settle([from_values("file", json.loads(json.dumps(said)))], {}).settings == outcome.settings


def test_who_is_believed_may_stand_in_the_environment() -> None:
    environ = {"FORWARDED_ALLOW_IPS": "10.0.0.1"}
    assert given(environ).forwarded_allow_ips == "10.0.0.1"
    assert given(environ, forwarded_allow_ips="unix").forwarded_allow_ips == "unix"
    with pytest.raises(ConfigError, match="FORWARDED_ALLOW_IPS: cannot take"):
        given({"FORWARDED_ALLOW_IPS": "here"})


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"minicorn {minicorn.__version__}\n"


def test_the_command_runs_from_a_checkout_with_the_standard_library_alone(tmp_path: Path) -> None:
    checkout = Path(minicorn.__file__).parent.parent
    command = [sys.executable, "-S", "-m", "minicorn", "main:app", "--workers", "none"]
    ran = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(checkout)}, capture_output=True, text=True
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("minicorn: error: -w/--workers: cannot take 'none'")
    assert ran.stderr.count("\n") == 1


def test_variables_of_ours_that_are_no_settings_are_those_that_are_used() -> None:
    sources = [path.read_text() for path in Path(minicorn.__file__).parent.rglob("*.py") if path.name != "layers.py"]
    used = {name for source in sources for name in re.findall(r'"(MINICORN_[A-Z_]+)"', source)}
    assert used == OWN_VARIABLES
