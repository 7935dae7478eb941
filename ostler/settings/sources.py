"""Reads the settings from their sources, and merges them into one `Settings`.

The sources in the order of their precedence: the command line, values given in code, the environment
(`OSTLER_*`, WEB_CONCURRENCY and FORWARDED_ALLOW_IPS), the `--env-file`, TOML, and the default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from types import MappingProxyType
from typing import Any

from ostler.errors import SettingsError
from ostler.records import record
from ostler.settings import consistency
from ostler.settings.declarations import (
    DEFAULT,
    Settings,
    declarations,
    defaults,
    flag,
    names,
    take_value,
    variables,
    wrong_value,
)
from ostler.settings.files import DEFAULT_FILE, Table, read_env_file, read_table
from ostler.settings.kinds import OWN_LOG_CONFIG, Kind, Many, Switch

ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "headers": "header",
        "reload_dirs": "reload_dir",
        "reload_includes": "reload_include",
        "reload_excludes": "reload_exclude",
    }
)
"""The arguments of `uvicorn.run` that are not named as its flags, and the settings that they give."""


@record
class Found:
    """The value of one setting, from the first source that has one."""

    value: Any
    origin: str
    note: str = ""
    """A warning about what was given; "" if there is none."""


@record
class Configuration:
    """The effective settings, their origins, and the variables of the `--env-file`."""

    settings: Settings
    origins: Mapping[str, str]
    """The source of each setting by field name: `flag --port`, `ostler.toml line 3`, `default`."""
    environment: Mapping[str, str]
    """What the `--env-file` adds to the application's environment, without the variables already set."""
    warnings: tuple[str, ...] = ()
    """Settings that are not wrong but probably not meant, one line each."""
    env_file: str | None = None
    """The file that `environment` was read from."""


