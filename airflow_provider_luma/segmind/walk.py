"""Traverses JSON of unknown shape and depth. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any


def walk(value: Any, *, into_lists: bool = True) -> Iterator[Any]:
    """Yield a JSON value and all values in it, breadth first, in document order.

    An object may be modified when it is yielded: its members are visited afterwards.

    :param into_lists: whether to yield the items of lists; the lists themselves always are
    """
    pending = deque([value])
    while pending:
        item = pending.popleft()
        yield item
        if isinstance(item, dict):
            pending.extend(item.values())
        elif isinstance(item, list) and into_lists:
            pending.extend(item)
