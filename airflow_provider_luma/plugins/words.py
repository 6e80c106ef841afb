"""How far a clip got and what that means for the money, for a person who did not write the DAG. Pure."""

from __future__ import annotations

import json
import re
import shlex
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from urllib.parse import urlsplit

from airflow_provider_luma.jobs.record import JobRecord, RecordState
from airflow_provider_luma.segmind.models import model_info
from airflow_provider_luma.segmind.money import usd

_URL = re.compile(r"https?://\S+")
LABELS = {
    RecordState.INTENT: "being bought",
    RecordState.SUBMITTED: "in flight",
    RecordState.COMPLETED: "rendered",
    RecordState.DELIVERED: "delivered",
    RecordState.FAILED: "failed",
    RecordState.GIVEN_UP: "given up",
}
#: The label of a clip that needs a person: nobody knows what its paid call bought.
UNKNOWN = "unknown"


def label(state: RecordState, error: str | None) -> str:
    """Return a state in a word or two."""
    return UNKNOWN if needs_person(state, error) else LABELS[state]


def needs_person(state: RecordState, error: str | None) -> bool:
    """Whether nobody knows what became of the paid call. The record says why; it mostly takes a person to find out."""
    return state is RecordState.INTENT and error is not None


def standing(take: JobRecord) -> str:
    """Return how far a take got, in a sentence or two."""
    if needs_person(take.state, take.error):
        return (
            f"Nobody knows what became of the paid call of {clock(take.intent_at)}: it may have bought a clip. "
            "The task looks for the job; if it finds none, it fails and buys nothing until a person settles it."
        )
    return {
        RecordState.INTENT: f"The paid call has been under way since {clock(take.intent_at)}.",
        RecordState.SUBMITTED: f"In flight since {clock(take.submitted_at)}, on record; a retry re-attaches and pays "
        "nothing.",
        RecordState.COMPLETED: f"Rendered by {clock(take.completed_at)}; the video is on its way. A retry "
        "fetches it and pays nothing.",
        RecordState.DELIVERED: f"Delivered at {clock(take.delivered_at)}.",
        RecordState.FAILED: "The job failed, and a failed job is not billed; a retry buys a new one."
        if take.request_id
        else "The call was refused, and bought nothing.",
        RecordState.GIVEN_UP: "Bought, and given up by a person; the next attempt buys another.",
    }[take.state]


def commands(state: RecordState, error: str | None, path: str) -> list[tuple[str, str]]:
    """Return the commands that settle a take that needs a person, each with when to use it."""
    if not needs_person(state, error):
        return []
    return [
        ("Segmind's dashboard shows its job:", _command("adopt", path, "REQUEST_ID")),
        ("It shows none:", _command("not-bought", path)),
    ]


def _command(name: str, *arguments: str) -> str:
    return shlex.join(("python", "-m", "airflow_provider_luma", name, *arguments))


def times(take: JobRecord) -> list[tuple[str, str, str]]:
    """Return when a take was queued, rendered and delivered, each with how long after the one before."""
    known = [
        ("Queued", take.submitted_at or take.intent_at),
        ("Rendered", take.completed_at),
        ("Delivered", take.delivered_at),
    ]
    told: list[tuple[str, str, str]] = []
    before: datetime | None = None
    for name, text in known:
        at = moment(text)
        if at is not None:
            told.append((name, at.isoformat(), f"after {_duration(at - before)}" if before else ""))
            before = at
    return told


def _duration(taken: timedelta) -> str:
    seconds = taken.total_seconds()
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s" if seconds < 10 else f"{rest} s"


def cost(take: JobRecord) -> str:
    """Return what a take cost, or will."""
    return cost_of(take.cost, take.state, take.model)


def cost_of(known: Decimal | None, state: RecordState, model: str) -> str:
    """Return what a take cost, or will, by what is known of it."""
    if known is not None:
        return usd(known)
    if state is RecordState.FAILED:
        return "nothing"
    price = model_info(model).price
    return "not on record" if price is None else f"about {usd(price)}"


def parameter(value: object) -> str:
    """Return a parameter's value."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return without_urls(value if isinstance(value, str) else json.dumps(value))


def frame(source: str) -> str:
    """Return where a start frame came from; of a URL only the file's name."""
    if not source.startswith(("http://", "https://")):
        return source
    try:
        return urlsplit(source).path.rpartition("/")[2] or "a URL"
    except ValueError:
        return "a URL"


def without_urls(text: str) -> str:
    """Return a text with its URLs left out: the vendor's are good for whoever has them."""
    return _URL.sub("(a URL)", text)


def clock(text: str | None) -> str:
    """Return a time as a person reads it."""
    known = moment(text)
    return known.strftime("%Y-%m-%d %H:%M:%S UTC") if known else "an unknown time"


def moment(text: str | None) -> datetime | None:
    """Return a record's time in UTC; None if it has none that can be read."""
    try:
        read = datetime.fromisoformat(text or "")
        return (read if read.tzinfo else read.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def size(amount: int | None) -> str:
    """Return a number of bytes."""
    return (
        "" if amount is None else f"{amount / 1e6:.1f} MB" if amount >= 100_000 else f"{amount / 1e3:.1f} kB"
    )
