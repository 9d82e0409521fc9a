"""`deploy/Dockerfile` and `deploy/compose.yaml`: built and run by a real engine, under real limits."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import NGINX, PYTHON, Containers, make_nginx, make_python
from harness import CHECKOUT, wait_until

from minicorn.system.cgroup import count_workers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
DEPLOY = CHECKOUT / "deploy"
APP = """
import os, pathlib, time
held = []
def app(environ, start_response):
    path = environ["PATH_INFO"]
    said = "%d %d" % (os.getuid(), os.getpid())
    if path == "/grow":
        held.append(b"x" * 100_000_000)
    if path == "/write":
        try:
            pathlib.Path("/app/written").touch()
        except OSError as error:
            said = error.strerror
    if path == "/orphan":
        if (child := os.fork()) == 0:
            os._exit(os.fork() and 0)
        os.waitpid(child, 0)
    if path == "/held":
        while not environ["minicorn.shutting_down"]():
            time.sleep(0.01)
    start_response("200 OK", [("Content-Length", str(len(said)))])
    return [said.encode()]
"""
GET = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:{}', timeout=30).read().decode())"
GROW = """
import http.client, time
connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=30)
def get(path):
    connection.request("GET", path)
    reply = connection.getresponse()
    assert reply.status == 200
    return reply.read()
for _ in range(4):
    grown = get("/grow")
    while get("/") == grown:
        time.sleep(0.05)
print("all were replaced")
"""
STATES = """
import pathlib
print(*(path.read_text().rpartition(")")[2].split()[0] for path in pathlib.Path("/proc").glob("[0-9]*/stat")))
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[Containers]:
    folder = Path(tempfile.mkdtemp(prefix="containers-"))
    engine = Containers(folder)
    try:
        make_python(folder / "python")
        engine.take(folder / "python", PYTHON)
        engine.build(write_site(folder / "site"), "shop")
        yield engine
    finally:
        engine.end()


def write_site(folder: Path) -> Path:
    folder.mkdir()
    shutil.copy(DEPLOY / "Dockerfile", folder)
    (folder / "requirements.txt").write_text("minicorn\n")
    (folder / "main.py").write_text(APP)
    return folder


@pytest.fixture
def shop(engine: Containers) -> Iterator[str]:
    yield "shop"
    engine.run("podman", "rm", "--force", "--time", "0", "shop")


def run(engine: Containers, *options: str, flags: tuple[str, ...] = ()) -> None:
    """The image with limits as an operator sets them, once its health check passes."""
    # Neither /tmp nor /run is writable
    still = ("--read-only", "--read-only-tmpfs=false")
    engine.do("run", "--detach", "--name", "shop", *still, *options, "shop", *flags)
    await_health(engine, "shop")


def await_health(engine: Containers, container: str) -> None:
    """The check starts a Python, which on a busy machine may take longer than the 3 s that the image allows it."""
    wait_until(lambda: "is ready after" in engine.log(container), "it serves")
    wait_until(lambda: engine.run("podman", "healthcheck", "run", container).returncode == 0, "it is healthy", 60)


def get(engine: Containers, path: str) -> str:
    return engine.python("shop", GET.format(f"8000{path}"))


@pytest.mark.parametrize("limit", [("--cpus", "1"), ("--memory", "100m")], ids=lambda limit: limit[0])
def test_auto_is_one_worker_where_a_limit_says_so(engine: Containers, shop: str, limit: tuple[str, ...]) -> None:
    run(engine, *limit)
    assert "Started arbiter [1] with 1 worker for main:app" in engine.log(shop)


def test_the_image_serves_as_first_process_unprivileged_and_read_only(engine: Containers, shop: str) -> None:
    run(engine)
    assert f"Started arbiter [1] with {count_workers('auto')} worker" in engine.log(shop)
    assert get(engine, "/").split()[0] == "10001"
    assert get(engine, "/write") == "Read-only file system"
    assert "started by a shell" not in engine.log(shop)


def test_the_first_process_reaps_orphans(engine: Containers, shop: str) -> None:
    run(engine)
    for _ in range(3):
        get(engine, "/orphan")
    wait_until(lambda: "Z" not in engine.python(shop, STATES).split(), "nobody is left unreaped")


def test_a_stop_waits_for_the_request_in_hand(engine: Containers, shop: str) -> None:
    run(engine)
    command = ["podman", "exec", "shop", "python", "-c", GET.format("8000/held")]
    client = subprocess.Popen(command, env=engine.env, stdout=subprocess.PIPE, text=True)
    wait_until(lambda: "/held" in engine.python(shop, GET.format("9100/status")), "it is in hand")
    engine.do("stop", "--time", "40", shop)
    assert client.communicate(timeout=30)[0].startswith("10001")
    assert engine.do("inspect", "--format", "{{.State.ExitCode}}", shop) == "0"
    assert "Server stopped" in engine.log(shop)


def test_workers_are_replaced_before_the_memory_limit_is_met(engine: Containers, shop: str) -> None:
    flags = ("main:app", "--bind", "127.0.0.1:8000", "--monitor", "127.0.0.1:9100", "--max-worker-memory", "80M")
    run(engine, "--memory", "300m", flags=flags)
    assert engine.python(shop, GROW) == "all were replaced"


def test_a_worker_that_meets_the_limit_is_told_of_and_the_first_process_stays(engine: Containers, shop: str) -> None:
    run(engine, "--memory", "200m")
    for _ in range(3):  # the kernel chooses whom it kills, and when: the client may see nothing of it
        engine.run("podman", "exec", shop, "python", "-c", GET.format("8000/grow"))
    wait_until(lambda: "killed by the kernel for want of memory" in engine.log(shop), "the cause is told")
    assert get(engine, "/").startswith("10001")


def test_compose_serves_through_nginx_and_stops(engine: Containers, tmp_path: Path) -> None:
    make_nginx(engine.folder / "nginx")
    engine.take(engine.folder / "nginx", NGINX, 'CMD ["nginx"]')
    site = write_site(tmp_path / "compose")
    for name in ("compose.yaml", "nginx.conf"):
        shutil.copy(DEPLOY / name, site)
    # One loopback in place of a bridge
    (site / "here.yaml").write_text(
        "services:\n  app: {network_mode: none}\n  nginx: {network_mode: 'service:app', ports: !reset []}\n"
    )
    engine.compose("up", "--detach", cwd=site)
    app = "compose_app_1"
    await_health(engine, app)
    assert engine.python(app, GET.format("80/")).startswith("10001")
    assert engine.python(app, GET.format("80/write")) == "Read-only file system"
    limits = engine.do("inspect", "--format", "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}", app)
    assert limits == f"{512 * 2**20} {2 * 10**9}"
    engine.do("stop", "--time", "40", app)
    assert engine.do("inspect", "--format", "{{.State.ExitCode}}", app) == "0"
    engine.compose("down", "--volumes", cwd=site)
