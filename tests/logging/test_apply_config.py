"""`--log-config`: what a configuration changes, and which are refused. Each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

UVICORNS = Path(__file__).with_name("log_config.json")

PRELUDE = """
import logging, logging.config, sys
from ostler.logging import setup as log_setup
from ostler.settings.sources import Sources
from ostler.errors import SettingsError

def settings(log_config="log", **values):
    values = {"log_config": log_config, **values} if log_config is not None else values
    return Sources(values=values).load(complete=False).settings

def speak():
    logging.getLogger("ostler").info("general")
    logging.getLogger("ostler.error").info("error")
    logging.getLogger("ostler.error").debug("detail")
    args = ("127.0.0.1:5000", "GET", "/", "1.1", 200)
    logging.getLogger("ostler.access").info('%s - "%s %s HTTP/%s" %d', *args)
"""

LINES = ["INFO:     [mine] general", "INFO:     [mine] error"]
ACCESS = ['INFO:     127.0.0.1:5000 - "GET / HTTP/1.1" 200 OK']


def python(directory: Path, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + code],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )


def lines(directory: Path, code: str) -> tuple[list[str], list[str]]:
    done = python(directory, code)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr.splitlines()


CONFIGURE = "log_setup.configure(settings({!r}))\nspeak()"

INI = """
[loggers]
keys=root,uvicorn,access

[handlers]
keys=default,access

[formatters]
keys=default,access

[logger_root]
handlers=

[logger_uvicorn]
level=INFO
handlers=default
propagate=0
qualname=uvicorn

[logger_access]
level=INFO
handlers=access
propagate=0
qualname=uvicorn.access

[handler_default]
class=StreamHandler
formatter=default
args=(sys.stderr,)

[handler_access]
class=logging.StreamHandler
formatter=access
args=(sys.stdout, )

[formatter_default]
class=uvicorn.logging.DefaultFormatter
format=%(levelprefix)s [mine] %(message)s

