"""PID 1 beside a plain server: what it passes on, what it returns."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest


def run(child: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """Run a process that forks by `fork_server`; its child runs `child`."""
    code = f"""
import os, signal, sys
from ostler.system import init_process
{before}
code = init_process.fork_server()
if code is None:
{textwrap.indent(child, "    ")}
print(f"exits with {{code}}", flush=True)
sys.exit(code)
"""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize(("child", "code"), [("os._exit(3)", 3), ("os.kill(os.getpid(), 9)", 137)])
def test_the_exit_code_is_the_servers(child: str, code: int) -> None:
    ran = run(child)
    assert (ran.stdout, ran.returncode) == (f"exits with {code}\n", code)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGQUIT"])
def test_a_signal_is_passed_on(name: str) -> None:
    child = f"""
signal.signal(signal.{name}, lambda *_: os._exit(7))
os.kill(os.getppid(), signal.{name})
while True:
    signal.pause()
"""
    assert run(child).returncode == 7


def test_the_server_has_the_signal_mask_of_the_start() -> None:
    blocks = "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})"
    child = "os._exit(signal.pthread_sigmask(signal.SIG_BLOCK, ()) != {signal.SIGUSR1})"
    assert run(child, blocks).returncode == 0


def test_variables_that_name_the_process_name_the_server() -> None:
    names = "os.environ.update(LISTEN_PID=str(os.getpid()), WATCHDOG_PID='1')"
    child = "os._exit((os.environ['LISTEN_PID'], os.environ['WATCHDOG_PID']) != (str(os.getpid()), '1'))"
    assert run(child, names).returncode == 0


def test_the_other_children_are_collected() -> None:
    ended = "orphan = os.fork() or os._exit(5)"
    child = """
gone = lambda: not os.path.exists(f"/proc/{orphan}")
while not gone():
    pass
os._exit(0)
"""
    assert run(child, ended).returncode == 0
