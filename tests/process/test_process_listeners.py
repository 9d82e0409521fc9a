"""Addresses: several at once, Unix sockets, inherited descriptors, the environment; and the pid file."""

import contextlib
import json
import os
import re
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from signal import SIGUSR1

import pytest
from harness import ANY_PORT, MINICORN, Server, Starter, free_port
from test_process_configuration import PLAIN_USER


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a short path: a Unix socket's has 107 bytes at most."""
    path = Path(os.path.realpath(f"/tmp/minicorn-test-{os.getpid()}"))
    path.mkdir()
    yield path
    for entry in path.iterdir():
        entry.unlink()
    path.rmdir()


def on_unix(start: Starter, path: Path, **options: object) -> Server:
    return start("plain:app", "--bind", f"unix:{path}", bind=False, **options)


def refused(server: Server) -> str:
    """The line that a start which fails leaves."""
    assert server.wait() == 1, server.log.text
    (line,) = server.log.finish().splitlines()
    return line


# TCP


def test_several_addresses_are_served_at_once(start: Starter, place: Path) -> None:
    path = place / "server.sock"
    flags = ("--bind", "127.0.0.1:0", "--bind", f"unix:{path}", "--workers", "2")
    server = start("plain:app", *flags)
    server.wait_log(f"Listening on unix:{path}")
    ports = [int(port) for port in re.findall(r"Listening on http://127\.0\.0\.1:(\d+)", server.log.text)]
    assert len(set(ports)) == 2
    workers = server.workers()
    for at in (*ports, path):
        assert int(server.get("/", at=at).text) in workers


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
def test_an_ipv6_address_is_served(start: Starter) -> None:
    server = start("plain:app", "--bind", "[::1]:0", bind=False)
    port = int(server.wait_log(r"Listening on http://\[::1\]:(\d+)")[1])
    with socket.create_connection(("::1", port), timeout=10) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: [::1]\r\nConnection: close\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
@pytest.mark.parametrize("order", [1, -1])
def test_all_addresses_of_ipv6_go_beside_one_of_ipv4_with_the_same_port(order: int, start: Starter) -> None:
    port = free_port()
    first, second = [f"127.0.0.1:{port}", f"[::]:{port}"][::order]
    start("plain:app", "--bind", first, "--bind", second, bind=False)
    for host in ("127.0.0.1", "::1"):
        with socket.create_connection((host, port), timeout=10) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")


def test_one_bad_address_among_several_leaves_nothing_behind(start: Starter, place: Path) -> None:
    path = place / "server.sock"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = start("plain:app", "--bind", f"unix:{path}", "--bind", f"127.0.0.1:{port}", ready=0, bind=False)
        assert str(port) in refused(server)
    assert not path.exists()


def test_more_addresses_than_a_connection_can_tell_apart_are_refused(start: Starter, place: Path) -> None:
    flags = [word for number in range(257) for word in ("--bind", f"unix:{place}/{number}")]
    assert "cannot listen on 257 addresses: 256 at most" in refused(start("plain:app", *flags, ready=0, bind=False))
    assert not list(place.iterdir())


@pytest.mark.parametrize("wanted", [True, False])
def test_only_where_it_is_wanted_may_others_listen_on_the_same_port(start: Starter, wanted: bool) -> None:
    """SO_REUSEPORT gives each listener a queue of its own, which goes with it: workers share one without."""
    server = start("plain:app", *["--reuse-port"] * wanted)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        with contextlib.nullcontext() if wanted else pytest.raises(OSError):
            other.bind(("127.0.0.1", server.port))


def test_port_and_web_concurrency_are_honoured(start: Starter) -> None:
    server = start.command(*MINICORN, "plain:app", env={"PORT": "0", "WEB_CONCURRENCY": "2"})
    server.wait_ready(2)
    assert server.wait_log(r"Listening on http://([0-9.]+):")[1] == "0.0.0.0"
    assert server.get("/").status == 200
    assert len(server.workers()) == 2


def test_flags_overrule_port_and_web_concurrency(start: Starter) -> None:
    env = {"PORT": "1", "WEB_CONCURRENCY": "3"}
    server = start("plain:app", "--workers", "2", env=env)
    assert server.get("/").status == 200
    assert len(server.workers()) == 2


