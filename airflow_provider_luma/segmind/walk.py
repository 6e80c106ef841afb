"""One walk over JSON of unknown shape and depth. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any


def walk(value: Any, *, into_lists: bool = True) -> Iterator[Any]:
    """Yield a JSON value and all values in it, the shallowest first, else in the order of the text.

    An object may be changed when it is yielded: its members come after that.

    :param into_lists: whether the items of lists are yielded too; the lists themselves always are
    """
    pending = deque([value])
    while pending:
        item = pending.popleft()
        yield item
        if isinstance(item, dict):
            pending.extend(item.values())
        elif isinstance(item, list) and into_lists:
            pending.extend(item)
