"""Completion in real shells: the script is read, a line is typed with the Tab key in it, and what is called tells."""

import shutil
import subprocess

import pytest
from harness import MINICORN, Starter, environment, wait_until

# How each begins, and what is typed first: `minicorn` writes down what it is given; the prompt tells that all is set
SHELLS = {
    "bash": (
        ["--norc", "--noprofile", "-i"],
        'minicorn() { echo "$@" > given; }; source ./script; PS1=s""et:',
    ),
    "zsh": (
        ["-f", "-i"],
        'minicorn() { echo "$@" > given }; autoload -U compinit; compinit -D -u; eval "$(cat script)"; PS1=s""et:',
    ),
    "fish": (
        ["--no-config", "-i", "-C", "function fish_prompt; echo begun:; end"],
        'function minicorn; echo $argv > given; end; source ./script; function fish_prompt; echo s""et:; end',
    ),
}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes_flags_words_and_files(shell: str, start: Starter) -> None:
    flags, first = SHELLS[shell]
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"NOT TESTED: {shell} is not installed")
    with (start.cwd / "script").open("w") as script:
        subprocess.run([*MINICORN, "--print-completion", shell], env=environment(), stdout=script, check=True)
    start.write("special.py", "")
    (start.cwd / "somewhere").mkdir()
    terminal = start.command(program, *flags, prelude="terminal", env={"HOME": str(start.cwd), "PS1": "begun:"})
    given = start.cwd / "given"
    terminal.wait_log("begun:")
    terminal.type(f"{first}\n".encode())
    terminal.wait_log("set:")
    terminal.type(b"minicorn m:app --graceful-t\t 5 --log-level cri\t --config spec\t --chdir somew\t\n")
    wait_until(lambda: given.exists() and given.read_text(), "it is called")
    words = "m:app --graceful-timeout 5 --log-level critical --config special.py --chdir somewhere"
    assert given.read_text().rstrip("/\n").split() == words.split()
    terminal.type(b"exit\n")
    terminal.wait()
