"""Applications in the style of uvicorn's documentation: functions, objects, headers as lists."""

from pathlib import Path

import httpx
import pytest

from tests.live.harness import Ostler, both

HELLO = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({
        "type": "http.response.start",
        "status": 200,
        "headers": [[b"content-type", b"text/plain"], [b"content-length", b"6"]],
    })
    await send({"type": "http.response.body", "body": b"hello\\n"})
"""

ECHO = """
class Echo:
    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            raise ValueError("http only")
        body = "{} {}".format(scope["method"], scope["path"]).encode("utf-8")
        fields = [[b"content-type", b"text/plain"]]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": body})


app = Echo()
"""

BODY = """
async def whole(receive):
    collected = b""
    more = True
    while more:
        message = await receive()
        collected += message.get("body", b"")
        more = message.get("more_body", False)
    return collected


async def app(scope, receive, send):
    assert scope["type"] == "http"
    collected = await whole(receive)
    length = str(len(collected)).encode("utf-8")
    await send({
        "type": "http.response.start",
        "status": 200,
        "headers": [(b"content-type", b"text/plain"), (b"content-length", length)],
    })
    await send({"type": "http.response.body", "body": collected})
"""

STREAM = """
import asyncio


async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": [[b"content-type", b"text/plain"]]})
    for piece in (b"one", b", ", b"two"):
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        await asyncio.sleep(0)  # in the app
    await send({"type": "http.response.body", "body": b""})
"""

LIFESPAN = """
state = []


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                state.append("started")
                scope["state"]["name"] = "inn"
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await send({"type": "lifespan.shutdown.complete"})
                return
    else:
        body = " ".join([*state, scope["state"]["name"]]).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [[b"content-length", b"11"]]})
        await send({"type": "http.response.body", "body": body})
"""

FACTORY = """
def make():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"made"})
    return app
"""


@both
@pytest.mark.parametrize(
    ("source", "args", "body"),
    [
        (HELLO, ["main:app"], "hello\n"),
        (ECHO, ["main:app"], "POST /some/path"),
        (BODY, ["main:app"], "what was sent"),
        (STREAM, ["main:app"], "one, two"),
        (LIFESPAN, ["main:app"], "started inn"),
        (FACTORY, ["main:make", "--factory"], "made"),
    ],
    ids=["hello", "echo", "body", "stream", "lifespan", "factory"],
)
def test_applications_like_those_of_uvicorns_documentation_are_served(
    project: Path, mode: list[str], source: str, args: list[str], body: str
) -> None:
    (project / "main.py").write_text(source)
    with Ostler(project, *args, "--port", "0", *mode) as ostler:
        with httpx.Client(base_url=f"http://127.0.0.1:{ostler.port}", trust_env=False) as client:
            for _ in range(2):
                answer = client.post("/some/path", content=b"what was sent")
                assert (answer.status_code, answer.text) == (200, body)
        assert ostler.stop() == 0
    assert "Traceback" not in ostler.log.text
