"""Run a real headless Chromium with a profile of its own, driven through the DevTools protocol."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import psutil
from websockets.sync.client import connect

from tests.hosting.needs import need
from tests.live.harness import PATIENCE, Output, add_note, wait_until

FLAGS = (
    "--headless",
    "--no-sandbox",  # root cannot have one
    "--disable-gpu",
    "--disable-dev-shm-usage",  # /dev/shm is small in containers
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-breakpad",
    "--remote-debugging-port=0",
)


class BrowserError(AssertionError):
    """The page's JavaScript threw an exception, or a command of the DevTools protocol failed."""


class Chromium:
    """A browser with one page. Leaving the context ends all its processes, by pid, and removes its directory.

    It checks certificates as usual, and trusts `authority`, a PEM file, besides those that it comes with.
    """

    def __init__(self, authority: Path | None = None) -> None:
        program, certutil = shutil.which("chromium"), shutil.which("certutil")
        need(program is not None, "Chromium (Debian: apt install chromium)")
        need(certutil is not None, "certutil (Debian: apt install libnss3-tools)")
        assert program is not None
        assert certutil is not None
        # The paths of pytest's directories are too long for the sockets that Chromium makes.
        self._home = Path(tempfile.mkdtemp(prefix="ostler-chromium-"))
        try:
            if authority is not None:
                self._trust(certutil, authority)
            self._process = self._start(program)
        except BaseException:
            shutil.rmtree(self._home)
            raise
        assert self._process.stderr is not None
        self._stderr = Output(self._process.stderr)
        self._numbers = itertools.count(1)
        self._opened = contextlib.ExitStack()
        self.complaints: list[str] = []
        """Exceptions that the page did not catch, and errors in the console."""

    def _trust(self, certutil: str, authority: Path) -> None:
        store = self._home / ".pki" / "nssdb"
        store.mkdir(parents=True)
        for what in (("-N", "--empty-password"), ("-A", "-n", "test", "-t", "C,,", "-i", str(authority))):
            subprocess.run(
                [certutil, *what, "-d", f"sql:{store}"], check=True, capture_output=True, timeout=PATIENCE
            )

    def _start(self, program: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={self._profile}", "about:blank"],
            env={"PATH": os.environ["PATH"], "HOME": str(self._home), "TMPDIR": str(self._home)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    @property
    def _profile(self) -> Path:
        return self._home / "profile"

    def __enter__(self) -> Chromium:
        try:
            match = self._stderr.wait_for(r"DevTools listening on ws://127\.0\.0\.1:(\d+)/")
            url = f"http://127.0.0.1:{match[1]}/json/list"

            def pages() -> list[str]:
                listed = httpx.get(url, trust_env=False).json()
                return [each["webSocketDebuggerUrl"] for each in listed if each["type"] == "page"]

            page = wait_until(pages, "Chromium has a page")[0]
            self._socket = self._opened.enter_context(connect(page, max_size=None, proxy=None))
            for domain in ("Page", "Runtime", "Log", "DOM"):
                self.command(f"{domain}.enable")
        except BaseException as exc:
            self.__exit__(type(exc), exc, exc.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        complaints = "\n".join(self.complaints)
        add_note(
            error, f"the page's complaints:\n{complaints}\nChromium's stderr:\n{self._stderr.text[-3000:]}"
        )
        self._opened.close()
        family = list(self._processes())
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for process in family:  # some lead process groups of their own
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait(PATIENCE)
        psutil.wait_procs(family, PATIENCE)
        self._stderr.close()
        wait_until(lambda: not list(self._processes()), "every process of Chromium is gone")
        shutil.rmtree(self._home)

    def _processes(self) -> Iterator[psutil.Process]:
        """Yield every process of this profile, and those that such a process has started."""
        for process in psutil.process_iter(["cmdline", "environ", "status"]):
            info = process.info
            if info["status"] == psutil.STATUS_ZOMBIE:
                continue
            if (info["environ"] or {}).get("HOME") == str(self._home) or any(
                str(self._profile) in word for word in info["cmdline"] or ()
            ):
                yield process

    def command(self, method: str, **params: object) -> Any:
        """Send a command of the DevTools protocol, and return its result.

        Raises:
            BrowserError: Chromium reports that it failed.
        """
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(PATIENCE))
            if message.get("id") == number:
                if "error" in message:
                    raise BrowserError(f"{method}: {message['error']}")
                return message["result"]
            self._note(message)

    def _note(self, event: dict[str, Any]) -> None:
        if event.get("method") == "Runtime.exceptionThrown":
            details = event["params"]["exceptionDetails"]
            self.complaints.append(details.get("exception", details).get("description", str(details)))
        elif event.get("method") == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
            self.complaints.append("{text} ({url})".format(**{"url": "", **event["params"]["entry"]}))

    def open(self, url: str) -> str | None:
        """Go to a page and wait until it has loaded; return the error of a failure, else None."""
        result = self.command("Page.navigate", url=url)
        if "errorText" in result:
            return str(result["errorText"])
        self.until("document.readyState === 'complete'")
        return None

    def run(self, script: str) -> Any:
        """Evaluate a JavaScript expression in the page, and return its value; a promise is awaited.

        Raises:
            BrowserError: the expression threw an exception.
        """
        options = {"awaitPromise": True, "returnByValue": True}
        result = self.command("Runtime.evaluate", expression=script, **options)
        if "exceptionDetails" in result:
            raise BrowserError(result["exceptionDetails"])
        return result["result"].get("value")

    def until(self, script: str) -> Any:
        """Evaluate an expression until its value is true, and return that value."""
        return wait_until(lambda: self.run(script), f"in the page: {script}")

    def text(self, selector: str) -> str:
        return str(self.run(f"document.querySelector({json.dumps(selector)}).textContent"))

    def choose(self, selector: str, files: Sequence[Path]) -> None:
        """Choose files in a form's file input."""
        script = f"document.querySelector({json.dumps(selector)})"
        found = self.command("Runtime.evaluate", expression=script)["result"]["objectId"]
        self.command("DOM.setFileInputFiles", files=[str(path) for path in files], objectId=found)
