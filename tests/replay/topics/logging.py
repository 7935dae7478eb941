"""Log configuration: files, levels, colours, loggers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from tests.replay.behaviours import HELLO, command
from tests.replay.topics.command_line import hello

CONFIG = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"mine": {"format": "MINE %(levelname)s %(name)s %(message)s"}},
    "handlers": {
        "out": {"class": "logging.StreamHandler", "formatter": "mine", "stream": "ext://sys.stdout"}
    },
    "loggers": {
        "uvicorn": {"handlers": ["out"], "level": "INFO", "propagate": False},
        "uvicorn.error": {"level": "INFO"},
        "uvicorn.access": {"handlers": ["out"], "level": "INFO", "propagate": False},
    },
}
DEFAULT = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "default": {
            "()": "uvicorn.logging.DefaultFormatter",
            "fmt": "D %(levelprefix)s %(message)s",
            "use_colors": None,
        },
        "access": {
            "()": "uvicorn.logging.AccessFormatter",
            "fmt": 'A %(levelprefix)s %(client_addr)s - "%(request_line)s" %(status_code)s',
        },
    },
    "handlers": {
        "default": {"formatter": "default", "class": "logging.StreamHandler", "stream": "ext://sys.stderr"},
        "access": {"formatter": "access", "class": "logging.StreamHandler", "stream": "ext://sys.stdout"},
    },
    "loggers": {
        "uvicorn": {"handlers": ["default"], "level": "INFO", "propagate": False},
        "uvicorn.error": {"level": "INFO"},
        "uvicorn.access": {"handlers": ["access"], "level": "INFO", "propagate": False},
    },
}
INI = """
[loggers]
keys = root, uvicorn, access

[handlers]
keys = out

[formatters]
keys = mine

[logger_root]
level = WARNING
handlers = out

[logger_uvicorn]
level = INFO
handlers = out
qualname = uvicorn.error
propagate = 0

[logger_access]
level = INFO
handlers = out
qualname = uvicorn.access
propagate = 0

[handler_out]
class = StreamHandler
formatter = mine
args = (sys.stdout,)

[formatter_mine]
format = INI %(levelname)s %(message)s
"""
YAML = """
version: 1
disable_existing_loggers: false
formatters: {mine: {format: "YAML %(levelname)s %(message)s"}}
handlers: {out: {class: logging.StreamHandler, formatter: mine, stream: "ext://sys.stdout"}}
loggers:
  uvicorn.error: {handlers: [out], level: INFO, propagate: false}
  uvicorn.access: {handlers: [out], level: INFO, propagate: false}
"""


def logs(
    name: str, *args: str, files: Mapping[str, str] | None = None, see: Sequence[str] = ("access",)
) -> None:
    """Add a behaviour: serve, ask once, and look at the logs."""
    command(
        f"logging/{name}", "main:app", "--port", "0", *args, files=files, do=hello, stop="SIGINT", see=see
    )


logs("a JSON configuration: access", "--log-config", "log.json", files={"log.json": json.dumps(CONFIG)})
logs(
    "a JSON configuration: stop",
    "--log-config",
    "log.json",
    files={"log.json": json.dumps(CONFIG)},
    see=("stop",),
)
logs("a YAML configuration: access", "--log-config", "log.yaml", files={"log.yaml": YAML})
logs("a YML configuration: access", "--log-config", "log.yml", files={"log.yml": YAML})
logs("an INI configuration: access", "--log-config", "log.ini", files={"log.ini": INI})
logs("the formatters by name: access", "--log-config", "log.json", files={"log.json": json.dumps(DEFAULT)})
logs(
    "the formatters by name: stop",
    "--log-config",
    "log.json",
    files={"log.json": json.dumps(DEFAULT)},
    see=("stop",),
)
logs(
    "the level counts after the configuration",
    "--log-config",
    "log.json",
    "--log-level",
    "warning",
    files={"log.json": json.dumps(CONFIG)},
    see=("access", "stop"),
)
logs(
    "no access log with a configuration",
    "--log-config",
    "log.json",
    "--no-access-log",
    files={"log.json": json.dumps(CONFIG)},
)
logs(
    "with workers: access",
    "--log-config",
    "log.json",
    "--workers",
    "2",
    files={"log.json": json.dumps(CONFIG)},
)
logs("level error", "--log-level", "error", see=("out", "errors"))
logs("level warning", "--log-level", "warning", see=("out", "errors"))
logs("level in capitals", "--log-level", "INFO", see=("exit",))
logs("colours are off in a pipe", see=("access", "stop"))
logs("colours by force", "--use-colors", see=("stop",))
logs("the access log goes to stdout", see=("out",))
MINE = (
    HELLO
    + "\nimport logging\nlogging.getLogger('mine').warning('a line of the app')\nlogging.getLogger('uvicorn.error').warning('a line on its logger')\n"
)
logs("a logger of the application", files={"main.py": MINE}, see=("warnings",))
BASIC = (
    "import logging\nlogging.basicConfig(level=logging.INFO, format='ROOT %(name)s %(message)s')\n" + HELLO
)
logs("basicConfig of the application does not double lines", files={"main.py": BASIC}, see=("access", "stop"))
FILTER = (
    "import logging\nclass F(logging.Filter):\n    def filter(self, record):\n        return '/quiet' not in record.getMessage()\nlogging.getLogger('uvicorn.access').addFilter(F())\n"
    + HELLO
)


def asks_quietly(running: object) -> object:
    """Ask for two paths, one of which a filter of the application leaves out."""
    from tests.replay.servers import Running

    assert isinstance(running, Running)
    return [running.request("/quiet")[0], running.request("/loud")[0]]


command(
    "logging/a filter of the application on the access log",
    "main:app",
    "--port",
    "0",
    files={"main.py": FILTER},
    do=asks_quietly,
    stop="SIGINT",
    see=("access",),
)
