"""What the arbiter's process has imported by the time its workers are ready: no more than it needs."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.live.harness import Ostler

PROBE = (
    "import sys, atexit; sys.argv = ['ostler', 'main:app', '--workers', '2', '--port', '0'];"
    "atexit.register(lambda: print(*sys.modules));"
    "from ostler.cli.main import main; main()"
)

UPGRADE = "ostler.supervisor.upgrade"


def test_the_arbiter_imports_for_an_upgrade_only_what_must_be_of_its_own_release(project: Path) -> None:
    with Ostler(project, program=["-c", PROBE]) as ostler:
        ostler.wait_ready(2)
        assert ostler.stop() == 0
    ostler.out.wait_for(UPGRADE)
    modules = set(ostler.out.text.split())

    # By the time of SIGUSR2 the files on disk are another release's: imported then, they would not fit.
    assert {f"{UPGRADE}.{name}" for name in ("old_arbiter", "decision", "command", "handover")} <= modules
    # The new arbiter's side, Python's json and systemd's status: each where it is used, as it starts.
    late = {f"{UPGRADE}.new_arbiter", "json", "ostler.supervisor.systemd_status"}
    if sys.version_info >= (3, 14):
        late.remove("json")  # multiprocessing.resource_tracker imports it itself (3.14.10, 3.15)
    assert not modules & late
    # An IP address needs no codec, and so none of unicodedata's tables. pathlib imports much: 0.7 MB.
    heavy = {"encodings.idna", "unicodedata", "asyncio", "ssl"}
    if sys.implementation.name == "pypy":
        heavy.remove("unicodedata")  # it is there from the start
    assert not modules & heavy
    if sys.version_info < (3, 15):  # traceback imports it there
        assert "pathlib" not in modules