[formatter_access]
class=uvicorn.logging.AccessFormatter
format=%(levelprefix)s %(client_addr)s - "%(request_line)s" %(status_code)s
"""

TOML = """
version = 1
disable_existing_loggers = true
[formatters.default]
"()" = "ostler.logging.DefaultFormatter"
fmt = "%(levelprefix)s [mine] %(message)s"
[formatters.access]
"()" = "ostler.logging.AccessFormatter"
fmt = '%(levelprefix)s %(client_addr)s - "%(request_line)s" %(status_code)s'
[handlers.default]
class = "logging.StreamHandler"
formatter = "default"
[handlers.access]
class = "logging.StreamHandler"
formatter = "access"
stream = "ext://sys.stdout"
[loggers.ostler]
handlers = ["default"]
level = "INFO"
propagate = false
[loggers."ostler.access"]
handlers = ["access"]
propagate = false
"""


def write(directory: Path, suffix: str) -> str:
    """Write the same configuration in the format of this suffix."""
    path = directory / f"log{suffix}"
    content = json.loads(UVICORNS.read_text())
    if suffix in (".yaml", ".yml"):
        import yaml

        path.write_text(yaml.safe_dump(content))
    else:
        path.write_text({".toml": TOML, ".json": json.dumps(content)}.get(suffix, INI))
    return path.name


@pytest.mark.parametrize("suffix", [".json", ".toml", ".yaml", ".yml", ".ini", ".conf"])
def test_a_configuration_in_any_format_is_applied(suffix: str, tmp_path: Path) -> None:
    name = write(tmp_path, suffix)

    assert lines(tmp_path, CONFIGURE.format(name)) == (ACCESS, LINES)


def test_a_configuration_for_uvicorn_works_with_its_name_replaced(tmp_path: Path) -> None:
    for suffix in (".json", ".ini"):
        path = tmp_path / write(tmp_path, suffix)
        path.write_text(path.read_text().replace("uvicorn", "ostler"))
        assert lines(tmp_path, CONFIGURE.format(path.name)) == (ACCESS, LINES)


def test_a_mapping_from_code_is_applied_and_not_changed(tmp_path: Path) -> None:
    code = (
        "import copy, json, pathlib\n"
        f"given = json.loads(pathlib.Path({str(UVICORNS)!r}).read_text())\n"
        "before = copy.deepcopy(given)\n"
        "log_setup.configure(settings(given))\nspeak()\n"
        "assert given == before"
    )
    assert lines(tmp_path, code) == (ACCESS, LINES)


def test_loggers_named_for_ostler_count_before_those_named_for_uvicorn(tmp_path: Path) -> None:
    content = json.loads(UVICORNS.read_text())
    content["loggers"]["ostler.access"] = {"handlers": ["default"], "level": "INFO", "propagate": False}
    content["loggers"]["ostler"] = {"handlers": [], "level": "INFO", "propagate": False}
    (tmp_path / "log.json").write_text(json.dumps(content))

    out, err = lines(tmp_path, CONFIGURE.format("log.json"))

    assert out == []
    assert [line for line in err if "mine" in line] == [
        'INFO:     [mine] 127.0.0.1:5000 - "GET / HTTP/1.1" 200'
    ]


@pytest.mark.parametrize("disable", [True, False])
def test_a_configuration_of_the_root_logger_only_writes_each_line_once(disable: bool, tmp_path: Path) -> None:
    content = {
        "version": 1,
        "disable_existing_loggers": disable,
        "handlers": {"h": {"class": "logging.StreamHandler"}},
        "root": {"handlers": ["h"], "level": "INFO"},
    }
    (tmp_path / "log.json").write_text(json.dumps(content))

    out, err = lines(tmp_path, CONFIGURE.format("log.json"))

    assert (out, err) == ([], ["general", "error", '127.0.0.1:5000 - "GET / HTTP/1.1" 200'])


def test_level_and_access_log_combine_with_it_as_in_uvicorn(tmp_path: Path) -> None:
    name = write(tmp_path, ".json")

    def configured(**values: Any) -> tuple[list[str], list[str]]:
        arguments = ", ".join(f"{k}={v!r}" for k, v in values.items())
        return lines(tmp_path, f"log_setup.configure(settings({name!r}, {arguments}))\nspeak()")

    assert configured(log_level="debug") == (ACCESS, [*LINES, "DEBUG:    [mine] detail"])
    # The level of `ostler` itself is the configuration's, as uvicorn leaves its own.
    assert configured(log_level="error") == ([], LINES[:1])
    assert configured(access_log=False) == ([], LINES)


def test_use_colors_overrides_the_configuration(tmp_path: Path) -> None:
    name = write(tmp_path, ".json")
    code = "log_setup.configure(settings({!r}, use_colors={}))\nspeak()"

    coloured = [*lines(tmp_path, code.format(name, True))]
    assert all("\x1b[" in line for stream in coloured for line in stream)
    assert lines(tmp_path, code.format(name, False)) == (ACCESS, LINES)


def test_a_file_is_not_coloured_because_of_a_terminal(tmp_path: Path) -> None:
    content = json.loads(UVICORNS.read_text())
    content["handlers"]["default"] = {
        "class": "logging.FileHandler",
        "filename": "log.txt",
        "formatter": "default",
    }
    (tmp_path / "log.json").write_text(json.dumps(content))
    terminal = "class Terminal(type(sys.stderr)):\n    def isatty(self): return True\n"
    terminal += "sys.stdout = Terminal(sys.stdout.buffer)\nsys.stderr = Terminal(sys.stderr.buffer)\n"

    out, _ = lines(tmp_path, terminal + CONFIGURE.format("log.json"))

    assert "\x1b[" in out[0]
    assert (tmp_path / "log.txt").read_text().splitlines() == LINES


def test_standard_streams_are_written_to_without_waiting_for_their_reader(tmp_path: Path) -> None:
    for suffix in (".json", ".toml", ".ini"):
        name = write(tmp_path, suffix)
        code = (
            f"log_setup.configure(settings({name!r}))\n"
            "from ostler.logging import LineHandler\n"
            "for name in ('ostler', 'ostler.access'):\n"
            "    assert type(logging.getLogger(name).handlers[0]) is LineHandler\n"
            "assert logging.getLogger('ostler').handlers[0].stream is sys.stderr\n"
            "assert logging.getLogger('ostler.access').handlers[0].stream is sys.stdout\n"
        )
        lines(tmp_path, code)


def test_lines_wait_for_the_response_only_if_a_formatter_needs_it(tmp_path: Path) -> None:
    content = json.loads(UVICORNS.read_text())
    check = "s = settings('log.json')\nlog_setup.configure(s)\nprint(log_setup.at_completion(s))"

    def waits(formatter: dict[str, str]) -> list[str]:
        content["formatters"]["access"] = formatter
        (tmp_path / "log.json").write_text(json.dumps(content))
        return lines(tmp_path, check)[0]

    assert waits({"()": "uvicorn.logging.AccessFormatter", "fmt": "%(status_code)s"}) == ["False"]
    assert waits({"()": "ostler.logging.AccessFormatter", "fmt": "%(request_time)s"}) == ["True"]
    assert waits({"()": "ostler.logging.JsonFormatter"}) == ["True"]
    assert waits({"class": "ostler.logging.JsonFormatter"}) == ["True"]


AREAS = ("ostler.error.supervisor", "ostler.error.worker")

SPEAK_BY_AREA = """
for area in ("supervisor", "worker"):
    logging.getLogger("ostler.error." + area).info(area)
    logging.getLogger("ostler.error." + area).debug("detail of " + area)
