"""`--log-config`: which files are read, and which are refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from ostler.errors import SettingsError
from ostler.settings import log_config
from ostler.settings.kinds import LogConfig

CONTENT = {"version": 1, "loggers": {"ostler": {"level": "INFO"}}}
INI = "[loggers]\nkeys=root\n[handlers]\nkeys=\n[formatters]\nkeys=\n[logger_root]\nhandlers=\n"
TEXTS = {
    ".json": json.dumps(CONTENT),
    ".toml": 'version = 1\n[loggers.ostler]\nlevel = "INFO"\n',
    ".yaml": "version: 1\nloggers: {ostler: {level: INFO}}\n",
    ".yml": "version: 1\nloggers: {ostler: {level: INFO}}\n",
}


@pytest.mark.parametrize("suffix", TEXTS)
def test_a_file_in_any_format_with_tables_is_read_as_its_table(suffix: str, tmp_path: Path) -> None:
    name = f"log{suffix}"
    (tmp_path / name).write_text(TEXTS[suffix])

    assert log_config.read(str(tmp_path), LogConfig(name)) == LogConfig(name, CONTENT)


@pytest.mark.parametrize("suffix", [".ini", ".conf", ""])
def test_any_other_file_is_read_as_the_text_of_an_ini_file(suffix: str, tmp_path: Path) -> None:
    name = f"log{suffix}"
    (tmp_path / name).write_text(INI)

    assert log_config.read(str(tmp_path), LogConfig(name)) == LogConfig(name, INI)


def test_a_configuration_that_has_its_content_is_not_read_again(tmp_path: Path) -> None:
    config = LogConfig("missing.json", CONTENT)

    assert log_config.read(str(tmp_path), config) is config


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("missing.json", None, "missing.json: cannot be read: No such file or directory"),
        ("log.json", "{", "log.json: not valid JSON: "),
        ("log.json", "[1]", "log.json: no log configuration: expected a table, found [1]"),
        ("log.json", "[" * 100_000, "log.json: not valid JSON: "),
        ("log.toml", "a = ", "log.toml: not valid TOML: "),
        ("log.yaml", "a: [", "log.yaml: not valid YAML: "),
        ("log.yaml", "!!python/object:os.system {}", "log.yaml: not valid YAML: "),
        ("log.yaml", "", "log.yaml: no log configuration: expected a table, found None"),
        ("log.ini", "nothing", "log.ini: not valid INI: "),
        ("log.ini", "[handlers]\nkeys=", "log.ini: no log configuration: expected a section [loggers]"),
        ("log.ini", "\0", "log.ini: not valid INI: "),
    ],
)
def test_a_file_that_holds_no_log_configuration_is_refused_in_one_line(
    name: str, text: str | None, said: str, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)

    with pytest.raises(SettingsError) as caught:
        log_config.read(str(tmp_path), LogConfig(name))

    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_yaml_without_its_library_is_refused_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "log.yaml").write_text(TEXTS[".yaml"])
    monkeypatch.setitem(sys.modules, "yaml", None)

    with pytest.raises(SettingsError) as caught:
        log_config.read(str(tmp_path), LogConfig("log.yaml"))

    assert str(caught.value) == "log.yaml: YAML needs PyYAML: pip install PyYAML"
