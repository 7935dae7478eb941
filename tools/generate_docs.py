"""Generates the pages and parts of pages in docs/ that follow from the code.

`python -m tools.generate_docs [--check] [DIRECTORY]` writes them; with `--check` it writes nothing, and exits
with 1 if one is stale. A part of a page stands between two marks.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from ostler.settings.declarations import GROUPS, Declaration, declarations, defaults, flag, variables
from ostler.settings.kinds import Many, Switch
from ostler.supervisor.fleet.slot import TABLE, SlotState
from ostler.system.signals import MEANINGS

SETTINGS_INTRODUCTION = """\
# Settings

*This page is written by `make docs` from `ostler/settings/declarations.py`; change it there.*

A setting is read from the first of these sources that has it:

1. the command line;
2. the environment: `OSTLER_...`, and `WEB_CONCURRENCY` and `FORWARDED_ALLOW_IPS`, which platforms set;
   an empty variable counts as unset;
3. the `OSTLER_...` lines of the file that `--env-file` (or `OSTLER_ENV_FILE`) names; all its lines are set
   for the application, except for variables that are set already;
4. TOML: the file that `--config` (or `OSTLER_CONFIG`) names, or else `[tool.ostler]` in the
   `pyproject.toml` of the working directory;
5. the default.

`ostler --show-settings` prints each effective value and its source. A wrong value is one line on stderr,
which names the setting, its source and what was expected, and exit code 2.

A flag for several values is given several times. Its variable holds all of them: hosts separated by
commas, headers by line breaks, because the value of a header may contain commas. TOML has a list.

In ostler's own TOML file the keys stand at the top level; in `pyproject.toml`, below `[tool.ostler]`:

```toml
app = "main:app"
host = ["127.0.0.1", "::1"]
workers = 4
timeout_graceful_shutdown = 20
uds_permissions = "660"
header = ["X-Frame-Options: DENY"]
```

SIGHUP reads the files again. If something in them is wrong, nothing changes: the log says why, and the
workers continue. Paths are relative to the directory in which ostler was started. If it was entered by a
link, such as `current`, that a deploy points at the next release, SIGHUP reads the files of the next release.

## Trusted proxies

