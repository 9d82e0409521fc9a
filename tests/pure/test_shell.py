"""Shells that swallow signals, told by their command lines."""

import pytest

from minicorn.system.shell import is_deaf


@pytest.mark.parametrize(
    ("command", "pid", "deaf"),
    [
        (["/bin/sh", "-c", "minicorn main:app; true"], 1, True),
        (["/bin/sh", "/entrypoint.sh"], 1, True),
        (["sh", "-c", "minicorn main:app; true"], 4711, True),
        (["bash", "-ec", "minicorn main:app; true"], 4711, True),
        (["/bin/sh", "deploy.sh", "-c"], 4711, False),
        (["-bash"], 4711, False),
        (["bash", "--norc"], 4711, False),
        (["bash", "-l"], 4711, False),
        (["/bin/sh", "cron.sh"], 4711, False),
        (["/usr/bin/tini", "--", "minicorn"], 1, False),
        (["python", "-c", "pass"], 4711, False),
        ([], 0, False),
    ],
)
def test_a_shell_with_a_command_or_as_pid_1_is_deaf(command: list[str], pid: int, deaf: bool) -> None:
    assert is_deaf(command, pid) is deaf
