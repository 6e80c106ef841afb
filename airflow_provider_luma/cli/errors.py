"""Why a command did not do what it was asked."""

from __future__ import annotations


class Refused(Exception):
    """Nothing was changed, unless the text says so.

    :param lines: the cause, what is on record, and what to do, each a sentence or more; empty ones are left out
    :param code: the exit code; 2 for arguments that do not go together
    """

    def __init__(self, *lines: str, code: int = 1) -> None:
        super().__init__("\n".join(line for line in lines if line))
        self.code = code
