"""minicorn and its peers, side by side: one command for all figures.

    python tests/bench/suite.py [what ...] [--rounds 5] [--seconds 2] [--servers minicorn granian ...]

Makes its own virtual environment (tests/bench/.venv/, one for each version of Python) with the
peers, then measures each workload (see `workloads`): rounds in turn over all servers, a server
started afresh for each figure. Medians go to results.json after each workload (so what was
measured stays, whatever happens then, and single workloads can be measured again), and from there
to results.svg and to the tables of README.md. All workloads take 23 minutes on two idle cores;
`--all` adds uWSGI and fastpysgi. More names: `growth` (10 minutes; or one of its four, see there)
and `budget` (one minute). Needs Debian's packages wrk and libev-dev (to build bjoern).
"""

import argparse
import compileall
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
import venv
from pathlib import Path

HERE = Path(__file__).parent
ENVIRONMENT = HERE / ".venv" / platform.python_version()
NEEDED = ("psutil", "flask", "django", "gunicorn", "waitress", "granian", "bjoern", "fastpysgi", "uwsgi")
SERVERS = ("minicorn", "granian", "bjoern", "gunicorn-sync", "waitress")
MORE = ("fastpysgi", "uwsgi")


def enter_environment() -> None:
    """Go on in the environment with the peers; those that cannot be built are missing there."""
    if Path(sys.prefix) == ENVIRONMENT:
        return
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        print(f"installing into {ENVIRONMENT}", flush=True)
        venv.create(ENVIRONMENT, with_pip=True)
        for package in NEEDED:
            if subprocess.run([python, "-m", "pip", "install", "-q", package], stdout=subprocess.DEVNULL).returncode:
                print(f"{package} cannot be installed: left out")
    checkout = os.environ.get("CHECKOUT", str(HERE.parent.parent))
    os.execve(python, [python, *sys.argv], os.environ | {"PYTHONPATH": checkout})


def compare(name: str, servers: list[str], rounds: int, seconds: int) -> dict[str, object]:
    """A workload's medians for each server; a server that does not stand it is left out, with a word."""
    import workloads

    only = workloads.WORKLOADS[name].only
    seen: dict[str, list[workloads.Figures]] = {server: [] for server in servers if not only or server in only}
    for _ in range(rounds):
        for server, figures in list(seen.items()):
            try:
                figures.append(workloads.measure(name, server, seconds))
            except (RuntimeError, SystemExit, OSError, subprocess.SubprocessError) as error:
                print(f"{server} does not stand {name}: {str(error)[-300:]}", flush=True)
                del seen[server]
    medians = {
        server: {key: round(statistics.median(each[key] for each in figures), 4) for key in figures[0]}
        for server, figures in seen.items()
    }
    for server, figures in medians.items():
        print(f"{name:11} {server:14}", "  ".join(f"{key} {value:.2f}" for key, value in figures.items()), flush=True)
    return {"rounds": rounds, "seconds": seconds, "figures": medians}


def measure(what: str, servers: list[str], rounds: int, seconds: int) -> None:
    """One workload, or one of the other names."""
    import budget
    import growth
    import report
    import results

    if what == "growth":
        for name in growth.GROWTHS:
            measure(name, servers, rounds, seconds)
    elif what in growth.GROWTHS:
        results.store("growth", what, growth.measure(what, rounds, seconds))
    elif what == "budget":
        results.store("budget", "hello", budget.measure(rounds, seconds))
    else:
        results.store("workloads", what, compare(what, servers, rounds, seconds))
    report.write()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="of load for each figure")
    parser.add_argument("--servers", nargs="+", default=list(SERVERS))
    parser.add_argument("--all", action="store_const", dest="servers", const=[*SERVERS, *MORE])
    parser.add_argument("what", nargs="*", help="all workloads when nothing is named")
    options = parser.parse_args()
    enter_environment()
    import workloads
    from servers import CHECKOUT

    compileall.compile_dir(CHECKOUT / "minicorn", quiet=1)  # as an installation does it, for peers
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    began = time.monotonic()
    for what in options.what or workloads.WORKLOADS:
        measure(what, options.servers, options.rounds, options.seconds)
    print(f"took {(time.monotonic() - began) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
