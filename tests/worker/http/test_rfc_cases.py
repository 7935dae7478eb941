"""Runs the table of `rfc_cases.py` against both parsers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest

from ostler.worker.asgi import Receive, Scope, Send
from tests.worker.harness import Answer, Client, Server, Way, get, respond, until
from tests.worker.http.rfc_cases import CASES, Case

WAYS = (Way("httptools", "uvloop"), Way("h11", "asyncio"))
BY_THE_APP = (200, 204, 304)


class Recorder:
    """Answers every request, and keeps what it got, by the client's port."""

    def __init__(self) -> None:
        self.got: dict[int, list[str]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            if not message["more_body"]:
                break
        target = scope["raw_path"].decode() + (
            "?" + scope["query_string"].decode() if scope["query_string"] else ""
        )
        self.got.setdefault(scope["client"][1], []).append(f"{scope['method']} {target} {body.decode()}")
        if scope["path"] == "/stream":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"stream", "more_body": True})
            await send({"type": "http.response.body", "body": b"ed"})
        elif scope["path"] in ("/204", "/304"):
            await respond(send, b"", int(scope["path"][1:]))
        else:
            await respond(send, b"here")


class Subject:
    """A server, and what its app got."""

    def __init__(self, way: Way) -> None:
        self.app = Recorder()
        self.server = Server(way, self.app)

    def run(self, case: Case) -> tuple[list[int], bool, list[str]]:
        """Send a case; return the statuses, whether the connection is closed, and what the app got."""
        client = Client(self.server.address)
        port = client.socket.getsockname()[1]
        try:
            return self._run(case, client, port)
        finally:
            client.close()

    def _run(self, case: Case, client: Client, port: int) -> tuple[list[int], bool, list[str]]:
        with suppress(ConnectionError):  # refused, and lingered for long enough
            client.send(case.raw)
        statuses: list[int] = []
        head_first = case.raw.lstrip().startswith(b"HEAD ")
        for _ in case.answers:
            answer = self._answer(client, "HEAD" if head_first and not statuses else "GET")
            if answer is None:
                break
            statuses.append(answer.status)
        # Another response than those, or bytes that were taken for a part of a request, would come first.
        closed = True
        try:
            client.send(get("/after"))
            last = self._answer(client, "GET")
        except ConnectionError:
            last = None
        got = self.app.got.pop(port, [])
        if last is not None:
            closed = False
            if got and got[-1] == "GET /after ":
                got = got[:-1]
            else:
                statuses.append(last.status)
        return statuses, closed, got

    @staticmethod
    def _answer(client: Client, method: str) -> Answer | None:
        """Return the next response; None if the connection is closed."""
        if not client.buffer and not client.more():
            return None
        return client.answer(method)


@pytest.fixture(scope="module")
def subjects() -> Iterator[list[Subject]]:
    subjects = [Subject(way) for way in WAYS]
    yield subjects
    for subject in subjects:
        assert subject.server.errors.tracebacks == []
        until(lambda server=subject.server: not server.server_state.requests)  # type: ignore[misc]
        subject.server.close()


@pytest.mark.c_libraries
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_http_1_1_is_as_the_rfcs_say(subjects: list[Subject], case: Case) -> None:
    results = [subject.run(case) for subject in subjects]
    for statuses, closed, got in results:
        assert len(statuses) == len(case.answers), statuses
        for status, permitted in zip(statuses, case.answers, strict=True):
            assert status in (permitted if isinstance(permitted, tuple) else (permitted,)), statuses
        by_the_app = [status for status in statuses if status in BY_THE_APP]
        assert len(got) == len(by_the_app), (got, statuses)
        if case.got is not None:
            assert tuple(got) == case.got
        assert closed == (statuses[-1] not in BY_THE_APP if case.closes is None else case.closes)
    assert case.may_differ or results[0] == results[1], "the parsers differ"


def test_the_table_has_no_row_twice() -> None:
    assert len({case.id for case in CASES}) == len(CASES)
    assert len({(case.raw, case.got) for case in CASES}) == len(CASES)
    assert len(CASES) >= 500