# Unix sockets


def test_a_unix_socket_is_made_and_removed(start: Starter, place: Path) -> None:
    path = place / "server.sock"
    server = on_unix(start, path)
    server.wait_log(f"Listening on unix:{path}")
    assert server.get("/", at=path).status == 200
    assert list(place.iterdir()) == [path]
    assert server.stop() == 0
    assert list(place.iterdir()) == []


def test_a_relative_unix_path_belongs_to_the_servers_directory(start: Starter, place: Path) -> None:
    server = start("minicorn.demo:app", "--bind", "unix:s", "--chdir", str(place), bind=False)
    assert server.get("/", at=place / "s").status == 200
    assert server.stop() == 0
    assert list(place.iterdir()) == []


def test_a_stale_unix_socket_is_replaced(start: Starter, place: Path) -> None:
    path = place / "server.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    server = on_unix(start, path)
    assert server.get("/", at=path).status == 200
    # Bound by another name and moved there when it listened: at no moment was there none
    assert f" {path}.{server.pid}\n" in Path("/proc/net/unix").read_text()


def test_a_live_unix_socket_is_refused_and_left_alone(start: Starter, place: Path) -> None:
    path = place / "server.sock"
    server = on_unix(start, path)
    assert "in use" in refused(on_unix(start, path, ready=0))
    assert server.get("/", at=path).status == 200
    assert list(place.iterdir()) == [path]


def test_a_file_that_is_no_socket_is_refused_and_left_alone(start: Starter, place: Path) -> None:
    path = place / "precious"
    path.write_text("data")
    assert "no socket" in refused(on_unix(start, path, ready=0))
    assert path.read_text() == "data"


def test_a_unix_socket_that_has_been_replaced_is_not_removed(start: Starter, place: Path) -> None:
    path = place / "server.sock"
    server = on_unix(start, path)
    path.unlink()
    path.write_text("somebody else's")
    assert server.stop() == 0
    assert path.read_text() == "somebody else's"


def test_a_successor_on_the_same_unix_path_keeps_it(start: Starter, place: Path) -> None:
    """The old server has lost its socket's name; its end takes nothing from the new one."""
    path = place / "server.sock"
    old = on_unix(start, path)
    path.unlink()
    new = on_unix(start, path)
    assert old.stop() == 0
    assert new.get("/", at=path).status == 200


def test_a_worker_that_ends_removes_no_unix_socket(start: Starter, place: Path) -> None:
    path = place / "server.sock"
    server = on_unix(start, path)
    inode = path.stat().st_ino
    server.hup()
    server.wait_log("has retired")
    assert path.stat().st_ino == inode
    assert server.get("/", at=path).status == 200


# Inherited


def test_an_inherited_socket_is_served_and_neither_shut_down_nor_closed(start: Starter) -> None:
    with socket.create_server(("127.0.0.1", 0)) as ours:
        fd, port = ours.fileno(), ours.getsockname()[1]
        server = start("plain:app", "--bind", f"fd://{fd}", "--workers", "2", bind=False, pass_fds=(fd,))
        assert server.port == port
        assert json.loads(server.get("/child").text)["descriptors"] == [0, 1, 2]  # it came as one that is inherited
        server.hup()
        assert server.stop() == 0
        with socket.create_connection(("127.0.0.1", port), timeout=10):
            ours.settimeout(10)
            ours.accept()[0].close()


def test_an_inherited_unix_socket_is_not_removed(start: Starter, place: Path) -> None:
    path = place / "server.sock"
    with socket.socket(socket.AF_UNIX) as ours:
        ours.bind(str(path))
        ours.listen()
        fd = ours.fileno()
        server = start("plain:app", "--bind", f"fd://{fd}", bind=False, pass_fds=(fd,))
        assert server.get("/", at=path).status == 200
        assert server.stop() == 0
        assert stat.S_ISSOCK(path.stat().st_mode)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_an_inherited_abstract_socket_is_served_and_its_name_printable(start: Starter) -> None:
    name = f"minicorn-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as ours:
        ours.bind(f"\0{name}")
        ours.listen()
        server = start("plain:app", "--bind", f"fd://{ours.fileno()}", bind=False, pass_fds=(ours.fileno(),))
        server.wait_log(f"Listening on unix:@{name}$")
        assert server.get("/", at=Path(f"\0{name}")).status == 200


