"""Is the work linear in its input? Told from CPU time, in a way that a noisy machine cannot upset."""

import gc
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

ROUNDS_LEAST, ROUNDS_MOST = 3, 40
# Twice the input: linear work takes 2 times as long, 2.4 where caches hold less of it; quadratic work 4 times
FACTOR = 2.8


def growth(work: Callable[[T], object], small: T, large: T) -> float:
    """How many times longer `work(large)` takes than `work(small)`.

    Noise only ever adds, so the least of several turns is the truth; turns go on until it is good enough.
    """
    least_small = least_large = float("inf")
    gc.disable()
    try:
        for turn in range(ROUNDS_MOST):
            least_small = min(least_small, _cpu_time(work, small))
            least_large = min(least_large, _cpu_time(work, large))
            if turn + 1 >= ROUNDS_LEAST and least_large <= FACTOR * least_small:
                break
    finally:
        gc.enable()
    return least_large / least_small


def _cpu_time(work: Callable[[T], object], argument: T) -> float:
    began = time.process_time()
    work(argument)
    return time.process_time() - began
