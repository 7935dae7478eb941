"""Perform behaviours on a server, and return what was seen, as JSON.

Behaviours that send bytes share a server with all others of the same flags, one after another, so that what a
server writes can be told apart. All servers run side by side.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import re
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.replay.behaviours import BEHAVIOURS, Behaviour, Command, Exchange, Observation
from tests.replay.http_client import exchange
from tests.replay.normalisation import lines, normal, to_server
from tests.replay.servers import Running, directory_with
from tests.replay.websocket_client import converse

AT_ONCE = 5
"""Processes that run side by side: most of them wait for something."""
PURE = ("--loop", "asyncio", "--http", "h11", "--ws", "wsproto")
"""The flags of the other loop and the other libraries."""


def observe(
    server: str, names: Iterable[str], more: Sequence[str] = (), *, kinds: str = "all"
) -> dict[str, Observation]:
    """Perform the behaviours with these names, and return what was seen by name.

    `more` are flags for shared servers; `kinds="shared"` leaves out what does not run on one.
    """
    groups: dict[tuple[str, ...], list[Behaviour]] = {}
    own: list[Behaviour] = []
    for behaviour in (BEHAVIOURS[name] for name in names):
        if isinstance(behaviour.work, Exchange):
            groups.setdefault(behaviour.work.flags, []).append(behaviour)
        elif kinds == "all":
            own.append(behaviour)
    seen: dict[str, Observation] = {}
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        shared = [
            pool.submit(_on_shared_server, server, (*flags, *more), group) for flags, group in groups.items()
        ]
        alone = {behaviour.name: pool.submit(_alone, server, behaviour) for behaviour in own}
        for done in shared:
            seen.update(done.result())
        seen.update((name, done.result()) for name, done in alone.items())
    return seen


def _on_shared_server(
    server: str, flags: Sequence[str], group: Sequence[Behaviour]
) -> dict[str, Observation]:
    where = () if "--uds" in flags else ("--port", "0")
    args = [
        "-m",
        server,
        "tests.replay.application:app",
        *where,
        *(to_server(flag, server) for flag in flags),
    ]
    seen = {}
    with directory_with({}, server, flags) as directory, Running(server, directory, args) as running:
        try:
            running.wait_ready()
        except AssertionError:
            return {behaviour.name: {"does not serve": lines(running.errors.text)} for behaviour in group}
        if not running.alive:
            return {behaviour.name: {"does not start": lines(running.errors.text)} for behaviour in group}
        for behaviour in group:
            assert isinstance(behaviour.work, Exchange)
            try:
                observation = _exchange(running, behaviour.name, behaviour.work)
            except (OSError, AssertionError, ValueError, TypeError) as error:
                observation = {"failed": f"{type(error).__name__}: {error}"}
            seen[behaviour.name] = normal(observation, directory)
    return seen


def _exchange(running: Running, name: str, work: Exchange) -> Observation:
    running.request(f"/-/begin?{quote(name)}")
    out, errors = len(running.out.text), len(running.errors.text)
    if work.talk == "websocket":
        seen = converse(running.connect, work.pieces, work.answers, hang_up=work.hang_up)
    elif work.hang_up:
        with contextlib.closing(running.connect()) as sock:
            sock.sendall(work.pieces[0])
        seen = {}
    else:
        seen = exchange(running.connect, work.pieces, work.answers)
    seen["status"] = [
        answer["status"].split(" ")[1] if isinstance(answer, dict) else answer
        for answer in seen.get("responses", [seen.get("handshake", "none")])
    ]
    seen["app"] = json.loads(running.request(f"/-/end?{quote(name)}")[2])
    mark = f"mark {name}\n"
    running.out.wait_for(re.escape(mark))
    running.errors.wait_for(re.escape(mark))
    seen["access"] = _own_lines(running.out.text[out:], mark)
    seen["errors"] = _own_lines(running.errors.text[errors:], mark)
    return {key: seen[key] for key in work.see if seen.get(key) or key not in ("app", "access", "errors")}


def _own_lines(text: str, mark: str) -> list[str]:
    text = text.split(mark)[0]
    return [line for line in lines(text) if not re.search("/-/|/ping |/ready |^mark ", line)]


def _alone(server: str, behaviour: Behaviour) -> Observation:
    work = behaviour.work
    assert isinstance(work, Command)
    with directory_with(work.files, server, work.args) as directory:
        try:
            return normal(_run(server, directory, work), directory)
        except (OSError, AssertionError, ValueError) as error:
            return {
                "failed": f"{type(error).__name__}: {error}",
                "where": traceback.format_exc().splitlines()[-6:],
            }


def _run(server: str, directory: Path, work: Command) -> Observation:
    args = [to_server(arg, server) for arg in work.args]
    program = args if work.program else ["-m", server, *args]
    env = {to_server(name, server): to_server(value, server) for name, value in work.env.items()}
    seen: dict[str, Any] = {}
    with Running(server, directory, program, env=env) as running:
        if work.do is not None and (not work.ready or running.wait_ready()):
            seen["result"] = work.do(running)
            if work.stop is not None and running.alive:
                running.signal(work.stop)
        seen["exit"] = running.wait()
        seen["out"] = [line for line in lines(running.out.text) if "/ready " not in line]
        seen["errors"] = lines(running.errors.text)
        seen["warnings"] = [
            line for line in seen["errors"] if line.startswith(("WARNING", "ERROR", "CRITICAL"))
        ]
        seen["access"] = [line for line in seen["out"] if "HTTP/1.1" in line]
        seen["prints"] = [line for line in seen["out"] if not line.startswith("INFO")]
        seen["stop"] = (
            seen["errors"][seen["errors"].index("INFO:     Shutting down") :]
            if "INFO:     Shutting down" in seen["errors"]
            else []
        )
        seen["lifespan"] = [line for line in seen["errors"] if "application" in line.lower()]
    return {key: seen[key] for key in work.see if key in seen}
