"""What a module may do with event loops while it is imported, under every kind of process and loop."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.live.clients import get
from tests.live.harness import PLAIN, SUPERVISED, Ostler, both, serving

TAIL = """

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    running = asyncio.get_running_loop()
    assert asyncio.get_event_loop() is running
    process = await asyncio.create_subprocess_exec("sh", "-c", "exit 7")
    result = [str(await process.wait()), await outcome(), type(running).__module__.partition(".")[0]]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": " ".join(result).encode()})
"""

STYLES = {
    "asyncio.run": """
import asyncio

async def read():
    return "read"

found = asyncio.run(read())

async def outcome():
    return found
""",
    "a task": """
import asyncio

async def work():
    return "done"

task = asyncio.get_event_loop().create_task(work())

async def outcome():
    return await task
""",
    "primitives": """
import asyncio

lock, queue, event = asyncio.Lock(), asyncio.Queue(), asyncio.Event()
future = asyncio.get_event_loop().create_future()

async def outcome():
    async with lock:
        asyncio.get_running_loop().call_soon(queue.put_nowait, 1)
        await queue.get()
    asyncio.get_running_loop().call_soon(future.set_result, "made")
    return await future
""",
    "the loop is used": """
import asyncio

async def connect():
    return asyncio.get_running_loop().create_future()

future = asyncio.get_event_loop().run_until_complete(connect())

async def outcome():
    asyncio.get_running_loop().call_soon(future.set_result, "connected")
    return await future
""",
    "the loop is closed": """
import asyncio

async def connect():
    return "connected"

loop = asyncio.get_event_loop()
found = loop.run_until_complete(connect())
loop.close()

async def outcome():
    return found
""",
    "another loop is set": """
import asyncio

loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)

async def outcome():
    loop.close()
    return "set"
""",
    "the loop runs in a thread": """
import asyncio, threading

loop = asyncio.get_event_loop()
threading.Thread(target=loop.run_forever, daemon=True).start()
asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result()

async def outcome():
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asyncio.sleep(0, "run"), loop))
""",
}
OUTCOMES = ("read", "done", "made", "connected", "connected", "set", "run")

FACTORY = """
import asyncio

found = asyncio.run(asyncio.sleep(0, "read"))

async def work():
    return found

def make():
    global task
    task = asyncio.create_task(work())
    return app

async def outcome():
    return await task
"""

WSGI = """

def app(environ, start_response):
    start_response("200 OK", [])
    return [found.encode()]
"""

SCRIPT = """

if __name__ == "__main__":
    import ostler

    ostler.run("main:app", port=0, loop="asyncio")
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize(("style", "outcome"), [*zip(STYLES, OUTCOMES, strict=True)])
def test_a_module_may_use_loops_as_it_is_imported(
    tmp_path: Path, style: str, outcome: str, loop: str
) -> None:
    (tmp_path / "main.py").write_text(STYLES[style] + TAIL)
    with serving(tmp_path, "--loop", loop) as ostler:
        assert get(ostler.port).text == f"7 {outcome} {loop}"
        assert ostler.stop() == 0
    assert "Traceback" not in ostler.log.text


@pytest.mark.parametrize("options", [SUPERVISED, ["--reload"], [*SUPERVISED, "--reload"]])
def test_workers_import_before_their_loop_runs(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "main.py").write_text(STYLES["asyncio.run"] + TAIL)
    with serving(tmp_path, "--loop", "asyncio", *options) as ostler:
        assert get(ostler.port).text == "7 read asyncio"
        assert ostler.stop() == 0


@both
def test_a_factory_is_called_inside_the_running_loop(tmp_path: Path, mode: list[str]) -> None:
    (tmp_path / "main.py").write_text(FACTORY + TAIL)
    with serving(tmp_path, "--factory", "--loop", "asyncio", *mode, app="main:make") as ostler:
        assert get(ostler.port).text == "7 read asyncio"


def test_a_wsgi_module_may_run_a_loop_as_it_is_imported(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(STYLES["asyncio.run"] + WSGI)
    with serving(tmp_path) as ostler:
        assert get(ostler.port).text == "read"


def test_a_script_may_run_a_loop_as_it_is_imported(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(STYLES["asyncio.run"] + TAIL + SCRIPT)
    with Ostler(tmp_path, program=["main.py"]) as ostler:
        assert get(ostler.port).text == "7 read asyncio"
        assert ostler.stop() == 0


@pytest.mark.parametrize("mode", [PLAIN, SUPERVISED], ids=["plain", "supervised"])
def test_an_exception_after_the_loop_was_closed_is_the_one_that_is_told(
    tmp_path: Path, mode: list[str]
) -> None:
    (tmp_path / "main.py").write_text(STYLES["the loop is closed"] + "raise LookupError('no such thing')\n")
    with Ostler(tmp_path, "main:app", "--port", "0", *mode) as ostler:
        assert ostler.wait() == 3
    assert "main:app could not be imported: LookupError: no such thing" in ostler.log.text
    assert "Event loop is closed" not in ostler.log.text
