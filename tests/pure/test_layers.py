"""The cuts between the modules: who may import whom, read from the source."""

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import minicorn

PACKAGE = Path(minicorn.__file__).parent

# A module imports from the layers above it, or from its own where that makes no cycle
LAYERS = {
    "pure: values in, values out": """
        arbiter config errors figures http logs memo pool record reload serving system typed version arbiter.regimes
        config.address config.gunicorn config.kinds config.layers config.settings figures.counters figures.display
        figures.document figures.metrics figures.snapshot figures.statsd http.body http.forwarded http.grammar
        http.heads http.mould http.peers http.proxy http.quoting http.reply http.request http.tracing logs.tracebacks
        pool.actions
        pool.backoff pool.notifier pool.life pool.forking pool.exits pool.pool pool.reforks pool.rolls
        pool.shutdown pool.slow pool.standing pool.waiting reload.changes reload.page serving.certificate
        serving.batchsize serving.deadlines serving.holdings serving.pace serving.stance serving.state
    """,
    "one fact of the operating system each": """
        arbiter.succession config.configfile config.configuration config.namespace figures.endpoint figures.directory
        figures.heartbeat figures.idlemap figures.ledger figures.survey figures.top figures.traces figures.usage
        logs.accessjson logs.accesslog logs.capture logs.complaints logs.entry logs.formats logs.errorlog
        logs.explanation logs.logconfig logs.logger logs.logs logs.output logs.relay logs.syslog logs.unanswered
        reload.failure reload.groundwork reload.imports reload.observer reload.places reload.sweep serving.forksafety
        serving.handoff serving.hooks serving.loader serving.order serving.outbox serving.post serving.filewrapper
        serving.seat serving.tls serving.upload system.activation system.cgroup system.channel system.listeners
        system.pidfile system.poller system.privileges system.process system.queues system.rights system.scratch
        system.shell system.signals system.sockets system.spawn system.surroundings system.systemd system.terminal
        system.title system.wakeup
    """,
    "one client, one request": """
        reload.showing serving.claims serving.connection serving.ingress serving.preface serving.reception
        serving.requestlog serving.room serving.secured serving.warmup serving.wsgi
    """,
    "the event loop": """
        server reload.development serving.custody serving.helper serving.intake serving.loop
    """,
    "processes": """
        arbiter.arbiter arbiter.auxiliary arbiter.resources arbiter.births arbiter.chronicle arbiter.deaths
        arbiter.hookline arbiter.logger arbiter.reconfiguration arbiter.reloading arbiter.rounds arbiter.upgrade
        figures.monitor reload.watcher serving.promotion serving.template serving.worker
    """,
    "what joins them": """
        __init__ __main__ api app cli ctl demo offspring parser
    """,
}
LEVELS = {module: level for level, modules in enumerate(LAYERS.values()) for module in modules.split()}
JOINING = {module for module, level in LEVELS.items() if level == len(LAYERS) - 1}
PURE = sorted(module for module, level in LEVELS.items() if level == 0)

# What a pure module has no business with: clocks, sockets, signals, processes, threads, files, logs
IMPURE = {
    "asyncio",
    "fcntl",
    "io",
    "logging",
    "mmap",
    "multiprocessing",
    "os",
    "pathlib",
    "random",
    "select",
    "selectors",
}
IMPURE |= {"shutil", "signal", "socket", "subprocess", "sys", "tempfile", "threading", "time"}
EXCEPTIONS = {
    ("http.reply", "time"): "the calendar's gmtime; no clock is read",
    ("pool.exits", "signal"): "the names of signals, from an enumeration; none is sent or handled",
}
THIRD_PARTY = {
    "cli": {"shtab"},
    "serving.loader": {"paste"},
    "system.title": {"setproctitle"},
    "system.process": {"psutil"},
    "reload.observer": {"watchdog"},
}


def source_files() -> dict[str, Path]:
    """The package's modules by their dotted names without "minicorn."."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)] = path
    return found


MODULES = source_files()


def imported(module: str) -> Iterator[str]:
    """Dotted names that `module` imports, wherever in it."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} has a relative import, which this test does not follow"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def of_ours(module: str) -> set[str]:
    """The package's modules that `module` imports."""
    found = set()
    for name in imported(module):
        if name.split(".")[0] == "minicorn":
            inside = name.removeprefix("minicorn").removeprefix(".")
            while inside not in MODULES:  # `name` may end with something in the module
                inside = inside.rpartition(".")[0] or "__init__"
            found.add(inside)
    return found - {module}


