"""`hello`, in a worker that notes where its user time goes; asked for /samples, it tells.

It is interrupted each time it has used a millisecond outside the kernel (ITIMER_VIRTUAL, as finely as
the kernel keeps it), and the function that it is in is counted.
"""

import json
import signal
from collections import Counter

import hello

SEEN = Counter()


def _sample(signum, frame):
    SEEN[f"{frame.f_globals['__name__']}.{frame.f_code.co_qualname}"] += 1


def app(environ, start_response):
    if environ["PATH_INFO"] != "/samples":
        return hello.app(environ, start_response)
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(SEEN).encode()]


signal.signal(signal.SIGVTALRM, _sample)
signal.setitimer(signal.ITIMER_VIRTUAL, 0.001, 0.001)
