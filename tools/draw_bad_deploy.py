"""Draws docs/images/bad-deploy.svg: a deploy of broken code under load, as a terminal shows it.

`make picture` runs it. Every command in the picture is run, and every line is what a program wrote: ostler
with four workers and a client that counts answers run on pseudo-terminals, then the application is broken and
ostler gets SIGHUP. Only what differs on every machine is replaced: process ids, the port, the directory.
"""

from __future__ import annotations

import argparse
import contextlib
import html
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from functools import partial
from pathlib import Path

CLIENT = Path(__file__).with_name("count_answers.py")
PICTURE = Path(__file__).parent.parent / "docs" / "images" / "bad-deploy.svg"

APP = """\
async def app(scope, receive, send):
    if scope["type"] == "http":
        body = b"release 1"
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
"""
PATIENCE = 30.0
"""Seconds to wait for a line of the log before the script fails."""

TITLE = "A deploy of broken code: the new worker fails, the old ones serve on, no request fails"
COLUMNS = 100
CELL_WIDTH, CELL_HEIGHT, MARGIN, TITLE_BAR = 8.4, 19.0, 18.0, 34.0
FONT = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono','Liberation Mono',monospace"
BACKGROUND, EDGE, FOREGROUND, FAINT = "#161b22", "#57606a", "#d7dde4", "#8b949e"
BRIGHT, PROMPT = "#ffffff", "#7ee787"
COLOURS = {31: "#ff8f87", 32: "#7ee787", 33: "#f2cc60", 34: "#79c0ff", 35: "#d2a8ff", 36: "#76e3ea"}
"""What stands for the ANSI colours 31 to 36; each has a contrast above 7 to 1 on the background."""

SGR = re.compile(r"\x1b\[([\d;]*)m")


class Screen:
    """The terminal's text: commands, and what is written to the pseudo-terminal, in the order of time."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._changed = threading.Condition()

    @property
    def text(self) -> str:
        with self._changed:
            return "".join(self._parts)

    def write(self, text: str) -> None:
        with self._changed:
            self._parts.append(text)
            self._changed.notify_all()

    def type(self, command: str, comment: str = "") -> None:
        self.write(f"\x1b[0m$ {command}{comment}\n")

    def read(self, descriptor: int) -> None:
        """Copy what a pseudo-terminal gets, until its other side is closed (Linux: EIO)."""
        with contextlib.suppress(OSError):
            while data := os.read(descriptor, 65536):
                self.write(data.decode().replace("\r\n", "\n"))

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Return the first match, as soon as it has been written.

        Raises:
            TimeoutError: it was not written in time.
        """
        found: list[re.Match[str]] = []

        def written() -> bool:
            found[:] = re.finditer(pattern, SGR.sub("", "".join(self._parts)))
            return bool(found)

        with self._changed:
            if not self._changed.wait_for(written, PATIENCE):
                raise TimeoutError(f"{pattern!r} was not written:\n{''.join(self._parts)}")
        return found[0]


def record_deploy() -> str:
    """Run the deploy and return what the terminal showed."""
    screen = Screen()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "main.py").write_text(APP, encoding="utf-8")
        shutil.copy(CLIENT, directory)
        with contextlib.ExitStack() as started:
            start = partial(_started, started, directory, screen)
            server = start("ostler main:app --workers 4 --no-access-log")
            port = int(screen.wait_for(r"running on http://\S+?:(\d+)")[1])
            for slot in range(1, 5):
                screen.wait_for(rf"Worker {slot} \(pid \d+\) is ready")
            load = start(f"python {CLIENT.name} http://127.0.0.1:{port}/")
            time.sleep(1)
            _run(
                screen,
                directory,
                "sed -i -e '1i import reciepts' -e s/1/2/ main.py",
                "   # release 2, with a typo",
            )
            _run(screen, directory, f"kill -HUP {server.pid}")
            screen.wait_for(r"Rolling restart to generation 2 given up.*\n")
            time.sleep(1)
            screen.type("kill %2", "   # ends the clients, which print what they counted")
            load.terminate()
            screen.wait_for(r"\d+ failed\n")
            shown = screen.text
        return _without_the_machine(shown, directory, port)


def _run(screen: Screen, directory: Path, command: str, comment: str = "") -> None:
    screen.type(command, comment)
    subprocess.run(command, shell=True, cwd=directory, check=True)


def _started(
    processes: contextlib.ExitStack, directory: Path, screen: Screen, command: str
) -> subprocess.Popen[bytes]:
    """Start a command on a pseudo-terminal, where it writes with colours; it gets SIGTERM at the end."""
    screen.type(f"{command} &")
    ours, its_own = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OSTLER_")}
    programs = Path(sys.executable).parent
    environment |= {"OSTLER_PORT": "0", "PATH": f"{programs}:{environment.get('PATH', os.defpath)}"}
    process = subprocess.Popen(
        shlex.split(command),
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=its_own,
        stderr=its_own,
        start_new_session=True,
    )
    os.close(its_own)
    reader = threading.Thread(target=screen.read, args=(ours,), daemon=True)
    reader.start()

    def end() -> None:
        process.terminate()
        process.wait(PATIENCE)
        reader.join(PATIENCE)
        os.close(ours)

    processes.callback(end)
    return process


