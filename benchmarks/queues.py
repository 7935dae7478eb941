"""Compare the choices of --reuse-port: `python -m benchmarks.queues`.

Two workers share two cores with the load; with `--apart` the workers have one core and the load the other.
The choices take turns, first with new connections and then with keep-alive connections. Printed are median
rates, and the CPU time per request of all processes together.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections import defaultdict

from benchmarks import load
from benchmarks.peers import SERVERS, ServerOptions
from benchmarks.processes import free_port, serving

CHOICES = ("on", "off")
_CONNECTIONS = 64


def main() -> None:
    """Measure, and print a line for each kind of load."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.queues", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--apart", action="store_true", help="the workers on one core, the load on another")
    options = parser.parse_args()
    own = other = os.sched_getaffinity(0)
    if options.apart:
        first, second, *_ = sorted(own)
        own, other = {first}, {second}
    for title, fresh in (("new connections", True), ("kept connections", False)):
        rates: dict[str, list[float]] = defaultdict(list)
        micros: dict[str, list[float]] = defaultdict(list)
        for _ in range(options.rounds):
            for choice in CHOICES:
                port = free_port()
                command = [
                    *SERVERS["ostler"](ServerOptions("benchmarks.apps:hello", port, workers=2)),
                    *("--reuse-port", choice),
                ]
                with serving(command, port, own) as running:
                    url = f"http://127.0.0.1:{port}/"
                    load.wrk(url, 1.0, other, connections=_CONNECTIONS, fresh=fresh)
                    before = running.cpu()
                    found = load.wrk(url, options.seconds, other, connections=_CONNECTIONS, fresh=fresh)
                    micros[choice].append((running.cpu() - before) / found.requests * 1e6)
                rates[choice].append(found.rate)
        cells = (
            f"{choice} {statistics.median(rates[choice]):,.0f}/s, {statistics.median(micros[choice]):.1f} us"
            for choice in CHOICES
        )
        print(f"{title}: {'; '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
