"""The files that settings come from: right ones, and the messages for wrong ones."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ostler.settings.declarations import Settings
from tests.settings.test_sources import load, refusal

# -- TOML


def test_the_ostler_table_of_pyproject_in_the_working_directory_counts(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nport = "x"\n\n[tool.ostler]\nworkers = 2\nport = 9\n'
    )

    configuration = load(tmp_path)

    assert configuration.settings.workers == 2
    assert configuration.origins["port"] == "pyproject.toml line 6"


def test_a_pyproject_that_does_not_mention_ostler_is_not_parsed(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("this is no TOML")

    assert load(tmp_path).settings == Settings()


def test_a_pyproject_may_mention_ostler_without_settings(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["ostler"]\n')

    assert load(tmp_path).settings == Settings()


def test_a_config_file_replaces_pyproject(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.ostler]\nworkers = 2\n")
    (tmp_path / "o.toml").write_text("port = 9\n")

    settings = load(tmp_path, config="o.toml").settings

    assert (settings.workers, settings.port) == (None, 9)


def test_a_variable_may_name_the_config_file_which_may_have_the_table_tool_ostler(tmp_path: Path) -> None:
    (tmp_path / "o.toml").write_text('[other]\nport = 1\n["tool" . ostler]\nport = 9\n')

    configuration = load(tmp_path, environ={"OSTLER_CONFIG": "o.toml"})

    assert configuration.settings.port == 9
    assert configuration.origins["port"] == "o.toml line 4"


def test_the_origin_of_a_key_whose_line_is_not_found_is_the_file(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("tool = {ostler = {port = 9}}\n")

    assert load(tmp_path).origins["port"] == "pyproject.toml"


@pytest.mark.parametrize("line", ['"port" = 9', "'port'=9", "  port   =   9  # why"])
def test_the_line_of_a_key_is_found_in_every_notation(line: str, tmp_path: Path) -> None:
    (tmp_path / "o.toml").write_text(f"# port = 1\n{line}\n")

    assert load(tmp_path, config="o.toml").origins["port"] == "o.toml line 2"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"port = 1\nprot = 2\n", "o.toml line 2: unknown setting 'prot', did you mean port?"),
        (b"access-log = true\n", "o.toml line 1: unknown setting 'access-log', did you mean access_log?"),
        (b"colour = 1\n", "o.toml line 1: unknown setting 'colour'"),
        (b"[server]\nport = 1\n", "o.toml: unknown setting 'server'"),
        (b"port = \n", "o.toml: not valid TOML: Invalid value (at line 1, column 8)"),
        (b"port = '\xff'\n", "o.toml: cannot be read: it is not UTF-8 text"),
        (b"tool.ostler = 3\n", "o.toml: tool.ostler is 3: expected a table [tool.ostler]"),
        (b"app = " + b"[" * 5000, "o.toml: not valid TOML: "),
    ],
)
def test_a_wrong_toml_file_is_one_line(content: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / "o.toml").write_bytes(content)

    assert refusal(tmp_path, config="o.toml").startswith(expected)


def test_a_config_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()

    assert refusal(tmp_path, config="none.toml") == "none.toml: cannot be read: No such file or directory"
    assert refusal(tmp_path, config="d") == "d: cannot be read: Is a directory"


def test_a_pyproject_given_as_config_must_have_the_ostler_table(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]\n")

    assert refusal(tmp_path, config="pyproject.toml").startswith("pyproject.toml: no ostler settings in it")


# -- --env-file


def test_an_env_file_does_not_override_variables_that_are_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REAL", "real")
    (tmp_path / ".env").write_text(
        "# ours\nexport A='one two'\nB=${REAL}/b\nREAL=fake\nBARE\nOSTLER_PORT=9\n"
    )

    configuration = load(tmp_path, env_file=".env", environ={"REAL": "real"})

    assert configuration.settings.port == 9
    assert dict(configuration.environment) == {"A": "one two", "B": "real/b", "OSTLER_PORT": "9"}


def test_a_variable_may_name_the_env_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("WEB_CONCURRENCY=3\n")

    configuration = load(tmp_path, environ={"OSTLER_ENV_FILE": ".env"})

    assert configuration.settings.workers == 3


def test_a_wrong_env_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1\n=2\n")

    assert refusal(tmp_path, env_file=".env") == ".env line 2: expected NAME=value"
    assert refusal(tmp_path, env_file="none") == "none: cannot be read: No such file or directory"


def test_without_python_dotenv_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dotenv.main", None)

    assert refusal(env_file=".env") == "--env-file needs python-dotenv: pip install python-dotenv"
