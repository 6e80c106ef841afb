"""The vendor's request ids: opaque strings that a reply may echo in another spelling. Pure."""

from __future__ import annotations

#: A UUID has 36 characters, and the vendor shows nothing longer; anything much longer is not an id.
_LONGEST = 200


def parse_id(value: object) -> str | None:
    """Return a request id; None if the value is not printable text without white space, or is too long."""
    if not isinstance(value, str):
        return None
    text = value.strip()
    # isprintable() is False for surrogates, control characters and all white space except the space itself.
    return text if 0 < len(text) <= _LONGEST and text.isprintable() and " " not in text else None


def id_key(request_id: str) -> str:
    """Normalize an id: its spellings differ in dashes and case."""
    return request_id.replace("-", "").casefold()


def is_same_id(value: object, request_id: str) -> bool:
    """Whether a value from a reply is this job's id."""
    named = parse_id(value)
    return named is not None and id_key(named) == id_key(request_id)
