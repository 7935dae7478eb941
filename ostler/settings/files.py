"""Reads the files that settings come from: TOML, with the line of each key, and `--env-file`.

The parsers are imported only when there is a file to read, to keep the arbiter small.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from ostler.errors import SettingsError
from ostler.records import record

DEFAULT_FILE = "pyproject.toml"
"""The file that is read without `--config`, for its table `[tool.ostler]`."""


@record
class Table:
    """The settings in a TOML file, and the line of each."""

    file: str
    """The path as the user gave it."""
    values: Mapping[str, Any]
    lines: Mapping[str, int]
    """The line of each key that the scan has found."""

    def origin(self, key: str) -> str:
        """Return the file and line of `key`, for messages."""
        line = self.lines.get(key)
        return self.file if line is None else f"{self.file} line {line}"


def read_table(directory: str, config: str | None) -> Table | None:
    """Read the settings in a TOML file; None if there is no such file, or nothing about ostler in it.

    A file without the table `[tool.ostler]` is ostler's own: its keys stand at the top level.

    Args:
        directory: what `config` is relative to, and where pyproject.toml is looked for.
        config: the path of the file; None for the pyproject.toml.

    Raises:
        SettingsError: the file cannot be read, or is not TOML.
    """
    file = DEFAULT_FILE if config is None else config
    if config is None and not os.path.isfile(os.path.join(directory, file)):
        return None
    source = read_text(directory, file)
    # Most pyproject.toml files do not mention ostler. They are not parsed, and need not be valid.
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
    """Read the NAME=value lines of a file and return them by name.

    `${NAME}` in a value is replaced by the environment variable, or else by the value in the file.

    Args:
        directory: what `path` is relative to.
        path: the path of the file.

    Raises:
        SettingsError: the file cannot be read or parsed, or python-dotenv is not installed.
    """
    try:
        from dotenv.main import DotEnv
        from dotenv.parser import parse_stream
    except ImportError:
        raise SettingsError("--env-file needs python-dotenv: pip install python-dotenv") from None
    import io

    source = read_text(directory, path)
    for binding in parse_stream(io.StringIO(source)):
        # python-dotenv skips such a line, and the application would lack a variable.
        if binding.error:
            raise SettingsError(f"{path} line {binding.original.line}: expected NAME=value")
    found = DotEnv(None, stream=io.StringIO(source), override=False).dict()
    return {name: value for name, value in found.items() if value is not None}


def read_text(directory: str, path: str) -> str:
    """Return the text of a file; `path` may be relative to `directory`.

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
    """Parse the TOML text `source`; `path` is for messages.

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
        # The message ends in "(at line 3, column 5)" or "(at end of document)".
        raise SettingsError(f"{path}: not valid TOML: {error}") from None
    except RecursionError:
        raise SettingsError(f"{path}: not valid TOML: nested too deeply") from None
    return data


def _key_lines(source: str, table: str) -> Iterator[tuple[str, int]]:
    """Yield each key of `table` with its line, found by a scan of the text: tomllib keeps no line numbers.

    Only for messages. The scan takes a line of a multi-line text for a key if it looks like one, and does not
    find a dotted key or one in an inline table.
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
