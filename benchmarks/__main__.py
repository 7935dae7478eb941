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

from benchmarks.fleets import FLEETS, Figure
from benchmarks.peers import SERVERS, ServerOptions, verdict
from benchmarks.processes import free_port, serving
from benchmarks.workloads import WORKLOADS, Workload

_QUICK = ("hello", "hello-log", "websocket")


@dataclass(frozen=True)
class Sample:
    """The figures of one server in one round."""

    micros: float
    """CPU microseconds per request."""
    rate: float
    """Requests per second."""
    errors: int


def main() -> None:
    """Run the workloads that the options name, and print a line for each."""
    options = _options()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("benchmarks: two cores are needed, one for the server and one for the load")
    print(_where(), flush=True)
    results: dict[str, dict[str, list[Sample]]] = {}
    with _certificate() as tls:
        for name in options.workload or (_QUICK if options.quick else WORKLOADS):
            results[name] = _measure(WORKLOADS[name], options, cores, tls)
            print(_row(WORKLOADS[name], results[name]), flush=True)
    figures: dict[str, dict[str, Figure]] = {}
    for title, measure in {} if options.quick or options.workload else FLEETS.items():
        figures[title] = {server: measure(server, options.rounds) for server in _servers(options)}
        print(_figure_row(title, figures[title]), flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps(_plain(results, figures), indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three workloads, within a minute")
    parser.add_argument("--workload", action="append", choices=list(WORKLOADS), help="only this one")
    parser.add_argument("--server", action="append", choices=list(SERVERS), help="only this one")
    parser.add_argument("--rounds", type=int, help="rounds in which the servers take turns")
    parser.add_argument("--seconds", type=float, help="length of one measurement")
    parser.add_argument("--json", help="write every sample to this file")
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 5)
    options.seconds = options.seconds or (1.0 if options.quick else 4.0)
    if options.quick and not options.server:
        options.server = ["ostler", "uvicorn", "granian", "limit"]
    return options


def _servers(options: argparse.Namespace) -> list[str]:
    return [name for name in options.server or SERVERS if name != "limit"]


def _measure(
    workload: Workload, options: argparse.Namespace, cores: list[int], tls: tuple[str, str]
) -> dict[str, list[Sample]]:
    """Measure all servers in each round, so that changes on the machine affect all of them."""
    samples: dict[str, list[Sample]] = defaultdict(list)
    for _ in range(options.rounds):
        for server in options.server or SERVERS:
            if server == "limit" and not workload.limit:
                continue
            try:
                sample = _sample(server, workload, options.seconds, cores, tls)
            except RuntimeError as error:
                print(f"  {server}: {error}", flush=True)
                continue
            samples[server].append(sample)
    return samples


def _sample(
    server: str, workload: Workload, seconds: float, cores: list[int], tls: tuple[str, str]
) -> Sample:
    port = free_port()
    server_options = ServerOptions(
        workload.app,
        port,
        log=workload.log,
        workers=workload.workers,
        tls=tls if workload.tls else None,
        kind=workload.limit,
    )
    scheme = "https" if workload.tls else "http"
    own, other = ({cores[0], cores[1]}, set(cores)) if workload.workers else ({cores[0]}, {cores[1]})
    with serving(SERVERS[server](server_options), port, own) as running:
        workload.load(scheme, port, 1.0, other)
        before = running.cpu()
        result = workload.load(scheme, port, seconds, other)
        used = running.cpu() - before
    if not result.requests:
        raise RuntimeError("no request was answered")
    return Sample(used / result.requests * 1e6, result.rate, result.errors)


@contextlib.contextmanager
def _certificate() -> Iterator[tuple[str, str]]:
    """Yield a certificate for 127.0.0.1 and its key, as files that exist during the run (openssl-req(1))."""
    with tempfile.TemporaryDirectory() as directory:
        certificate, key = f"{directory}/cert.pem", f"{directory}/key.pem"
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
                *("-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-keyout", key, "-out", certificate),
            ],
            check=True,
            capture_output=True,
        )
        yield certificate, key


def _row(workload: Workload, samples: dict[str, list[Sample]]) -> str:
    """Return the line of one workload: CPU time per request of each server, ratio to the best peer."""
    medians = {
        server: statistics.median(sample.micros for sample in found) for server, found in samples.items()
    }
    rates = {server: statistics.median(sample.rate for sample in found) for server, found in samples.items()}
    if not medians:
        return f"{workload.title}: no server could be measured"
    cells = [f"{server} {micros:.1f} us ({rates[server]:,.0f}/s)" for server, micros in medians.items()]
    ratio = verdict(medians)
    if ratio:
        ratio = f" | {ratio}" + (f" (must {workload.must:g})" if workload.must else "")
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
    for name in ("ostler", "uvicorn", "gunicorn", "granian", "hypercorn", "uvloop", "httptools"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions.append(f"{name} {metadata.version(name)}")
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.machine()
    return f"Python {platform.python_version()}, {model}, {os.cpu_count()} cores; {', '.join(versions)}"


if __name__ == "__main__":
    main()
