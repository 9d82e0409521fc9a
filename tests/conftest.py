"""What all layers share: certificates for TLS, made by the real openssl, and the system calls of others, by strace."""

import contextlib
import itertools
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest

# No example of hypothesis' fails by the time that it takes, on however busy a machine
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")

KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, in files."""

    certificate: str
    key: str

    @property
    def flags(self) -> tuple[str, ...]:
        return ("--certfile", self.certificate, "--keyfile", self.key)

    @property
    def settings(self) -> dict[str, tuple[str, ...]]:
        return {"certfile": (self.certificate,), "keyfile": (self.key,)}


def make(folder: Path, name: str, *more: str, subject: str = "") -> Pair:
    """A pair for `name`, self-signed unless `more` says by whom."""
    pair = Pair(str(folder / f"{name}.pem"), str(folder / f"{name}.key"))
    command = ["openssl", "req", "-x509", "-utf8", *KEY, "-keyout", pair.key, "-out", pair.certificate, "-days", "30"]
    command += ["-subj", subject or f"/CN={name}", "-addext", f"subjectAltName=DNS:{name},DNS:*.{name},IP:127.0.0.1"]
    subprocess.run([*command, *more], check=True, capture_output=True)
    return pair


@pytest.fixture(scope="session")
def make_pair() -> Callable[..., Pair]:
    """`make_pair(folder, name)`"""
    return make


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The certificate of a.test."""
    return make(tmp_path_factory.mktemp("a"), "a.test")


@pytest.fixture(scope="session")
def other_pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The certificate of b.test."""
    return make(tmp_path_factory.mktemp("b"), "b.test")


@pytest.fixture(scope="session")
def client_pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A client's certificate, its own authority."""
    return make(tmp_path_factory.mktemp("c"), "client.test", subject="/C=CH/O=Shop, Inc/CN=Jörg")


class Trace:
    """The system calls of processes, once it is over."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def count(self, without: str = "nothing") -> Counter[str]:
        """Them by name; what goes on after an interruption is not another one."""
        return Counter(line.partition("(")[0] for line in self.lines if line[0].isalpha() and without not in line)


@pytest.fixture
def traced(tmp_path: Path) -> Callable[..., AbstractContextManager[Trace]]:
    """`with traced(pid, ...) as trace:`"""
    number = itertools.count()

    @contextlib.contextmanager
    def trace_them(*pids: int) -> Iterator[Trace]:
        trace = Trace()
        to = tmp_path / f"calls-{next(number)}"
        command = ["strace", "-f", "-o", str(to), *(f"-p{pid}" for pid in pids)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
            try:
                assert tracer.stderr is not None
                for _ in pids:
                    assert "attached" in tracer.stderr.readline()
                yield trace
            finally:
                tracer.terminate()
        trace.lines += [line.split(maxsplit=1)[1] for line in to.read_text().splitlines()]

    return trace_them
