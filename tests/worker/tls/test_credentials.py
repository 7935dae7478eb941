"""Certificates that are read again, for new connections."""

from __future__ import annotations

from pathlib import Path

import pytest

from ostler.settings.declarations import Settings
from ostler.worker.tls.credentials import Credentials
from tests.certificates import Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_renewing_makes_a_new_context(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "ostler.error")
    credentials = Credentials(Settings(**authority.files))
    before = credentials.context
    credentials.renew()
    assert credentials.context is not before
    assert caplog.messages == ["SIGHUP: certificates read again, new connections get them"]


def test_a_certificate_that_cannot_be_read_changes_nothing_and_is_one_line(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    credentials = Credentials(Settings(**authority.files))
    before = credentials.context
    Path(authority.files["ssl_certfile"]).write_text("garbage")
    credentials.renew()
    assert credentials.context is before
    (line,) = caplog.messages
    assert line.startswith("SIGHUP: certificates not renewed, the server serves on with the old ones: ")
