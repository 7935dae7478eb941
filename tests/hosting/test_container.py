"""docs/deployment/Dockerfile: its text is checked, and the image is built and run without Docker."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from ostler import __version__
from tests.hosting.container_image import Image, Instruction, build_environment, parse
from tests.hosting.docs_examples import DEPLOYMENT, code_block
from tests.hosting.needs import need_namespaces
from tests.live.clients import get
from tests.live.harness import APP, PATIENCE, Ostler, Output, free_ports, wait_until
from tests.live.load import Load

ROOT = DEPLOYMENT.parents[1]
DOCKERFILE = (DEPLOYMENT / "Dockerfile").read_text(encoding="utf-8")
STAGES = parse(DOCKERFILE)

ORPHANS = """
import subprocess


async def nanny(scope, receive, send):
    if scope["type"] == "http" and scope["path"] == "/orphan":
        subprocess.run(["sh", "-c", "sleep 1.5 &"], check=True)
    await app(scope, receive, send)
"""


PARENT = """
import asyncio
import multiprocessing
import os
import subprocess
import sys

kept = subprocess.Popen(["sh", "-c", "exit 9"])
reader, writer = os.pipe()


def child(code):
    sys.exit(code)


async def started(code):
    process = await asyncio.create_subprocess_exec("sh", "-c", f"sleep 0.0{code}; exit {code}")
    return await process.wait()


def orphan(number):
    subprocess.run(["sh", "-c", f"(sleep 0.0{number}; exit 4) & exit 5"], check=False)


def in_a_thread(code):
    orphan(code)
    pid = os.fork()
    if pid == 0:
        os._exit(code)
    process = multiprocessing.get_context("spawn").Process(target=child, args=(code,))
    process.start()
    process.join()
    ran = subprocess.run(["sh", "-c", f"exit {code}"], check=False).returncode
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), process.exitcode, ran]


def zombies():
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            state = open(f"/proc/{name}/stat").read().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state == "Z" and int(name) != kept.pid:
            found.append(int(name))
    return found


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise RuntimeError
    if scope["path"] == "/zombies":
        text = f"{zombies()}"
    elif scope["path"] == "/kept":
        text = f"{kept.wait()}"
    else:
        codes = range(1, 6)
        awaited = await asyncio.gather(*map(started, codes))
        threaded = [await asyncio.to_thread(in_a_thread, code) for code in codes]
        text = f"{awaited == list(codes)} {threaded == [[code] * 3 for code in codes]}"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text.encode()})
