"""What an idle server costs.

    python tests/bench/idle.py [--seconds 20] [--workers 4]

CPU time and wake-ups (voluntary context switches) of the whole process tree while nothing asks.
"""

import argparse
import time

from servers import running


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args()
    with running("minicorn", "hello:app", workers=options.workers) as server:
        server.wait_log("is ready", options.workers)
        processes = [server.root, *server.root.children()]

        def used() -> tuple[float, list[int]]:
            schedstat = [open(f"/proc/{process.pid}/schedstat").read().split()[0] for process in processes]
            switches = [process.num_ctx_switches().voluntary for process in processes]
            return sum(map(int, schedstat)) / 1e9, switches

        before, switches_before = used()
        time.sleep(options.seconds)
        after, switches_after = used()
    rates = [(b - a) / options.seconds for a, b in zip(switches_before, switches_after, strict=True)]
    print(f"{(after - before) / options.seconds * 100:.3f}% of a core, arbiter and {options.workers} workers together")
    print("wake-ups a second for each process:", ", ".join(f"{rate:.2f}" for rate in rates))


if __name__ == "__main__":
    main()
