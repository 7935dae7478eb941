"""Run every command of docs/quickstart.md in order, with a free port in place of the page's.

The commands of the installation are compared and not run: the tests have an installation.
"""

from __future__ import annotations

import re
import shlex
import signal
import ssl
import subprocess
from contextlib import ExitStack
from pathlib import Path

from websockets.sync.client import connect

from tests.live.harness import PATIENCE, Ostler

PAGE = Path(__file__).parents[2] / "docs" / "quickstart.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Reader:
    """Carries out the commands of the page. A server is stopped before the next one is started."""

    def __init__(self, here: Path) -> None:
        self.here = here
        self.served: Ostler | None = None
        self.started = ExitStack()

    def stop(self) -> None:
        if self.served is not None:
            assert self.served.stop() == 0
            assert "Traceback" not in self.served.log.text
        self.started.close()
        self.served = None

    def run(self, command: str) -> str:
        """Run a command and return what it prints."""
        program, *args = shlex.split(command)
        if program == "ostler":
            self.stop()
            self.served = self.started.enter_context(Ostler(self.here, *args, "--port", "0"))
            if "--workers" in args:
                self.served.wait_ready(4)
            return ""
        if program == "kill":
            return self._roll(args)
        if program == "curl":
            assert self.served is not None
            assert ":8000/" in args[-1]
            where = args[-1].replace(":8000/", f":{self.served.port}/")
            args = ["--silent", "--show-error", "--fail", "--noproxy", "*", *args[:-1], where]
        else:
            assert program == "openssl", f"this test cannot run {command!r}"
        done = subprocess.run(
            [program, *args], cwd=self.here, capture_output=True, text=True, timeout=PATIENCE, check=True
        )
        return done.stdout

    def _roll(self, args: list[str]) -> str:
        assert self.served is not None
        assert args == ["-HUP", "4700"]
        assert f"Started arbiter process [{self.served.pid}]" in self.served.log.text
        self.served.send(signal.SIGHUP)
        self.served.log.wait_for(r"Rolling restart to generation 2 complete")
        return ""


def test_every_command_of_the_page_prints_what_the_page_shows(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    printed = []
    with reader.started:
        blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
        assert {language for language, _ in blocks} == {"sh", "python", "toml"}
        install, *blocks = blocks
        assert install[1].splitlines() == [
            "python3 -m venv .venv",
            ".venv/bin/pip install /path/to/ostler fastapi",
            ". .venv/bin/activate",
        ]
        for language, text in blocks:
            if language == "sh":
                printed += [reader.run(command) for command in text.splitlines()]
            else:
                first, _, rest = text.partition("\n")
                (tmp_path / first.removeprefix("# ")).write_text(rest)
            if "--ssl-certfile" in text:
                talk_over_websocket(reader)
        reader.stop()

    answers = [line for line in printed if line]
    assert [bool(re.fullmatch(r'\{"pid":\d+\}', line)) for line in answers] == [True] * 5 + [False]
    assert answers[-1] == "ready\n"


def talk_over_websocket(reader: Reader) -> None:
    assert reader.served is not None
    trust = ssl.create_default_context(cafile=str(reader.here / "cert.pem"))
    url = f"wss://localhost:{reader.served.port}/echo"
    with connect(url, ssl=trust, proxy=None) as client:
        client.send("neigh")
        assert client.recv(PATIENCE) == "neigh"
