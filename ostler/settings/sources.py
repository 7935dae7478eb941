"""Where settings come from: flags, variables and files, merged into one frozen Settings.

The nearest source wins: the command line, then a value given in code, the environment (`OSTLER_*`, and
WEB_CONCURRENCY and FORWARDED_ALLOW_IPS), the `--env-file`, TOML, and last the default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from types import MappingProxyType
from typing import Any

from ostler.errors import SettingsError
from ostler.records import record
from ostler.settings import log_config
from ostler.settings.declarations import Settings, declarations, defaults, flag, taken, variables, wrong
from ostler.settings.files import DEFAULT_FILE, Table, read_env_file, read_table
from ostler.settings.kinds import Kind, Many, Switch

DEFAULT = "default"
"""The origin of a value that no source gave."""

_NOT_SETTINGS = (
    *("OSTLER_CONFIG", "OSTLER_ENV_FILE"),
    *("OSTLER_SLOT", "OSTLER_GENERATION", "OSTLER_HANDOVER"),
)
"""Variables of ours that are no setting: where to find files, and what a worker is told."""

ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "headers": "header",
        "reload_dirs": "reload_dir",
        "reload_includes": "reload_include",
        "reload_excludes": "reload_exclude",
        "h11_max_incomplete_event_size": "limit_request_head",
    }
)
"""What uvicorn calls a setting in code, where that is not what the flag is called."""


@record
class Configuration:
    """Every effective setting, and what `--env-file` adds."""

    settings: Settings
    origins: Mapping[str, str]
    """Where each setting came from, by field name: `flag --port`, `ostler.toml line 3`, `default`."""
    environment: Mapping[str, str]
    """What `--env-file` adds to the application's environment; never a variable that is really set."""
    warnings: tuple[str, ...] = ()
    """What is not wrong but probably not meant, one line each."""
    env_file: str | None = None
    """The file that `environment` is from."""


