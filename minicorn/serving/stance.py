"""How a process stands to its clients: whom it answers, and to whom it leaves the others.

                 what is new    between requests    a request that is whole    deadlines
    SERVING      taken          kept                answered, or a sibling's   count
    HOLDING      not taken      kept, unread        kept, unanswered           do not count
    LEAVING      not taken      given away          given away, else answered  count
    CLOSING      taken          closed              answered                   count

A worker is SERVING until it retires, for others that have its connections then (LEAVING), or until the
whole server ends and there are no others (CLOSING). It is HOLDING, with --reload alone, while its code
is out of date and there is nobody yet to have its clients.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class Stance(Enum):
    """How a process stands to its clients, as the table above has it."""

    SERVING = "serving"
    HOLDING = "holding"
    LEAVING = "leaving"
    CLOSING = "closing"


SERVING, HOLDING, LEAVING, CLOSING = Stance

# Who is told anything else is told too late: it is not obeyed
MOVES: Mapping[Stance, frozenset[Stance]] = {
    SERVING: frozenset({HOLDING, LEAVING, CLOSING}),
    HOLDING: frozenset({SERVING, LEAVING, CLOSING}),
    LEAVING: frozenset({CLOSING}),
    CLOSING: frozenset(),
}
