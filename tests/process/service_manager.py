"""A real systemd manager of our own: a user instance in directories that nobody else has.

It is no PID 1, so it can be had wherever systemd is installed and we are root, or logged in. It starts
nothing by itself: its only goal is an empty target.
"""

import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest
from harness import PATIENCE, environment, wait_until
from turns import take_turn

SYSTEMD = Path("/lib/systemd/systemd")
NOTHING = "[Unit]\nDescription=Nothing\nDefaultDependencies=no\n"


def why_not() -> str:
    """Why no manager can run here; empty when one can."""
    if not SYSTEMD.exists():
        return "systemd is not installed"
    if os.geteuid() == 0:
        Path("/run/systemd/system").mkdir(parents=True, exist_ok=True)  # what sd_booted(3) looks for
        _make_inaccessible(Path("/run/systemd/inaccessible"))
    if not Path("/run/systemd/system").exists():
        return "this machine was not booted with systemd, and only root can pretend it"
    return ""


class Manager:
    """systemd --user, and its units."""

    def __init__(self) -> None:
        if reason := why_not():
            pytest.skip(f"NOT TESTED, no service manager: {reason}")
        self._turn = take_turn()
        self.home = Path(tempfile.mkdtemp(prefix="sd-"))  # a socket's path is short
        self.home.chmod(0o755)
        self.units = self.home / "config/systemd/user"
        self.units.mkdir(parents=True)
        (self.home / "run").mkdir(mode=0o700)
        self.write("nothing.target", NOTHING)
        self.env = environment(XDG_RUNTIME_DIR=f"{self.home}/run", XDG_CONFIG_HOME=f"{self.home}/config")
        self.env.pop("DBUS_SESSION_BUS_ADDRESS", None)
        self._log = (self.home / "log").open("w")
        self._process = subprocess.Popen(
            [str(SYSTEMD), "--user", "--unit=nothing.target", "--log-target=console"],
            env=self.env,
            stdout=self._log,
            stderr=self._log,
        )
        wait_until(lambda: (self.home / "run/systemd/private").exists(), "the manager runs")
        wait_until(lambda: self.run("is-active", "nothing.target").returncode == 0, "the manager answers")

    def write(self, name: str, text: str) -> None:
        """A unit, or a drop-in of one; `reload` makes it known."""
        path = self.units / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run(self, *words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """systemctl."""
        command = ["systemctl", "--user", "--no-pager", *words]
        return subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=timeout, check=False)

    def do(self, *words: str, timeout: float = 60) -> None:
        """systemctl, which must succeed."""
        done = self.run(*words, timeout=timeout)
        assert done.returncode == 0, f"{words}: {done.stderr}\n{self.run('status', words[-1]).stdout}\n{self.log}"

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run("show", "--value", "-p", name, unit).stdout.strip()

    def pid(self, unit: str) -> int:
        return int(self.show(unit, "MainPID"))

    def wait_status(self, unit: str, part: str) -> str:
        """The unit's STATUS= line, once it contains `part`."""
        wait_until(lambda: part in self.show(unit, "StatusText"), f"the status of {unit} says {part}")
        return self.show(unit, "StatusText")

    @property
    def log(self) -> str:
        return (self.home / "log").read_text(errors="replace")

    def end(self) -> None:
        """Stop all units, then the manager."""
        try:
            # Sockets first, or they start what has just been stopped
            for kind in ("*.socket", "minicorn*.service"):
                self.run("stop", kind)
            self._process.terminate()
            self._process.wait(PATIENCE)
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._log.close()
            self._turn.close()
            shutil.rmtree(self.home, ignore_errors=True)


def _make_inaccessible(folder: Path) -> None:
    """What a manager that has booted a machine makes there; ProtectHome= and its kin mount these over others."""
    folder.mkdir(exist_ok=True)
    if not (folder / "dir").exists():
        (folder / "dir").mkdir(mode=0)
    for name, kind in {"reg": stat.S_IFREG, "fifo": stat.S_IFIFO, "sock": stat.S_IFSOCK}.items():
        if not (folder / name).exists():
            os.mknod(folder / name, kind)
