"""Prints what ostler's tests need without the C parts; with `--check`, fails where one of those is there.

Run in an environment that has ostler (installed without its dependencies) and pip.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec

# What pip itself reads requirements with: the environment has nothing else yet.
from pip._vendor.packaging.requirements import Requirement

ABSENT = ("uvloop", "httptools")


def needed(extra: str = "") -> Iterator[str]:
    """Yield every requirement of ostler, with one of its extras, that applies here."""
    for line in metadata.requires("ostler") or ():
        requirement = Requirement(line)
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
        if not applies or requirement.name in ABSENT:
            continue
        if requirement.name == "ostler":
            for further in sorted(requirement.extras):
                yield from needed(further)
        else:
            requirement.marker = None
            yield str(requirement)


def main() -> None:
    if "--check" in sys.argv:
        there = [name for name in ABSENT if find_spec(name) is not None]
        sys.exit(f"installed, and should not be: {', '.join(there)}" if there else 0)
    print(*sorted({*needed(), *needed("test")}), sep="\n")


if __name__ == "__main__":
    main()
