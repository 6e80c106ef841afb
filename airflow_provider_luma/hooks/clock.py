"""The vendor's clock, learned from its replies, so that a worker's wrong clock does no harm."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

#: ``Date`` has whole seconds and some latency, so a smaller difference means nothing.
_TOLERANCE = timedelta(seconds=2)
#: A worker this far off could not validate the vendor's certificate, so it must be the ``Date`` that is wrong.
_ABSURD = timedelta(days=366)


class VendorClock:
    """The vendor's time: the worker's, corrected by the ``Date`` of the last reply.

    Safe to share between threads: learning replaces a single attribute.
    """

    def __init__(self) -> None:
        self._offset: timedelta | None = None

    def now(self) -> datetime:
        """Return the vendor's time in UTC, or the worker's before anything was learned."""
        moment = datetime.now(UTC)
        return self.of(moment) or moment

    def of(self, moment: datetime) -> datetime | None:
        """Translate a time of the worker's clock to the vendor's; None before anything was learned."""
        return None if self._offset is None else moment + self._offset

    def learn(self, headers: Mapping[str, str], sent_at: datetime) -> None:
        """Learn from a reply of the vendor's that has just arrived.

        :param headers: its headers
        :param sent_at: when the request was sent, by the worker's clock
        """
        received_at = datetime.now(UTC)
        date = parse_http_date(headers.get("Date"))
        is_cached = headers.get("Age", "0") != "0"
        if date is None or is_cached or abs(date - received_at) > _ABSURD:
            return
        # A reply that takes minutes (v1) may be stamped any time between request and reply.
        in_step = sent_at - _TOLERANCE < date < received_at + _TOLERANCE
        self._offset = timedelta(0) if in_step else date - received_at


def parse_http_date(value: str | None) -> datetime | None:
    """Parse an HTTP date such as ``Sun, 22 Nov 2026 10:00:00 GMT``; None if it is not one."""
    try:
        moment = parsedate_to_datetime(value or "")
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
