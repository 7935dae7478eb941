"""What differs between two servers by nature, or between two runs, and counts as equal.

- ostler's own name where uvicorn's stands: in log lines, the Server header, loggers, variables, usage lines.
- Process ids, ports, dates, versions, memory addresses, the behaviour's directory.
- The reason phrases that Python 3.13 has changed: uvicorn.json has what 3.12 and older say.
- The width of a log line's level, and the frames of a traceback: its first and its last line count.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

NAMES = (("Ostler", "Uvicorn"), ("ostler", "uvicorn"), ("OSTLER", "UVICORN"))
PATTERNS = (
    (r"\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", "DATE"),
    (r"\[\d+\]", "[PID]"),
    (r"\b([Pp]id:? )\d+", r"\1PID"),
    (r"(\b127\.0\.0\.1|\blocalhost|\b0\.0\.0\.0|\[::1\]|\[::\]):\d+", r"\1:PORT"),
    (r"(::1):\d{4,5}\b", r"\1:PORT"),
    (r"('(?:127\.0\.0\.1|::1)', )\d{4,5}\b", r"\1PORT"),
    (r"\b0x[0-9a-f]{6,}", "0xADDRESS"),
    (r"\x1b\[[0-9;]*m", "<colour>"),
    ("422 Unprocessable Content", "422 Unprocessable Entity"),
    (r"^(TRACE|DEBUG|INFO|WARNING|ERROR|CRITICAL): +", r"\1: "),
)


def to_server(text: str, server: str) -> str:
    """Write for `server` what was written for uvicorn."""
    if server == "ostler":
        for ostler, uvicorn in NAMES:
            text = text.replace(uvicorn, ostler)
    return text


def normal(value: Any, directory: Path) -> Any:
    """Return an observation with everything replaced that counts as equal."""
    if isinstance(value, dict):
        return {key: normal(inner, directory) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [normal(inner, directory) for inner in value]
    if not isinstance(value, str):
        return value
    value = value.replace(str(directory.resolve()), "DIR").replace(str(directory), "DIR")
    for ostler, uvicorn in NAMES:
        value = value.replace(ostler, uvicorn)
    for pattern, instead in PATTERNS:
        value = re.sub(pattern, instead, value)
    return value


def lines(text: str) -> list[str]:
    """Return the lines of a log, with a traceback shortened to its first and its last line."""
    kept: list[str] = []
    in_traceback = False
    for line in text.splitlines():
        if line.lstrip(" |+").startswith("Traceback (most recent call last)"):
            in_traceback = True
        elif in_traceback and (line.startswith((" ", "\t", "|")) or not line.strip()):
            continue
        elif in_traceback:
            kept.append(f"Traceback: {line}")
            in_traceback = False
        elif line.strip():
            kept.append(line.rstrip())
    return kept
