"""What heartbeat and counters cost a hello-world request: the same server with and without, in one run.

    python tests/bench/counting.py [--rounds 5] [--seconds 3]

The issue allows 2 microseconds of CPU a request. Rounds are interleaved; the figure is the
difference of the medians, the pairs' differences are shown beside it.
"""

import argparse
import statistics

from cpu import measure


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    options = parser.parse_args()
    figures: dict[str, list[float]] = {"hello:app": [], "uncounted:app": []}
    for _ in range(options.rounds):
        for app, cpu in figures.items():
            cpu.append(measure("minicorn", options.seconds, app)[0])
    on, off = (statistics.median(cpu) for cpu in figures.values())
    pairs = sorted(a - b for a, b in zip(*figures.values(), strict=True))
    print(f"with {on:.2f}, without {off:.2f}: {on - off:.2f} us CPU/request (pairs {pairs[0]:.2f} to {pairs[-1]:.2f})")


if __name__ == "__main__":
    main()
