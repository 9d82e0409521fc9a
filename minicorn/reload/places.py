"""Places to watch: which directories those are, by how few watches, and on what file systems they lie."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from minicorn.reload.changes import CACHES

# File systems that others than this kernel may change, of which it tells nothing then
FOREIGN = ("nfs", "nfs4", "cifs", "smb3", "9p", "vboxsf", "vmhgfs", "drvfs", "virtiofs", "fuse", "prl_fs", "afs")


def plan_watches(root: str, enters: Callable[[str], bool]) -> tuple[list[str], list[str]]:
    """The directories to watch without, and with, all that is below: `enters` says what is left out."""
    flat: list[str] = []
    whole: list[str] = []
    clean = True
    try:
        below = [e.path for e in os.scandir(root) if e.is_dir(follow_symlinks=False) and e.name != CACHES]
    except OSError:
        below = []
    for directory in below:
        if not enters(directory):
            clean = False
            continue
        its_flat, its_whole = plan_watches(directory, enters)
        clean = clean and not its_flat
        flat += its_flat
        whole += its_whole
    return ([], [root]) if clean else ([root, *flat], whole)


def outermost(roots: list[str]) -> list[str]:
    """The roots that are not below another."""
    found: list[str] = []
    for root in sorted(set(roots)):
        if not any(root == other or root.startswith(other.rstrip("/") + "/") for other in found):
            found.append(root)
    return found


def file_system(path: str) -> str:
    """The type of the file system that `path` is on; "" where the system does not tell."""
    try:
        table = Path("/proc/self/mountinfo").read_text()
    except OSError:
        return ""
    best, kind = "", ""
    real = os.path.realpath(path)
    for entry in table.splitlines():
        fields, _, rest = entry.partition(" - ")
        mount = fields.split()[4].replace("\\040", " ")
        if len(mount) >= len(best) and (real + "/").startswith(mount.rstrip("/") + "/"):
            best, kind = mount, rest.split()[0]
    return kind
