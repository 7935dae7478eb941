"""`--log-config`: read once by whoever reads the settings, applied by every process.

A worker that is spawned later is set up as its generation was, whatever the file says by then.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ostler.errors import SettingsError
from ostler.settings.files import parse_toml, read_text
from ostler.settings.kinds import LogConfig

if TYPE_CHECKING:
    import configparser

_UVICORN = "uvicorn"
_LOGGERS = ("", ".error", ".access", ".asgi")
_STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
_LINE_HANDLER = "ostler.logging.LineHandler"


def read(directory: str, config: LogConfig) -> LogConfig:
    """Return `config` with its content, from the file that it names unless it has one already.

    Raises:
        SettingsError: the file cannot be read or understood.
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
        _parse_ini(name, source)
        return LogConfig(name, source)
    if not isinstance(content, dict):
        raise SettingsError(f"{name}: no log configuration: expected a table, found {content!r:.100}")
    return LogConfig(name, content)


def apply(config: LogConfig, *, use_colors: bool | None) -> None:
    """Configure logging as `config` says; `use_colors` overrides what it says of our own formatters.

    Raises:
        SettingsError: it cannot be applied.
    """
    import logging.config  # 2 MB, for those who configure

    content = config.content
    try:
        if isinstance(content, str):
            parser = _parse_ini(config.name, content)
            _adapt_ini(parser)
            logging.config.fileConfig(parser, disable_existing_loggers=False)
        else:
            assert content is not None
            logging.config.dictConfig(_adapted(content, use_colors))
    except SettingsError:
        raise
    except Exception as error:  # noqa: BLE001  # whatever a class that is named there raises
        raise SettingsError(f"log configuration {config.name} cannot be applied: {_reason(error)}") from None


def _reason(error: BaseException) -> str:
    """The whole chain on one line: logging's own message names the part, its cause what is wrong with it."""
    said: list[str] = []
    link: BaseException | None = error
    while link is not None and len(said) < 4:
        text = " ".join(str(link).split())
        text = f"{type(link).__name__}: {text}" if isinstance(link, (KeyError, AttributeError)) else text
        text = text or type(link).__name__
        if text not in said:
            said.append(text)
        link = link.__cause__
    return ": ".join(said)


# --- what was written for uvicorn ---


def _adapted(content: Mapping[str, Any], use_colors: bool | None) -> dict[str, Any]:
    """Return a copy for `dictConfig`: what is named for uvicorn as ours, and what writes to a standard stream
    as a LineHandler, which no reader can hold up."""
    adapted = copy.deepcopy(dict(content))
    loggers = adapted.get("loggers")
    if isinstance(loggers, dict):
        for suffix in _LOGGERS:
            if _UVICORN + suffix in loggers and "ostler" + suffix not in loggers:
                loggers["ostler" + suffix] = loggers.pop(_UVICORN + suffix)
    for formatter in _tables(adapted, "formatters"):
        for key in ("()", "class"):
            if isinstance(formatter.get(key), str):
                formatter[key] = _ours(formatter[key])
        ours = str(formatter.get("()")).startswith("ostler.logging.") and "Json" not in formatter["()"]
        if use_colors is not None and ours:
            formatter["use_colors"] = use_colors
    for handler in _tables(adapted, "handlers"):
        stream = handler.get("stream") or _STREAMS[1]
        if handler.get("class") == "logging.StreamHandler" and stream in _STREAMS:
            handler["class"], handler["stream"] = _LINE_HANDLER, stream
    return adapted


def _tables(content: Mapping[str, Any], section: str) -> list[dict[str, Any]]:
    tables = content.get(section)
    return [t for t in tables.values() if isinstance(t, dict)] if isinstance(tables, dict) else []


def _ours(name: str) -> str:
    prefix = f"{_UVICORN}.logging."
    return f"ostler.logging.{name[len(prefix) :]}" if name.startswith(prefix) else name


def _adapt_ini(parser: configparser.RawConfigParser) -> None:
    names = {parser.get(section, "qualname", raw=True, fallback="") for section in parser.sections()}
    for section in parser.sections():
        kind = section.partition("_")[0]
        if kind == "logger":
            qualname = parser.get(section, "qualname", raw=True, fallback="")
            base, dot, rest = qualname.partition(".")
            if base == _UVICORN and dot + rest in _LOGGERS and f"ostler{dot}{rest}" not in names:
                parser.set(section, "qualname", f"ostler{dot}{rest}")
        elif kind == "formatter" and parser.has_option(section, "class"):
            parser.set(section, "class", _ours(parser.get(section, "class", raw=True)))
        elif kind == "handler" and parser.get(section, "class", raw=True, fallback="") in _INI_CLASSES:
            stream = "".join(parser.get(section, "args", raw=True, fallback="()").split()).strip("(),")
            if stream in ("", "sys.stdout", "sys.stderr") and not parser.has_option(section, "kwargs"):
                parser.set(section, "class", _LINE_HANDLER)
                parser.set(section, "args", f"({stream or 'sys.stderr'},)")


_INI_CLASSES = ("StreamHandler", "logging.StreamHandler")


# --- parsers ---


def _parse_ini(name: str, source: str) -> configparser.RawConfigParser:
    import configparser  # the parsers are for those who have such a file

    parser = configparser.ConfigParser()  # interpolating, as fileConfig() itself makes it
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
        raise SettingsError(f"{name}: YAML needs PyYAML: pip install 'ostler[yaml]'") from None
    try:
        return yaml.safe_load(source)
    except (yaml.YAMLError, RecursionError) as error:
        raise SettingsError(f"{name}: not valid YAML: {' '.join(str(error).split())}") from None