@record
class Sources:
    """All that settings are read from; `load` reads the files anew each time, so that SIGHUP sees changes."""

    flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Texts from the command line, by field name; a switch gives true or false."""
    config: str | None = None
    env_file: str | None = None
    environ: Mapping[str, str] = field(default_factory=dict)
    """The environment as it was at the start, without what an `--env-file` added."""
    directory: str = "."
    """What relative paths of files are relative to, and where pyproject.toml is looked for."""
    values: Mapping[str, object] = field(default_factory=dict)
    """Values given in code, by field name or alias, as `ostler.run(port=8000)` does; None is not given."""
    pyproject: bool = True
    """Whether `[tool.ostler]` in ./pyproject.toml counts where there is no `config`."""

    def load(self, *, complete: bool = True) -> Configuration:
        """Read all sources and return what they come to; `complete` asks for an application too.

        Raises:
            SettingsError: a source cannot be read, or a value is wrong; one line that says which and why.
        """
        path = self.env_file if self.env_file is not None else self._real("OSTLER_ENV_FILE")
        from_file = {} if path is None else read_env_file(self.directory, path)
        config = self.config if self.config is not None else self._real("OSTLER_CONFIG")
        table = read_table(self.directory, config) if config is not None or self.pyproject else None
        if table is not None:
            _refuse_unknown_keys(table)
        values = _by_field(self.values)

        found = dict(defaults())
        origins = dict.fromkeys(found, DEFAULT)
        for name, declaration in declarations().items():
            given = self._nearest(name, declaration.kind, values, path, from_file, table)
            if given is not None:
                found[name], origins[name] = given
        if found["log_config"] is not None:
            found["log_config"] = log_config.read(self.directory, found["log_config"])
        settings = Settings(**found)
        _refuse_contradictions(settings, origins)
        if complete and isinstance(settings.app, str) and not settings.app:
            raise SettingsError("no application given: expected APP as module:attribute, such as main:app")
        environment = {name: value for name, value in from_file.items() if name not in self.environ}
        warnings = (
            *_near_misses(self.environ),
            *_idle(settings, origins),
            *_idle_authorities(settings, origins),
        )
        return Configuration(settings, origins, environment, warnings, path)

    def files(self) -> tuple[str, ...]:
        """The files of settings that `load` reads, or would if they were there: relative to `directory`."""
        config = self.config if self.config is not None else self._real("OSTLER_CONFIG")
        env_file = self.env_file if self.env_file is not None else self._real("OSTLER_ENV_FILE")
        return (config or DEFAULT_FILE, *([] if env_file is None else [env_file]))

    def _nearest(
        self,
        name: str,
        kind: Kind,
        values: Mapping[str, tuple[str, object]],
        env_file: str | None,
        from_file: Mapping[str, str],
        table: Table | None,
    ) -> tuple[Any, str] | None:
        """The value of the nearest source that gives one, and that source in words."""
        if name in self.flags:
            return _from_flags(name, kind, self.flags[name])
        if name in values:
            argument, value = values[name]
            return taken(name, kind, value, f"argument {argument}"), f"argument {argument}"
        for variable in variables(name):
            text = self._real(variable)
            if text is not None:
                return _parsed(name, kind, text, f"variable {variable}")
        for variable in variables(name):
            if from_file.get(variable):
                return _parsed(name, kind, from_file[variable], f"variable {variable} in {env_file}")
        if table is not None and name in table.values:
            return _checked(name, kind, table.values[name], table.origin(name))
        return None

    def _real(self, variable: str) -> str | None:
        # Empty is unset: `OSTLER_UDS=${UDS:-}` in a compose file means no Unix socket.
        return self.environ.get(variable) or None


def _by_field(values: Mapping[str, object]) -> dict[str, tuple[str, object]]:
    """The values given in code by the name of the field, each with the name of its argument.

    Raises:
        SettingsError: there is no such setting, or it is given by both its names.
    """
    known = [*declarations(), *(alias for alias, name in ALIASES.items() if name in declarations())]
    found: dict[str, tuple[str, object]] = {}
    for argument, value in values.items():
        if argument not in known:
            raise SettingsError(f"unknown setting {argument!r}{_suggestion(argument, known)}")
        name = ALIASES.get(argument, argument)
        if value is None:
            continue
        if name in found:
            raise SettingsError(f"{found[name][0]} and {argument} are the same setting: expected one of them")
        found[name] = (argument, value)
    return found


def _from_flags(name: str, kind: Kind, texts: tuple[str, ...]) -> tuple[Any, str]:
    origin = "argument APP" if name == "app" else f"flag {flag(name)}"
    if isinstance(kind, Many):
        return tuple(_parsed(name, kind.item, text, origin)[0] for text in texts), origin
    # Of a flag that is given twice the last counts, so that a script's defaults can be overridden.
    value, origin = _parsed(name, kind, texts[-1], origin)
    if isinstance(kind, Switch) and not value:
        origin = f"flag --no-{flag(name)[2:]}"
    return value, origin


def _parsed(name: str, kind: Kind, text: str, origin: str) -> tuple[Any, str]:
    try:
        return kind.parse(text), origin
    except ValueError as error:
        raise wrong(name, kind, text, origin, error) from None


def _checked(name: str, kind: Kind, value: object, origin: str) -> tuple[Any, str]:
    try:
        return kind.check(value), origin
    except ValueError as error:
        raise wrong(name, kind, value, origin, error) from None


def _refuse_unknown_keys(table: Table) -> None:
    for key in table.values:
        if key not in declarations():
            suggestion = _suggestion(key, list(declarations()))
            raise SettingsError(f"{table.origin(key)}: unknown setting {key!r}{suggestion}")


def _refuse_contradictions(settings: Settings, origins: Mapping[str, str]) -> None:
    """Settings that are right one by one and make no sense together.

    Raises:
        SettingsError: the first contradiction, with both origins.
    """
    for one, other in (("uds", "fd"), ("uds", "host"), ("uds", "port"), ("fd", "host"), ("fd", "port")):
        if DEFAULT not in (origins[one], origins[other]):
            raise SettingsError(
                f"{one} from {origins[one]} and {other} from {origins[other]} exclude each other: "
                f"expected one place to listen on"
            )
    _refuse_everyone_and_others(settings, origins)
    if settings.log_config is not None and settings.log_format != "text":
        raise SettingsError(
            f"log_config from {origins['log_config']} and log_format from {origins['log_format']} exclude "
            f"each other: expected the formatter ostler.logging.JsonFormatter in the file instead"
        )
    for limit in ("limit_max_requests", "limit_worker_lifetime"):
        jitter = f"{limit}_jitter"
        if getattr(settings, jitter) and getattr(settings, limit) is None:
            value = declarations()[jitter].kind.show(getattr(settings, jitter))
            raise SettingsError(f"{jitter} from {origins[jitter]} is {value}: expected {limit} with it")
    _refuse_half_of_tls(settings, origins)


_NEED_TLS = (
    "ssl_keyfile",
    "ssl_keyfile_password",
    "ssl_version",
    "ssl_cert_reqs",
    "ssl_ca_certs",
    "ssl_ciphers",
)


def _refuse_half_of_tls(settings: Settings, origins: Mapping[str, str]) -> None:
    """Whoever gives some of it wants TLS: it must not become plain HTTP, or a check that checks nothing."""
    if settings.ssl_context_factory is None:
        for name in _NEED_TLS:
            if origins[name] != DEFAULT and settings.ssl_certfile is None:
                raise SettingsError(
                    f"{name} is given by {origins[name]}: expected ssl_certfile with it, for TLS needs a "
                    "certificate"
                )
        if settings.ssl_cert_reqs != "none" and settings.ssl_ca_certs is None:
            raise SettingsError(
                f"ssl_cert_reqs from {origins['ssl_cert_reqs']} is {settings.ssl_cert_reqs}: expected "
                "ssl_ca_certs with it, to check the certificates of clients against"
            )
    elif callable(settings.ssl_context_factory) and (settings.workers is not None or settings.reload):
        raise SettingsError(
            f"ssl_context_factory from {origins['ssl_context_factory']} is "
            f"{settings.ssl_context_factory!r}: expected a function at the top level of a module, the script "
            "itself excepted, as every worker imports it"
        )


def _idle_authorities(settings: Settings, origins: Mapping[str, str]) -> list[str]:
    if settings.ssl_ca_certs is None or settings.ssl_cert_reqs != "none" or settings.ssl_context_factory:
        return []
    origin = origins["ssl_ca_certs"]
    return [f"ssl_ca_certs from {origin} checks nobody: ssl_cert_reqs is none, so no client is asked"]


def _refuse_everyone_and_others(settings: Settings, origins: Mapping[str, str]) -> None:
    """To uvicorn a `*` among other peers means nothing: taken as everyone, it would widen whom one trusts.

    With the PROXY protocol it has a meaning: the others are whom it may name as the client.
    """
    entries = {entry.strip() for entry in settings.forwarded_allow_ips.split(",")} - {""}
    if "*" in entries and len(entries) > 1 and not settings.proxy_protocol:
        raise SettingsError(
            f"forwarded_allow_ips from {origins['forwarded_allow_ips']} is {settings.forwarded_allow_ips!r}: "
            "* trusts everyone, so expected * alone, or the others without it"
        )


def _near_misses(environ: Mapping[str, str]) -> list[str]:
    """Warnings about variables that are nearly named like ours; a mere OSTLER_ may be anyone's."""
    strangers = [name for name in environ if name.startswith("OSTLER_") and name not in _NOT_SETTINGS]
    known = {variable for name in declarations() for variable in variables(name)}
    warnings = []
    for name in strangers:
        # Strict: a Kubernetes service named ostler gives every pod an OSTLER_SERVICE_HOST.
        suggestion = "" if name in known else _suggestion(name, sorted(known), 0.85)
        if suggestion:
            warnings.append(f"variable {name} is ignored: unknown setting{suggestion}")
    return warnings


def _idle(settings: Settings, origins: Mapping[str, str]) -> list[str]:
    """Warnings about settings that do nothing without another one."""
    given = [name for name in origins if name.startswith("reload_") and origins[name] != DEFAULT]
    if settings.reload or not given:
        return []
    return [f"{name} from {origins[name]} does nothing without --reload" for name in given]


def _suggestion(word: str, known: list[str], likeness: float = 0.7) -> str:
    import difflib  # 1.5 MB, for a mistake only

    close = difflib.get_close_matches(word.replace("-", "_"), known, n=1, cutoff=likeness)
    return f", did you mean {close[0]}?" if close else ""
