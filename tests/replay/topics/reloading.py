"""--reload: what is watched, and what a change does."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.live.harness import wait_until
from tests.replay.behaviours import HELLO, command
from tests.replay.servers import Running

FILES = {"main.py": HELLO, "sub/other.py": "", "page.html": "", ".hidden.py": "", "node_modules/x.py": ""}


def changes(*names: str, then: str = "main.py") -> Callable[[Running], Any]:
    """Return what changes files, and afterwards `then`, which is watched; it says which one was noticed first."""

    def do(running: Running) -> Any:
        for name in names:
            path = running.directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(path.read_text() + "\n# changed\n" if path.exists() else "# new\n")
        running.errors.wait_for("eload")
        return None

    return do


def new_answer(running: Running) -> Any:
    """Return the answer after the application has changed."""
    path = running.directory / "main.py"
    path.write_text(path.read_text().replace('b"hello"', 'b"howdy"'))
    wait_until(lambda: _body(running) == "howdy", "the new code answers")
    return _body(running)


def _body(running: Running) -> str | None:
    try:
        return running.request("/")[2]
    except OSError:
        return None


def broken_and_mended(running: Running) -> Any:
    """Return the answer after the application was broken for a while."""
    path = running.directory / "main.py"
    good = path.read_text()
    path.write_text("def broken(:\n")
    running.errors.wait_for("SyntaxError|invalid syntax")
    path.write_text(good.replace('b"hello"', 'b"fixed"'))
    wait_until(lambda: _body(running) == "fixed", "the mended code answers")
    return _body(running)


def watch_line(running: Running) -> Any:
    """Return the line that says what is watched."""
    lines = [re.sub("^INFO: +", "INFO: ", line) for line in running.errors.text.splitlines()]
    return [line.replace(str(running.directory), "DIR") for line in lines if "Will watch" in line]


def reload(
    name: str, *args: str, do: Callable[[Running], Any], stop: str = "SIGINT", see: Sequence[str] = ("result",),
    files: Mapping[str, str] | None = None,
) -> None:  # fmt: skip
    """Add a behaviour: serve with --reload, and `do` something."""
    command(
        f"reloading/{name}", "main:app", "--port", "0", "--reload", *args,
        files={**FILES, **(files or {})}, do=do, stop=stop, see=see,
    )  # fmt: skip


reload("a change of the application", do=new_answer)
reload("a broken application waits for the next change", do=broken_and_mended)
reload("what is watched", do=watch_line)
reload("--reload-dir", "--reload-dir", "sub", do=watch_line)
reload("exit code after SIGINT", do=lambda running: None, see=("exit",))
reload("exit code after SIGTERM", do=lambda running: None, stop="SIGTERM", see=("exit",))
command(
    "reloading/--reload-dir that is not there",
    "main:app",
    "--reload",
    "--reload-dir",
    "nope",
    "--port",
    "0",
    see=("exit",),
)
