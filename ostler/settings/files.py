"""The files that settings come from: TOML, with the line of each key, and `--env-file`.

The parsers are imported only where there is a file to read: the arbiter stays small without one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from ostler.errors import SettingsError
from ostler.records import record

DEFAULT_FILE = "pyproject.toml"
"""Where settings may stand when nothing else is said: below `[tool.ostler]`."""


@record
class Table:
    """What a TOML file says about ostler, and where."""

    file: str
    """As the person named it."""
    values: Mapping[str, Any]
    lines: Mapping[str, int]
    """The line of each key; a key that was not found by the scan is missing."""

    def origin(self, key: str) -> str:
        """Where `key` stands, in words."""
        line = self.lines.get(key)
        return self.file if line is None else f"{self.file} line {line}"


def read_table(directory: str, config: str | None) -> Table | None:
    """Read `config`, or else `[tool.ostler]` in the pyproject.toml in `directory` where there is one.

    A file that has no `[tool.ostler]` is ostler's own, and its top level counts.

    Raises:
        SettingsError: the file cannot be read, or is not TOML.
    """
    file = DEFAULT_FILE if config is None else config
    if config is None and not os.path.isfile(os.path.join(directory, file)):
        return None
    source = read_text(directory, file)
    # Most pyproject.toml files do not mention ostler: those need not even be TOML.
    if config is None and "ostler" not in source:
        return None
    data = parse_toml(file, source)
    tool = data.get("tool")
    table = tool.get("ostler") if isinstance(tool, dict) else None
    if isinstance(table, dict):
        return Table(file, table, dict(_key_lines(source, "tool.ostler")))
    if table is not None:
        raise SettingsError(f"{file}: tool.ostler is {table!r}: expected a table [tool.ostler]")
    if os.path.basename(file) != DEFAULT_FILE:
        return Table(file, data, dict(_key_lines(source, "")))
    if config is not None:
        raise SettingsError(f"{file}: no ostler settings in it: expected a table [tool.ostler]")
    return None


def read_env_file(directory: str, path: str) -> dict[str, str]:
    """Read the NAME=value lines of `path`; `${NAME}` in a value is filled in, real variables first.

    Raises:
        SettingsError: the file cannot be read or understood, or python-dotenv is not installed.
    """
    try:
        from dotenv.main import DotEnv
        from dotenv.parser import parse_stream
    except ImportError:
        raise SettingsError("--env-file needs python-dotenv: pip install 'ostler[dotenv]'") from None
    import io

    source = read_text(directory, path)
    for binding in parse_stream(io.StringIO(source)):
        # dotenv itself would skip such a line, and an application would miss a variable.
        if binding.error:
            raise SettingsError(f"{path} line {binding.original.line}: expected NAME=value")
    found = DotEnv(None, stream=io.StringIO(source), override=False).dict()
    return {name: value for name, value in found.items() if value is not None}


def read_text(directory: str, path: str) -> str:
    """Return the text of a file that a person named; `path` may be relative to `directory`.

    Raises:
        SettingsError: it cannot be read, or is not UTF-8.
    """
    try:
        with open(os.path.join(directory, path), encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # a UnicodeDecodeError, or a NUL in the path
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)
        raise SettingsError(f"{path}: cannot be read: {reason}") from None


def parse_toml(path: str, source: str) -> dict[str, Any]:
    """Return what the TOML in `source` says; `path` is for messages.

    Raises:
        SettingsError: it is not TOML.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        data: dict[str, Any] = tomllib.loads(source)
    except tomllib.TOMLDecodeError as error:
        # Its text ends in "(at line 3, column 5)" or "(at end of document)".
        raise SettingsError(f"{path}: not valid TOML: {error}") from None
    except RecursionError:
        raise SettingsError(f"{path}: not valid TOML: nested too deeply") from None
    return data


def _key_lines(source: str, table: str) -> Iterator[tuple[str, int]]:
    """Yield each key of `table` with its line, as a scan finds them: tomllib keeps no lines.

    Only for messages. A multi-line text that looks like a key may fool it, and a key in an inline
    table or a dotted one is not found.
    """
    current = ""
    for number, line in enumerate(source.split("\n"), 1):
        text = line.strip()
        if text.startswith("["):
            current = ".".join(_bare(part) for part in text.partition("]")[0].strip("[").split("."))
        elif current == table and "=" in text and not text.startswith("#"):
            yield _bare(text.partition("=")[0]), number


def _bare(key: str) -> str:
    return key.strip().strip("\"'")
