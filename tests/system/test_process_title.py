"""What others see of a process's arguments, after ostler has overwritten them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ostler.system.process_title import masked

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")

SHOW = "\nprint(open('/proc/self/cmdline').read(), end='')"


def arguments_after(code: str, *arguments: str) -> list[str]:
    """Return the arguments of a process, without those of the interpreter, after it has run `code`."""
    source = f"from ostler.system import process_title\n{code}{SHOW}"
    command = [sys.executable, "-c", source, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.split("\0")


def test_a_title_replaces_the_arguments() -> None:
    title, *rest = arguments_after("process_title.set_title('ostler: worker 1 main:app')")

    assert title == "ostler: worker 1 main:app"
    assert not any(rest)


def test_the_name_of_a_worker_has_no_space_which_python_would_misread() -> None:
    """Python 3.12 and newer: in /proc/self/stat, before a warning of a fork beside other threads."""
    show = "\nprint(open('/proc/self/comm').read(), end='\\0')"
    name, *_ = arguments_after(f"process_title.set_title('ostler: worker 1 main:app'){show}")

    assert name == "ostler-worker\n"


def test_a_title_is_cut_off_where_the_arguments_ended() -> None:
    title, *rest = arguments_after("process_title.set_title('x' * 1_000_000)")

    assert set(title) == {"x"}
    assert 0 < len(title) < 1_000_000
    assert not any(rest)


def test_the_value_of_a_secret_flag_is_hidden_in_both_spellings() -> None:
    found = arguments_after(
        "process_title.conceal(['--password'])", "--password", "abc", "--password=de", "f"
    )

    assert found[3:] == ["--password", "***", "--password=**", "f", ""]


@pytest.mark.parametrize("call", ["set_title('title')", "conceal(['--password'])"])
def test_where_the_kernel_has_no_such_files_nothing_changes(call: str) -> None:
    refuse = "import builtins, io\ndef refused(*_, **__): raise FileNotFoundError\nbuiltins.open = refused\n"
    restore = "\nbuiltins.open = io.open"

    found = arguments_after(f"{refuse}process_title.{call}{restore}", "--password", "abc")

    assert found[3:] == ["--password", "abc", ""]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (b"ostler\0a:b\0--p\0s3cret\0--x\0", b"ostler\0a:b\0--p\0******\0--x\0"),
        (b"ostler\0--p=s3cret\0a:b\0", b"ostler\0--p=******\0a:b\0"),
        (b"ostler\0a:b\0", b"ostler\0a:b\0"),
    ],
)
def test_the_value_of_a_secret_flag_becomes_asterisks(arguments: bytes, expected: bytes) -> None:
    assert masked(arguments, [b"--p"]) == expected
