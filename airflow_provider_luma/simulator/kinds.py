"""The table of faults: which calls can go wrong, and how."""

from __future__ import annotations

from dataclasses import dataclass

CALLS = ("submit", "v1", "status", "result", "download", "credits", "upload", "history", "history_one")
_HISTORY = ("history", "history_one")


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    :param does: what it does, with the fields that it reads in angle brackets
    :param accepted: whether the call has its effect unless the fault says otherwise; None: only for a 5xx
    :param calls: the calls that it applies to
    :param styles: the values of the field `style`, the default first
    :param spoils_truth: whether the reply is the true one with a flaw, so that the call always has its effect
    """

    does: str
    accepted: bool | None
    calls: tuple[str, ...] = CALLS
    styles: tuple[str, ...] = ()
    spoils_truth: bool = False


def _flaw(does: str, *calls: str, styles: tuple[str, ...] = ()) -> Kind:
    return Kind(does, True, calls or CALLS, styles, spoils_truth=True)


KINDS = {
    # Refusals and errors
    "status": Kind("answers <status> (500) with <message>; a 429 with <seconds> has its reset time", False),
    "gateway": Kind(
        'answers as a gateway, after at most <seconds> of work: <status> (502), {"status": "FAILED", "message": '
        "<message>}, its own x-request-id; accepted by default for a 5xx; a 429 as above",
        None,
    ),
    "html": Kind("answers a page with <status> (200)", True),
    "error_object": Kind('answers 200 with {"error": <message>}', False),
    "echo_key": Kind(
        "answers <status> (401) with the key in the message, escaped by <style>",
        False,
        styles=("raw", "json", "html", "percent"),
    ),
    "redirect": Kind("answers 302 to <location>", False),
    # Lines
    "reset": Kind("resets the connection, after at most <seconds> of work", True),
    "timeout": Kind("sends nothing for <seconds> (a day), then hangs up", True),
    "slow": Kind("sends the true reply over <seconds> (1)", True),
    "truncated": Kind("hangs up after half of the true reply", True),
    "cut": _flaw("hangs up after <bytes> (1024) of each true reply that is longer"),
    # Bodies
    "broken_json": Kind("answers 200 with half a JSON object", True),
    "empty": Kind("answers 200 with nothing", True),
    "wrong_shape": Kind("answers 200 with []", True),
    "wrong_content_type": Kind("sends the true reply as text/plain", True),
    "not_video": Kind("answers 200 with a line of text", False),
    "odd_id": _flaw(
        "answers with an invalid request_id, by <style>",
        "submit",
        styles=("surrogate", "empty", "number"),
    ),
    # Files
    "short_file": _flaw(
        "sends the first <bytes> (half) of the video as if they were all of it", "download", "v1"
    ),
    "changed": _flaw(
        "sends another file of the same size, without ETag and Last-Modified: the same video, "
        "with its index at the end",
        "download",
    ),
    # Jobs and their history
    "failed": _flaw("accepts the job, which ends FAILED with <message>, unbilled", "submit", "v1"),
    "history_lies": _flaw("gives each row the state of another job", *_HISTORY),
    "wrong_order": _flaw("sorts the rows in reverse", "history"),
}