def test_a_descriptor_that_is_no_listening_socket_is_refused(start: Starter) -> None:
    reading, writing = os.pipe()
    try:
        command = ("plain:app", "--bind", f"fd://{reading}")
        server = start(*command, ready=0, bind=False, pass_fds=(reading,))
        line = refused(server)
        assert f"fd://{reading}: it is no listening socket" in line or f"fd://{reading}: Socket operation" in line
    finally:
        os.close(reading)
        os.close(writing)


# The pid file


def with_pid(start: Starter, **options: object) -> tuple[Server, Path]:
    return start("plain:app", "--pid", "server.pid", **options), start.cwd / "server.pid"


def test_the_pid_file_stands_while_the_server_runs(start: Starter) -> None:
    server, path = with_pid(start)
    assert path.read_text() == f"{server.pid}\n"
    inode = path.stat().st_ino
    server.hup()
    server.signal(SIGUSR1)
    assert (path.read_text(), path.stat().st_ino) == (f"{server.pid}\n", inode)
    assert server.stop() == 0
    assert not path.exists()


def test_no_pid_file_is_written_when_the_address_is_in_use(start: Starter) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        flags = ("--bind", f"127.0.0.1:{taken.getsockname()[1]}", "--pid", "server.pid")
        assert start("plain:app", *flags, ready=0, bind=False).wait() == 1
        assert not (start.cwd / "server.pid").exists()
        (start.cwd / "server.pid").write_text("1\n")  # of whoever listens there
        assert start("plain:app", *flags, ready=0, bind=False).wait() == 1
    assert (start.cwd / "server.pid").read_text() == "1\n"


def test_a_second_server_does_not_take_a_live_pid_file(start: Starter) -> None:
    server, path = with_pid(start)
    second, _ = with_pid(start, ready=0)
    assert str(server.pid) in refused(second)
    assert path.read_text() == f"{server.pid}\n"
    assert server.get("/").status == 200


def test_the_pid_file_stays_locked_after_workers_have_come_and_gone(start: Starter) -> None:
    server, _ = with_pid(start)
    server.hup()
    server.wait_log("has retired")
    second, _ = with_pid(start, ready=0)
    assert str(server.pid) in refused(second)


def test_a_stale_pid_file_is_taken_over(start: Starter) -> None:
    (start.cwd / "server.pid").write_text(f"{os.getpid()}\nand more than a pid, from who knows whom\n")
    server, path = with_pid(start)
    assert path.read_text() == f"{server.pid}\n"


def test_the_pid_file_of_a_killed_server_is_taken_over_while_an_orphan_lives(start: Starter) -> None:
    old, path = with_pid(start)
    old.hold()
    old.kill_arbiter()
    assert path.read_text() == f"{old.pid}\n"
    new, _ = with_pid(start)
    assert path.read_text() == f"{new.pid}\n"
    old.release()


def test_a_pid_file_that_has_been_replaced_is_not_removed(start: Starter) -> None:
    server, path = with_pid(start)
    path.unlink()
    path.write_text("another's\n")
    assert server.stop() == 0
    assert path.read_text() == "another's\n"


def test_a_pid_file_that_may_not_be_removed_any_more_ends_no_server_badly(start: Starter) -> None:
    place = start.cwd / "there"
    place.mkdir()
    server = start.command(*PLAIN_USER, *MINICORN, "plain:app", *ANY_PORT, "--pid", "there/pid")
    server.wait_ready()
    place.chmod(0o555)
    assert server.stop() == 0
    place.chmod(0o755)
    assert "Traceback" not in server.log.finish()
    assert (place / "pid").exists()


def test_the_pid_file_goes_when_the_application_cannot_be_loaded(start: Starter) -> None:
    server = start("nosuch:app", "--pid", "server.pid", ready=0)
    assert server.wait() == 3
    assert not (start.cwd / "server.pid").exists()