def _without_the_machine(text: str, directory: Path, port: int) -> str:
    """Replace what differs on every machine: process ids, the port and the directory."""
    text = text.replace(os.path.realpath(directory), "/srv/app").replace(str(directory), "/srv/app")
    text = re.sub(rf":{port}\b", ":8000", text)
    plain = SGR.sub("", text)
    pids = list(dict.fromkeys(re.findall(r"(?:process \[|pid |-HUP )(\d+)", plain)))
    for new, old in enumerate(pids, 4700):
        text = re.sub(rf"(?<![\d,]){old}(?![\d,])", str(new), text)
    return text


def draw(text: str) -> str:
    """Return terminal text, ANSI colours included, as an SVG that needs no font of its own."""
    rows = [row for line in text.splitlines() for row in _wrapped(line)]
    width = COLUMNS * CELL_WIDTH + 2 * MARGIN
    height = len(rows) * CELL_HEIGHT + TITLE_BAR + MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        'role="img">',
        f"<title>{TITLE}</title>",
        f"<desc>{html.escape(SGR.sub('', text))}</desc>",
        f'<rect x=".5" y=".5" width="{width - 1:g}" height="{height - 1:g}" rx="9" '
        f'fill="{BACKGROUND}" stroke="{EDGE}"/>',
        *(f'<circle cx="{22 + 20 * n}" cy="18" r="6" fill="{EDGE}"/>' for n in range(3)),
        f'<g font-family="{FONT}" font-size="14">',
    ]
    for number, row in enumerate(rows):
        column = 0
        for piece, colour, bold in row:
            # A run of spaces is left out, as some renderers draw only one of them.
            for words in re.finditer(r"\S+(?: \S+)*", piece):
                lines.append(_text(words[0], column + words.start(), number, colour, bold))
            column += len(piece)
    return "\n".join([*lines, "</g>", "</svg>", ""])


Piece = tuple[str, str, bool]
"""Text, its colour, and whether it is bold."""


def _text(piece: str, column: int, row: int, colour: str, bold: bool) -> str:
    # The length makes each piece as wide as its columns, whatever font the reader has.
    x, y = MARGIN + column * CELL_WIDTH, TITLE_BAR + (row + 0.75) * CELL_HEIGHT
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x:.4g}" y="{y:g}" fill="{colour}"{weight} textLength="{len(piece) * CELL_WIDTH:g}" '
        f'lengthAdjust="spacingAndGlyphs">{html.escape(piece)}</text>'
    )


def _wrapped(line: str) -> list[list[Piece]]:
    """Split a line into rows of the terminal's width, at spaces, continued rows indented as log lines are."""
    pieces = _pieces(line)
    plain = "".join(piece for piece, _, _ in pieces)
    rows, start = [], 0
    for row in textwrap.wrap(plain, COLUMNS - 10, drop_whitespace=False) or [""]:
        indent: list[Piece] = [(" " * 10, FOREGROUND, False)] if start else []
        rows.append(indent + _between(pieces, start, start + len(row)))
        start += len(row)
    return rows


def _between(pieces: list[Piece], start: int, end: int) -> list[Piece]:
    found, at = [], 0
    for text, colour, bold in pieces:
        cut = text[max(0, start - at) : max(0, end - at)]
        if cut:
            found.append((cut, colour, bold))
        at += len(text)
    return found


def _pieces(line: str) -> list[Piece]:
    """A line's text by colour. Commands and the count are bright; a command's comment is faint."""
    if SGR.sub("", line).startswith("$ "):
        command, hash_, comment = SGR.sub("", line)[2:].partition("  #")
        return [("$ ", PROMPT, True), (command, BRIGHT, True), (hash_ + comment, FAINT, False)]
    if line.endswith(" failed"):
        return [(line, BRIGHT, True)]
    pieces, colour, bold = [], FOREGROUND, False
    for number, text in enumerate(SGR.split(line)):
        if number % 2 == 0:
            pieces.append((text, colour, bold))
            continue
        for code in (int(code or 0) for code in text.split(";")):
            if code in (0, 39):
                colour = FOREGROUND
            if code in (0, 1, 22):
                bold = code == 1
            colour = COLOURS.get(code, colour)
    return pieces


def main() -> None:
    """Run the deploy and write the picture; with --text print what it shows instead."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--text", action="store_true", help="print the text, and write no file")
    text = record_deploy()
    if parser.parse_args().text:
        print(text)
        return
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(draw(text), encoding="utf-8")
    print(f"{PICTURE} written")


if __name__ == "__main__":
    main()
