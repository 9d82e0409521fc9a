"""The files of `deploy/` that an operator copies: against the schemas and tools that will read them."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import hcl2
import kubernetes_validate
import psutil
import pytest
import yaml
from harness import ANY_PORT, CHECKOUT, MINICORN, Starter, environment, is_alive, wait_until

DEPLOY = CHECKOUT / "deploy"
MANIFESTS = list(yaml.safe_load_all((DEPLOY / "kubernetes/shop.yaml").read_text()))
POD = next(each for each in MANIFESTS if each["kind"] == "Deployment")["spec"]["template"]["spec"]


def seconds(arguments: list[str], flag: str, default: int) -> int:
    return int(arguments[arguments.index(flag) + 1]) if flag in arguments else default


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda manifest: manifest["kind"])
def test_a_manifest_fits_its_schema(manifest: dict[str, object]) -> None:
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_a_pod_is_given_time_to_drain_without_a_sleep() -> None:
    (container,) = POD["containers"]
    needed = seconds(container["args"], "--drain-delay", 0) + seconds(container["args"], "--graceful-timeout", 30)
    assert POD["terminationGracePeriodSeconds"] > needed
    assert "lifecycle" not in container


def nomad_arguments() -> list[str]:
    text = (DEPLOY / "nomad.hcl").read_text()
    assert "job" in hcl2.loads(text)
    found = re.search(r"(?m)^\s*args\s*= (\[.*\])$", text)
    assert found is not None
    return list(json.loads(found[1]))


def docker_words(instruction: str) -> list[str]:
    found = re.search(rf"(?m)^{instruction} (\[.*\])$", (DEPLOY / "Dockerfile").read_text())
    assert found is not None, f"{instruction} is a JSON list: a shell would swallow signals"
    return list(json.loads(found[1]))


COMMANDS = {
    "kubernetes": POD["containers"][0]["args"],
    "nomad": nomad_arguments(),
    "compose": yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["app"]["command"],
    "docker": docker_words("CMD"),
}


def test_health_checks_ask_the_monitor_that_the_command_has() -> None:
    (container,) = POD["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    probes = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")}
    assert {probe["port"] for probe in probes.values()} == {"monitor"} and ports["monitor"] == 9100
    assert [probes[kind]["path"] for kind in ("startup", "readiness", "liveness")] == ["/ready", "/ready", "/live"]
    for arguments in COMMANDS.values():
        assert arguments[arguments.index("--monitor") + 1].endswith(":9100")


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_minicorn_takes_the_flags(arguments: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [*MINICORN, *arguments, "--print-config"], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_linter_has_no_word_on_the_image() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), DEPLOY / "Dockerfile"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_runs_as_nobody_of_note_and_without_a_shell() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    assert docker_words("ENTRYPOINT") == ["minicorn"]
    assert re.search(r"(?m)^USER 10001$", text) and re.search(r"(?m)^STOPSIGNAL SIGTERM$", text)


def test_the_compose_file_fits_the_specification_and_leaves_time_to_stop() -> None:
    from compose_spec import PyCompose  # not where four collect: it takes a second

    text = (DEPLOY / "compose.yaml").read_text()
    PyCompose.from_yaml(text).validate()
    app = yaml.safe_load(text)["services"]["app"]
    assert int(app["stop_grace_period"].removesuffix("s")) > seconds(app["command"], "--graceful-timeout", 30)


@pytest.mark.skipif(not shutil.which("systemd-sysusers"), reason="NOT TESTED: no systemd-sysusers")
def test_users_and_folders_are_made(tmp_path: Path) -> None:
    """In a root of their own: --root keeps the tools within it."""
    for folder, name in (("sysusers.d", "sysusers.conf"), ("tmpfiles.d", "tmpfiles.conf")):
        (tmp_path / "usr/lib" / folder).mkdir(parents=True)
        shutil.copy(DEPLOY / name, tmp_path / "usr/lib" / folder / "minicorn.conf")
    (tmp_path / "etc").mkdir()
    subprocess.run(["systemd-sysusers", f"--root={tmp_path}", "minicorn.conf"], check=True)
    assert re.search(r"(?m)^minicorn:.*:/nonexistent:/usr/sbin/nologin$", (tmp_path / "etc/passwd").read_text())
    subprocess.run(["systemd-tmpfiles", f"--root={tmp_path}", "--create", "minicorn.conf"], check=True)
    assert (tmp_path / "etc/minicorn").stat().st_mode & 0o7777 == 0o750


APP = """
import os
def app(environ, start_response):
    if os.fork() == 0:
        if os.fork() == 0:
            os._exit(3)
        os._exit(0)
    os.wait()
    try:
        open("written", "w")
        said = "writable"
    except OSError as error:
        said = error.strerror
    start_response("200 OK", [])
    return [said.encode()]
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: namespaces take root")
def test_as_the_first_process_of_a_read_only_container_it_serves_reaps_and_stops(start: Starter) -> None:
    start.write("first.py", APP)
    command = " ".join([*MINICORN, "first:app", *ANY_PORT])
    read_only = f"mount -o remount,ro,bind / && exec {command}"
    isolated = ("unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child")
    server = start.command(*isolated, "sh", "-c", read_only)
    server.wait_log(r"Started arbiter \[1\]")
    server.wait_log("is ready after")
    assert server.get("/").text == "Read-only file system"
    (first,) = psutil.Process(server.pid).children()
    wait_until(lambda: all(is_alive(each.pid) for each in first.children()), "orphans are reaped")
    assert "started by a shell" not in server.log.text
    first.send_signal(signal.SIGTERM)
    assert server.wait() == 0
    server.wait_log("Server stopped")
