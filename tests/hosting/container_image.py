"""Parse a Dockerfile, and build and run its image without Docker, by namespaces and a root file system."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.live.harness import PATIENCE

# Runs as PID 1 of new namespaces. `root` is an empty directory that becomes the root, `layers` has the
# directories that are mounted over it, `mode` is ro or rw, `python` is where Python is installed. The host's
# programs take the place of those of the base image.
ENTER = """
set -eu
umask 022
root=$1 layers=$2 mode=$3 python=$4 user=$5 name=$6
shift 6
mount -t tmpfs -o mode=755 tmpfs "$root"
for path in usr bin sbin lib lib64 etc; do
  if [ -L "/$path" ]; then cp -P "/$path" "$root/$path"
  elif [ -d "/$path" ]; then mkdir "$root/$path"; mount -o bind,ro "/$path" "$root/$path"; fi
done
mkdir "$root/proc" "$root/dev" "$root/tmp"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
case "$python" in
  /usr | /usr/*) ;;
  *) mkdir -p "$root$python"; mount -o bind,ro "$python" "$root$python" ;;
esac
for path in opt/venv srv/app build wheels; do
  mkdir -p "$root/$path" "$layers/$path"
  mount -o "bind,$mode" "$layers/$path" "$root/$path"
done
# The base image has a command `python`; some machines do not have one of that name.
mkdir "$root/base"
printf '#!/bin/sh\\nexec %s "$@"\\n' "$python/bin/$name" > "$root/base/python"
chmod 755 "$root/base/python"
[ "$mode" = rw ] || mount -o remount,ro "$root"
exec chroot --userspec="$user" --groups= "$root" "$@"
"""


class Instruction(NamedTuple):
    """One line of a Dockerfile, continuation lines joined."""

    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """The elements of the exec form.

        Raises:
            ValueError: the instruction is in shell form.
        """
        form = self.text[self.text.index("[") :] if "[" in self.text else ""
        if not form or (self.name != "HEALTHCHECK" and not self.text.startswith("[")):
            raise ValueError(f"not in exec form: {self.name} {self.text}")
        words: list[str] = json.loads(form)
        return words


def parse(text: str) -> list[list[Instruction]]:
    """Return the stages of a Dockerfile, each from its FROM on."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    stages: list[list[Instruction]] = []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, _, rest = line.strip().partition(" ")
        if name == "FROM":
            stages.append([])
        stages[-1].append(Instruction(name, rest.strip()))
    return stages


class Image:
    """Builds the stages of a Dockerfile, in one directory that serves as the file system of all of them."""

    def __init__(self, directory: Path, context: Path) -> None:
        self._root = directory / "root"
        self._root.mkdir()
        self.layers = directory / "layers"
        for path in ("opt/venv", "srv/app", "build", "wheels"):
            (self.layers / path).mkdir(parents=True)
        self._context = context
        self.workdir = "/"
        self.env: dict[str, str] = {}
        self.user = "0:0"
        self.cmd: list[str] = []

    def build(self, stage: Sequence[Instruction]) -> None:
        """Carry out the instructions of a stage; only those of ostler's Dockerfile are supported."""
        self.workdir, self.env, self.user = "/", {}, "0:0"
        for instruction in stage:
            match instruction.name:
                case "WORKDIR":
                    self.workdir = instruction.text
                case "COPY":
                    self._copy(instruction.text.split())
                case "RUN":
                    self._run(instruction.words)
                case "ENV":
                    self.env |= dict(word.split("=", 1) for word in shlex.split(instruction.text))
                case "USER":
                    self.user = instruction.text
                case "CMD":
                    self.cmd = instruction.words
                case "FROM" | "EXPOSE" | "STOPSIGNAL" | "HEALTHCHECK":
                    pass
                case other:
                    raise AssertionError(f"{other} is not supported")

    def _copy(self, words: list[str]) -> None:
        if words[0].startswith("--from="):
            assert words[1] == words[2]  # all stages share one directory
            return
        source, target = words
        assert target == "./"
        subprocess.run(["cp", "-R", f"{self._context}/{source}", f"{self.layers}{self.workdir}/"], check=True)

    def _run(self, words: list[str]) -> None:
        done = subprocess.run(
            self.command(words, mode="rw", env=build_environment()),
            capture_output=True,
            text=True,
            timeout=10 * PATIENCE,
        )
        assert done.returncode == 0, f"{words}:\n{done.stdout}{done.stderr}"

    def command(self, words: Sequence[str], *, mode: str, env: Mapping[str, str]) -> list[str]:
        """Return the command line that runs `words` as PID 1 of a container.

        `mode` says whether the container's root is writable (rw) or not (ro).
        """
        return [
            *("unshare", "--fork", "--pid", "--mount", "--kill-child"),
            *("sh", "-c", ENTER, "sh", str(self._root), str(self.layers), mode, sys.base_prefix, self.user),
            f"python{sys.version_info[0]}.{sys.version_info[1]}",
            *("env", "-i", f"--chdir={self.workdir}"),
            *(f"{name}={value}" for name, value in env.items()),
            *words,
        ]


def build_environment() -> dict[str, str]:
    """Return the environment of a build step: the host's, for its package index and certificates."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "OSTLER_"))}
    return {**kept, "PATH": "/base:/usr/bin:/bin", "PIP_ROOT_USER_ACTION": "ignore"}
