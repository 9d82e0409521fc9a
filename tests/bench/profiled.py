"""`hello`, in a worker that notes where its time goes; asked for /samples, it tells.

It is interrupted after each millisecond of CPU time (or as often as the kernel's clock ticks), and the
function that it is in is counted.
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


signal.signal(signal.SIGPROF, _sample)
signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