@record
class Sources:
    """The sources of the settings. Each `load` reads the files again, so that SIGHUP sees changes."""

    flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Texts from the command line by field name; a switch gives "true" or "false"."""
    config: str | None = None
    env_file: str | None = None
    environ: Mapping[str, str] = field(default_factory=dict)
    """The environment at the start, without the variables of an `--env-file`."""
    directory: str = "."
    """The directory that paths of files are relative to, and in which pyproject.toml is looked for."""
    values: Mapping[str, object] = field(default_factory=dict)
    """Values given in code by field name or alias, as in `ostler.run(port=8000)`; None means not given,
    except for `log_config`, of which it is a value."""
    repeated_defaults: bool = False
    """Whether `values` may repeat defaults, as dataclasses.replace() does: they contradict nothing."""
    pyproject: bool = True
    """Whether `[tool.ostler]` in the pyproject.toml of `directory` counts if there is no `config`."""

    def load(self, *, complete: bool = True) -> Configuration:
        """Read all sources and return the effective settings.

        Args:
            complete: whether it is an error that no source names an application.

        Raises:
            SettingsError: a source cannot be read, or a value is wrong; one line that says which and why.
        """
        path = self.env_file if self.env_file is not None else self._nonempty_variable("OSTLER_ENV_FILE")
        from_file = {} if path is None else read_env_file(self.directory, path)
        config = self.config if self.config is not None else self._nonempty_variable("OSTLER_CONFIG")
        table = read_table(self.directory, config) if config is not None or self.pyproject else None
        if table is not None:
            _refuse_unknown_keys(table)
        values = _values_by_field(self.values)

        found = dict(defaults())
        origins = dict.fromkeys(found, DEFAULT)
        notes: list[str] = []
        for name, declaration in declarations().items():
            given = self._find(name, declaration.kind, values, path, from_file, table)
            if given is not None:
                found[name], origins[name] = given.value, given.origin
                notes += [given.note] if given.note else []
        notes += self._choose_address(found, origins)
        if found["log_config"] not in (None, OWN_LOG_CONFIG):
            from ostler.settings import log_config  # the arbiter stays small without one

            found["log_config"] = log_config.read(self.directory, found["log_config"])
        settings = Settings(**found)
        consistency.refuse_contradictions(settings, origins)
        if complete and isinstance(settings.app, str) and not settings.app:
            raise SettingsError("no application given: expected APP as module:attribute, such as main:app")
        environment = {name: value for name, value in from_file.items() if name not in self.environ}
        warnings = (*notes, *consistency.warnings(settings, origins, self.environ))
        return Configuration(settings, origins, environment, warnings, path)

    def _choose_address(self, found: dict[str, Any], origins: dict[str, str]) -> list[str]:
        """Of several places to listen on keep the one that counts; return warnings where flags are lost.

        `fd` counts before `uds`, and that before `host` and `port`, as with uvicorn and whatever the sources:
        an image sets OSTLER_HOST, and its user adds `--uds`.
        """
        given = [name for name in ("fd", "uds") if origins[name] != DEFAULT]
        if not given:
            return []
        winner, warnings = given[0], []
        for loser in ("uds", "host", "port"):
            if loser == winner or origins[loser] == DEFAULT:
                continue
            if loser in self.flags and winner in self.flags:
                warnings.append(f"{loser} from {origins[loser]} is not used: {winner} says where to listen")
            found[loser], origins[loser] = defaults()[loser], DEFAULT
        return warnings

    def files(self) -> tuple[str, ...]:
        """Return the paths of the files that `load` reads, or would read if they existed."""
        config = self.config if self.config is not None else self._nonempty_variable("OSTLER_CONFIG")
        env_file = self.env_file if self.env_file is not None else self._nonempty_variable("OSTLER_ENV_FILE")
        return (config or DEFAULT_FILE, *([] if env_file is None else [env_file]))

    def _find(
        self,
        name: str,
        kind: Kind,
        values: Mapping[str, tuple[str, object]],
        env_file: str | None,
        from_file: Mapping[str, str],
        table: Table | None,
    ) -> Found | None:
        """Return the value from the first source that has one."""
        if name in self.flags:
            return _from_flags(name, kind, self.flags[name])
        if name in values:
            argument, value = values[name]
            origin = f"argument {argument}"
            found = take_value(name, kind, value, origin)
            repeated = self.repeated_defaults and found == defaults()[name]
            return _noted(name, kind, value, found, DEFAULT if repeated else origin)
        for variable in variables(name):
            text = self._nonempty_variable(variable)
            if text is not None:
                return _parse(name, kind, text, f"variable {variable}")
        for variable in variables(name):
            if from_file.get(variable):
                return _parse(name, kind, from_file[variable], f"variable {variable} in {env_file}")
        if table is not None:
            for key in names(name):
                if key in table.values:
                    return _check(name, kind, table.values[key], table.origin(key))
        return None

    def _nonempty_variable(self, variable: str) -> str | None:
        # An empty variable counts as unset: `OSTLER_UDS=${UDS:-}` in a compose file means no Unix socket.
        return self.environ.get(variable) or None


def _values_by_field(values: Mapping[str, object]) -> dict[str, tuple[str, object]]:
    """Return the values given in code by field name, each with the name of its argument.

    Raises:
        SettingsError: there is no such setting, or it is given under both of its names.
    """
    aliases = {**ALIASES, **{other: name for name in declarations() for other in names(name)[1:]}}
    known = [*declarations(), *aliases]
    found: dict[str, tuple[str, object]] = {}
    for argument, value in values.items():
        if argument not in known:
            raise SettingsError(f"unknown setting {argument!r}{consistency.suggestion(argument, known)}")
        name = aliases.get(argument, argument)
        if value is None and not declarations()[name].kind.takes_none:
            continue
        if name in found:
            raise SettingsError(f"{found[name][0]} and {argument} are the same setting: expected one of them")
        found[name] = (argument, value)
    return found


def _from_flags(name: str, kind: Kind, texts: tuple[str, ...]) -> Found:
    origin = "argument APP" if name == "app" else f"flag {flag(name)}"
    if isinstance(kind, Many):
        return Found(tuple(_parse(name, kind.item, text, origin).value for text in texts), origin)
    # If a flag is given twice, the last one counts: it overrides the defaults of a wrapper script.
    found = _parse(name, kind, texts[-1], origin)
    if isinstance(kind, Switch) and not found.value:
        return Found(found.value, f"flag --no-{flag(name)[2:]}")
    return found


def _parse(name: str, kind: Kind, text: str, origin: str) -> Found:
    try:
        return _noted(name, kind, text, kind.parse(text), origin)
    except ValueError as error:
        raise wrong_value(name, kind, text, origin, error) from None


def _check(name: str, kind: Kind, value: object, origin: str) -> Found:
    try:
        return _noted(name, kind, value, kind.check(value), origin)
    except ValueError as error:
        raise wrong_value(name, kind, value, origin, error) from None


def _noted(name: str, kind: Kind, given: object, value: object, origin: str) -> Found:
    note = kind.note(given)
    return Found(value, origin, f"{name} from {origin} is {given!r}: {note}" if note else "")


def _refuse_unknown_keys(table: Table) -> None:
    known = {key for name in declarations() for key in names(name)}
    for key in table.values:
        if key not in known:
            meant = consistency.suggestion(key, list(declarations()))
            raise SettingsError(f"{table.origin(key)}: unknown setting {key!r}{meant}")