"""


def only(name: str) -> Instruction:
    """Return the one instruction of this name in the last stage."""
    [instruction] = [each for each in STAGES[-1] if each.name == name]
    return instruction


# -- checks of the text


def test_the_page_shows_the_file() -> None:
    assert code_block("containers.md", "dockerfile") == DOCKERFILE


def test_base_images_are_pinned_and_the_same_in_both_stages() -> None:
    bases = {stage[0].text.split()[0] for stage in STAGES}
    assert len(STAGES) == 2
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.\d+-slim-[a-z]+", bases.pop())


def test_every_command_is_in_exec_form_and_uses_no_shell() -> None:
    for instruction in (each for stage in STAGES for each in stage):
        if instruction.name in ("RUN", "CMD", "HEALTHCHECK"):
            assert not {"sh", "bash", "/bin/sh", "sudo"} & set(instruction.words)
        assert instruction.name not in ("ADD", "ENTRYPOINT", "SHELL", "MAINTAINER", "VOLUME")


def test_stages_are_named_before_they_are_copied_from() -> None:
    names = [stage[0].text.partition(" AS ")[2] for stage in STAGES]
    sources = re.findall(r"--from=(\S+)", DOCKERFILE)
    assert sources == ["build"]
    assert set(sources) <= set(names[:-1])


def test_directories_are_absolute_and_pip_leaves_no_cache() -> None:
    directories = [each.text for stage in STAGES for each in stage if each.name == "WORKDIR"]
    assert all(directory.startswith("/") for directory in directories)
    [install] = [each.words for each in STAGES[0] if each.name == "RUN" and "install" in each.words]
    assert "--no-cache-dir" in install


def test_the_user_is_a_number_other_than_root_and_set_before_the_command() -> None:
    names = [each.name for each in STAGES[-1]]
    assert names.index("USER") < names.index("HEALTHCHECK") < names.index("CMD") == len(names) - 1
    assert all(int(part) >= 10000 for part in only("USER").text.split(":"))
    assert "RUN" not in names[names.index("USER") :]


def test_the_command_agrees_with_health_check_port_and_stop_signal() -> None:
    command = only("CMD").words
    assert command[:2] == ["ostler", "main:app"]
    path = command[command.index("--health-path") + 1]
    assert path in only("HEALTHCHECK").words[2]
    assert f"OSTLER_PORT={only('EXPOSE').text}" in only("ENV").text
    assert only("STOPSIGNAL").text == "SIGTERM"


def test_the_parser_refuses_the_shell_form() -> None:
    with pytest.raises(ValueError, match="not in exec form"):
        _ = Instruction("CMD", "ostler main:app").words
    with pytest.raises(ValueError, match="not in exec form"):
        _ = Instruction("RUN", "test -f x && pip install [x]").words
    assert json.loads('["a"]') == Instruction("CMD", '["a"]').words


# -- the image, built and run


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """The image, built step by step from a wheel of this source tree."""
    need_namespaces()
    directory = tmp_path_factory.mktemp("image")
    context = directory / "context"
    context.mkdir()
    built = Image(directory, context)
    wheels = built.layers / "wheels"
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(wheels), str(ROOT)],
        env=build_environment(),
        check=True,
        timeout=10 * PATIENCE,
    )
    [wheel] = wheels.iterdir()
    assert wheel.name == f"ostler-{__version__}-py3-none-any.whl"
    (context / "requirements.txt").write_text(f"ostler @ file:///wheels/{wheel.name}\n")
    (context / "main.py").write_text(APP + ORPHANS)
    for stage in STAGES:
        built.build(stage)
    assert list((built.layers / "srv/app/__pycache__").iterdir())
    yield built
    shutil.rmtree(directory)


class Container:
    """The image's command as PID 1, with a read-only root."""

    def __init__(self, image: Image, words: list[str], port: int) -> None:
        env = {**image.env, "OSTLER_HOST": "127.0.0.1", "OSTLER_PORT": str(port), "HOME": "/nonexistent"}
        self.port = port
        self.env = env
        self.process = subprocess.Popen(
            image.command(words, mode="ro", env=env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.out = Output(self.process.stdout)
        self.log = Output(self.process.stderr)

    @property
    def first(self) -> psutil.Process:
        """The container's PID 1, with its pid on the host."""
        [child] = psutil.Process(self.process.pid).children()
        return child

    def stop(self) -> int:
        """Do what `docker stop` does, and return the exit code of PID 1, which unshare passes on."""
        self.first.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


@contextmanager
def running(image: Image, words: list[str]) -> Iterator[Container]:
    container = Container(image, words, free_ports(1)[0])
    try:
        container.log.wait_for("Worker 1 .* is ready")
        yield container
    finally:
        container.process.kill()  # --kill-child then kills the container
        container.process.wait(PATIENCE)
        container.out.close()
        container.log.close()


def test_the_command_is_pid_1_serves_as_an_unprivileged_user_and_drains_at_sigterm(image: Image) -> None:
    with running(image, image.cmd) as container:
        container.log.wait_for(r"Started arbiter process \[1\]")
        assert container.first.uids().real == container.first.gids().real == 10001
        assert {child.uids().real for child in container.first.children()} == {10001}
        mounts = Path(f"/proc/{container.first.pid}/mountinfo").read_text().splitlines()
        [options] = [fields[5] for line in mounts if (fields := line.split())[4] == "/"]
        assert options.split(",")[0] == "ro"
        assert get(container.port).text.startswith("one ")
        assert get(container.port, "/healthz").status_code == 200
        with Load(container.port, path="/slow?0.2", pause=0.01) as load:
            assert container.stop() == 0
        assert set(load.failures) <= {"ConnectionRefusedError", "ConnectionResetError"}
        assert "Traceback" not in container.log.text


def test_the_health_check_passes_while_serving_and_fails_during_the_drain_delay(image: Image) -> None:
    check = only("HEALTHCHECK").words
    words = [*image.cmd, "--drain-delay", "60"]
    with running(image, words) as container:

        def healthy() -> bool:
            # `docker exec` enters the container. Here the network is shared, so the check runs outside.
            done = subprocess.run(
                [sys.executable, *check[1:]], env=container.env, capture_output=True, timeout=PATIENCE
            )
            return done.returncode == 0

        assert healthy()
        container.first.send_signal(signal.SIGTERM)
        container.log.wait_for("Draining in 60 s")
        wait_until(lambda: not healthy(), "the health check fails")
        assert container.stop() == 0


def test_pid_1_reaps_the_orphans_of_the_application(image: Image) -> None:
    words = ["main:nanny" if word == "main:app" else word for word in image.cmd]
    with running(image, words) as container:

        def orphans() -> list[psutil.Process]:
            return [child for child in container.first.children() if child.name() == "sleep"]

        assert get(container.port, "/orphan").status_code == 200
        wait_until(orphans, "the orphan is a child of PID 1")
        wait_until(lambda: not orphans(), "the orphan has ended and is reaped")
        assert get(container.port).status_code == 200
        assert container.stop() == 0


def test_no_process_serves_after_pid_1_is_killed(image: Image) -> None:
    with running(image, image.cmd) as container:
        container.first.kill()
        container.process.wait(PATIENCE)
        with pytest.raises(httpx.ConnectError):
            get(container.port)


# -- ostler as PID 1, without an image


@contextmanager
def ostler_as_pid_1(directory: Path, *arguments: str) -> Iterator[Ostler]:
    """Run `ostler ARGUMENTS` as PID 1, in a read-only file system and without a home directory."""
    need_namespaces()
    inside = 'mount -o remount,bind,ro / && exec "$@"'
    command = ["unshare", "--fork", "--pid", "--kill-child", "--mount-proc", "sh", "-c", inside, "sh"]
    command += [sys.executable, "-m", "ostler"]
    code = f"import os, sys; os.execvp('unshare', [*{command!r}, *sys.argv[1:]])"
    with Ostler(directory, *arguments, program=("-c", code), env={"HOME": "/nonexistent"}) as ostler:
        yield ostler


def pid_1(ostler: Ostler) -> psutil.Process:
    """Return the PID 1 that `ostler_as_pid_1` has started."""
    [child] = psutil.Process(ostler.pid).children()
    return child


def test_pid_1_refuses_an_upgrade_and_stops_with_exit_code_0_and_no_line_of_error(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(APP)
    with ostler_as_pid_1(tmp_path, "main:app", "--port", "0", "--workers", "2") as ostler:
        ostler.wait_ready(2)
        pid_1(ostler).send_signal(signal.SIGUSR2)
        ostler.log.wait_for("SIGUSR2: no upgrade, as this is PID 1, with which its container would end")
        assert get(ostler.port).text.startswith("one ")
        ostler.family()
        pid_1(ostler).send_signal(signal.SIGTERM)
        assert ostler.wait() == 0
        lines = ostler.log.text.splitlines()
    assert [line for line in lines if not line.startswith("INFO:")] == [
        line for line in lines if "SIGUSR2" in line
    ]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("workers", [("--workers", "1"), ()], ids=["arbiter", "plain"])
def test_under_pid_1_orphans_are_reaped_and_the_applications_own_children_are_not(
    tmp_path: Path, workers: tuple[str, ...], loop: str
) -> None:
    (tmp_path / "main.py").write_text(PARENT)
    with ostler_as_pid_1(tmp_path, "main:app", "--port", "0", "--loop", loop, *workers) as ostler:
        port = ostler.port
        for _ in range(3):
            assert get(port).text == "True True"
        wait_until(lambda: get(port, "/zombies").text == "[]", "every orphan has been reaped")
        assert get(port, "/kept").text == "9"
        ostler.family()
        pid_1(ostler).send_signal(signal.SIGTERM)
        assert ostler.wait() == 0


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 0), (signal.SIGQUIT, 0), (signal.SIGABRT, 134)]
)
def test_signals_to_pid_1_reach_the_plain_server(tmp_path: Path, number: signal.Signals, code: int) -> None:
    (tmp_path / "main.py").write_text(APP)
    with ostler_as_pid_1(tmp_path, "main:app", "--port", "0") as ostler:
        ostler.log.wait_for("Application startup complete")
        ostler.family()
        pid_1(ostler).send_signal(signal.SIGHUP)
        ostler.log.wait_for("SIGHUP ignored: rolling restarts and scaling need --workers")
        pid_1(ostler).send_signal(number)
        assert ostler.wait() == code


def test_pid_1_ends_when_the_plain_server_is_killed(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(APP)
    with ostler_as_pid_1(tmp_path, "main:app", "--port", "0") as ostler:
        ostler.log.wait_for("Application startup complete")
        ostler.family()
        [server] = pid_1(ostler).children()
        server.kill()
        assert ostler.wait() == 128 + signal.SIGKILL


@pytest.mark.parametrize("workers", [("--workers", "1"), ()])
@pytest.mark.parametrize(
    ("app", "code"),
    [("main:app", 0), ("main:absent", 3), ("no such app", 2)],
    ids=["serves", "no such attribute", "not an app"],
)
def test_pid_1_exits_with_the_exit_code_of_ostler(
    tmp_path: Path, app: str, code: int, workers: tuple[str, ...]
) -> None:
    (tmp_path / "main.py").write_text(APP)
    with ostler_as_pid_1(tmp_path, app, "--port", "0", *workers) as ostler:
        if code == 0:
            ostler.log.wait_for("Application startup complete")
            ostler.family()
            pid_1(ostler).send_signal(signal.SIGTERM)
        assert ostler.wait() == code
