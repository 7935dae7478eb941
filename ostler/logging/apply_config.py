"""Applies a `--log-config`: adapts a configuration written for uvicorn, then calls `logging.config`."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ostler.errors import SettingsError
from ostler.settings.kinds import LogConfig
from ostler.settings.log_config import parse_ini

if TYPE_CHECKING:
    import configparser

_UVICORN = "uvicorn"
_SUFFIXES = ("", ".error", ".access", ".asgi")
"""The loggers that uvicorn and ostler both have, without their first part."""
_STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
_STREAM_HANDLERS = ("StreamHandler", "logging.StreamHandler")
"""An INI file may leave out the module: its classes are evaluated with the names of `logging`."""
_LINE_HANDLER = "ostler.logging.LineHandler"


def apply(config: LogConfig, *, use_colors: bool | None) -> None:
    """Configure logging as `config` says.

    Args:
        config: with its content, which `settings.log_config.read` adds.
        use_colors: overrides the option of the same name of ostler's own formatters; None leaves it.

    Raises:
        SettingsError: it cannot be applied.
    """
    import logging.config  # imported here: 2 MB, which few processes need

    content = config.content
    try:
        if isinstance(content, str):
            parser = parse_ini(config.name, content)
            _adapt_ini(parser)
            logging.config.fileConfig(parser, disable_existing_loggers=False)
        else:
            assert content is not None
            logging.config.dictConfig(_adapted(content, use_colors))
    except SettingsError:
        raise
    except Exception as error:  # noqa: BLE001  # classes that the configuration names raise anything
        raise SettingsError(f"log configuration {config.name} cannot be applied: {_reason(error)}") from None


def _reason(error: BaseException) -> str:
    """Return the messages of the whole chain of causes on one line.

    logging's own message names the part of the configuration; only its cause says what is wrong there.
    """
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


# --- adapting what was written for uvicorn ---


def _adapted(content: Mapping[str, Any], use_colors: bool | None) -> dict[str, Any]:
    """Return a copy for `dictConfig`.

    uvicorn's loggers and formatters are replaced by ostler's. A handler that writes to a standard stream
    becomes a LineHandler, so that a reader that does not read cannot block the server.
    """
    adapted = copy.deepcopy(dict(content))
    loggers = adapted.get("loggers")
    if isinstance(loggers, dict):
        for suffix in _SUFFIXES:
            if _UVICORN + suffix in loggers and "ostler" + suffix not in loggers:
                loggers["ostler" + suffix] = loggers.pop(_UVICORN + suffix)
    for formatter in _tables(adapted, "formatters"):
        for key in ("()", "class"):
            if isinstance(formatter.get(key), str):
                formatter[key] = _formatter_name(formatter[key])
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


def _formatter_name(name: str) -> str:
    """Return the name of ostler's formatter for one of uvicorn's; any other name as it is."""
    prefix = f"{_UVICORN}.logging."
    return f"ostler.logging.{name[len(prefix) :]}" if name.startswith(prefix) else name


def _adapt_ini(parser: configparser.RawConfigParser) -> None:
    """Do to an INI file what `_adapted` does to a table."""
    names = {parser.get(section, "qualname", raw=True, fallback="") for section in parser.sections()}
    for section in parser.sections():
        kind = section.partition("_")[0]
        if kind == "logger":
            qualname = parser.get(section, "qualname", raw=True, fallback="")
            base, dot, rest = qualname.partition(".")
            if base == _UVICORN and dot + rest in _SUFFIXES and f"ostler{dot}{rest}" not in names:
                parser.set(section, "qualname", f"ostler{dot}{rest}")
        elif kind == "formatter" and parser.has_option(section, "class"):
            parser.set(section, "class", _formatter_name(parser.get(section, "class", raw=True)))
        elif kind == "handler" and parser.get(section, "class", raw=True, fallback="") in _STREAM_HANDLERS:
            stream = "".join(parser.get(section, "args", raw=True, fallback="()").split()).strip("(),")
            if stream in ("", "sys.stdout", "sys.stderr") and not parser.has_option(section, "kwargs"):
                parser.set(section, "class", _LINE_HANDLER)
                parser.set(section, "args", f"({stream or 'sys.stderr'},)")
