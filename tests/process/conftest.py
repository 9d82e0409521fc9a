"""Fixtures of the process layer; the harness itself is in `harness`, which tests import by name."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Starter
from service_manager import Manager


def _started(cwd: Path) -> Iterator[Starter]:
    starter = Starter(cwd)
    yield starter
    wrong = list(starter.end())
    assert not wrong, "\n".join(map(str, wrong))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    """Starts servers in `tmp_path`; all of them end cleanly after the test, or it fails."""
    yield from _started(tmp_path)


@pytest.fixture(scope="module")
def start_for_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    """The same, for servers that the tests of a module share."""
    yield from _started(tmp_path_factory.mktemp("site"))


@pytest.fixture
def manager() -> Iterator[Manager]:
    """A service manager of the test's own."""
    manager = Manager()
    yield manager
    manager.end()


@pytest.fixture(scope="module")
def open_place() -> Iterator[Path]:
    """A directory that every user may enter: the way to pytest's own is for its user alone."""
    place = Path(tempfile.mkdtemp(prefix="open-"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


@pytest.fixture
def start_in_the_open(open_place: Path) -> Iterator[Starter]:
    """As `start`, in a directory below `open_place`."""
    yield from _started(Path(tempfile.mkdtemp(dir=open_place)))
