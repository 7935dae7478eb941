"""Run every block of docs/running-from-code.md as it is, with ports from the kernel."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.live.clients import get
from tests.live.harness import PATIENCE, Ostler, environment

PAGE = Path(__file__).parents[2] / "docs" / "running-from-code.md"


@pytest.fixture
def blocks(tmp_path: Path) -> Path:
    """A directory with every block of the page, each in the file that the block's first line names."""
    found = re.findall(r"^```python\n# (\S+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    for name, source in found:
        (tmp_path / name).write_text(source.replace("port=8000", "port=0"))
    names = [name for name, _ in found]
    assert names == ["main.py", "server.py", "embedded.py", "conftest.py", "test_hello.py"]
    assert PAGE.read_text(encoding="utf-8").count("```python") == len(names)
    return tmp_path


def test_run_serves_with_workers_until_it_is_stopped(blocks: Path) -> None:
    with Ostler(blocks, program=["main.py"]) as ostler:
        ostler.wait_ready(4)
        assert get(ostler.port, "/").text == "hello"
        assert ostler.stop() == 0
    assert "Traceback" not in ostler.log.text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_config_and_server_serve_until_a_signal_and_return(blocks: Path, number: signal.Signals) -> None:
    with Ostler(blocks, program=["server.py"]) as ostler:
        assert get(ostler.port, "/").text == "hello"
        ostler.send(number)
        assert ostler.wait() == 0
    assert "Finished server process" in ostler.log.text
    assert "Traceback" not in ostler.log.text


def test_a_server_in_a_running_loop_knows_its_port_and_a_signal_ends_the_program(blocks: Path) -> None:
    with Ostler(blocks, program=["embedded.py"]) as ostler:
        url = ostler.out.wait_for(r"http://\S+")[0]
        assert httpx.get(url, trust_env=False).text == "hello"
        ostler.send(signal.SIGTERM)
        assert ostler.wait() == -signal.SIGTERM
    assert "Finished server process" in ostler.log.text


def test_the_fixture_of_the_page_serves_its_test(blocks: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."],
        cwd=blocks,
        env=environment({"NO_PROXY": "*"}),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
