"""Listening sockets: bind, inherit, close. Bound once by the arbiter, shared by all workers.

One socket for all (SO_REUSEPORT would drop a dead worker's queue). Workers close their copies;
only the arbiter unlinks a Unix path, and only while that is still the file it made.
"""

from __future__ import annotations

import errno
import os
import socket
import stat

from minicorn.config.address import Address, Bindable, Descriptor, Tcp, Unix
from minicorn.errors import ConfigError
from minicorn.record import Value
from minicorn.system import rights


class BindError(ConfigError, OSError):
    """An address that cannot be listened on."""

    __str__ = Exception.__str__  # OSError's would print an errno


class SocketOptions(Value):
    """How a socket listens."""

    backlog: int = 64  # connections that the system queues for us, as listen(2) is told
    reuse_port: bool = False  # another server may listen on the same port (SO_REUSEPORT)
    ipv6_only: bool = False  # an IPv6 address takes no client of IPv4 (IPV6_V6ONLY)


DEFAULT = SocketOptions()
# What an image of the arbiter leaves of a listener: descriptor, host, device and inode of a path of ours
Legacy = tuple[int, str, tuple[int, int] | None]


class Listener:
    """A bound, listening, non-blocking socket, and its name."""

    def __init__(self, listening: socket.socket, made: tuple[int, int] | None = None, path: str = "") -> None:
        """`made`: device and inode of `path`, where it is ours to remove."""
        self.socket = listening
        self.fd = listening.fileno()
        self.number = 0  # its place among the server's listeners
        self.made = made
        # As plain numbers: `socket` looks its enumerations up anew each time that it is asked
        self._kind = int(listening.family), int(listening.type), listening.proto
        # Once for all processes: the flag belongs to the open file, which they share
        listening.setblocking(False)
        if listening.family in (socket.AF_INET, socket.AF_INET6):
            # Accepted sockets inherit it on Linux
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.host, self.port = listening.getsockname()[:2]
            self.name = str(Tcp(self.host, self.port))
        else:
            # The kernel knows a path of ours by the temporary name that it was bound to; a name that is no path
            # begins with NUL, and is written as systemd does
            self.host, self.port = path or os.fsdecode(listening.getsockname()).replace("\0", "@"), 0
            self.name = str(Unix(self.host))

    @property
    def legacy(self) -> Legacy:
        """What the arbiter's next image must know, which `adopt` takes."""
        return self.fd, self.host, self.made

    def url(self, scheme: str) -> str:
        """The URL of this listener for clients that speak `scheme`."""
        return self.name.replace("http", scheme, 1) if self.port else self.name

    def accept(self) -> tuple[socket.socket, tuple[str, str]]:
        """Accept a client: its non-blocking socket, address and port, "" where it has none. OSError as accept(2)."""
        fd, address = self.socket._accept()  # type: ignore[attr-defined]  # what accept() calls, before it asks
        client = rights.Socket(*self._kind, fd)
        client.setblocking(False)
        return client, (address[0], str(address[1])) if self.port else ("", "")

    def close(self) -> None:
        """Close this process's copy: the socket listens on in the others."""
        self.socket.close()

    def unlink(self) -> None:
        """Remove a Unix socket's path, if the file there is the one that was bound."""
        if self.made is None:
            return
        try:
            found = os.stat(self.host)
            if (found.st_dev, found.st_ino) == self.made:
                os.unlink(self.host)
        except OSError:
            pass  # gone already, or its directory is


def adopt(legacy: Legacy, number: int = 0) -> Listener:
    """The listener that the arbiter's image before has left, or that an order has brought."""
    fd, host, made = legacy
    listener = Listener(rights.as_socket(fd), (made[0], made[1]) if made else None, host)
    listener.number = number
    return listener


def bind(address: Bindable, options: SocketOptions = DEFAULT) -> Listener:
    """A listener on `address`; BindError, in one line, when it cannot be had."""
    try:
        if isinstance(address, Tcp):
            return _bind_tcp(address, options)
        if isinstance(address, Unix):
            return _bind_unix(address, options)
        return _inherit(address, options)
    except BindError:
        raise
    except OSError as error:
        raise _fault(address, error) from error


def check(address: Address) -> None:
    """BindError when `address` could not be had, even if nobody had it now. Nothing listens there meanwhile;
    what a service manager would pass is not looked for."""
    try:
        if isinstance(address, Tcp):
            _open_tcp(address, DEFAULT).close()
        elif isinstance(address, Unix):
            temporary = _beside(_place(address))
            with socket.socket(socket.AF_UNIX) as trial:
                trial.bind(temporary)
            os.unlink(temporary)
    except BindError:
        raise
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise _fault(address, error) from error


def _fault(address: Address, error: OSError) -> BindError:
    reason = "the address is in use" if error.errno == errno.EADDRINUSE else error.strerror or error
    return BindError(f"cannot listen on {address}: {reason}")


def close_all(listeners: list[Listener]) -> None:
    """Remove the paths that are ours, and close the sockets, as the server ends."""
    for listener in listeners:
        listener.unlink()
        listener.close()


def resolve(address: Tcp) -> tuple[socket.AddressFamily, tuple[object, ...]]:
    """The family and the socket address of a TCP address, as the system resolves it; OSError where it does not."""
    # As bytes, where that is the same: Python's codec for international names takes a while to load
    host = address.host.encode() if address.host.isascii() else address.host
    try:
        found = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except UnicodeError as error:
        raise OSError(errno.EINVAL, "that is no name of a host") from error
    # A name such as localhost has both: IPv4 is what its clients try everywhere
    family, *_, name = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return family, name


def _bind_tcp(address: Tcp, options: SocketOptions) -> Listener:
    listening = _open_tcp(address, options)
    try:
        listening.listen(options.backlog)
    except OSError:
        listening.close()
        raise
    return Listener(listening)


def _open_tcp(address: Tcp, options: SocketOptions) -> socket.socket:
    """A socket that is bound, and does not listen yet."""
    family, name = resolve(address)
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if options.reuse_port:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6 and options.ipv6_only:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind(name)
    except OSError:
        opened.close()
        raise
    return opened


def _bind_unix(address: Unix, options: SocketOptions) -> Listener:
    """Probe by connect, bind a temporary name, rename: no moment without a socket at the path."""
    path = _place(address)
    if os.path.lexists(path):
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(path) == 0:
                raise BindError(f"cannot listen on {address}: the address is in use")
    temporary = _beside(path)
    listening = socket.socket(socket.AF_UNIX)
    try:
        listening.bind(temporary)
        listening.listen(options.backlog)
        os.rename(temporary, path)
    except OSError:
        listening.close()
        if os.path.lexists(temporary):
            os.unlink(temporary)
        raise
    status = os.stat(path)
    return Listener(listening, (status.st_dev, status.st_ino), path)


def _place(address: Unix) -> str:
    """The path; BindError when something else than a socket is there."""
    path = os.path.abspath(address.path)
    if os.path.lexists(path) and not stat.S_ISSOCK(os.stat(path).st_mode):
        raise BindError(f"cannot listen on {address}: a file that is no socket is there")
    return path


def _beside(path: str) -> str:
    """A temporary name of ours in the same directory."""
    return f"{path}.{os.getpid()}"


def _inherit(address: Descriptor, options: SocketOptions) -> Listener:
    if address.fd <= 2:
        raise BindError(f"cannot listen on {address}: that is a standard stream")
    inherited = socket.socket(fileno=address.fd)
    if not inherited.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        inherited.listen(options.backlog)
    inherited.set_inheritable(False)
    return Listener(inherited)