"""


@pytest.mark.parametrize("suffix", [".json", ".toml", ".ini"])
def test_the_loggers_of_the_areas_follow_a_configuration_that_does_not_name_them(
    suffix: str, tmp_path: Path
) -> None:
    name = write(tmp_path, suffix)

    _, err = lines(tmp_path, CONFIGURE.format(name) + SPEAK_BY_AREA)

    assert err == [*LINES, "INFO:     [mine] supervisor", "INFO:     [mine] worker"]


@pytest.mark.parametrize("parent", ["uvicorn.error", "ostler.error"])
@pytest.mark.parametrize("disable", [True, False])
def test_the_loggers_of_the_areas_follow_the_error_logger(disable: bool, parent: str, tmp_path: Path) -> None:
    content = {
        "version": 1,
        "disable_existing_loggers": disable,
        "filters": {"f": {"()": "filters.Filter"}},
        "formatters": {"f": {"format": "%(name)s: %(message)s"}},
        "handlers": {
            "root": {"class": "logging.StreamHandler"},
            "error": {"class": "logging.StreamHandler", "formatter": "f"},
        },
        "root": {"handlers": ["root"], "level": "DEBUG"},
        "loggers": {parent: {"handlers": ["error"], "level": "INFO", "propagate": False, "filters": ["f"]}},
    }
    (tmp_path / "log.json").write_text(json.dumps(content))
    (tmp_path / "filters.py").write_text(
        "class Filter:\n    def filter(self, record): return 'no' not in record.getMessage()\n"
    )
    code = "sys.path.insert(0, '.')\n" + CONFIGURE.format("log.json") + SPEAK_BY_AREA
    code += "logging.getLogger('ostler.error.worker').info('no')\n"

    _, err = lines(tmp_path, code)

    assert err[0] == "general"
    assert err[-2:] == ["ostler.error.supervisor: supervisor", "ostler.error.worker: worker"]


def test_an_area_can_have_a_configuration_of_its_own(tmp_path: Path) -> None:
    content = json.loads(UVICORNS.read_text())
    content["loggers"]["ostler.error.worker"] = {"level": "DEBUG", "handlers": ["access"], "propagate": False}
    (tmp_path / "log.json").write_text(json.dumps(content))

    out, err = lines(tmp_path, CONFIGURE.format("log.json") + SPEAK_BY_AREA)

    assert out == [*ACCESS, "INFO:     worker", "DEBUG:    detail of worker"]
    assert err == [*LINES, "INFO:     [mine] supervisor"]


@pytest.mark.parametrize("named", ["", "ostler", "ostler.error"])
def test_the_applications_own_logging_does_not_disable_the_areas(named: str, tmp_path: Path) -> None:
    theirs = {
        "version": 1,
        "disable_existing_loggers": True,
        "handlers": {"h": {"class": "logging.StreamHandler"}},
        "root": {"handlers": ["h"], "level": "INFO"},
        "loggers": {named: {"level": "INFO", "handlers": ["h"], "propagate": False}} if named else {},
    }
    code = (
        f"loggers = [logging.getLogger(name) for name in {AREAS!r}]\n"
        "log_setup.configure(settings(None))\n"
        f"logging.config.dictConfig({theirs!r})\n"
        "log_setup.revive()\n"
    )

    _, err = lines(tmp_path, code + SPEAK_BY_AREA)

    assert [line.split()[-1] for line in err] == ["supervisor", "worker"]


def test_removing_a_log_configuration_undoes_all_that_it_changed(tmp_path: Path) -> None:
    content = {
        "version": 1,
        "filters": {"f": {"name": "nothing.has.this.name"}},
        "handlers": {"h": {"class": "logging.StreamHandler"}},
        "loggers": {
            "ostler.error": {"handlers": ["h"], "level": "INFO", "propagate": False, "filters": ["f"]},
            "ostler.access": {"handlers": ["h"], "level": "INFO", "propagate": False, "filters": ["f"]},
        },
    }
    (tmp_path / "log.json").write_text(json.dumps(content))
    code = (
        "before = settings('log.json')\n"
        "log_setup.configure(before)\n"
        "speak()\n"
        "log_setup.reconfigure(settings(None), before)\n"
        "speak()\n"
    )

    assert lines(tmp_path, code) == (ACCESS, ["INFO:     general", "INFO:     error"])


def test_another_configuration_replaces_the_first_one_whole(tmp_path: Path) -> None:
    first = write(tmp_path, ".json")
    root = {"version": 1, "handlers": {"h": {"class": "logging.StreamHandler"}}, "root": {"handlers": ["h"]}}
    (tmp_path / "root.json").write_text(json.dumps(root))
    code = (
        f"before, after = settings({first!r}), settings('root.json', log_level='info')\n"
        "log_setup.configure(before)\nlog_setup.reconfigure(after, before)\nspeak()\n"
        "log_setup.reconfigure(settings(None), after)\nspeak()\n"
    )

    out, err = lines(tmp_path, code)

    assert err == ["error", '127.0.0.1:5000 - "GET / HTTP/1.1" 200', "INFO:     general", "INFO:     error"]
    assert out == ACCESS


def test_if_a_configuration_cannot_be_applied_the_old_one_is_restored(tmp_path: Path) -> None:
    first = write(tmp_path, ".json")
    bad = json.loads(UVICORNS.read_text())
    bad["handlers"]["default"] = {"class": "logging.FileHandler", "filename": "no/such/directory/log"}
    (tmp_path / "bad.json").write_text(json.dumps(bad))
    code = (
        "for before in (settings({!r}), settings(None)):\n"
        "    log_setup.configure(before)\n"
        "    try:\n"
        "        log_setup.reconfigure(settings('bad.json'), before)\n"
        "    except SettingsError as error:\n"
        "        print(error)\n"
        "    speak()\n"
    )

    out, err = lines(tmp_path, code.format(first))

    assert out[0] == out[2]
    assert out[0].startswith(
        "log configuration bad.json cannot be applied: Unable to configure handler 'default'"
    )
    assert "No such file or directory" in out[0]
    assert err == [*LINES, "INFO:     general", "INFO:     error"]
    assert [out[1], out[3]] == ACCESS * 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "dictionary doesn't specify a version"),
        ({"version": 2}, "Unsupported version: 2"),
        ({"version": 1, "handlers": {"h": {"class": "no.such.Thing"}}}, "Unable to configure handler 'h'"),
        ({"version": 1, "formatters": {"f": {"()": "ostler.logging.Nothing"}}}, "formatter 'f'"),
        ({"version": 1, "loggers": {"ostler": {"handlers": ["h"]}}}, "Unable to configure logger 'ostler'"),
        ({"version": 1, "loggers": {"ostler": {"level": "LOUD"}}}, "Unknown level: 'LOUD'"),
        ({"version": 1, "handlers": 1}, "cannot be applied: "),
    ],
)
def test_a_configuration_that_cannot_be_applied_is_refused_in_one_line(
    content: object, said: str, tmp_path: Path
) -> None:
    attempt = f"try:\n    log_setup.configure(settings({content!r}))\n"
    code = f"{attempt}except SettingsError as error:\n    print(error)"

    out, err = lines(tmp_path, code)

    assert len(out) == 1
    assert out[0].startswith("log configuration from code cannot be applied: ")
    assert said in out[0]
    assert err == []


@pytest.mark.parametrize("configured", [True, False])
def test_the_applications_logging_neither_disables_nor_repeats_our_lines(
    configured: bool, tmp_path: Path
) -> None:
    name = write(tmp_path, ".json") if configured else None
    theirs = {
        "version": 1,
        "handlers": {"h": {"class": "logging.StreamHandler"}},
        "root": {"handlers": ["h"]},
    }
    code = (
        f"log_setup.configure(settings({name!r}))\n"
        "logging.basicConfig(level=logging.DEBUG, force=True)\n"
        f"logging.config.dictConfig({theirs!r})\n"
        "log_setup.revive()\n"
        "speak()\n"
    )

    out, err = lines(tmp_path, code)

    assert out == ACCESS
    assert [line.replace("[mine] ", "") for line in err] == ["INFO:     general", "INFO:     error"]


def test_a_single_logger_that_the_application_disables_stays_disabled(tmp_path: Path) -> None:
    code = (
        "log_setup.configure(settings(None))\n"
        "logging.getLogger('ostler.access').disabled = True\n"
        "log_setup.revive()\n"
        "speak()\n"
    )

    assert lines(tmp_path, code)[0] == []


# -- the page

PAGE = (Path(__file__).parents[2] / "docs" / "logging.md").read_text(encoding="utf-8")


def test_the_configuration_that_the_page_shows_works(tmp_path: Path) -> None:
    (tmp_path / "log.toml").write_text(PAGE.partition("```toml\n")[2].partition("```")[0])

    code = CONFIGURE + "\nassert log_setup.at_completion(settings('log.toml'))"
    out, err = lines(tmp_path, code.format("log.toml"))

    assert out == []
    assert [line.split(" INFO:     ")[1] for line in err] == ["general", "error"]
    line = (tmp_path / "access.log").read_text()
    assert line.endswith(' 127.0.0.1:5000 "GET / HTTP/1.1" 200 OK 0.000000 0\n')


def test_the_page_names_every_atom_and_every_member_of_a_line() -> None:
    from ostler.settings.access_format import NUMBERS, TEXTS

    rows = " ".join(line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `"))
    assert all(f"`{name}`" in rows for name in (*NUMBERS, *TEXTS))
    shown = json.loads(PAGE.partition("```json\n")[2].partition("```")[0])
    assert all(f"`{name}`" in rows for name in shown)


# -- log_config=None: logging is left alone, as by uvicorn

NONE = "log_setup.configure(Sources(values={'log_config': None%s}).load(complete=False).settings)\n"
OWN_ROOT = "logging.basicConfig(format='mine %(name)s %(message)s', level=logging.INFO, stream=sys.stderr)\n"


def test_log_config_none_leaves_all_lines_to_the_programs_own_logging(tmp_path: Path) -> None:
    out, err = lines(tmp_path, OWN_ROOT + NONE % "" + "speak()")

    assert out == []
    assert err == [
        "mine ostler general",
        "mine ostler.error error",
        'mine ostler.access 127.0.0.1:5000 - "GET / HTTP/1.1" 200',
    ]


def test_with_log_config_none_and_no_logging_only_warnings_are_written(tmp_path: Path) -> None:
    warn = "speak(); logging.getLogger('ostler.error').warning('careful')"

    assert lines(tmp_path, NONE % "" + warn) == ([], ["careful"])


def test_with_log_config_none_the_level_and_no_access_log_count(tmp_path: Path) -> None:
    given = ", 'log_level': 'debug', 'access_log': False"

    assert lines(tmp_path, OWN_ROOT + NONE % given + "speak()")[1] == [
        "mine ostler general",
        "mine ostler.error error",
        "mine ostler.error detail",
    ]


def test_with_log_config_none_the_applications_logging_does_not_silence_the_server(tmp_path: Path) -> None:
    theirs = {"version": 1, "root": {"handlers": ["h"], "level": "INFO"}}
    theirs["handlers"] = {"h": {"class": "logging.StreamHandler"}}
    code = (
        "loggers = [logging.getLogger(name) for name in ('ostler.error.worker', 'ostler.access')]\n"
        + NONE % ""
        + f"logging.config.dictConfig({theirs!r})\nlog_setup.revive()\nloggers[0].info('heard')"
    )

    assert lines(tmp_path, code)[1] == ["heard"]
