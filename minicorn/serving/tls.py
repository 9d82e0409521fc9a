"""TLS: contexts from files, a socket that behaves as a plain one, and what is known of its client.

One context for each certificate, made once a worker; the one for a connection is chosen by the
name that the client asks for (SNI, RFC 6066 3). Versions below 1.2 and renegotiation are off.
"""

from __future__ import annotations

import ssl
import sys

from minicorn.config.settings import Settings
from minicorn.errors import ConfigError
from minicorn.serving.certificate import distinguished, dns_names
from minicorn.serving.outbox import Outbox, Span

_RECORD = 16384  # RFC 8446 5.1: the most that one record holds
_VERIFY = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class TlsSocket(ssl.SSLSocket):
    """A non-blocking TLS socket: whatever it waits for, it raises BlockingIOError."""

    server_name = ""  # what the client asked for

    def recv(self, buflen: int = _RECORD, flags: int = 0) -> bytes:
        """Read all of a record at least: of what stayed in OpenSSL's buffer no poller would tell."""
        try:
            data = super().recv(buflen, flags)
            while self.pending():
                data += super().recv(self.pending())
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None
        return data

    def send(self, data: bytes | memoryview, flags: int = 0) -> int:  # type: ignore[override]  # any buffer elsewhere
        """Send record by record: one that was begun must be offered again as it was, and no longer; which callers do,
        as they send in order."""
        view, sent = memoryview(data), 0
        try:
            while sent < len(view):
                sent += super().send(view[sent : sent + _RECORD], flags)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            if not sent:
                raise BlockingIOError from None
        return sent

    def say_goodbye(self) -> bool:
        """Send close_notify (RFC 8446 6.1); False when there is no room for it yet."""
        try:
            self.unwrap()
        except ssl.SSLWantWriteError:
            return False
        except (OSError, ValueError):
            pass  # the usual one: it is sent, and the client has not answered it yet
        return True


class TlsOutbox(Outbox):
    """An outbox whose files are read here: the kernel cannot encrypt them."""

    __slots__ = ()

    def _try_sendfile(self, span: Span) -> int:
        return self._try_reading(span)


def load(settings: Settings) -> ssl.SSLContext:
    """The context for `settings.certfile` and what belongs to it; ConfigError, in one line, for what is wrong."""
    certificates, keys = settings.certfile, settings.keyfile
    if keys and len(keys) != len(certificates):
        raise ConfigError(f"{len(certificates)} --certfile and {len(keys)} --keyfile: give one key for each, or none")
    if not certificates:
        raise ConfigError("--cert-reqs needs --certfile: without TLS nobody shows a certificate")
    if settings.cert_reqs != "none" and settings.ca_certs is None:
        raise ConfigError("--cert-reqs needs --ca-certs: the authorities whose clients are let in")
    pairs = zip(certificates, keys or certificates, strict=True)
    contexts = [_load_one(certificate, key, settings) for certificate, key in pairs]
    by_name: dict[str, ssl.SSLContext] = {}
    for path, context in zip(certificates, contexts, strict=True):
        for name in _names_in(path):
            by_name.setdefault(name, context)

    def choose(sock: ssl.SSLSocket | ssl.SSLObject, name: str | None, default: ssl.SSLContext) -> None:
        asked = (name or "").lower()
        if isinstance(sock, TlsSocket):
            sock.server_name = asked
        sock.context = by_name.get(asked) or by_name.get("*." + asked.partition(".")[2]) or default

    contexts[0].sni_callback = choose
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _pass_over_bad_names
    return contexts[0]


def _pass_over_bad_names(told: sys.UnraisableHookArgs) -> None:
    """Say nothing of a server name beyond ASCII, which ends the handshake, as it should: Python's ssl reports it
    as a fault of ours, with a traceback for each."""
    error = told.exc_value
    if not (isinstance(error, UnicodeDecodeError) and error.object == told.object):
        sys.__unraisablehook__(told)


def _load_one(certificate: str, key: str, settings: Settings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslsocket_class = TlsSocket
    context.minimum_version = _VERSIONS[settings.ssl_version]
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    if settings.ciphers:
        try:
            context.set_ciphers(settings.ciphers)
        except ssl.SSLError:
            raise ConfigError(f"--ciphers {settings.ciphers!r}: OpenSSL knows none of these") from None
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        raise ConfigError(f"--certfile {certificate}, --keyfile {key}: {_explain(error)}") from None
    except OSError as error:
        raise ConfigError(f"--certfile {certificate}, --keyfile {key}: {error.strerror}") from None
    if settings.ca_certs is not None:
        try:
            context.load_verify_locations(settings.ca_certs)
        except ssl.SSLError:
            raise ConfigError(f"--ca-certs {settings.ca_certs}: no certificates in PEM form") from None
        except OSError as error:
            raise ConfigError(f"--ca-certs {settings.ca_certs}: {error.strerror}") from None
    context.verify_mode = _VERIFY[settings.cert_reqs]
    return context


def _no_password() -> str:
    raise ConfigError("--keyfile: the key is encrypted, and nobody is there to be asked for its password")


def _explain(error: ssl.SSLError) -> str:
    if error.reason in ("KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED"):  # the latter: of another kind
        return "the key is not the certificate's"
    if "TOO_SMALL" in str(error.reason) or "TOO_WEAK" in str(error.reason):
        return f"OpenSSL takes no such weak one ({error.reason})"
    return f"no certificate and key in PEM form ({error.reason or error})"


def _names_in(path: str) -> list[str]:
    """The DNS names of the first certificate in the file."""
    with open(path, encoding="latin-1") as file:
        _, begin, rest = file.read().partition(ssl.PEM_HEADER)
    pem = begin + rest.partition(ssl.PEM_FOOTER)[0] + ssl.PEM_FOOTER
    try:
        return dns_names(ssl.PEM_cert_to_DER_cert(pem))
    except ValueError as error:
        raise ConfigError(f"--certfile {path}: {error}") from None


def describe(sock: TlsSocket) -> dict[str, str]:
    """The environ keys of mod_ssl that tell of a connection and its client's certificate."""
    cipher, protocol, bits = sock.cipher() or ("", "", 0)
    keys = {
        "SSL_PROTOCOL": sock.version() or protocol,
        "SSL_CIPHER": cipher,
        "SSL_CIPHER_USEKEYSIZE": str(bits),
        "SSL_TLS_SNI": sock.server_name,
        "SSL_SESSION_RESUMED": "Resumed" if sock.session_reused else "Initial",
        "SSL_CLIENT_VERIFY": "NONE",
    }
    certificate = sock.getpeercert()
    binary = sock.getpeercert(binary_form=True)
    if certificate and binary:
        keys["SSL_CLIENT_VERIFY"] = "SUCCESS"
        keys["SSL_CLIENT_M_VERSION"] = str(certificate["version"])
        keys["SSL_CLIENT_M_SERIAL"] = str(certificate["serialNumber"])
        keys["SSL_CLIENT_V_START"] = str(certificate["notBefore"])
        keys["SSL_CLIENT_V_END"] = str(certificate["notAfter"])
        keys |= distinguished("SSL_CLIENT_S_DN", certificate["subject"])  # type: ignore[arg-type]
        keys |= distinguished("SSL_CLIENT_I_DN", certificate["issuer"])  # type: ignore[arg-type]
        keys["SSL_CLIENT_CERT"] = ssl.DER_cert_to_PEM_cert(binary)
    # PEP 3333: native strings carry bytes as latin-1
    return {key: value.encode().decode("latin-1") for key, value in keys.items()}
