"""The working directory with its symbolic links kept, as `pwd -L` prints it."""

from __future__ import annotations

import contextlib
import os

from ostler.errors import SettingsError


def working_directory() -> str:
    """Return the absolute path of the working directory, symbolic links kept.

    A deploy often points a link (`current`) at the new release, and then sends SIGHUP. Paths relative
    to the link lead to the new release's files; getcwd(3) resolves links, and would name the old release.
    A shell keeps the path with its links in PWD (POSIX, cd). It counts only while it is this directory.

    Raises:
        SettingsError: the directory was removed, or may not be read.
    """
    logical = os.environ.get("PWD", "")
    with contextlib.suppress(OSError):
        if os.path.isabs(logical) and os.path.samefile(logical, "."):
            return logical
    try:
        return os.getcwd()
    except OSError as error:
        raise SettingsError(f"the working directory cannot be used: {error.strerror}") from None
