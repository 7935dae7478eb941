"""Boot a real systemd as PID 1 of its own namespaces, and install applications with the units of systemd/."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

import ostler
from tests.hosting.needs import need, need_namespaces
from tests.live.harness import APP, PATIENCE, free_ports, wait_until

HERE = Path(__file__).parent
UNITS = HERE.parent.parent / "systemd"

# Mounts cgroup2 in a mount namespace of its own, and removes the groups that the machine has left there.
_REMOVE_GROUPS = (
    "mount -t cgroup2 cgroup2 /sys/fs/cgroup && cd /sys/fs/cgroup && "
    'if [ -d "$0" ]; then find "$0" -depth -type d -exec rmdir {} +; fi'
)


class Machine:
    """A booted systemd. `run` and `systemctl` run inside it. Leaving the context ends all its processes."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree
        self._group = f"ostler-test-{os.getpid()}"
        self.log = tree / "boot.log"

    def __enter__(self) -> Machine:
        need_namespaces()
        need(os.path.exists("/lib/systemd/systemd"), "systemd (Debian: apt install systemd)")
        self._lay_out()
        places = (sys.base_prefix, sysconfig.get_path("purelib"), str(Path(ostler.__file__).parent))
        boot = ["sh", str(HERE / "boot.sh"), self._group, str(self.tree), *places]
        with self.log.open("wb") as log:
            # The machine is killed when this process is killed.
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", *boot],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self.pid = wait_until(self._pid_one, "the machine has a PID 1")
            wait_until(self._booted, f"systemd has booted, see {self.log}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        family = psutil.Process(self._process.pid).children(recursive=True)
        self._process.kill()
        self._process.wait(PATIENCE)
        psutil.wait_procs(family, PATIENCE)
        subprocess.run(["unshare", "--mount", "sh", "-c", _REMOVE_GROUPS, self._group], check=True)

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command inside the machine, and return its output and errors."""
        nsenter = ["nsenter", "-t", str(self.pid), "-m", "-p", "-C", "-u", "-i", *command]
        done = subprocess.run(nsenter, capture_output=True, text=True, timeout=120)
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)} gave {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def systemctl(self, *arguments: str, check: bool = True) -> str:
        return self.run("systemctl", *arguments, check=check)

    def processes(self) -> list[psutil.Process]:
        """Return every process of the machine, with the pids that it has outside."""
        return psutil.Process(self.pid).children(recursive=True)

    def _pid_one(self) -> int | None:
        if self._process.poll() is not None:
            raise AssertionError(f"the machine did not boot:\n{self.log.read_text()}")
        for child in psutil.Process(self._process.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.name() == "systemd":
                    return child.pid
        return None

    def _booted(self) -> bool:
        return self.systemctl("is-system-running", check=False).strip() in ("running", "degraded")

    def _lay_out(self) -> None:
        for name in ("srv/python", "srv/site", "srv/source/ostler", "units", "settings"):
            (self.tree / name).mkdir(parents=True)
        for unit in UNITS.glob("ostler@.*"):
            shutil.copy(unit, self.tree / "units")


@dataclass
class Application:
    """An application in /srv/NAME of the machine, with its settings and its units."""

    machine: Machine
    name: str
    port: int

    @property
    def service(self) -> str:
        return f"ostler@{self.name}.service"

    @property
    def socket(self) -> str:
        return f"ostler@{self.name}.socket"

    @property
    def directory(self) -> Path:
        return self.machine.tree / "srv" / self.name

    def write(self, text: str) -> None:
        """Write this code as the application."""
        (self.directory / "main.py").write_text(text)

    def drop_in(self, unit: str, text: str) -> None:
        """Change a unit by a drop-in file, as `systemctl edit` does."""
        directory = self.machine.tree / "units" / f"{unit}.d"
        directory.mkdir(exist_ok=True)
        (directory / "test.conf").write_text(text)
        self.machine.systemctl("daemon-reload")

    def set(self, **variables: str) -> None:
        """Write /etc/ostler/NAME.env."""
        # The interpreter may need a shared library from a directory that the hardened unit cannot read.
        variables = {"LD_LIBRARY_PATH": "/srv/python/lib", **variables}
        lines = [f"{name}={value}\n" for name, value in variables.items()]
        (self.machine.tree / "settings" / f"{self.name}.env").write_text("".join(lines))

    def systemctl(self, verb: str, unit: str = "", *, check: bool = True) -> str:
        return self.machine.systemctl(verb, unit or self.service, check=check)

    def show(self, property: str) -> str:
        """Return a property of the service, as `systemctl show` prints it."""
        return self.machine.systemctl("show", "--value", f"--property={property}", self.service).strip()

    def journal(self) -> str:
        return self.machine.run("journalctl", "--no-pager", "--unit", self.service)

    def wait_status(self, text: str) -> None:
        wait_until(lambda: text in self.show("StatusText"), f"{text!r} is in the status text")

    def workers(self) -> list[psutil.Process]:
        """Return the workers of this application."""
        found = []
        for process in self.machine.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.cwd() == f"/srv/{self.name}" and "ostler: worker" in " ".join(process.cmdline()):
                    found.append(process)
        return found


@contextlib.contextmanager
def installed_application(machine: Machine, name: str) -> Iterator[Application]:
    """Install an application whose socket unit also listens on TCP, for clients outside the machine."""
    [port] = free_ports(1)
    app = Application(machine, name, port)
    _make_environment(app.directory)
    app.write(APP)
    app.set(OSTLER_WORKERS="2")
    app.drop_in(app.socket, f"[Socket]\nListenStream=127.0.0.1:{port}\n")
    try:
        yield app
    finally:
        print(app.journal())  # pytest shows it when the test has failed
        machine.systemctl("stop", app.socket, app.service, check=False)


def _make_environment(directory: Path) -> None:
    """Make a virtual environment that has ostler, with paths as they are inside the machine."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    venv = directory / ".venv"
    packages = venv / "lib" / version / "site-packages"
    packages.mkdir(parents=True)
    (venv / "bin").mkdir()
    (venv / "pyvenv.cfg").write_text("home = /srv/python/bin\n")
    (venv / "bin" / "python").symlink_to(f"/srv/python/bin/{version}")
    (packages / "installed.pth").write_text("/srv/source\n/srv/site\n")
    script = venv / "bin" / "ostler"
    script.write_text(
        f"#!/srv/{directory.name}/.venv/bin/python\n"
        "import sys\nfrom ostler.cli.main import main\nsys.exit(main())\n"
    )
    script.chmod(0o755)
