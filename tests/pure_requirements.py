"""Print the requirements of ostler and its tests without uvloop and httptools, for `make test-pure`.

With `--check`, fail if uvloop or httptools is installed. The environment must have ostler, installed without
its dependencies, and pip.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec

# pip's own copy: the environment has no other package yet.
from pip._vendor.packaging.requirements import Requirement

ABSENT = ("uvloop", "httptools")


def needed(extra: str = "") -> Iterator[str]:
    """Yield every requirement of ostler, with one of its extras, that applies to this environment."""
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
        installed = [name for name in ABSENT if find_spec(name) is not None]
        sys.exit(f"installed, and should not be: {', '.join(installed)}" if installed else 0)
    print(*sorted({*needed(), *needed("test")}), sep="\n")


if __name__ == "__main__":
    main()
