"""A deploy points the link `current` at a new release: SIGHUP reads the new release's files."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.live.clients import get
from tests.live.harness import APP, Ostler, wait_until

CALLED_FROM_CODE = "import ostler, sys\nostler.run('main:app', port=0, workers=1, **eval(sys.argv[1]))\n"

LOG_CONFIG = """{{
    "version": 1,
    "formatters": {{"release": {{"format": "{release}: %(message)s"}}}},
    "handlers": {{"all": {{"class": "logging.StreamHandler", "formatter": "release"}}}},
    "loggers": {{"ostler": {{"handlers": ["all"], "level": "INFO"}}}}
}}"""


def make_release(directory: Path, version: str) -> None:
    """Write an application, with every kind of file that settings come from: `version` is in each."""
    directory.mkdir()
    (directory / "main.py").write_text(APP)
    (directory / "script.py").write_text(CALLED_FROM_CODE)
    (directory / "ostler.toml").write_text(f'header = ["X-Release: {version}"]\n')
    (directory / "pyproject.toml").write_text(f'[tool.ostler]\nheader = ["X-Release: {version}"]\n')
    (directory / "release.env").write_text(f'OSTLER_HEADER="X-Release: {version}"\n')
    (directory / "log.json").write_text(LOG_CONFIG.format(release=version))


@pytest.fixture
def current(tmp_path: Path) -> Path:
    """The link `current`, which leads to the first of two releases."""
    for version in ("one", "two"):
        make_release(tmp_path / version, version)
    link = tmp_path / "current"
    link.symlink_to("one")
    return link


def deploy_two(current: Path) -> None:
    moved = current.with_name("next")
    moved.symlink_to("two")
    moved.rename(current)


def started_in(directory: Path) -> Mapping[str, str]:
    """The variable that a shell sets after `cd`: the path of its directory, symbolic links kept."""
    return {"PWD": str(directory)}


@pytest.mark.parametrize(
    "arguments", [["--config", "ostler.toml"], [], ["--env-file", "release.env", "--config", "empty.toml"]]
)
def test_sighup_reads_the_settings_of_the_release_that_the_link_leads_to_now(
    current: Path, arguments: list[str]
) -> None:
    for release in ("one", "two"):
        (current.parent / release / "empty.toml").touch()
    args = ["main:app", "--port", "0", "--workers", "1", *arguments]
    with Ostler(current, *args, env=started_in(current)) as ostler:
        ostler.wait_ready(1)
        assert get(ostler.port).headers["x-release"] == "one"
        deploy_two(current)
        ostler.send(signal.SIGHUP)
        wait_until(lambda: get(ostler.port).headers["x-release"] == "two", "the new header is sent")
        assert ostler.stop() == 0


def test_sighup_reads_the_log_configuration_of_the_release_that_the_link_leads_to_now(current: Path) -> None:
    args = ["main:app", "--port", "0", "--workers", "1", "--log-config", "log.json"]
    with Ostler(current, *args, env=started_in(current)) as ostler:
        ostler.log.wait_for("one: Worker 1 .* is ready")
        deploy_two(current)
        ostler.send(signal.SIGHUP)
        ostler.log.wait_for("two: Application startup complete")
        assert ostler.stop() == 0


@pytest.mark.parametrize(
    "given", ["{'config': 'ostler.toml'}", "{}", "{'env_file': 'release.env', 'config': 'empty.toml'}"]
)
def test_sighup_under_ostler_run_reads_the_settings_of_the_release_that_the_link_leads_to_now(
    current: Path, given: str
) -> None:
    for release in ("one", "two"):
        (current.parent / release / "empty.toml").touch()
    with Ostler(current, given, program=["script.py"], env=started_in(current)) as ostler:
        ostler.wait_ready(1)
        assert get(ostler.port).headers["x-release"] == "one"
        deploy_two(current)
        ostler.send(signal.SIGHUP)
        wait_until(lambda: get(ostler.port).headers["x-release"] == "two", "the new header is sent")
        assert ostler.stop() == 0


def test_a_wrong_file_of_the_new_release_is_named_as_the_person_named_it(current: Path) -> None:
    (current.parent / "two" / "ostler.toml").write_text("backlog = 'x'\n")
    args = ["main:app", "--port", "0", "--workers", "1", "--config", "ostler.toml"]
    with Ostler(current, *args, env=started_in(current)) as ostler:
        ostler.wait_ready(1)
        deploy_two(current)
        ostler.send(signal.SIGHUP)
        ostler.log.wait_for("backlog from ostler.toml line 1 is 'x': expected a whole number")
        assert get(ostler.port).headers["x-release"] == "one"
        assert ostler.stop() == 0
