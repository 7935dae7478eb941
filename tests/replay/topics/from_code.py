"""The server from code: run, Config, Server."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.replay.behaviours import HELLO, script
from tests.replay.servers import Running
from tests.replay.topics.command_line import hello

SEEN = ("exit", "prints")


def program(
    name: str, source: str, *, do: Callable[[Running], Any] | None = None, stop: str | None = None,
    see: Sequence[str] = SEEN, files: Mapping[str, str] | None = None, env: Mapping[str, str] | None = None,
) -> None:  # fmt: skip
    """Add a behaviour: a program, which has the application as `app.py`."""
    script(
        f"from code/{name}",
        source,
        files={"app.py": HELLO, **(files or {})},
        do=do,
        stop=stop,
        see=see,
        env=env,
    )


def config(name: str, arguments: str, *shown: str, before: str = "") -> None:
    """Add a behaviour: the attributes of a Config that was made with these arguments."""
    lines = [f"print({one!r}, shown(config.{one}))" for one in shown]
    # 5.0 equals 5, and is shown as such.
    helper = "def shown(x): return repr(int(x) if isinstance(x, float) and x.is_integer() else x)"
    source = "\n".join(
        ["import uvicorn, logging, pathlib", before, helper, f"config = uvicorn.Config({arguments})", *lines]
    )
    program(f"Config: {name}", source, see=("exit", "out"))


config("the application", '"app:app"', "app")
config("host and port", '"app:app", host="0.0.0.0", port=5000', "port")
config("host by default", '"app:app"', "host")
config("port by default", '"app:app"', "port")
config("log_level", '"app:app", log_level="debug"', "log_level")
config("log_level as a number", '"app:app", log_level=logging.WARNING', "port")
config(
    "workers",
    '"app:app"',
    "reload",
    "limit_concurrency",
    "limit_max_requests",
    "backlog",
    "timeout_keep_alive",
)
config(
    "switches",
    '"app:app", access_log=False, proxy_headers=False',
    "access_log",
    "proxy_headers",
    "server_header",
    "date_header",
)
config("root_path", '"app:app", root_path="/api"', "root_path")
config(
    "timeouts",
    '"app:app", timeout_keep_alive=30, timeout_graceful_shutdown=3',
    "timeout_keep_alive",
    "timeout_graceful_shutdown",
)
config(
    "lifespan, loop, http, ws, interface",
    '"app:app", lifespan="on", loop="asyncio", http="h11", ws="wsproto"',
    "lifespan",
    "loop",
    "http",
    "ws",
    "interface",
)
config("factory", '"app:app", factory=True', "factory")
config("uds and fd", '"app:app"', "uds", "fd")
config(
    "WebSocket settings",
    '"app:app"',
    "ws_max_size",
    "ws_ping_interval",
    "ws_ping_timeout",
    "ws_per_message_deflate",
    "ws_max_queue",
)
config("is_ssl", '"app:app"', "is_ssl")
config("should_reload", '"app:app", reload=True', "should_reload")
config(
    "FORWARDED_ALLOW_IPS",
    '"app:app"',
    "proxy_headers",
    before="import os; os.environ['FORWARDED_ALLOW_IPS'] = '10.0.0.1'",
)

program(
    "run, and an interrupt",
    'import uvicorn\nif __name__ == "__main__":\n    uvicorn.run("app:app", port=0)\n    print("after")\n',
    do=hello,
    stop="SIGINT",
    see=("exit", "prints", "result"),
)
program(
    "run, and SIGTERM",
    'import uvicorn\nif __name__ == "__main__":\n    uvicorn.run("app:app", port=0)\n    print("after")\n',
    do=hello,
    stop="SIGTERM",
    see=("exit", "prints"),
)
program(
    "run with the application itself",
    'import uvicorn\nfrom app import app\nuvicorn.run(app, port=0)\nprint("after")\n',
    do=hello,
    stop="SIGINT",
    see=("exit", "prints", "result"),
)
program(
    "run with two workers",
    'import uvicorn\nif __name__ == "__main__":\n    uvicorn.run("app:app", port=0, workers=2)\n    print("after")\n',
    do=hello,
    stop="SIGINT",
    see=("exit", "prints", "result"),
)
program(
    "run with workers and the application itself",
    'import uvicorn\nfrom app import app\nif __name__ == "__main__":\n    uvicorn.run(app, port=0, workers=2)\n',
    see=("exit",),
)
program(
    "run with reload and the application itself",
    'import uvicorn\nfrom app import app\nif __name__ == "__main__":\n    uvicorn.run(app, port=0, reload=True)\n',
    see=("exit",),
)
program(
    "run of a module that is not there", 'import uvicorn\nuvicorn.run("nope:app", port=0)\n', see=("exit",)
)
program(
    "run with a failed startup",
    'import uvicorn\nasync def app(scope, receive, send):\n    await receive()\n    await send({"type": "lifespan.startup.failed"})\nuvicorn.run(app, port=0)\n',
    see=("exit", "lifespan"),
)
program("run with an unknown setting", 'import uvicorn\nuvicorn.run("app:app", nonsense=1)\n', see=("exit",))
program(
    "run with headers",
    'import uvicorn\nif __name__ == "__main__":\n    uvicorn.run("app:app", port=0, headers=[("X-A", "1")])\n',
    do=lambda running: running.request("/")[1].get("x-a"),
    stop="SIGINT",
    see=("result", "exit"),
)
program(
    "run with app_dir",
    'import uvicorn\nif __name__ == "__main__":\n    uvicorn.run("inner:app", port=0, app_dir="sub")\n',
    files={"sub/inner.py": HELLO},
    do=hello,
    stop="SIGINT",
    see=("result", "exit"),
)
program(
    "run with a factory",
    "import uvicorn\nfrom app import app\ndef make():\n    return app\nuvicorn.run(make, port=0, factory=True)\n",
    do=hello,
    stop="SIGINT",
    see=("result", "exit"),
)
program(
    "run with log_config None",
    'import uvicorn\nif __name__ == "__main__":\n    uvicorn.run("app:app", port=0, log_config=None)\n',
    do=hello,
    stop="SIGINT",
    see=("result", "out", "errors"),
)
program(
    "run with an env_file",
    'import uvicorn, os\nif __name__ == "__main__":\n    uvicorn.run("app:app", port=0, env_file="some.env")\n    print(os.environ.get("WORD"))\n',
    files={"some.env": "WORD=file\n"},
    do=hello,
    stop="SIGINT",
    see=("result", "exit"),
)

ASYNC = """
import asyncio, uvicorn, socket, urllib.request
from app import app

