"""Whom the workers are: bound as root, served as nobody. The arbiter stays what it was.

Groups go first, then the user: afterwards neither could be changed. Unlike gunicorn, root's
supplementary groups are given up too.
"""

from __future__ import annotations

import os

from minicorn.config.settings import Settings
from minicorn.errors import ConfigError
from minicorn.record import Value


class Owner(Value):
    """A user and a group, and the supplementary groups."""

    uid: int
    gid: int
    groups: tuple[int, ...]

    def become(self) -> None:
        """Change this process over to them, for good."""
        os.setgroups(list(self.groups))
        os.setgid(self.gid)
        os.setuid(self.uid)

    def give(self, file: str | int) -> None:
        """Make a path, or an open file, theirs. No link is followed: they may have left it there."""
        if isinstance(file, int):
            os.fchown(file, self.uid, self.gid)
        else:
            os.lchown(file, self.uid, self.gid)


def find_owner(settings: Settings) -> Owner | None:
    """The owner that --user and --group ask for; None when that is who we are. ConfigError when it cannot be."""
    if settings.user is None and settings.group is None:
        return None
    name, uid, gid = "", os.geteuid(), os.getegid()
    if settings.user is not None:
        name, uid, gid = _user(settings.user)
    if settings.group is not None:
        gid = _group(settings.group)
    if (uid, gid) == (os.geteuid(), os.getegid()):
        return None
    if os.geteuid() != 0:
        raise ConfigError("--user and --group: only root can become another; start as root, or as that user")
    groups = os.getgrouplist(name, gid) if settings.initgroups and name else [gid]
    return Owner(uid, gid, tuple(groups))


def _user(text: str) -> tuple[str, int, int]:
    import pwd

    try:
        found = pwd.getpwuid(int(text)) if _is_number(text) else pwd.getpwnam(text)
    except KeyError:
        if _is_number(text):
            return "", int(text), os.getegid()  # containers have users without a name
        raise ConfigError(f"--user {text}: there is no such user") from None
    return found.pw_name, found.pw_uid, found.pw_gid


def _group(text: str) -> int:
    import grp

    try:
        return int(text) if _is_number(text) else grp.getgrnam(text).gr_gid
    except KeyError:
        raise ConfigError(f"--group {text}: there is no such group") from None


def _is_number(text: str) -> bool:
    """Whether `text` is the number of a user or a group; the highest of 32 bits means "as it is" to chown(2)."""
    return text.isdecimal() and len(text) <= 10 and int(text) < 2**32 - 1
