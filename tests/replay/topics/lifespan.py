"""The lifespan protocol: what the application gets, what its failures cost, and what is logged."""

from __future__ import annotations

from collections.abc import Sequence

from tests.replay.behaviours import command
from tests.replay.topics.command_line import hello

HTTP = """
async def http(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": repr(scope.get("state")).encode()})

"""
FULL = (
    HTTP
    + """
async def app(scope, receive, send):
    if scope["type"] != "lifespan":
        return await http(scope, receive, send)
    print(sorted(scope), flush=True)
    print(await receive(), flush=True)
    await send({"type": "lifespan.startup.complete"})
    print(await receive(), flush=True)
    await send({"type": "lifespan.shutdown.complete"})
    print("over", flush=True)
"""
)


def of(body: str) -> str:
    """Return an application whose lifespan runs these lines."""
    lines = "\n".join(f"        {line}" for line in body.splitlines())
    return f'{HTTP}\nasync def app(scope, receive, send):\n    if scope["type"] == "lifespan":\n{lines}\n        return\n    await http(scope, receive, send)\n'


START = 'await receive(); await send({"type": "lifespan.startup.complete"})\n'
END = 'await receive(); await send({"type": "lifespan.shutdown.complete"})\n'
FAILS = 'await receive(); await send({"type": "lifespan.startup.failed", "message": "no database"})\n'
SEEN = ("exit", "result", "lifespan", "out")


def lifespan(name: str, source: str, *flags: str, see: Sequence[str] = SEEN) -> None:
    """Add a behaviour: start with this application, ask it once, and stop with SIGINT."""
    command(
        f"lifespan/{name}", "main:app", "--port", "0", *flags,
        files={"main.py": source}, do=hello, stop="SIGINT", see=see,
    )  # fmt: skip


lifespan("messages", FULL, see=("out",))
lifespan("log lines", FULL, see=("lifespan",))
lifespan("scope", FULL.replace("print(sorted(scope), flush=True)", "print(scope, flush=True)"), see=("out",))
lifespan("off", FULL, "--lifespan", "off")
lifespan("on", FULL, "--lifespan", "on")
lifespan("state for requests", of('scope["state"]["x"] = 1\n' + START + END))
lifespan("not supported: it raises", of('raise AssertionError("no lifespan here")'))
lifespan(
    "not supported: it raises, on",
    of('raise AssertionError("no lifespan here")'),
    "--lifespan",
    "on",
    see=("exit", "lifespan"),
)
lifespan("not supported: it returns", of("pass"))
lifespan("not supported: it returns, on", of("pass"), "--lifespan", "on", see=("exit", "lifespan"))
lifespan("startup fails", of(FAILS), see=("exit", "errors"))
lifespan("startup fails, on", of(FAILS), "--lifespan", "on", see=("exit", "errors"))
lifespan(
    "startup fails without a message",
    of('await receive(); await send({"type": "lifespan.startup.failed"})'),
    see=("exit", "lifespan"),
)
lifespan("startup raises after receive", of('await receive(); raise ValueError("broken")'))
lifespan(
    "startup raises after receive, on",
    of('await receive(); raise ValueError("broken")'),
    "--lifespan",
    "on",
    see=("exit", "lifespan"),
)
lifespan(
    "startup answers twice",
    of(START + 'await send({"type": "lifespan.startup.complete"})\n' + END),
    see=("exit", "result"),
)
lifespan(
    "an unknown message",
    of('await receive(); await send({"type": "lifespan.nonsense"})'),
    see=("exit", "result"),
)
lifespan(
    "shutdown fails",
    of(
        START + 'await receive(); await send({"type": "lifespan.shutdown.failed", "message": "still open"})\n'
    ),
)
lifespan(
    "shutdown raises", of(START + 'await receive(); raise ValueError("broken")\n'), see=("exit", "lifespan")
)
lifespan("returns after startup", of(START))
lifespan(
    "startup awaits for a while",
    of(
        'import asyncio; await receive(); await asyncio.sleep(0.3); await send({"type": "lifespan.startup.complete"})\n'
        + END
    ),
)
lifespan("sys.exit in startup", of("await receive(); import sys; sys.exit(7)"), see=("exit",))
lifespan(
    "context variables of startup are seen by requests",
    "import contextvars\nV = contextvars.ContextVar('v', default='none')\n"
    + of('V.set("set"); ' + START + END).replace('repr(scope.get("state"))', "V.get()"),
    see=("result",),
)
lifespan(
    "a background task of startup runs on",
    "import asyncio\nticks = []\nasync def tick():\n    while True:\n        ticks.append(1); await asyncio.sleep(0)\n"
    + of("task = asyncio.ensure_future(tick()); " + START + END).replace(
        'repr(scope.get("state"))', "str(bool(ticks))"
    ),
    see=("result",),
)
