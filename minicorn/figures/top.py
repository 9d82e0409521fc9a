"""`minicornctl top`: frames, once a second, until q. Without a terminal, one frame."""

from __future__ import annotations

import os
import select
import shutil
import sys
import termios
import time
import tty
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from minicorn.figures import display
from minicorn.figures.display import Rates
from minicorn.figures.snapshot import Snapshot

EVERY = 1.0
HISTORY = 300
_ENTER, _LEAVE = "\033[?1049h\033[?25l", "\033[?25h\033[?1049l"
_HOME, _REST_OF_LINE, _REST = "\033[H", "\033[K", "\033[J"
_BOLD, _PLAIN = "\033[1m", "\033[0m"


def run(look: Callable[[], Snapshot]) -> None:
    """Show what `look` sees. What it raises when the server has ended ends this too."""
    looks = deque([look()], 2)
    history: deque[Rates] = deque(maxlen=HISTORY)
    alphabet = display.BARS if "utf" in (sys.stdout.encoding or "").lower() else display.ASCII_BARS
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        time.sleep(EVERY)
        looks.append(look())
        history.append(display.rates(looks[0], looks[1]))
        print("\n".join(display.frame(list(looks), list(history), "slot", 80, 1000, alphabet)[:-2]))
        return
    sort = "slot"
    with _screen():
        history.append(Rates())
        while True:
            columns, rows = shutil.get_terminal_size()
            _draw(display.frame(list(looks), list(history), sort, columns, rows, alphabet))
            key = _key(EVERY)
            if key in ("q", "\x03", "\x1b"):
                return
            if key in display.SORTS:
                sort = display.SORTS[key]
                continue
            looks.append(look())
            history.append(display.rates(looks[0], looks[-1]))


@contextmanager
def _screen() -> Iterator[None]:
    """A screen of our own, keys as they are pressed; all as before afterwards."""
    before = termios.tcgetattr(0)
    tty.setcbreak(0)
    sys.stdout.write(_ENTER)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()


def _draw(lines: list[str]) -> None:
    """Draw a frame over the one before: a cleared screen would flicker."""
    shown = [f"{_BOLD}{line}{_PLAIN}" if line.startswith("SLOT") or not at else line for at, line in enumerate(lines)]
    sys.stdout.write(_HOME + f"{_REST_OF_LINE}\r\n".join(shown) + _REST_OF_LINE + _REST)
    sys.stdout.flush()


def _key(patience: float) -> str:
    """Read a key; "" when none is pressed within `patience` seconds."""
    if not select.select([0], [], [], patience)[0]:
        return ""
    return os.read(0, 1).decode("ascii", "replace") or "q"  # the terminal has gone
