"""The command: flags, variables, what is refused, exit codes, and what is printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.replay.behaviours import HELLO, command
from tests.replay.servers import Running

BROKEN = "def app(:\n"
RAISES = "raise ValueError('at import')\n"
IMPORTS = "import not_there_at_all\n"
EXIT = ("exit",)
LAST = ("exit", "errors")


def hello(running: Running) -> object:
    """Return status and body of a GET."""
    status, _, body = running.request("/")
    return [status, body]


def refused(name: str, *args: str, env: Mapping[str, str] | None = None) -> None:
    """Add a behaviour: a command line that ends at once; the exit code counts."""
    where = () if "--port" in args or not args else ("--port", "0")
    command(f"command line/{name}", *args, *where, env=env, see=EXIT)


def serves(
    name: str, *args: str, env: Mapping[str, str] | None = None, files: Mapping[str, str] | None = None,
    see: Sequence[str] = ("exit", "result"), port: bool = True,
) -> None:  # fmt: skip
    """Add a behaviour: a command line that serves; the answer counts, and the exit code after SIGINT."""
    where = ("--port", "0") if port else ()
    command(f"command line/{name}", *args, *where, env=env, files=files, do=hello, stop="SIGINT", see=see)


refused("no application", "--port", "0")
refused("--help", "--help")
refused("--version", "--version")
refused("an unknown flag", "main:app", "--nonsense")
refused("two applications", "main:app", "main:other")
refused("a port that is no number", "main:app", "--port", "x")
refused("a port that is too large", "main:app", "--port", "99999")
refused("a negative port", "main:app", "--port", "-1")
refused("workers that are no number", "main:app", "--workers", "x")
refused("an unknown level", "main:app", "--log-level", "nonsense")
refused("an unknown loop", "main:app", "--loop", "nonsense")
refused("an unknown parser", "main:app", "--http", "nonsense")
refused("an unknown WebSocket library", "main:app", "--ws", "nonsense")
refused("an unknown lifespan", "main:app", "--lifespan", "nonsense")
refused("an unknown interface", "main:app", "--interface", "nonsense")
refused("a flag without its value", "main:app", "--port")
refused("a log configuration that is not there", "main:app", "--log-config", "not-there.ini")
refused("an env file that is not there", "main:app", "--env-file", "not-there.env")
refused("an app dir that is not there", "main:app", "--app-dir", "not-there")
command(
    "command line/a variable with a port that is no number", "main:app", env={"UVICORN_PORT": "x"}, see=EXIT
)
refused("WEB_CONCURRENCY that is no number", "main:app", env={"WEB_CONCURRENCY": "x"})
refused("an application without a colon", "main")
refused("an application without an attribute", "main:")
refused("an attribute that is not there", "main:nope")
refused("a module that is not there", "nope:app")
refused("a host that does not resolve", "main:app", "--host", "no.such.host.invalid", "--port", "0")
refused("a certificate that is not there", "main:app", "--port", "0", "--ssl-certfile", "nope.pem")
refused("a key without a certificate", "main:app", "--port", "0", "--ssl-keyfile", "nope.pem")
refused("a header without a colon", "main:app", "--port", "0", "--header", "nonsense")

for name, source in (("a syntax error", BROKEN), ("an exception", RAISES), ("a missing import", IMPORTS)):
    command(
        f"command line/{name} in the module", "main:app", "--port", "0", files={"main.py": source}, see=EXIT
    )

command("command line/what is said of a missing attribute", "main:nope", "--port", "0", see=("errors",))
command("command line/what is said of a missing module", "nope:app", "--port", "0", see=("errors",))
command("command line/what is said of a missing colon", "main", "--port", "0", see=("errors",))
command("command line/what is said of an unknown flag", "main:app", "--qqqq", see=("errors",))
command("command line/what is said without an application", see=("errors",))
command("command line/stdout of a refusal is empty", "main:app", "--nonsense", see=("out",))

serves("an application by name", "main:app")
serves(
    "an attribute of an attribute",
    "main:holder.app",
    files={"main.py": HELLO + "\nclass holder:\n    app = staticmethod(app)\n"},
)
serves("a module in a package", "package.sub:app", files={"package/__init__.py": "", "package/sub.py": HELLO})
serves(
    "an application called otherwise", "main:other", files={"main.py": HELLO.replace("def app", "def other")}
)
serves("flags before the application", "--log-level", "info", "main:app")
serves("a flag with =", "main:app", "--lifespan=on")
serves("--app-dir", "inner:app", "--app-dir", "sub", files={"sub/inner.py": HELLO})
serves("the application from its variable", env={"UVICORN_APP": "main:app"})
serves("lifespan from its variable", "main:app", env={"UVICORN_LIFESPAN": "off"}, see=("result", "lifespan"))
serves(
    "a flag counts before its variable",
    "main:app",
    "--lifespan",
    "on",
    env={"UVICORN_LIFESPAN": "off"},
    see=("result", "lifespan"),
)
serves("a switch from its variable", "main:app", env={"UVICORN_ACCESS_LOG": "false"}, see=("out", "result"))
serves("an empty variable is none", "main:app", env={"UVICORN_ROOT_PATH": ""})
serves("--host localhost", "main:app", "--host", "localhost")
serves("--host 0.0.0.0", "main:app", "--host", "0.0.0.0")
serves("--host ::1", "main:app", "--host", "::1")
serves("--loop asyncio", "main:app", "--loop", "asyncio")
serves("--loop uvloop", "main:app", "--loop", "uvloop")
serves("--loop auto", "main:app", "--loop", "auto")
serves("--http h11", "main:app", "--http", "h11")
serves("--http httptools", "main:app", "--http", "httptools")
serves("--ws websockets", "main:app", "--ws", "websockets")
serves("--ws websockets-sansio", "main:app", "--ws", "websockets-sansio")
serves("--ws wsproto", "main:app", "--ws", "wsproto")
serves("--ws none", "main:app", "--ws", "none")
serves("--interface asgi3", "main:app", "--interface", "asgi3")
serves(
    "--h11-max-incomplete-event-size", "main:app", "--http", "h11", "--h11-max-incomplete-event-size", "10000"
)
serves("--ws-per-message-deflate false", "main:app", "--ws-per-message-deflate", "false")
serves("--ws-per-message-deflate true", "main:app", "--ws-per-message-deflate", "true")
serves("--backlog", "main:app", "--backlog", "10")
serves("--timeout-keep-alive", "main:app", "--timeout-keep-alive", "1")
serves("--timeout-graceful-shutdown", "main:app", "--timeout-graceful-shutdown", "1")
serves("--limit-max-requests-jitter without a limit", "main:app", "--limit-max-requests-jitter", "10")
serves(
    "--ws-ping-interval with a fraction", "main:app", "--ws-ping-interval", "0.5", "--ws-ping-timeout", "0.5"
)
serves("--reset-contextvars", "main:app", "--reset-contextvars")
serves(
    "--forwarded-allow-ips with a path of a socket", "main:app", "--forwarded-allow-ips", "unix:///foo/bar"
)
serves("--forwarded-allow-ips with a word", "main:app", "--forwarded-allow-ips", "testclient,127.0.0.1")
serves("--forwarded-allow-ips with blanks", "main:app", "--forwarded-allow-ips", "127.0.0.1, 10.0.0.0/8")
serves("--reload-dir without --reload", "main:app", "--reload-dir", ".")
serves("--workers 1", "main:app", "--workers", "1")
serves("--workers 2", "main:app", "--workers", "2")
serves("WEB_CONCURRENCY of 2", "main:app", env={"WEB_CONCURRENCY": "2"})
serves("--uds", "main:app", "--uds", "DIR/s.sock", port=False)
serves("--uds with --host", "main:app", "--uds", "DIR/s.sock", "--host", "127.0.0.1", port=False)
serves(
    "--uds with the host of an image's variable",
    "main:app",
    "--uds",
    "DIR/s.sock",
    env={"UVICORN_HOST": "0.0.0.0"},
    port=False,
)
serves("--uds with --port", "main:app", "--uds", "DIR/s.sock")
serves(
    "--env-file",
    "main:app",
    "--env-file",
    "some.env",
    files={
        "some.env": "WORD=from the file\n",
        "main.py": HELLO.replace('b"hello"', '__import__("os").environ["WORD"].encode()[-5:]').replace(
            'b"5"', 'b"5"'
        ),
    },
    see=("result",),
)
serves(
    "--env-file does not replace a variable",
    "main:app",
    "--env-file",
    "some.env",
    env={"WORD": "outer"},
    files={
        "some.env": "WORD=inner\n",
        "main.py": HELLO.replace('b"hello"', '__import__("os").environ["WORD"].encode()'),
    },
    see=("result",),
)

FACTORY = HELLO + "\ndef make():\n    return app\n"
serves("--factory", "main:make", "--factory", files={"main.py": FACTORY}, see=("exit", "result", "warnings"))
serves("a factory without --factory", "main:make", files={"main.py": FACTORY}, see=("result", "warnings"))
command(
    "command line/--factory of something that needs arguments",
    "main:make",
    "--factory",
    "--port",
    "0",
    files={"main.py": "def make(x):\n    pass\n"},
    see=EXIT,
)
command("command line/--factory of an application", "main:app", "--factory", "--port", "0", see=EXIT)
command(
    "command line/a factory that raises",
    "main:make",
    "--factory",
    "--port",
    "0",
    files={"main.py": "def make():\n    raise ValueError('x')\n"},
    see=EXIT,
)

ASGI2 = """
class app:
    def __init__(self, scope):
        self.scope = scope

    async def __call__(self, receive, send):
        if self.scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
            await send({"type": "http.response.body", "body": self.scope["asgi"]["version"].encode()})
