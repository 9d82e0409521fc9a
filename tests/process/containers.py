"""Real containers from the files of `deploy/`: podman, with base images made of this machine's own files.

No registry is reached: an image under the name that a file asks for is there before it is pulled.
Storage is the test's own, and a container's network is its own loopback.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from harness import CHECKOUT

PYTHON = "docker.io/library/python:3.12-slim"
NGINX = "docker.io/library/nginx:1.27-alpine"
# runc and cgroupfs: limits hold on a machine that systemd has not booted, with version 1 of cgroups too
ENGINE = """
[containers]
default_ulimits = ["nofile=1024:4096", "nproc=4096:4096"]
netns = "none"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
"""
STORAGE = '[storage]\ndriver = "overlay"\ngraphroot = "{0}/images"\nrunroot = "{0}/run"\n'


def why_not() -> str:
    """Why no container can run here; empty when one can."""
    if os.geteuid() != 0:
        return "containers with limits take root"
    return "" if shutil.which("podman") and shutil.which("runc") else "podman and runc are not installed"


class Containers:
    """An engine of our own: its images, its containers."""

    def __init__(self, folder: Path) -> None:
        if reason := why_not():
            pytest.skip(f"NOT TESTED, no containers: {reason}")
        self.folder = folder
        (folder / "engine.conf").write_text(ENGINE)
        (folder / "storage.conf").write_text(STORAGE.format(folder))
        conf = {"CONTAINERS_CONF": f"{folder}/engine.conf", "CONTAINERS_STORAGE_CONF": f"{folder}/storage.conf"}
        self.env = os.environ | conf

    def run(self, *command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=self.env, cwd=cwd, capture_output=True, text=True, timeout=100)

    def do(self, *words: str, cwd: Path | None = None) -> str:
        """podman, which must succeed; what it says."""
        done = self.run("podman", *words, cwd=cwd)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout.strip()

    def compose(self, *words: str, cwd: Path) -> None:
        """podman-compose, on the files in `cwd`."""
        build = "--podman-build-args=--isolation chroot --format docker"
        files = ("-f", "compose.yaml", "-f", "here.yaml")
        done = self.run(sys.executable, "-m", "podman_compose", build, *files, *words, cwd=cwd)
        assert done.returncode == 0, done.stdout + done.stderr

    def build(self, context: Path, name: str) -> None:
        self.do("build", "--isolation", "chroot", "--format", "docker", "-t", name, str(context))

    def python(self, container: str, code: str) -> str:
        """What a Python beside the application prints."""
        return self.do("exec", container, "python", "-c", code)

    def log(self, container: str) -> str:
        done = self.run("podman", "logs", container)
        return done.stdout + done.stderr

    def take(self, root: Path, name: str, change: str = "CMD []") -> None:
        """Make an image of a root file system."""
        archive = root.with_suffix(".tar")
        subprocess.run(["tar", "-C", str(root), "-cf", str(archive), "."], check=True)
        self.do("import", "--quiet", "--change", change, str(archive), name)

    def end(self) -> None:
        self.run("podman", "rm", "--all", "--force", "--volumes", "--time", "0")
        self.run("podman", "volume", "prune", "--force")
        shutil.rmtree(self.folder, ignore_errors=True)


def libraries(path: Path) -> list[Path]:
    """The shared ones that a program or library needs."""
    needed = subprocess.run(["ldd", str(path)], capture_output=True, text=True).stdout
    return [Path(library) for library in re.findall(r"/\S+\.so\S*", needed)]


def put(root: Path, path: Path, at: str = "") -> None:
    """Copy a program or library into `root`, with the libraries that it needs."""
    target = root / (at or str(path)).lstrip("/")
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path.resolve(), target)
    for library in libraries(path):
        put(root, library)


def make_root(root: Path, programs: dict[str, str], users: dict[str, int]) -> None:
    """The folders, programs (name: where) and users that a root file system has."""
    for folder in ("tmp", "etc", "proc", "sys", "dev", "run", "var/tmp"):
        (root / folder).mkdir(parents=True)
    for name, at in programs.items():
        put(root, Path(str(shutil.which(name))), at)
    (root / "etc/passwd").write_text("".join(f"{user}:x:{uid}:{uid}::/:/bin/sh\n" for user, uid in users.items()))
    (root / "etc/group").write_text("".join(f"{user}:x:{uid}:\n" for user, uid in users.items()))


def make_python(root: Path) -> None:
    """Stands for python:slim: this Python, a shell, useradd; and pip finds this minicorn."""
    make_root(root, {"sh": "/bin/sh", "useradd": "/usr/sbin/useradd", "nologin": "/usr/sbin/nologin"}, {"root": 0})
    shutil.copy("/etc/login.defs", root / "etc")
    name, base = f"python3.{sys.version_info.minor}", Path(sys.base_prefix)
    put(root, base / "bin" / name, f"/usr/local/bin/{name}")
    (root / "usr/local/bin/python").symlink_to(name)
    unneeded = shutil.ignore_patterns("test", "__pycache__", "site-packages", "idlelib", "config-*")
    shutil.copytree(base / "lib" / name, root / "usr/local/lib" / name, ignore=unneeded)
    for module in (root / "usr/local/lib" / name / "lib-dynload").glob("*.so"):
        for library in libraries(module):
            put(root, library)
    make_wheel(root / "wheels")
    (root / "etc/pip.conf").write_text("[global]\nno-index = true\nfind-links = /wheels\n")


def make_wheel(folder: Path) -> None:
    """Of a copy: the build leaves things beside its sources."""
    ignored = shutil.ignore_patterns(".*", "tests", "build", "*.egg-info", "__pycache__")
    shutil.copytree(CHECKOUT, source := folder.parent / "tmp/source", ignore=ignored)
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(source)]
    subprocess.run(pip, check=True, capture_output=True)
    shutil.rmtree(source)


def make_nginx(root: Path) -> None:
    """Stands for nginx: this nginx, and a main file such as the image has."""
    make_root(root, {"nginx": "/usr/sbin/nginx"}, {"root": 0, "nginx": 101})
    for library in Path("/lib").glob("*-linux-gnu/libnss_files*"):
        put(root, library)
    for name in ("etc/nginx/conf.d", "var/log/nginx", "var/lib/nginx"):
        (root / name).mkdir(parents=True)
    (root / "etc/nginx/nginx.conf").write_text(
        "user nginx; error_log /dev/stderr notice; daemon off; events {}\n"
        "http { access_log off; include /etc/nginx/conf.d/*.conf; }\n"
    )
