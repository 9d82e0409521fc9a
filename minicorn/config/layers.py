"""Where values come from: layers of what was given, each above those before it -> Settings.

A command line, the variables, a file and a call from Python each make one: texts or values by
setting, and where they stand, for errors and --print-config. Each value is judged, be it hidden by
one above it or not. Pure: whoever reads files and variables hands over what they say.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from minicorn.config import gunicorn
from minicorn.config.kinds import ADDRESS, APP, UMASK, Kind
from minicorn.config.settings import NAMES, OPTIONS, Option, Settings
from minicorn.errors import ConfigError, UsageError
from minicorn.record import Value, replace

PREFIX = "MINICORN_"  # of variables
# Variables of ours that are no settings
OWN_VARIABLES = {"MINICORN_WORKER", "MINICORN_CMD_ARGS", "MINICORN_CONFIG", "MINICORN_SUCCESSION", "MINICORN_CHECK"}
# A service link, which Kubernetes sets in each pod beside a service called minicorn; its name may be a setting's too
_SERVICE_LINK = (
    r"(?s)MINICORN_(?:\w+_)?"
    r"(?:(?:SERVICE_(?:HOST|PORT)\w*|PORT_[0-9]+_(?:TCP|UDP|SCTP)\w*)=.*|PORT=(?:tcp|udp|sctp)://.*)"
)


class Given(Value):
    """What one place says of a setting: texts, or a file's Python values."""

    raw: tuple[object, ...]
    origin: str  # the place, for errors and --print-config
    error: type[ConfigError] = ConfigError


Layer = Mapping[str, Given]


def _from_value(name: str, value: object, origin: str) -> Given:
    """What a Python value says of a setting; a list or tuple says several values of one that takes several."""
    several = isinstance(value, (list, tuple)) and name in OPTIONS and OPTIONS[name].repeatable
    return Given(tuple(value) if several else (value,), origin)  # type: ignore[arg-type]


def convert(name: str, given: Given) -> object:
    """The value of the setting `name`; `given.error`, in one line, when what was given does not fit."""
    option = OPTIONS.get(name)
    kind: Kind[object] = option.kind if option else APP  # type: ignore[assignment]
    values: list[object] = []
    for raw in given.raw:
        typed = isinstance(raw, kind.types) and (bool in kind.types or not isinstance(raw, bool))
        try:
            if not typed and not isinstance(raw, str):
                raise ValueError(raw)
            values.append(kind.parse(raw if isinstance(raw, str) else kind.show(raw)))
        except ValueError:
            raise given.error(f"{given.origin}: cannot take {raw!r}: it takes {kind.takes}") from None
    return tuple(values) if option and option.repeatable else values[-1]


def unknown(name: str, names: Iterable[str]) -> str:
    """The text of the error that `name` is no setting, with the nearest of `names`."""
    import difflib  # for mistakes alone

    spelled = {known.lower(): known for known in names}
    near = difflib.get_close_matches(name.lower(), spelled, n=1)
    return f"{name!r} is no setting" + (f"; did you mean {spelled[near[0]]!r}?" if near else "")


def from_argv(argv: Mapping[str, Sequence[str]], origin: str = "") -> Layer:
    """The layer of a command line's values by setting name; `origin`: the variable that holds it."""
    before, error = (f"{origin}: ", ConfigError) if origin else ("", UsageError)
    return {
        name: Given(tuple(raw), before + ("/".join(OPTIONS[name].flags) if name in OPTIONS else "APP"), error)
        for name, raw in argv.items()
    }


def from_environ(environ: Mapping[str, str]) -> Layer:
    """The layer of the MINICORN_* variables; of a repeatable setting, words as in a shell.

    Raises ConfigError for one that is no setting, Kubernetes' service links left out.
    """
    layer: dict[str, Given] = {}
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or variable in OWN_VARIABLES or not text:
            continue
        if re.fullmatch(_SERVICE_LINK, f"{variable}={text}"):
            continue
        name = NAMES.get(variable.removeprefix(PREFIX).lower())
        if name is None:
            raise ConfigError(unknown(variable, [PREFIX + known.upper() for known in NAMES]))
        several = name in OPTIONS and OPTIONS[name].repeatable
        import shlex  # not before a variable is set

        try:
            layer[name] = Given(tuple(shlex.split(text)) if several else (text,), variable)
        except ValueError as error:
            raise ConfigError(f"{variable}: {error}") from None
    return layer


