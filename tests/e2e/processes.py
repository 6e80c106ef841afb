"""Process sessions: find and kill a program with everything that it has forked since.

Airflow gives each task its own process group and leaves tasks behind as orphans when a scheduler is killed, but none
of its processes leaves the session in which its component was started. Run as a program, this file is the warden: it
kills the sessions that it knows as soon as its standard input closes, which also happens if the tests are killed.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A live process, from ``/proc``."""

    pid: int
    parent: int
    session: int


def read(pid: int) -> Process | None:
    """Return a process; None if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else Process(pid, int(fields[1]), int(fields[3]))


def members(session: int) -> list[Process]:
    """Return the live processes of a session."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [process for pid in pids if (process := read(pid)) and process.session == session]


def kill(pid: int) -> bool:
    """Send SIGKILL; return whether the process still existed."""
    if read(pid) is None:
        return False
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


def end(session: int) -> None:
    """Kill a session's processes until none are left."""
    while found := members(session):
        for process in found:
            kill(process.pid)
        time.sleep(0.02)


def watch() -> None:
    """Read ``+<session>`` and ``-<session>`` lines until the input ends, then end the sessions that remain."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # whoever ends the tests so still wants their Airflow gone
    sessions: set[int] = set()
    for line in sys.stdin:
        (sessions.add if line[0] == "+" else sessions.discard)(int(line[1:]))
    for session in sessions:
        end(session)


if __name__ == "__main__":
    watch()
