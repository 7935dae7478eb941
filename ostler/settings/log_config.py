"""`--log-config`: reads a logging configuration from its file; `ostler.logging.apply_config` applies it.

The file is read once, with the settings. The content travels with them to every process, so that a worker
that is spawned later is configured as its generation was, even if the file has changed since.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from ostler.errors import SettingsError
from ostler.settings.files import parse_toml, read_text
from ostler.settings.kinds import LogConfig

if TYPE_CHECKING:
    import configparser


def read(directory: str, config: LogConfig) -> LogConfig:
    """Return `config` with its content, from the file that it names unless it has one already.

    The content of an INI file is its text; of JSON, TOML and YAML it is the table.

    Raises:
        SettingsError: the file cannot be read or parsed, or holds no log configuration.
    """
    if config.content is not None:
        return config
    name = config.name
    source = read_text(directory, name)
    content: object
    if name.endswith(".json"):
        content = _parse_json(name, source)
    elif name.endswith(".toml"):
        content = parse_toml(name, source)
    elif name.endswith((".yaml", ".yml")):
        content = _parse_yaml(name, source)
    else:
        parse_ini(name, source)
        return LogConfig(name, source)
    if not isinstance(content, dict):
        raise SettingsError(f"{name}: no log configuration: expected a table, found {content!r:.100}")
    return LogConfig(name, content)


def parse_ini(name: str, source: str) -> configparser.RawConfigParser:
    """Return the parsed INI file `name`, for `logging.config.fileConfig`.

    Raises:
        SettingsError: `source` is not valid INI, or lacks a section that a log configuration needs.
    """
    import configparser  # imported here: few configurations are INI files

    parser = configparser.ConfigParser()  # interpolates, as the parser that fileConfig() makes itself
    try:
        parser.read_file(io.StringIO(source), name)
    except configparser.Error as error:
        raise SettingsError(f"{name}: not valid INI: {' '.join(str(error).split())}") from None
    missing = [s for s in ("loggers", "handlers", "formatters") if not parser.has_section(s)]
    if missing:
        raise SettingsError(f"{name}: no log configuration: expected a section [{missing[0]}]")
    return parser


def _parse_json(name: str, source: str) -> object:
    import json

    try:
        return json.loads(source)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{name}: not valid JSON: {error}") from None


def _parse_yaml(name: str, source: str) -> object:
    try:
        import yaml
    except ImportError:
        raise SettingsError(f"{name}: YAML needs PyYAML: pip install PyYAML") from None
    try:
        return yaml.safe_load(source)
    except (yaml.YAMLError, RecursionError) as error:
        raise SettingsError(f"{name}: not valid YAML: {' '.join(str(error).split())}") from None