def ask(server):
    port = server.servers[0].sockets[0].getsockname()[1]
    return urllib.request.urlopen(f"http://127.0.0.1:{port}/").read()

async def started(server):
    while not server.started:
        await asyncio.sleep(0.01)

async def main():
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"%s))
    %s

asyncio.run(main())
"""


def server(
    name: str,
    body: str,
    *,
    more: str = "",
    do: Callable[[Running], Any] | None = None,
    stop: str | None = None,
    see: Sequence[str] = SEEN,
) -> None:
    """Add a behaviour: these lines with a Server in a running loop."""
    program(f"Server: {name}", ASYNC % (more, body.replace("\n", "\n    ")), do=do, stop=stop, see=see)


SERVE = "serving = asyncio.create_task(server.serve())\nawait started(server)\n"
STOP = "server.should_exit = True\nawait serving\n"
server(
    "started before and after",
    "print(bool(server.started))\n" + SERVE + "print(bool(server.started))\n" + STOP,
)
server("should_exit ends it", SERVE + STOP + "print('ended')")
server("should_exit is false", SERVE + "print(server.should_exit, server.force_exit)\n" + STOP)
server(
    "force_exit", SERVE + "server.should_exit = True\nserver.force_exit = True\nawait serving\nprint('ended')"
)
server("config", "print(server.config.log_level, server.config.port)")
server("it answers", SERVE + "print(await asyncio.to_thread(ask, server))\n" + STOP)
server(
    "serve with sockets",
    "sock = socket.create_server(('127.0.0.1', 0))\nport = sock.getsockname()[1]\nserving = asyncio.create_task(server.serve(sockets=[sock]))\nawait started(server)\nprint(await asyncio.to_thread(lambda: urllib.request.urlopen(f'http://127.0.0.1:{port}/').read()))\n"
    + STOP,
)
server(
    "cancelling serve",
    SERVE
    + "serving.cancel()\ntry:\n    await serving\nexcept asyncio.CancelledError:\n    print('cancelled')\n",
)
server("serve returns None", SERVE + "server.should_exit = True\nprint(await serving)")
server(
    "signals: SIGINT",
    "print('serving', flush=True)\ntry:\n    await server.serve()\nfinally:\n    print('ended')",
    do=lambda running: running.wait_ready(),
    stop="SIGINT",
    see=("exit", "prints"),
)
server(
    "signals: SIGTERM",
    "print('serving', flush=True)\ntry:\n    await server.serve()\nfinally:\n    print('ended')",
    do=lambda running: running.wait_ready(),
    stop="SIGTERM",
    see=("exit", "prints"),
)
server(
    "two at once",
    "other = uvicorn.Server(uvicorn.Config(app, port=0, log_level='warning'))\nserving = [asyncio.create_task(each.serve()) for each in (server, other)]\nfor each in (server, other):\n    await started(each)\nprint([await asyncio.to_thread(ask, each) for each in (server, other)])\nserver.should_exit = other.should_exit = True\nawait asyncio.gather(*serving)",
)
server(
    "a subclass with its own startup",
    "class Own(uvicorn.Server):\n    def install_signal_handlers(self):\n        pass\nown = Own(server.config)\nserving = asyncio.create_task(own.serve())\nawait started(own)\nprint('started')\nown.should_exit = True\nawait serving",
)

THREAD = """
import threading, time, urllib.request, uvicorn
from app import app

