"""Whether a path lies on a network share: reading there costs what a request costs, so that a disk tier is worth it."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")
FRESH_S = 60.0
"""How long the list of mounts is believed."""
NETWORK = {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "9p", "coda", "davfs"),
    *("lustre", "gpfs", "beegfs", "ceph", "glusterfs", "ocfs2", "gfs2", "orangefs", "pvfs2", "panfs", "wekafs"),
}
"""File systems of other machines, by the names that mountinfo gives them."""
LOCAL_FUSE = {"fuseblk", "fuse.ntfs-3g", "fuse.exfat", "fuse.fuse-overlayfs", "fuse.mergerfs", "fuse.lxcfs"}
"""File systems in user space with their files on this machine; all others count as remote (sshfs, s3fs, gcsfuse)."""


@dataclass(frozen=True, kw_only=True)
class Mount:
    """One line of mountinfo."""

    point: str
    """Where it is mounted."""
    kind: str
    """Type of the file system."""

    @property
    def is_network(self) -> bool:
        """Return whether its files lie on another machine, as far as the type tells."""
        kind = self.kind.lower()
        return kind in NETWORK or (kind.partition(".")[0] in ("fuse", "fuseblk") and kind not in LOCAL_FUSE)


def parse_mounts(text: str) -> tuple[Mount, ...]:
    """Return the mounts of a `mountinfo` file, the last mounted of each point last.

    Parameters
    ----------
    text : str
        Content of `/proc/self/mountinfo`; lines that are not understood are passed over.

    Returns
    -------
    tuple of Mount
        In the order of the file.

    References
    ----------
    `man 5 proc_pid_mountinfo`: fields after the optional ones are separated by a single hyphen.
    """
    mounts = []
    for line in text.splitlines():
        head, dash, tail = line.partition(" - ")
        fields, kinds = head.split(), tail.split()
        if dash and len(fields) > 4 and kinds:
            mounts.append(Mount(point=_unescaped(fields[4]), kind=kinds[0]))
    return tuple(mounts)


def mount_of(path: str, mounts: tuple[Mount, ...]) -> Mount | None:
    """Return the mount that a path lies on, None where none is known.

    Parameters
    ----------
    path : str
        Absolute path without links.
    mounts : tuple of Mount
        As `parse_mounts` gives them.

    Returns
    -------
    Mount or None
        That with the longest point; of several on one point the last, which hides the others.
    """
    found: Mount | None = None
    for mount in mounts:
        point = mount.point.rstrip("/")
        is_below = path == point or path.startswith(point + "/")
        if is_below and (found is None or len(point) >= len(found.point.rstrip("/"))):
            found = mount
    return found


def on_network(path: str) -> bool:
    """Return whether a file or folder lies on a network share; False where the system does not tell.

    Parameters
    ----------
    path : str
        Path; the parts that do not exist yet are passed over.

    Returns
    -------
    bool
        By the type of the file system that it lies on: NFS, SMB, Lustre, GPFS, Ceph and others, and FUSE.
    """
    return _on_network(str(Path(path).absolute().parent), int(time.monotonic() // FRESH_S))


@lru_cache(maxsize=1024)
def _on_network(folder: str, _minute: int) -> bool:
    mount = mount_of(os.path.realpath(folder), _mounts(_minute))
    return mount is not None and mount.is_network


@lru_cache(maxsize=1)
def _mounts(_minute: int) -> tuple[Mount, ...]:
    try:
        return parse_mounts(MOUNTINFO.read_text(errors="surrogateescape"))
    except OSError:  # no Linux
        return ()


def _unescaped(point: str) -> str:
    """Return a mount point with its blanks and backslashes, which stand as octal numbers in the file."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), point)