def of_others(module: str) -> set[str]:
    """The top-level names of what `module` imports from elsewhere."""
    return {name.split(".")[0] for name in imported(module)} - {"minicorn"}


def reachable(module: str) -> set[str]:
    """All that importing `module` brings in, of ours."""
    found: set[str] = set()
    wanted = [module]
    while wanted:
        new = of_ours(wanted.pop()) - found
        found |= new
        wanted += new
    return found


def test_every_module_has_its_place() -> None:
    assert set(MODULES) == set(LEVELS)


def test_the_imports_are_seen() -> None:
    # Without this, a reader that sees nothing would hold every rule
    assert {"serving.connection", "system.listeners", "serving.loop", "serving.deadlines"} <= of_ours("server")
    assert "app" in of_ours("cli")
    assert "parser" in of_ours("cli")
    assert "socket" in of_others("serving.connection")


@pytest.mark.parametrize("module", sorted(set(MODULES) & set(LEVELS)))
def test_a_module_imports_from_its_own_layer_and_those_above_alone(module: str) -> None:
    below = {other for other in of_ours(module) if LEVELS[other] > LEVELS[module]}
    assert below == set()


def test_imports_make_no_cycle() -> None:
    order = list(TopologicalSorter({module: of_ours(module) for module in MODULES}).static_order())
    assert set(order) == set(MODULES)


def test_worker_and_arbiter_do_not_know_each_other() -> None:
    assert "arbiter.arbiter" not in reachable("serving.worker")
    assert "serving.worker" not in reachable("arbiter.arbiter")


@pytest.mark.parametrize("module", sorted(set(MODULES) - JOINING))
def test_only_what_joins_them_knows_what_is_the_arbiters(module: str) -> None:
    theirs = {other for other in of_ours(module) if other.startswith("arbiter.")}
    assert module.startswith("arbiter.") or theirs == set()


@pytest.mark.parametrize("module", [module for module in sorted(MODULES) if module.startswith("logs.")])
def test_the_logs_do_not_know_who_serves(module: str) -> None:
    packages = {other.partition(".")[0] for other in of_ours(module)}
    assert packages.isdisjoint({"serving", "server", "reload", "arbiter"})


def test_the_arbiter_neither_serves_nor_loads() -> None:
    assert reachable("arbiter.arbiter").isdisjoint(
        {"serving.wsgi", "server", "serving.connection", "serving.outbox", "serving.loader"}
    )


def test_a_connection_knows_no_wsgi() -> None:
    assert reachable("serving.connection").isdisjoint({"serving.wsgi", "serving.loader"})


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_touches_no_system(module: str) -> None:
    allowed = {name for where, name in EXCEPTIONS if where == module}
    assert of_others(module) & IMPURE == allowed


@pytest.mark.parametrize("module", sorted(MODULES))
def test_nothing_outside_the_standard_library_is_needed(module: str) -> None:
    assert of_others(module) - set(sys.stdlib_module_names) == THIRD_PARTY.get(module, set())


def test_what_is_optional_can_be_missing() -> None:
    for module, names in THIRD_PARTY.items():
        guarded = [
            node
            for attempt in ast.walk(ast.parse(MODULES[module].read_text()))
            if isinstance(attempt, ast.Try)
            and any(ast.unparse(h.type or ast.Name("")) == "ImportError" for h in attempt.handlers)
            for node in attempt.body
        ]
        found = {str(node.module).split(".")[0] for node in guarded if isinstance(node, ast.ImportFrom)}
        found |= {alias.name for node in guarded if isinstance(node, ast.Import) for alias in node.names}
        assert found >= names


def test_there_is_one_logger() -> None:
    # Under its name anybody may get one; that it is ours, which raises nothing, is sure of this one alone
    assert [name for name, path in MODULES.items() if 'getLogger("minicorn' in path.read_text()] == []
    assert [name for name, path in MODULES.items() if "\nLOGGER = " in path.read_text()] == ["logs.logger"]