`forwarded_allow_ips` lists the proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` count: addresses
(`192.0.2.7`, `::1`), networks (`10.0.0.0/8`), and `unix:` for every peer over a Unix socket. The
client is then the right-most address in `X-Forwarded-For` that is not itself a trusted proxy, and the
scheme is the last in `X-Forwarded-Proto`. With `--forwarded-header forwarded` the same is read from
`Forwarded`, and with `--proxy-protocol` the client is in the first bytes of a connection:
[deployment/cdn.md](deployment/cdn.md) and [deployment/nginx.md](deployment/nginx.md#proxy-protocol) say more.

With `*` every peer is trusted and the left-most address counts, as with uvicorn. Use it only if every
request comes through a proxy that removes what the client sent in them: any client can write those headers.
"""

COMMAND_LINE = """\
## Command line only

| flag | variable | what it does |
| --- | --- | --- |
| `--config FILE` | `OSTLER_CONFIG` | Read settings from this TOML file. |
| `--env-file FILE` | `OSTLER_ENV_FILE` | Set the variables of this file for the application, except those already set; needs `pip install python-dotenv`. |
| `--show-settings` | | Print every effective value and its source, and exit. |
| `--version` | | Print the version and exit. |
"""  # noqa: E501


def settings_page() -> str:
    """Return docs/settings.md: one table for each group of settings."""
    sections = [SETTINGS_INTRODUCTION]
    for group in GROUPS:
        rows = [
            _row(name, declaration)
            for name, declaration in declarations().items()
            if declaration.group == group
        ]
        head = "| flag | variable | TOML key | default | what it does |\n| --- | --- | --- | --- | --- |"
        sections.append("\n".join([f"## {group}\n", head, *rows]) + "\n")
    return "\n".join([*sections, COMMAND_LINE])


SIGNALS_INTRODUCTION = """\
# Signals

*This page is written by `make docs` from `ostler/system/signals.py`; change it there.*

Send a signal to the arbiter. It logs its pid: `Started arbiter process [...]`. Without `--workers` there is
one process, the plain server. A worker can also be sent signals directly. Its pid is in the arbiter's log and
in ps(1), where its name is `ostler: worker 2 main:app`.

The arbiter handles every signal, in any state, also if several arrive at once. Any number of SIGHUPs during a
rolling restart cause one more rolling restart afterwards. Only an arbiter that is itself stopped (SIGSTOP)
loses signals: the kernel discards SIGTTIN and SIGTTOU when it continues (POSIX).
"""

UPGRADE = """\
## Replacing the arbiter itself

Use SIGUSR2 for a new version of ostler or Python, and for settings that SIGHUP cannot change. The arbiter runs the
command line that it was started with again, in the same directory (links are followed again) and with the same
environment, and hands over the listening sockets. Both arbiters serve until all workers of the new one are ready. Then
the old one drains its workers and exits with 0. No request is lost, and the path of a Unix socket stays.

If the new arbiter fails, the old one continues to serve, and the log says why: `Upgrade given up`. Reasons are a broken
installation, wrong settings, code that does not start, or no worker that is ready within `--timeout-worker-startup`
plus ten seconds.

- systemd follows (`MAINPID=`, `Type=notify`), and so does `--pid-file`.
- During an upgrade, SIGTERM, SIGINT and SIGQUIT stop both arbiters. SIGHUP, SIGTTIN and SIGTTOU wait until there is one
  arbiter again, which handles them. A second SIGUSR2 is refused. An upgrade can begin during a rolling restart.
- An upgrade is refused, with the reason in the log: before the first worker is ready, while ostler stops, with
  `--reload`, as PID 1 (the container ends with it), and if no command line started ostler (but stdin or a prompt).
- The new arbiter has as many workers as the settings say; changes by SIGTTIN and SIGTTOU are lost.
- A new address in the settings is opened; the old one is closed when the old arbiter exits.
- supervisord and circus started the old arbiter, and take its exit for a crash: use SIGHUP there.
"""  # noqa: E501

SIGNALS_END = """\
## How a stop ends

A graceful stop waits for the requests in flight, for at most `--timeout-graceful-shutdown` seconds. Then the
remaining requests are cancelled, and the log says how many. A worker that still runs one second later is
aborted, and its stacks are logged; after one more second it is killed. A plain server that still runs three
seconds after the time-out writes its stacks to stderr and exits with 1, even if its event loop is blocked.

When everything stops, idle keep-alive connections do not hold it up: one that has been idle for more than a
second is closed, after a look at what has arrived meanwhile. A younger one is kept until its second is over,
and its next request is answered, with `Connection: close`. The same goes for a connection that has not sent
its first request. So a stop without requests in flight takes about a second, over TLS perhaps another one. Workers
that leave while others serve on (a rolling restart, a limit, SIGTTOU) keep idle connections until
`--timeout-keep-alive`.

No request is reset. ostler accepts what waits in the listening queue, and the handshakes that are under way: it
has the kernel ignore new ones (a filter for SYNs, on Linux), goes on accepting for a tenth of a second, and only then
ends the socket. A client whose SYN is ignored sends it again a second later: it is refused then, or served by
your next ostler. Two cases remain: a client that is just connecting and whose round trip is longer than a tenth of a
second, and a request that crosses the closing of its idle connection on the network.

At the end the listening sockets are shut down (shutdown(2)), so that a process that the application has forked and that
still has them open does not make the next start fail with `Address already in use`. They are only closed in three cases:

- ostler was given them (`--fd`, systemd, `Server.serve(sockets=...)`): they are their owner's;
- at an upgrade: the new arbiter has them;
- the arbiter was killed: its workers drain, but cannot know whether a new arbiter serves from the same sockets.

Exit hooks (`atexit`: coverage, profilers) run in every process that is told to stop, also while it still imports the
application: then it has three seconds for them, and one after SIGQUIT.

A signal that arrives before the command has read its settings has the system's default effect. As PID 1 of a
container, the arbiter reaps orphans. A plain server as PID 1 runs in a child process: PID 1 passes all
signals on to it, reaps orphans, and exits with its exit code, or 128 plus the number of the signal that has
ended it.

With `--drain-delay` the stop begins that many seconds later. Until then ostler serves as usual, but the
health check (`--health-path`) answers 503, and every response has `Connection: close`, so that load balancers
choose another server. A second SIGTERM or SIGINT ends the delay; SIGQUIT ends everything at once. All
processes have ended at most `--drain-delay` plus `--timeout-graceful-shutdown` plus three seconds after the
first SIGTERM. A worker that is sent SIGTERM directly drains without the delay, because another worker takes
its place.

## At a terminal

**Ctrl+C.** A plain server does not wait for streams, which may never end: event streams, any response without a length,
WebSockets. After 1.25 s they are cancelled; other requests have their grace. That is for SIGINT while ostler is in the foreground of
its controlling terminal (credentials(7)), also where its standard streams are redirected. SIGINT to a server in the background or
without a terminal, SIGTERM, and Ctrl+C with `--workers` give streams the whole `--timeout-graceful-shutdown`. Under `--reload` SIGINT
ends everything within about a second. A second Ctrl+C ends at once.

**The terminal is closed**: ssh is dropped, a window or a tmux pane is closed. SIGHUP then stops ostler, as SIGTERM does and as
Ctrl+C does under `--reload`, if it was started in the foreground of that terminal. Under nohup, with setsid, under systemd or in the
background (`&`) SIGHUP does not stop it. Under `--reload` a server in the background ends, too.

## Exit codes

| code | meaning |
| --- | --- |
| 0 | stopped as asked |
| 1 | internal error |
| 2 | bad usage or configuration |
| 3 | the application failed to start |
| 4 | a socket could not be bound or adopted |
"""  # noqa: E501


def signals_page() -> str:
    """Return docs/signals.md: the effect of each signal on each kind of process."""
    head = "| signal | arbiter | worker | plain server |\n| --- | --- | --- | --- |"
    rows = [f"| {m.name} | {m.arbiter} | {m.worker} | {m.plain} |" for m in MEANINGS]
    return "\n".join([SIGNALS_INTRODUCTION, head, *rows, "", UPGRADE, SIGNALS_END])


PAGES: Mapping[str, Callable[[], str]] = MappingProxyType(
    {"settings.md": settings_page, "signals.md": signals_page}
)
"""The pages that are generated as a whole, by their names in docs/."""


def life_diagram() -> str:
    """Return the state diagram of a slot in Mermaid's notation, which GitHub draws.

    An event that does not change the state is not drawn.
    """
    edges: dict[tuple[SlotState, SlotState], list[str]] = {}
    for (state, event), row in TABLE.items():
        for following in row.next:
            if following is not state:
                edges.setdefault((state, following), []).append(event.__name__)
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {SlotState.EMPTY.name}"]
    for before in SlotState:
        for after in SlotState:
            if events := edges.get((before, after)):
                lines.append(f"    {before.name} --> {after.name}: {', '.join(sorted(events))}")
    return "\n".join([*lines, f"    {SlotState.VACATED.name} --> [*]", "```"])