server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
thread = threading.Thread(target=server.run)
thread.start()
while not server.started:
    time.sleep(0.01)
port = server.servers[0].sockets[0].getsockname()[1]
print(urllib.request.urlopen(f"http://127.0.0.1:{port}/").read())
server.should_exit = True
thread.join()
print("ended")
"""
program("Server in a thread", THREAD)
program(
    "Server.run in the main thread",
    'import uvicorn\nserver = uvicorn.Server(uvicorn.Config("app:app", port=0))\nserver.run()\nprint("after")\n',
    do=hello,
    stop="SIGINT",
    see=("exit", "prints", "result"),
)
program(
    "a port that is taken",
    'import socket, uvicorn\nsock = socket.create_server(("127.0.0.1", 0))\nuvicorn.run("app:app", port=sock.getsockname()[1])\n',
    see=("exit",),
)
program(
    "Config with the module that calls it",
    'import uvicorn\nfrom app import app\nif __name__ == "__main__":\n    uvicorn.run("main:app", port=0)\n',
    do=hello,
    stop="SIGINT",
    see=("exit", "result"),
)
program(
    "names that can be imported",
    "import uvicorn\nfrom uvicorn import Config, Server, run\nprint(Config.__name__, Server.__name__, run.__name__, isinstance(uvicorn.__version__, str))\n",
)
program(
    "loggers by name",
    'import logging, uvicorn\nuvicorn.Config("app:app")\nfor name in ("uvicorn", "uvicorn.error", "uvicorn.access"):\n    logger = logging.getLogger(name)\n    print(name, logger.getEffectiveLevel(), logger.propagate)\n',
    see=("out",),
)
