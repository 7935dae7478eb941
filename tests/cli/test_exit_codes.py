"""The exit codes of main(), and what it hands to `serve`, which is faked here."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from ostler.cli.main import main
from ostler.errors import BindError, OstlerError, SettingsError, StartupError
from ostler.settings.sources import Configuration, Sources


class FakeRun:
    """Stands in for `ostler.cli.run`: ends as it is told, and keeps what it was given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, ending: BaseException | int) -> None:
        self.ending = ending
        self.given: list[tuple[Sources, Configuration]] = []
        monkeypatch.setitem(sys.modules, "ostler.cli.run", SimpleNamespace(serve=self.serve))

    def serve(self, sources: Sources, configuration: Configuration, inherited: None) -> int:
        self.given.append((sources, configuration))
        if isinstance(self.ending, BaseException):
            raise self.ending
        return self.ending


def test_serving_gets_the_sources_to_read_again_and_what_they_came_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OSTLER_PORT", "9")
    run = FakeRun(monkeypatch, 0)

    assert main(["main:app", "--workers", "2"]) == 0

    ((sources, configuration),) = run.given
    assert (configuration.settings.workers, configuration.settings.port) == (2, 9)
    assert sources.load() == configuration


def test_the_exit_code_is_what_serving_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeRun(monkeypatch, 3)

    assert main(["main:app"]) == 3


@pytest.mark.parametrize(
    ("error", "code"),
    [(OstlerError("why"), 1), (SettingsError("why"), 2), (StartupError("why"), 3), (BindError("why"), 4)],
)
def test_an_error_is_one_line_and_its_own_exit_code(
    error: OstlerError, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    FakeRun(monkeypatch, error)

    assert main(["main:app"]) == code
    assert capsys.readouterr().err == "Error: why\n"


def test_ctrl_c_is_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    FakeRun(monkeypatch, KeyboardInterrupt())

    assert main(["main:app"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_fault_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeRun(monkeypatch, RuntimeError("a bug"))

    with pytest.raises(RuntimeError):
        main(["main:app"])
