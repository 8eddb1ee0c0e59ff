"""Looks at processes and their descendants, and ends them."""

import psutil


def runs(process: psutil.Process) -> bool:
    """Tell whether a process still does anything; a zombie, which only waits to be counted, does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def descendants(process: psutil.Process) -> list[psutil.Process]:
    """List what a process has started, and what that has started; nothing once it is gone."""
    try:
        found: list[psutil.Process] = process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return found


def kill(process: psutil.Process) -> None:
    """Kill a process; it may be gone."""
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return
