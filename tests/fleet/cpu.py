"""The CPU time of components, with all that they forked."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def seconds(root: int) -> float:
    """Return the CPU seconds so far of a process, of its session and of its descendants, dead ones included.

    The dead ones' time is in that of the parent that waited for them.
    """
    everybody = dict(_everybody())
    ours = {pid for pid, (_, session, _) in everybody.items() if root in (pid, session)}
    while new := {pid for pid, (parent, _, _) in everybody.items() if parent in ours} - ours:
        ours |= new
    return sum(everybody[pid][2] for pid in ours)


def _everybody() -> Iterable[tuple[int, tuple[int, int, float]]]:
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks = sum(map(int, fields[11:15]))  # its own, and its dead children's: user and system
        yield int(name), (int(fields[1]), int(fields[3]), ticks / _TICK)
