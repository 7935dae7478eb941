"""Measure how long clients wait: `python -m benchmarks.latency`.

Each row is a situation in which some clients of a busy server may wait for others. The servers take turns,
each on the first core, with the clients on the second. Printed are p50, p90 and maximum in milliseconds,
medians of the rounds, and how ostler compares with the best peer.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import load
from benchmarks.peers import SERVERS, ServerOptions, verdict
from benchmarks.processes import ROOT, free_port, serving

_SERVERS = ("ostler", "uvicorn", "granian", "h2corn")
_FASTAPI = "benchmarks.fastapi_bench:app"
_MIXED = "benchmarks.apps:mixed"
_PATH = "/items/7?note=x"
_KEPT = 64
"""Kept connections that saturate the server."""


@dataclass(frozen=True)
class Row:
    """One situation."""

    title: str
    client: str
    """The client in `benchmarks.latency_load`."""
    app: str = _MIXED
    saturated: bool = False
    """Beside kept connections that ask again as soon as they are answered."""
    half: bool = False
    """At half of the rate that the server reaches."""
    ratio: str = "p90"
    """What is compared with the best peer."""
    must: float | None = None
    """The lowest ratio to the best peer that is accepted."""


ROWS: dict[str, Row] = {
    "burst": Row(
        "64 new clients at once, beside 64 that saturate", "burst", _FASTAPI, saturated=True, must=0.6
    ),
    "one-by-one": Row(
        "new clients one by one, same load", "one-by-one", _FASTAPI, saturated=True, ratio="p50", must=0.35
    ),
    "half-load": Row("kept connections at half load", "kept", _FASTAPI, half=True),
    "sleep": Row("small requests, one handler sleeps 50 ms", "sleep"),
    "compute": Row("small requests, one handler computes 20 ms", "compute"),
    "upload": Row("small requests beside an upload of 1 GB", "upload"),
    "messages": Row("small requests beside a flood of messages", "messages"),
    "pipeline": Row("small requests beside a flood of pipelined ones", "pipeline"),
}
_QUICK = ("burst", "one-by-one", "upload")


@dataclass(frozen=True)
class Latency:
    """Latencies of one server in one round, in milliseconds."""

    p50: float
    p90: float
    max: float

    def __str__(self) -> str:
        return f"{self.p50:.1f} / {self.p90:.1f} / {self.max:.1f}"


Samples = dict[str, list[Latency]]
"""Of each server, one for each round."""


def main() -> None:
    """Measure the rows that the options name, and print the table."""
    options = _options()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("benchmarks: two cores are needed, one for the server and one for the clients")
    results: dict[str, Samples] = {name: defaultdict(list) for name in options.row}
    for name in options.row:
        for _ in range(options.rounds):
            for server in options.server:
                try:
                    results[name][server].append(_sample(server, ROWS[name], options.seconds, cores))
                except RuntimeError as error:
                    print(f"  {name}, {server}: {error}", flush=True)
        print(_line(ROWS[name], results[name]), flush=True)
    print("\n" + "\n".join(_table(results, options.server)))
    if options.json:
        Path(options.json).write_text(json.dumps(_plain(results), indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three rows and two servers, within a minute")
    parser.add_argument("--row", action="append", choices=list(ROWS), help="only this one")
    parser.add_argument(
        "--server",
        action="append",
        choices=[name for name in SERVERS if name != "limit"],
        help="only this one",
    )
    parser.add_argument("--rounds", type=int, help="rounds in which the servers take turns")
    parser.add_argument("--seconds", type=float, help="length of one measurement")
    parser.add_argument("--json", help="write every sample to this file")
    options = parser.parse_args()
    options.row = options.row or (_QUICK if options.quick else tuple(ROWS))
    options.server = options.server or (("ostler", "granian") if options.quick else _SERVERS)
    options.rounds = options.rounds or (1 if options.quick else 5)
    options.seconds = options.seconds or (2.0 if options.quick else 4.0)
    return options


def _sample(server: str, row: Row, seconds: float, cores: list[int]) -> Latency:
    port = free_port()
    own, other = {cores[0]}, {cores[1]}
    with serving(SERVERS[server](ServerOptions(row.app, port)), port, own):
        url = f"http://127.0.0.1:{port}{_PATH if row.app == _FASTAPI else '/'}"
        rate = load.wrk(url, 1.0, other, connections=_KEPT).rate
        if not rate:
            raise RuntimeError("no request was answered")
        with _saturating(url, seconds, other) if row.saturated else contextlib.nullcontext():
            found = _run_client(row, port, seconds, other, rate / 2 if row.half else 0.0)
    if len(found) < 10:
        raise RuntimeError(f"only {len(found)} answers")
    return Latency(statistics.median(found), statistics.quantiles(found, n=10)[-1], max(found))


@contextlib.contextmanager
def _saturating(url: str, seconds: float, cores: set[int]) -> Iterator[None]:
    """Run wrk on kept connections meanwhile, which asks again as soon as an answer has come."""
    # Longer than the client needs, even one that waits long for its last answers.
    command = ["wrk", "-t1", f"-c{_KEPT}", f"-d{round(seconds) + 20}s", url]
    wrk = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, preexec_fn=lambda: os.sched_setaffinity(0, cores)
    )
    try:
        yield
    finally:
        wrk.kill()
        wrk.wait()


def _run_client(row: Row, port: int, seconds: float, cores: set[int], rate: float) -> list[float]:
    command = [
        sys.executable,
        "-m",
        "benchmarks.latency_load",
        row.client,
        str(port),
        str(seconds),
        str(rate),
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=ROOT,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    if done.returncode:
        raise RuntimeError(f"the client failed: {(done.stderr.splitlines() or [''])[-1]}")
    found: list[float] = json.loads(done.stdout)
    return found


def _medians(samples: Samples) -> dict[str, Latency]:
    """Return each server's medians over the rounds."""
    return {
        server: Latency(
            *(statistics.median(getattr(each, field) for each in found) for field in ("p50", "p90", "max"))
        )
        for server, found in samples.items()
        if found
    }


def _verdict(row: Row, samples: Samples) -> str:
    """Compare ostler with the best of the peers that have not failed in a round."""
    rounds = max(map(len, samples.values()), default=0)
    compared = {
        server: [getattr(each, row.ratio) for each in found]
        for server, found in samples.items()
        if len(found) == rounds
    }
    ratio = verdict(compared)
    must = f" (must {row.must:g})" if ratio and row.must else ""
    return ratio and f"{row.ratio} {ratio}{must}"


def _line(row: Row, samples: Samples) -> str:
    medians = _medians(samples)
    cells = [f"{server} {latency}" for server, latency in medians.items()]
    return f"{row.title}, ms: {', '.join(cells)} | {_verdict(row, samples)}"


def _table(results: dict[str, Samples], servers: list[str]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    yield f"| p50 / p90 / max, ms | {' | '.join(servers)} | ostler is |"
    yield "| --- " * (len(servers) + 2) + "|"
    for name, samples in results.items():
        medians = _medians(samples)
        cells = (str(medians.get(server, "")) for server in servers)
        yield f"| {ROWS[name].title} | {' | '.join(cells)} | {_verdict(ROWS[name], samples)} |"


def _plain(results: dict[str, Samples]) -> dict[str, dict[str, list[list[float]]]]:
    return {
        name: {
            server: [[each.p50, each.p90, each.max] for each in found] for server, found in samples.items()
        }
        for name, samples in results.items()
    }


if __name__ == "__main__":
    main()
