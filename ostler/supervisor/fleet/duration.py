"""Formats durations for the log. Pure."""

from __future__ import annotations


def format_duration(seconds: float) -> str:
    """Return a duration in the unit that suits its length: `0.5 s`, `30 s`, `15 min`, `12 h`."""
    if seconds < 9.95:
        return f"{round(seconds, 1):g} s"
    if seconds < 600:
        return f"{round(seconds)} s"
    if seconds < 36000:
        return f"{round(seconds / 60)} min"
    return f"{round(seconds / 3600)} h"