BLOCKS: Mapping[str, Mapping[str, Callable[[], str]]] = MappingProxyType(
    {"architecture.md": MappingProxyType({"the life of a slot": life_diagram})}
)
"""The generated parts of pages: by the page, then by the name in the marks."""


def _filled(name: str, text: str) -> str:
    """Return `text`, the page `name`, with its generated parts renewed.

    Raises:
        ValueError: the page lacks the marks of a part.
    """
    for title, block in BLOCKS[name].items():
        begin, end = f"<!-- {title}, written by `make docs` -->\n", f"\n<!-- end of {title} -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise ValueError(f"{name} has no marks for {title!r}: expected {begin.strip()} and {end.strip()}")
        text = f"{before}{begin}{block()}{end}{after}"
    return text


def _row(name: str, declaration: Declaration) -> str:
    default = declaration.kind.show(defaults()[name])
    cells = [
        _flag(name, declaration),
        ", ".join(f"`{variable}`" for variable in variables(name)),
        f"`{name}`",
        f"`{default}`" if default else "",
        declaration.help,
    ]
    # A bar ends the cell, even between backticks (GitHub Flavored Markdown, section 4.10).
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _flag(name: str, declaration: Declaration) -> str:
    if name == "app":
        return "`APP`"
    if isinstance(declaration.kind, Switch):
        return f"`{flag(name)}`, `--no-{flag(name)[2:]}`"
    several = " ..." if isinstance(declaration.kind, Many) else ""
    return f"`{flag(name)} {declaration.kind.metavar}{several}`"


def stale(directory: Path) -> list[str]:
    """Return the names of the pages in `directory` that are missing, or differ from the generated ones."""
    return [name for name in (*PAGES, *BLOCKS) if _content(directory / name) != _wanted(directory, name)]


def _wanted(directory: Path, name: str) -> str:
    return PAGES[name]() if name in PAGES else _filled(name, _content(directory / name) or "")


def _content(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def main(arguments: Sequence[str]) -> int:
    """Write the stale pages; with --check write none, and return 1 if there are any."""
    directory = Path(next((a for a in arguments if a != "--check"), "docs"))
    names = stale(directory)
    if "--check" in arguments:
        for name in names:
            print(f"{directory / name} is stale: run `make docs`", file=sys.stderr)
        return 1 if names else 0
    for name in names:
        (directory / name).write_text(_wanted(directory, name), encoding="utf-8")
        print(f"{directory / name} written")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
