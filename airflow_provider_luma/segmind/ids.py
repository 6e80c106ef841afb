"""The vendor's request ids: opaque texts, of which a reply may echo another spelling. Pure."""

from __future__ import annotations

#: A UUID has 36 characters, and nothing that the vendor shows is longer; what is much longer is no id.
_LONGEST = 200


def parse_id(value: object) -> str | None:
    """Return a request id; None where the value is not printable text without white space, or is too long."""
    if not isinstance(value, str):
        return None
    text = value.strip()
    # isprintable() is false of surrogates, control characters and all white space but the space itself.
    return text if 0 < len(text) <= _LONGEST and text.isprintable() and " " not in text else None


def id_key(request_id: str) -> str:
    """Return what all spellings of an id have in common: with or without dashes, in upper or lower case."""
    return request_id.replace("-", "").casefold()


def is_same_id(value: object, request_id: str) -> bool:
    """Tell whether a value of a reply names this job."""
    named = parse_id(value)
    return named is not None and id_key(named) == id_key(request_id)
