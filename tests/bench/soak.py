"""Planned replacement under load: does any client notice?

    python tests/bench/soak.py [--times 100] [--clients 32] [hup recycle upgrade mixed]

Thirty-two keep-alive clients send GET and POST without pause and without retries, and check each
byte; meanwhile workers are replaced: by HUP every half second, by --max-requests 200, by USR2 every
second, by HUP, TTIN, TTOU and USR1 at random. Counted: requests without a right reply, connections
closed while idle under a client, and how long after the end of a roll old code still answered.
"""

import argparse
import random
import re
import signal
import sys
import tempfile
import time
from pathlib import Path

from servers import Running, running

sys.path.append(str(Path(__file__).parent.parent / "process"))
from load import Load

WORKERS = 4
APPLICATION = """
WORD = open("word").read().strip()

def app(environ, start_response):
    body = f"{WORD} {environ['PATH_INFO'].rpartition('/')[2]} ".encode() + environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""


def roll(server: Running, folder: Path, times: int, signum: signal.Signals, pause: float) -> dict[str, float]:
    """Replace the code so many times; when each word's last worker was in place."""
    done = {}
    for number in range(1, times + 1):
        (folder / "word").write_text(f"word-{number}")
        server.process.send_signal(signum)
        server.wait_log(r"generation \d+ serves", number)
        done[f"word-{number}"] = time.monotonic()
        time.sleep(pause)
    return done


def mix(server: Running, times: int) -> None:
    for _ in range(times):
        choice = random.choice([signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1])
        server.process.send_signal(choice)
        time.sleep(0.025)


def run(kind: str, times: int, clients: int) -> None:
    extra = "--max-requests 200" if kind == "recycle" else ""
    done: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "main.py").write_text(APPLICATION)
        (folder / "word").write_text("word-0")
        with running("minicorn", "main:app", workers=WORKERS, cwd=folder, extra=extra) as server:
            server.wait_log("is ready", WORKERS)
            with Load(server.port, clients) as load:
                if kind == "hup":
                    done = roll(server, folder, times, signal.SIGHUP, 0.5)
                elif kind == "upgrade":
                    done = roll(server, folder, max(1, times // 5), signal.SIGUSR2, 1.0)
                elif kind == "recycle":
                    server.wait_log("has retired", times, patience=600)
                else:
                    mix(server, 2 * times)
                    time.sleep(3)
            log = server.log.read_text()
    tally = load.tally
    lag = 0.0
    for moment, word in tally.replies:
        newer = [end for other, end in done.items() if int(other[5:]) > int(word[5:]) and end < moment]
        lag = max([lag, *(moment - end for end in newer)])
    retired = len(re.findall("has retired", log))
    print(
        f"{kind:8} {tally.requests} requests, {retired} workers replaced: {len(tally.failures)} failed,"
        f" {len(tally.idle_closes)} idle closes; old code answered up to {lag:.2f} s after a roll's end",
        flush=True,
    )
    for failure in [*tally.failures, *tally.idle_closes][:5]:
        print("   ", failure)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("kinds", nargs="*", default=["hup", "recycle", "upgrade", "mixed"])
    options = parser.parse_args()
    for kind in options.kinds:
        run(kind, options.times, options.clients)


if __name__ == "__main__":
    main()
