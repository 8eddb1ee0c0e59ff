"""Lets root run a program that refuses to be run by root, such as PostgreSQL."""

import ctypes
import os
import pwd
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_KEEPCAPS, PR_SET_CHILD_SUBREAPER, PR_CAP_AMBIENT = 1, 8, 36, 47
PR_CAP_AMBIENT_RAISE = 2
CAP_DAC_OVERRIDE = 1
CAPABILITY_VERSION_3 = 0x20080522

UNPRIVILEGED_ACCOUNT = "nobody"
"""Exists on every Linux and macOS, so that no account must be created."""


def account_for_postgres() -> str | None:
    """Name the account that PostgreSQL must run as, or None when ours will do."""
    return UNPRIVILEGED_ACCOUNT if os.geteuid() == 0 else None


def give_to(account: str | None, path: Path) -> None:
    """Make `path` belong to `account`; nothing to do for None."""
    if account is not None:
        entry = pwd.getpwnam(account)
        os.chown(path, entry.pw_uid, entry.pw_gid)


def closed_folders(path: Path) -> list[Path]:
    """List the folders above `path` that other accounts may not enter (a home folder, often)."""
    return [folder for folder in path.resolve().parents if not folder.stat().st_mode & 0o001]


def become(account: str, *, must_reach: list[Path]) -> None:
    """
    Turn this process, which is root's and about to call exec, into one of `account`.

    Where `account` may not enter a folder above `must_reach` (a checkout in /root), the process keeps the
    one capability to pass it, on Linux, rather than opening that folder to everybody.

    Raises:
        PermissionError: When a folder stays closed.
    """
    entry = pwd.getpwnam(account)
    closed = sorted({folder for path in must_reach for folder in closed_folders(path)})
    keep = bool(closed) and _prctl(PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    if closed and not (keep and _keep_file_access()):
        raise PermissionError(
            f"account {account!r}, which must run PostgreSQL instead of root, cannot enter {closed[0]}. "
            f"Allow it (chmod o+x {closed[0]}), or run as another user."
        )


def adopt_orphans() -> None:
    """Make descendants whose parent died ours, so that they can be found and ended. Linux only."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(with_signal: signal.Signals) -> None:
    """Have the kernel send `with_signal` when the thread that forked this process ends. Linux only."""
    _prctl(PR_SET_PDEATHSIG, int(with_signal))


def _prctl(option: int, value: int) -> bool:
    if sys.platform != "linux":
        return False
    return bool(ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) == 0)


def _keep_file_access() -> bool:
    """Carry CAP_DAC_OVERRIDE over the coming exec; needs PR_SET_KEEPCAPS before the change of user."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    bit = 1 << CAP_DAC_OVERRIDE
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0)  # effective, permitted, inheritable; low, high words
    if libc.capset(header, sets) != 0:
        return False
    return bool(libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE, 0, 0) == 0)
