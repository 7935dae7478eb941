"""The command line: what it prints, what it refuses, its exit codes, and what it imports."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ostler import __version__
from ostler.cli import options
from ostler.cli.main import main
from ostler.settings.declarations import declarations, flag, variables
from ostler.settings.kinds import Switch

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def empty_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working directory, and no variables that ostler reads."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("OSTLER_") or name in ("WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS"):
            monkeypatch.delenv(name)


def ostler(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    command = [sys.executable, "-W", "error", "-m", "ostler", *arguments]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.run(command, text=True, check=False, **options)


# -- help and version


def test_help_has_every_option_with_its_default_and_its_variable_in_80_columns(capsys: Captured) -> None:
    assert main(["--help"]) == 0

    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    words = " ".join(text.split())
    for name, declaration in declarations().items():
        assert name == "app" or flag(name) in words
        assert all(variable in words for variable in variables(name))
        assert declaration.group + ":" in words
    assert "[default: 127.0.0.1; OSTLER_HOST]" in words


def test_help_is_grouped_in_the_order_of_the_declarations(capsys: Captured) -> None:
    main(["--help"])

    shown = re.findall(r"^(\w+):", capsys.readouterr().out, re.M)
    groups = list(dict.fromkeys(declaration.group for declaration in declarations().values()))
    assert shown == ["Usage", *groups, options.OTHERS]


def test_version_is_one_line(capsys: Captured) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ostler {__version__}\n"


# -- parsed options


def test_options_stay_texts_under_the_names_of_the_fields() -> None:
    request = options.parse(
        ["main:app", "--port", "x", "--host=::1", "--host", "a", "--no-access-log", "--config", "o.toml"]
    )

    assert request == options.CommandLine(
        flags={"app": ("main:app",), "port": ("x",), "host": ("::1", "a"), "access_log": ("false",)},
        config="o.toml",
        env_file=None,
        show_settings=False,
    )


@pytest.mark.parametrize("name", [name for name in declarations() if name != "app"])
def test_every_setting_has_an_option(name: str) -> None:
    long = flag(name)
    arguments = [long] if isinstance(declarations()[name].kind, Switch) else [long, "some text"]

    request = options.parse(arguments)

    assert request is not None
    assert request.flags == {name: ("true",) if len(arguments) == 1 else ("some text",)}


def test_of_a_switch_and_its_opposite_the_last_one_counts() -> None:
    request = options.parse(["--no-access-log", "--access-log", "--no-use-colors"])

    assert request is not None
    assert request.flags == {"access_log": ("true",), "use_colors": ("false",)}


def test_values_may_look_like_options() -> None:
    request = options.parse(["--root-path=--x", "--", "main:app"])

    assert request is not None
    assert request.flags == {"app": ("main:app",), "root_path": ("--x",)}


# -- refusals


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "Error: no application given: expected APP as module:attribute, such as main:app"),
        (["main"], "Error: app from argument APP is 'main': expected module:attribute, such as main:app"),
        (["main:app", "--port", "x"], "Error: port from flag --port is 'x': expected a whole number of "),
        (["main:app", "--port"], "Error: Option '--port' requires an argument."),
        (["main:app", "--wrokers", "3"], "Error: No such option"),
        (["main:app", "other:app"], "Error: Got unexpected extra argument (other:app)"),
        (["main:app", "--http2"], "Error: http2 from flag --http2: ostler does not speak HTTP/2 yet; "),
        (["main:app", "--config", "none.toml"], "Error: none.toml: cannot be read: No such file or "),
        (["main:app", "--forwarded-allow-ips", "10.0.0.0/99"], "Error: forwarded_allow_ips from flag "),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_exit_2(
    arguments: list[str], line: str, capsys: Captured
) -> None:
    assert main(arguments) == 2

    captured = capsys.readouterr()
    assert captured.err.startswith(line)
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_an_unknown_option_comes_with_a_suggestion(capsys: Captured) -> None:
    main(["main:app", "--wrokers", "3"])

    assert "--workers" in capsys.readouterr().err


def test_a_process_refuses_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "o.toml").write_text("app = 'main:app'\nworkers = -1\n")

    done = ostler("--config", "o.toml")

    expected = (
        "workers from o.toml line 2 is -1: "
        "expected a whole number of at least 1, 0 for a plain server, or auto"
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"Error: {expected}\n")


def test_a_working_directory_that_was_removed_is_one_line(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    code = (
        f"import os, sys; os.rmdir({str(gone)!r}); from ostler.cli.main import main; sys.exit(main(['a:b']))"
    )

    done = subprocess.run([sys.executable, "-c", code], cwd=gone, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert done.stderr == "Error: the working directory cannot be used: No such file or directory\n"


def test_a_variable_that_is_named_almost_like_a_setting_is_warned_of(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSTLER_WORKER", "4")

    assert main(["--show-settings"]) == 0

    warning = "variable OSTLER_WORKER is ignored: unknown setting, did you mean OSTLER_WORKERS?"
    assert capsys.readouterr().err == f"Warning: {warning}\n"


# -- --show-settings


def test_show_settings_prints_every_value_and_its_origin(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.ostler]\nuds_permissions = "600"\n')
    (tmp_path / ".env").write_text("OSTLER_BACKLOG=16\n")
    monkeypatch.setenv("WEB_CONCURRENCY", "3")

    arguments = ["--env-file", ".env", "--no-access-log", "--host", "a", "--host", "b", "--show-settings"]
    assert main(arguments) == 0

    rows = [re.split(r"  +", line) for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows] == list(declarations())
    table = {name: (value, origin) for name, value, origin in rows}
    assert table["app"] == ("-", "default")
    assert table["port"] == ("8000", "default")
    assert table["host"] == ("a, b", "flag --host")
    assert table["access_log"] == ("false", "flag --no-access-log")
    assert table["workers"] == ("3", "variable WEB_CONCURRENCY")
    assert table["backlog"] == ("16", "variable OSTLER_BACKLOG in .env")
    assert table["uds_permissions"] == ("600", "pyproject.toml line 2")


def test_show_settings_is_aligned_and_escapes_control_characters(capsys: Captured) -> None:
    main(
        ["main:app", "--root-path", "a\nb\x1b", "--forwarded-allow-ips", "10.0.0.1," * 20, "--show-settings"]
    )

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(declarations())
    assert len({line.index("default") for line in lines if line.endswith("default")}) == 1
    assert r"a\nb\x1b" in "".join(lines)


def test_show_settings_refuses_a_wrong_setting(capsys: Captured) -> None:
    assert main(["--port", "x", "--show-settings"]) == 2
    assert capsys.readouterr().out == ""


# -- stdout cannot be written


@pytest.mark.parametrize("argument", ["--help", "--version", "--show-settings"])
def test_a_reader_that_closes_the_pipe_is_no_failure(argument: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = ostler(argument, stdout=writer)
    os.close(writer)

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("argument", ["--help", "--version", "--show-settings"])
def test_a_full_disk_is_one_line(argument: str) -> None:
    with open("/dev/full", "w") as full:
        done = ostler(argument, stdout=full)

    assert (done.returncode, done.stderr) == (1, "Error: cannot write to stdout: No space left on device\n")


# -- imports


def loaded_by(code: str) -> set[str]:
    """Return the names of the modules that a new process has loaded after it ran `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nsys.stdout.write(' '.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_parsing_the_command_line_imports_no_large_module(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    code = (
        "from ostler.cli import options\nfrom ostler.settings.sources import Sources\n"
        "request = options.parse(['main:app', '--workers', '4'])\n"
        "Sources(flags=request.flags, environ={}).load()"
    )

    loaded = loaded_by(code)

    large = {"asyncio", "uvloop", "httptools", "h11", "websockets", "dotenv", "difflib", "multiprocessing"}
    assert loaded & (large | {"tomllib", "tomli", "ipaddress", "psutil", "http"}) == set()


def test_the_arbiter_imports_no_module_that_it_does_not_use() -> None:
    loaded = loaded_by("import ostler.cli.run, ostler.supervisor.arbiter, ostler.supervisor.balancing.queues")

    unused = {"asyncio", "ssl", "tempfile", "random", "psutil", "watchfiles", "multiprocessing.connection"}
    assert loaded & unused == set()


def test_a_spawned_worker_that_imports_the_entry_point_does_not_import_click() -> None:
    assert "click" not in loaded_by("import ostler.cli.main, ostler.__main__")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--ws-per-message-deflate", "false"], "false"),
        (["--ws-per-message-deflate", "True"], "true"),
        (["--ws-per-message-deflate=0"], "false"),
        (["--ws-per-message-deflate"], "true"),
        (["--no-ws-per-message-deflate"], "false"),
    ],
    ids=str,
)
def test_a_switch_that_has_a_value_in_uvicorn_may_have_one(words: list[str], expected: str) -> None:
    request = options.parse([*words, "main:app"])

    assert request is not None
    assert request.flags["ws_per_message_deflate"] == (expected,)
    assert request.flags["app"] == ("main:app",)
