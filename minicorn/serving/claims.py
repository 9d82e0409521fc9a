"""The field lines set aside in a request: who its client is said to be, and what could pass for another.

From a trusted peer they reach the application as every field does, and those that are believed
say who the client is. From anybody else they are dropped, which is logged once a name.
"""

from __future__ import annotations

from functools import lru_cache

from minicorn.config.settings import Settings
from minicorn.errors import ProtocolError
from minicorn.http.forwarded import environ_keys
from minicorn.http.peers import Peers
from minicorn.logs.logger import LOGGER
from minicorn.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment


# Most names of dropped fields that are logged, since clients choose them
TOLD_MOST = 100
# Most characters of the lines of a request whose meaning is remembered
REMEMBERED_MOST = 1024


class Claims:
    """Judges such lines, by the settings, for all requests of a server."""

    def __init__(self, settings: Settings) -> None:
        self.peers = Peers(settings.forwarded_allow_ips)
        self._believed = frozenset(settings.forwarded_headers.split(","))
        self._told: set[str] = set()
        self._recall = lru_cache(maxsize=1024)(self._read)

    def judge(self, environ: WSGIEnvironment, lines: tuple[str, ...], secure: bool) -> None:
        """Bring into `environ` what the `lines` of its request say. ProtocolError (400) where they
        come from a trusted peer and are malformed or contradict each other; 421 for a target that
        must be `secure` and is not."""
        peer = environ["REMOTE_ADDR"]
        if self.peers.trusts(peer):
            # Remembered, as the same client says the same in its next request
            read = self._recall if sum(map(len, lines)) < REMEMBERED_MOST else self._read
            environ.update(read(lines, environ.get("HTTP_HOST", ""), environ["wsgi.url_scheme"]))
        else:
            for name in (line.partition(":")[0] for line in lines):
                self._tell(name, f"{peer or 'a Unix socket'}, where it came from, is not in --forwarded-allow-ips")
            if secure and environ["wsgi.url_scheme"] != "https":
                # RFC 9110 7.4; whom we trust may have ended TLS itself
                raise ProtocolError(421, "an https URI over a connection without TLS")

    def _read(self, lines: tuple[str, ...], host: str, scheme: str) -> dict[str, str]:
        """The environ keys that follow from what a trusted peer says."""
        said: dict[str, list[str]] = {}
        for name, _, value in (line.partition(":") for line in lines):
            if _why_never(name):
                self._tell(name)
            else:
                said.setdefault("HTTP_" + name.upper().replace("-", "_"), []).append(value.strip(" \t"))
        joined = {key: ", ".join(values) for key, values in said.items()}
        return joined | environ_keys(joined, self._believed, self.peers.lists, host, scheme)

    def _tell(self, name: str, reason: str = "") -> None:
        """Log once of each name that it does not reach the application; of TOLD_MOST names at most."""
        if name not in self._told and len(self._told) < TOLD_MOST:
            self._told.add(name)
            LOGGER.warning("header %s is dropped: %s", name, _why_never(name) or reason)


def _why_never(name: str) -> str:
    """Why a field of this name reaches the application from nobody; "" where it may."""
    if "_" in name:
        return "with an underscore it could pass for another"
    if name.lower() == "proxy":
        # CVE-2016-5385
        return "a program that the application starts would take HTTP_PROXY for the proxy of its own requests"
    return ""