"""
WSGI = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello"]
"""
INSTANCE = """
class App:
    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"ok"})

app = App()
"""
serves("ASGI 2 is recognized", "main:app", files={"main.py": ASGI2}, see=("result",))
serves("--interface asgi2", "main:app", "--interface", "asgi2", files={"main.py": ASGI2}, see=("result",))
serves("--interface wsgi", "main:app", "--interface", "wsgi", files={"main.py": WSGI}, see=("result",))
serves("an instance with __call__", "main:app", files={"main.py": INSTANCE}, see=("result",))
serves(
    "a partial",
    "main:app",
    files={"main.py": "import functools\n" + HELLO + "\napp = functools.partial(app)\n"},
    see=("result",),
)
serves(
    "the working directory is on sys.path",
    "main:app",
    files={"main.py": "import beside\n" + HELLO, "beside.py": ""},
    see=("result",),
)
serves(
    "a module that runs a loop as it is imported",
    "main:app",
    files={"main.py": "import asyncio\n\nasync def nothing(): pass\n\nasyncio.run(nothing())\n" + HELLO},
    see=("result",),
)
serves(
    "a module that runs a loop, with workers",
    "main:app",
    "--workers",
    "2",
    files={
        "main.py": "import asyncio\n\nasync def nothing(): pass\n\nasyncio.get_event_loop_policy()\n" + HELLO
    },
    see=("result",),
)
serves(
    "a loop of one's own",
    "main:app",
    "--loop",
    "main:loop",
    files={"main.py": "import asyncio\n" + HELLO + "\nloop = asyncio.new_event_loop\n"},
    see=("result",),
)
