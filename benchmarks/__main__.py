"""Compare ostler with other servers: `make bench`, or `python -m benchmarks --help`.

The measure is the CPU time per request of all processes of a server. On a machine with other programs, they
change the throughput much more than the CPU time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from benchmarks.client import payload
from benchmarks.fleets import FLEETS, Figure
from benchmarks.peers import SERVERS, ServerOptions, verdict
from benchmarks.processes import Server, free_port, serving
from benchmarks.workloads import MB, WORKLOADS, Workload

_QUICK = ("hello", "upload", "websocket-16k")
_QUICK_SERVERS = ["ostler", "uvicorn", "h2corn", "limit"]


@dataclass(frozen=True)
class Sample:
    """The figures of one server in one round."""

    micros: float
    """CPU microseconds per request."""
    rate: float
    """Requests per second."""
    errors: int


@dataclass(frozen=True)
class Files:
    """Paths of the files that servers need."""

    certificate: str
    key: str
    body: str
    """What the workload `file` answers with."""


def main() -> None:
    """Run the workloads that the options name, and print a line for each."""
    options = _options()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("benchmarks: two cores are needed, one for the server and one for the load")
    print(_where(), flush=True)
    results: dict[str, dict[str, list[Sample]]] = {}
    with _files() as files:
        for name in options.workload or (_QUICK if options.quick else WORKLOADS):
            results[name] = _measure(WORKLOADS[name], options, cores, files)
            print(_row(WORKLOADS[name], results[name]), flush=True)
    figures: dict[str, dict[str, Figure]] = {}
    for title, measure in {} if options.quick or options.workload else FLEETS.items():
        figures[title] = {server: measure(server, options.rounds) for server in _servers(options)}
        print(_figure_row(title, figures[title]), flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps(_plain(results, figures), indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="three workloads and three servers, within a minute"
    )
    parser.add_argument("--workload", action="append", choices=list(WORKLOADS), help="only this one")
    parser.add_argument("--server", action="append", choices=list(SERVERS), help="only this one")
    parser.add_argument("--rounds", type=int, help="rounds in which the servers take turns")
    parser.add_argument("--seconds", type=float, help="length of one slice; wrk rounds it to whole seconds")
    parser.add_argument("--json", help="write every sample to this file")
    options = parser.parse_args()
    options.rounds = options.rounds or (3 if options.quick else 15)
    options.seconds = options.seconds or (0.5 if options.quick else 1.0)
    if options.quick and not options.server:
        options.server = _QUICK_SERVERS
    return options


def _servers(options: argparse.Namespace) -> list[str]:
    return [name for name in options.server or SERVERS if name != "limit"]


def _measure(
    workload: Workload, options: argparse.Namespace, cores: list[int], files: Files
) -> dict[str, list[Sample]]:
    """Start all servers, and measure them in turns: one slice of load each, round after round.

    What changes on the machine affects all servers of a round, so that the ratios within a round are steady.
    """
    own, other = ({cores[0], cores[1]}, set(cores)) if workload.workers else ({cores[0]}, {cores[1]})
    samples: dict[str, list[Sample]] = defaultdict(list)
    with contextlib.ExitStack() as stack:
        running: dict[str, Server] = {}
        for name in options.server or SERVERS:
            if name == "limit" and not workload.limit:
                continue
            try:
                running[name] = stack.enter_context(_running(name, workload, own, files))
                _sample(running[name], workload, 1.0, other)
            except RuntimeError as error:
                _give_up(name, error, running, samples)
        for _ in range(options.rounds):
            for name, server in list(running.items()):
                try:
                    samples[name].append(_sample(server, workload, options.seconds, other))
                except RuntimeError as error:
                    _give_up(name, error, running, samples)
    return samples


def _give_up(
    name: str, error: RuntimeError, running: dict[str, Server], samples: dict[str, list[Sample]]
) -> None:
    """Leave a server out of the row: its rounds must be those of the others."""
    print(f"  {name}: {error}", flush=True)
    running.pop(name, None)
    samples.pop(name, None)


def _running(
    name: str, workload: Workload, cores: set[int], files: Files
) -> contextlib.AbstractContextManager[Server]:
    port = free_port()
    options = ServerOptions(
        workload.app,
        port,
        log=workload.log,
        workers=workload.workers,
        tls=(files.certificate, files.key) if workload.tls else None,
        kind=workload.limit,
    )
    return serving(SERVERS[name](options), port, cores, BENCH_FILE=files.body)


def _sample(server: Server, workload: Workload, seconds: float, cores: set[int]) -> Sample:
    before = server.cpu()
    result = workload.load("https" if workload.tls else "http", server.port, seconds, cores)
    used = server.cpu() - before
    if not result.requests:
        raise RuntimeError("no request was answered")
    return Sample(used / result.requests * 1e6, result.rate, result.errors)


@contextlib.contextmanager
def _files() -> Iterator[Files]:
    """Yield the files that servers need; they exist during the run (openssl-req(1))."""
    with tempfile.TemporaryDirectory() as directory:
        certificate, key, body = (f"{directory}/{name}" for name in ("cert.pem", "key.pem", "body"))
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
                *("-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-keyout", key, "-out", certificate),
            ],
            check=True,
            capture_output=True,
        )
        Path(body).write_bytes(payload(MB))
        yield Files(certificate, key, body)


def _row(workload: Workload, samples: dict[str, list[Sample]]) -> str:
    """Return the line of one workload: CPU time per request of each server, ratio to the best peer."""
    medians = {
        server: statistics.median(sample.micros for sample in found) for server, found in samples.items()
    }
    rates = {server: statistics.median(sample.rate for sample in found) for server, found in samples.items()}
    if not medians:
        return f"{workload.title}: no server could be measured"
    cells = [f"{server} {micros:.1f} us ({rates[server]:,.0f}/s)" for server, micros in medians.items()]
    micros = {server: [sample.micros for sample in found] for server, found in samples.items()}
    ratio = verdict(micros, workload.against)
    if ratio:
        bounds = {"must": workload.must, "aim": workload.aim}
        wanted = [f"{word} {value:g}" for word, value in bounds.items() if value]
        ratio = f" | {ratio}" + (f" ({', '.join(wanted)})" if wanted else "")
    errors = sum(sample.errors for found in samples.values() for sample in found)
    return f"{workload.title}: {', '.join(cells)}{ratio}{f' | {errors} errors' if errors else ''}"


def _figure_row(title: str, figures: dict[str, Figure]) -> str:
    return f"{title}: " + ", ".join(f"{server} {figure}" for server, figure in figures.items())


def _plain(
    results: dict[str, dict[str, list[Sample]]], figures: dict[str, dict[str, Figure]]
) -> dict[str, object]:
    return {
        "where": _where(),
        "samples": {
            name: {server: [asdict(sample) for sample in found] for server, found in samples.items()}
            for name, samples in results.items()
        },
        "figures": {
            title: {server: asdict(figure) for server, figure in found.items()}
            for title, found in figures.items()
        },
    }


def _where() -> str:
    versions = []
    for name in ("ostler", "uvicorn", "gunicorn", "granian", "hypercorn", "h2corn", "uvloop", "httptools"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions.append(f"{name} {metadata.version(name)}")
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.machine()
    return f"Python {platform.python_version()}, {model}, {os.cpu_count()} cores; {', '.join(versions)}"


if __name__ == "__main__":
    main()
