"""Replay the behaviours on a server, and show where it is not as recorded.

python -m tests.replay --server uvicorn --record     # write uvicorn.json anew
python -m tests.replay --server ostler               # show every difference
python -m tests.replay --server ostler --accept      # renew ostler\'s side of differences.json
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import signal
import sys

from tests.replay import recording
from tests.replay.behaviours import BEHAVIOURS
from tests.replay.observe import observe
from tests.replay.topics import load


def main() -> int:
    """Parse the arguments, replay, and return the exit code: 1 if there are differences without a row."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.replay", description=(__doc__ or "").split("\n", 1)[0]
    )
    parser.add_argument("--server", choices=["uvicorn", "ostler"], default="ostler")
    parser.add_argument("--record", action="store_true", help="write uvicorn.json")
    parser.add_argument("--accept", action="store_true", help="renew what differences.json says of ostler")
    parser.add_argument("--only", default="*", metavar="GLOB", help="behaviours with such a name")
    options = parser.parse_args()
    # A shell's `&` and nohup have these ignored, and the servers would inherit that.
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)
    load()
    names = [name for name in BEHAVIOURS if fnmatch.fnmatchcase(name, options.only)]
    seen = observe(options.server, names)
    recorded = recording.read(recording.UVICORN)
    if options.record:
        kept = {name: recorded[name] for name in recorded if name in BEHAVIOURS}
        recording.write(recording.UVICORN, {**kept, **seen})
        print(f"{len(seen)} behaviours recorded")
        return 0
    differences = recording.read(recording.DIFFERENCES)
    unlike = [name for name in names if seen[name] != recorded.get(name)]
    for name in unlike:
        if options.accept and name in differences:
            differences[name]["ostler"] = seen[name]
        if differences.get(name, {}).get("ostler") == seen[name] and options.server == "ostler":
            continue
        print(name)
        for key in sorted({*seen[name], *recorded.get(name, {})}):
            then, now = recorded.get(name, {}).get(key, "nothing"), seen[name].get(key, "nothing")
            if then != now:
                print(f"  {key}\n    recorded {json.dumps(then)}\n    now      {json.dumps(now)}")
    if options.accept:
        recording.write(recording.DIFFERENCES, differences)
    without_row = [name for name in unlike if name not in differences]
    print(f"{len(names)} behaviours: {len(names) - len(unlike)} equal, {len(unlike)} different", end="")
    print(f", {len(without_row)} of these without a row")
    return 1 if without_row else 0


if __name__ == "__main__":
    sys.exit(main())
