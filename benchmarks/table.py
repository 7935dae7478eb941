"""Print the README's table from the results of runs: `python -m benchmarks.table FILE.json ...`.

Each file is the result of one run, `python -m benchmarks --json FILE.json`.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks.peers import SERVERS, verdict
from benchmarks.workloads import WORKLOADS


def main() -> None:
    """Print one table per file."""
    if len(sys.argv) < 2:
        raise SystemExit("usage: python -m benchmarks.table FILE.json ...")
    print("\n".join(line for name in sys.argv[1:] for line in table(json.loads(Path(name).read_text()))))


def table(run: dict[str, Any]) -> list[str]:
    """Return the lines of one run's table."""
    measured = [*run["samples"].values(), *run["figures"].values()]
    servers = [server for server in SERVERS if any(server in row for row in measured)]
    lines = [
        run["where"],
        "",
        f"| | {' | '.join(servers)} | ostler is |",
        f"| --- |{' --- |' * (len(servers) + 1)}",
    ]
    for name, samples in run["samples"].items():
        micros = {server: [sample["micros"] for sample in found] for server, found in samples.items()}
        cells = {server: f"{statistics.median(values):.1f}" for server, values in micros.items()}
        workload = WORKLOADS[name]
        lines.append(_row(f"{workload.title}, us", servers, cells, verdict(micros, workload.against)))
    for title, figures in run["figures"].items():
        cells = {server: f"{figure['value']:.3g}" for server, figure in figures.items()}
        unit = next(iter(figures.values()))["unit"]
        lines.append(_row(f"{title}, {unit}", servers, cells, ""))
    return [*lines, ""]


def _row(title: str, servers: list[str], cells: dict[str, str], ratio: str) -> str:
    return f"| {title} | {' | '.join(cells.get(server, '') for server in servers)} | {ratio} |"


if __name__ == "__main__":
    main()
