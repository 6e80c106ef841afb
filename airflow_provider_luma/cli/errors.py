"""Why a command refused."""

from __future__ import annotations


class Refused(Exception):
    """A command refused; it changed nothing unless the text says so.

    :param lines: the cause, what is on record, and what to do, each a sentence or more; empty ones are dropped
    :param code: the exit code; 2 for invalid arguments
    """

    def __init__(self, *lines: str, code: int = 1) -> None:
        super().__init__("\n".join(line for line in lines if line))
        self.code = code
