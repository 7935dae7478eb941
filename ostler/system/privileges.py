"""`--user` and `--group`: the user and group that workers run as when ostler is started as root."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable

from ostler.errors import SettingsError
from ostler.records import record
from ostler.settings.declarations import Settings

_OTHER_NAMES = ("LNAME", "USERNAME")
"""Variables that `getpass.getuser` reads after LOGNAME and USER."""
_DIRECTORIES = ("TMPDIR", "TEMP", "TMP", "XDG_RUNTIME_DIR")
"""Variables that name a directory for the user's files."""


@record
class Identity:
    """A user id, a group id, and the user's supplementary groups (initgroups(3))."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    name: str | None = None
    """The user's name; None if the system has no entry for this id (passwd(5))."""
    home: str | None = None
    """The user's home directory, from the same entry."""

    def assume(self) -> None:
        """Make this process run as this user and group, irrevocably, with the user's environment.

        Raises:
            SettingsError: the system refuses.
        """
        if (os.geteuid(), os.getegid()) == (self.uid, self.gid) and os.geteuid() != 0:
            return
        another = os.geteuid() != self.uid
        try:
            os.setgroups(self.groups)
            os.setgid(self.gid)
            os.setuid(self.uid)
        except OSError as error:
            raise SettingsError(
                f"cannot run as user {self.uid} and group {self.gid}: {error.strerror}; "
                f"check --user and --group"
            ) from None
        if another:
            self._take_environment()

    def _take_environment(self) -> None:
        """Set the variables that describe the user: they still describe the one that started ostler.

        Libraries read `~/.config` and the like by them, and fail or find another user's files.
        """
        for variable, value in (("HOME", self.home), ("USER", self.name), ("LOGNAME", self.name)):
            if value:
                os.environ[variable] = value
            else:
                os.environ.pop(variable, None)
        for variable in _OTHER_NAMES:
            os.environ.pop(variable, None)
        for variable in _DIRECTORIES:
            if variable in os.environ and not os.access(os.environ[variable], os.W_OK | os.X_OK):
                del os.environ[variable]


def wanted(settings: Settings) -> Identity | None:
    """Return the user and group that the settings name; None if they name neither.

    Raises:
        SettingsError: there is no such user or group, or only root may become it.
    """
    if settings.user is None and settings.group is None:
        return None
    import grp  # imported here: most servers need neither of them
    import pwd

    uid, gid, name, home = os.geteuid(), os.getegid(), None, None
    if settings.user is not None:
        entry = None
        # ValueError: more digits than int() takes from a text; OverflowError: more than a uid_t holds.
        with contextlib.suppress(KeyError, ValueError, OverflowError):
            by_id = _is_number(settings.user)
            entry = pwd.getpwuid(int(settings.user)) if by_id else pwd.getpwnam(settings.user)
        if entry is not None:
            uid, gid, name, home = entry.pw_uid, entry.pw_gid, entry.pw_name, entry.pw_dir
        elif not _is_number(settings.user):
            raise SettingsError(f"user is {settings.user!r}: there is no such user")
        elif settings.group is None:
            raise SettingsError(
                f"user is {settings.user}, of whom the system knows no group: give --group as well"
            )
        else:
            uid = _number(settings.user, "user")
    if settings.group is not None:
        gid = _group(settings.group, grp)
    groups = (gid,) if name is None else tuple(os.getgrouplist(name, gid))
    if os.geteuid() != 0 and (uid, gid) != (os.geteuid(), os.getegid()):
        which = "user" if settings.user is not None else "group"
        raise SettingsError(
            f"{which} is {getattr(settings, which)!r}: it takes root to become that; "
            f"start ostler as root, or without --{which}"
        )
    return Identity(uid, gid, groups, name, home)


def _group(text: str, grp: object) -> int:
    if _is_number(text):
        return _number(text, "group")
    try:
        found: int = grp.getgrnam(text).gr_gid  # type: ignore[attr-defined]
    except KeyError:
        raise SettingsError(f"group is {text!r}: there is no such group") from None
    return found


def _is_number(text: str) -> bool:
    # isdigit() alone is also true of digits such as a superscript two, which int() refuses.
    return text.isascii() and text.isdigit()


def _number(text: str, which: str) -> int:
    # To setresuid(2), 2**32 - 1 means "leave it as it is". int() refuses a text of more than 4300 digits.
    digits = text.lstrip("0") or "0"
    if len(digits) > len(str(2**32)) or int(digits) >= 2**32 - 1:
        raise SettingsError(f"{which} is {text}: expected a name or a number below {2**32 - 1}")
    return int(digits)


def give(identity: Identity | None, descriptors: Iterable[int]) -> None:
    """Change the owner of new, empty log files to the user that workers run as, so that they can write them.

    Only of new and empty files: in a directory that this user may write, a link could point to any file of
    root's.
    """
    if identity is None or os.geteuid() != 0:
        return
    for fd in descriptors:
        with contextlib.suppress(OSError):
            found = os.fstat(fd)
            if stat.S_ISREG(found.st_mode) and not found.st_size and found.st_nlink == 1:
                os.fchown(fd, identity.uid, identity.gid)
