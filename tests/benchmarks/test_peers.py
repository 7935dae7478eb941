"""The ratio of a row: which peer it names, and that it is taken within rounds."""

from benchmarks.peers import verdict
from benchmarks.workloads import WORKLOADS


def test_the_best_peer_is_named_and_the_limit_is_no_peer() -> None:
    rounds = {"ostler": [10.0], "uvicorn": [20.0], "granian": [15.0], "limit": [5.0]}
    assert verdict(rounds) == "1.50 x granian"


def test_a_row_may_name_its_peer() -> None:
    assert verdict({"ostler": [10.0], "uvicorn": [20.0], "granian": [15.0]}, "uvicorn") == "2.00 x uvicorn"


def test_the_ratio_is_the_median_of_the_rounds_ratios() -> None:
    # The machine is slow in the second round: both medians are of other rounds than the median ratio.
    assert verdict({"ostler": [10.0, 30.0, 11.0], "uvicorn": [12.0, 36.0, 22.0]}) == "1.20 x uvicorn"


def test_without_ostler_or_without_a_peer_there_is_no_ratio() -> None:
    assert verdict({"uvicorn": [20.0]}) == ""
    assert verdict({"ostler": [20.0], "limit": [5.0]}) == ""
    assert verdict({"ostler": [20.0], "granian": [5.0]}, "uvicorn") == ""


def test_every_row_with_a_bound_has_a_reachable_one() -> None:
    for workload in WORKLOADS.values():
        if workload.aim is not None:
            assert workload.must is not None
            assert workload.aim >= workload.must
