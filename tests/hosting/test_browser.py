"""Chromium on the page of examples/page.py: requests, WebSockets, events, uploads, TLS, and a roll."""

from __future__ import annotations

import hashlib
import re
import signal
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.hosting.chromium import Chromium
from tests.live.harness import Ostler, both

EXAMPLES = Path(__file__).parents[2] / "examples"

# Opens a second WebSocket, sends messages, and returns what was echoed and how the socket was closed.
TALK = """
new Promise((done, failed) => {
    const socket = new WebSocket(new URL("echo", location).href.replace(/^http/, "ws"));
    const received = [];
    socket.binaryType = "arraybuffer";
    socket.onerror = () => failed(new Error("the WebSocket failed"));
    socket.onopen = () => {
        for (const each of ["", "grüße", "x".repeat(1_000_000), new Uint8Array([0, 255]).buffer])
            socket.send(each);
    };
    socket.onmessage = ({data}) => {
        received.push(typeof data === "string" ? data.length : [...new Uint8Array(data)]);
        if (received.length === 5) socket.close(4000, "enough");
    };
    socket.onclose = ({code, reason, wasClean}) =>
        done([received.slice(1), code, reason, wasClean, socket.extensions, new URL(socket.url).protocol]);
})
"""

# Sends requests without a pause, half of them with a body, and collects every event's number.
BUSY = """
globalThis.failed = []; globalThis.generations = []; globalThis.numbers = []; globalThis.busy = true;
source.addEventListener("message", ({lastEventId}) => numbers.push(Number(lastEventId)));
globalThis.asking = Promise.all([0, 1, 2, 3].map(async each => {
    while (busy) {
        try {
            const options = each % 2 ? {method: "POST", body: "x".repeat(10_000)} : {};
            const response = await fetch(each % 2 ? "upload" : "worker", {cache: "no-store", ...options});
            generations.push((await response.json()).generation);
            if (!response.ok) failed.push(response.status);
        } catch (error) { failed.push(String(error)); }
    }
}));
true
"""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@both
@pytest.mark.parametrize("library", ["websockets", "wsproto"])
def test_requests_websockets_events_and_uploads_work_over_tls(
    tmp_path: Path, authority: Authority, mode: list[str], library: str
) -> None:
    (tmp_path / "upload").write_bytes(b"x" * 3_000_000)
    flags = ["--port", "0", "--ws", library, *authority.flags]
    with (
        Ostler(EXAMPLES, "page:app", *mode, *flags) as ostler,
        Chromium(tmp_path / "ca.pem") as browser,
    ):
        assert browser.open(f"https://localhost:{ostler.port}/") is None
        server = r"slot [12], generation 1, pid \d+" if mode else r"a plain server, pid \d+"

        # The page's own requests, WebSocket and events.
        browser.until("document.querySelector('#answers').textContent")
        answers = re.findall(rf"^(\d+) x {server}$", browser.text("#answers"), re.MULTILINE)
        assert sum(map(int, answers)) == 30, browser.text("#answers")
        browser.until("document.querySelector('#socket').textContent.includes('pid')")
        assert re.fullmatch(server, browser.text("#socket"))
        browser.run("document.querySelector('#say button').click()")
        browser.until("document.querySelector('#talk').textContent.includes('< Hello')")
        browser.until("document.querySelector('#event').textContent.includes('event 3')")
        assert re.fullmatch(server, browser.text("#stream"))

        browser.choose("#upload input", [tmp_path / "upload"])
        browser.run("document.querySelector('#upload button').click()")
        uploaded = browser.until("document.querySelector('#uploaded').textContent")
        assert uploaded.startswith(f"3000000 bytes, SHA-256 {hashlib.sha256(b'x' * 3_000_000).hexdigest()}, ")

        received, *closed, extensions, scheme = browser.run(TALK)
        assert received == [0, 5, 1_000_000, [0, 255]]
        assert closed == [4000, "enough", True]
        assert extensions.startswith("permessage-deflate")
        assert scheme == "wss:"
        assert browser.complaints == []
        ostler.log.wait_for(r'"WebSocket /echo" \[accepted\]')
        assert ostler.stop() == 0
    assert "Traceback" not in ostler.log.text


def test_a_roll_loses_no_request_or_event_of_an_open_page(tmp_path: Path, authority: Authority) -> None:
    with (
        Ostler(EXAMPLES, "page:app", "--port", "0", "--workers", "2", *authority.flags) as ostler,
        Chromium(tmp_path / "ca.pem") as browser,
    ):
        ostler.wait_ready(2)
        assert browser.open(f"https://localhost:{ostler.port}/") is None
        for where in ("#socket", "#stream"):
            browser.until(f"document.querySelector('{where}').textContent.includes('generation 1')")
        browser.run(BUSY)
        browser.until("generations.length > 20 && numbers.length > 1")

        ostler.send(signal.SIGHUP)
        ostler.log.wait_for(r"Rolling restart to generation 2 complete")
        for where in ("#socket", "#stream"):
            browser.until(f"document.querySelector('{where}').textContent.includes('generation 2')")
        browser.until("generations.at(-1) === '2'")
        browser.run("busy = false; asking")

        assert browser.run("failed") == []
        assert set(browser.run("generations")) == {"1", "2"}
        # The WebSocket was closed only for the restart, and the page has connected again.
        assert set(re.findall(r"closed with (\d+)", browser.text("#talk"))) == {"1012"}
        # The event stream was interrupted, and resumed after the last event.
        numbers = browser.run("numbers")
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert browser.complaints == []
        assert ostler.stop() == 0
    assert "Traceback" not in ostler.log.text
    assert "Cancel" not in ostler.log.text


def test_the_browser_refuses_an_authority_that_it_does_not_know(tmp_path: Path, authority: Authority) -> None:
    with Ostler(EXAMPLES, "page:app", "--port", "0", *authority.flags) as ostler, Chromium() as browser:
        assert browser.open(f"https://localhost:{ostler.port}/") == "net::ERR_CERT_AUTHORITY_INVALID"
        assert ostler.stop() == 0
    assert "Traceback" not in ostler.log.text
