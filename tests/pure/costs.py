"""Is the work linear in its input? Told from CPU time, in a way that a noisy machine cannot upset."""

import gc
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

ROUNDS_LEAST, ROUNDS_MOST = 3, 40
FACTOR = 2.8  # twice the input: linear work takes 2 times as long, that of n√n 2.83 times, quadratic 4 times
DOUBLINGS = 3  # what noise and caches do is shared by so many


def growth(work: Callable[[T], object], make: Callable[[int], T], size: int) -> float:
    """How many times longer `work` takes of twice the input: of what is made for a quarter of `size` to twice of it.

    Noise only ever adds, so the least of several turns is the truth; turns go on until it is good enough.
    """
    large = make(2 * size)
    small = make(2 * size // 2**DOUBLINGS)
    least_small = least_large = float("inf")
    gc.disable()
    try:
        for turn in range(ROUNDS_MOST):
            least_small = min(least_small, _cpu_time(work, small))
            least_large = min(least_large, _cpu_time(work, large))
            if turn + 1 >= ROUNDS_LEAST and least_large <= FACTOR**DOUBLINGS * least_small:
                break
    finally:
        gc.enable()
    return float((least_large / least_small) ** (1 / DOUBLINGS))


def _cpu_time(work: Callable[[T], object], argument: T) -> float:
    began = time.process_time()
    work(argument)
    return time.process_time() - began