def from_values(origin: str, values: Mapping[str, object]) -> Layer:
    """The layer of a file's values by name; None stands for the default.

    Of two names of one setting gunicorn's counts: in its files ours are the author's own.
    Raises ConfigError for what is no setting, or one of gunicorn's that cannot be honoured.
    """
    layer: dict[str, Given] = {}
    for key, value in sorted(values.items(), key=lambda item: item[0] in gunicorn.NAMES):
        key, value = gunicorn.translate(key, value)
        name = NAMES.get(key.replace("-", "_"))
        if name is None and key in gunicorn.FOREIGN:
            gunicorn.judge(key, value, f"{origin}: {key}")
        elif name is None:
            raise ConfigError(f"{origin}: {unknown(key, [*NAMES, *gunicorn.FOREIGN, *gunicorn.HOOKS])}")
        elif value is not None:
            layer[name] = _from_value(name, value, f"{origin}: {key}")
    return layer


def _values(layer: Layer) -> dict[str, object]:
    return {name: convert(name, given) for name, given in layer.items()}


class Outcome(Value):
    """What the layers come to, and where each value that is no default came from."""

    settings: Settings
    origins: Mapping[str, str]


def settle(layers: Iterable[Layer], environ: Mapping[str, str]) -> Outcome:
    """The settings of `layers`, each above those before it, and each judged.

    Below all, `WEB_CONCURRENCY` stands for --workers, `FORWARDED_ALLOW_IPS` for
    --forwarded-allow-ips; `PORT` for --port, and then for all interfaces unless --host says
    otherwise (the convention of Heroku and its kin).
    """
    platform: dict[str, Given] = {}
    if environ.get("WEB_CONCURRENCY"):
        platform["workers"] = Given((environ["WEB_CONCURRENCY"],), "WEB_CONCURRENCY")
    if environ.get("FORWARDED_ALLOW_IPS"):
        platform["forwarded_allow_ips"] = Given((environ["FORWARDED_ALLOW_IPS"],), "FORWARDED_ALLOW_IPS")
    merged: dict[str, Given] = dict(platform)
    values = _values(platform)
    for layer in layers:
        values |= _values(layer)
        if layer.keys() & {"host", "port"} and "bind" not in layer and "bind" in merged:
            del merged["bind"], values["bind"]  # it would hide what is said above it
        merged.update(layer)
    if environ.get("PORT") and "port" not in merged:
        port = {"port": Given((environ["PORT"],), "PORT"), "host": Given(("0.0.0.0",), "PORT")}
        merged, values = port | merged, _values(port) | values
    settings = Settings(**values)  # type: ignore[arg-type]
    if settings.refork_after and not settings.preload:
        given = merged["refork_after"]
        raise given.error(f"{given.origin} needs --preload: without a template there is nothing to share")
    return Outcome(settings, {name: given.origin for name, given in merged.items()})


def from_options(app: str, **options: object) -> Settings:
    """Settings by name from Python: values of the right type, or texts as on the command line.

    Raises ConfigError for a name that is none, with the nearest, and for a value that does not fit.
    """
    given: dict[str, Given] = {}
    for name, value in options.items():
        if name not in OPTIONS:
            raise ConfigError(unknown(name, OPTIONS))
        if value is not None:
            given[name] = _from_value(name, value, name)
    return replace(settle([given], {}).settings, app=app)


def render(outcome: Outcome) -> str:
    """All settings as a Python file would have them, which could be read again, each with where it came from."""
    told: dict[str, tuple[str, object]] = {"app": ("wsgi_app", outcome.settings.app or None)}
    for name, option in OPTIONS.items():
        told[name] = option.gunicorn_name or name, _literal(option, getattr(outcome.settings, name))
    return "\n".join(
        # An origin may be a file of any name: repr keeps it in one line
        f"{f'{label} = {value!r}':<40}  # {repr(outcome.origins.get(name, 'default'))[1:-1]}"
        for name, (label, value) in told.items()
    )


def _literal(option: Option, value: object) -> object:
    if option.repeatable:
        return [option.kind.show(each) for each in value]  # type: ignore[attr-defined]
    if option.kind in (ADDRESS, UMASK) and value is not None:  # no literals, or hard to read
        return option.kind.show(value)
    return value
