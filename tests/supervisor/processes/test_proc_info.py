"""What /proc and the cgroups say of a process, in words."""

import os
import signal
import subprocess
import sys

from ostler.supervisor.processes import proc_info
from tests.live.harness import wait_until


def test_a_stopped_process_is_described_as_stopped() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: "stopped by a signal" in proc_info.describe(process.pid), "it is stopped")
        text = proc_info.describe(process.pid)
        assert "CPU used" in text
        assert "RSS" in text
    finally:
        process.kill()
        process.communicate()


def test_a_process_that_is_gone_has_no_description_and_raises_no_error() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert proc_info.describe(process.pid) == ""
    seen = proc_info.inspect(process.pid)
    assert (seen.waited, seen.ran, seen.throttled) == (None, None, None)


def test_the_time_that_a_process_waits_for_a_cpu_is_counted() -> None:
    seen = proc_info.inspect(os.getpid())
    assert seen.ran is not None
    assert seen.waited is not None
    assert seen.ran > 0 <= seen.waited


def test_an_exit_is_described_in_words() -> None:
    assert proc_info.describe_exit(3) == ("exited with code 3", None)
    assert proc_info.describe_exit(-signal.SIGSEGV) == ("was killed by SIGSEGV", "SIGSEGV")
    assert proc_info.describe_exit(-250) == ("was killed by signal 250", "signal 250")


def test_the_kernel_counts_the_processes_that_it_killed_for_memory() -> None:
    count = proc_info.oom_kills()
    assert count is not None
    assert count >= 0
