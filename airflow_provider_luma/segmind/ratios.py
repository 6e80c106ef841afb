"""Aspect ratios: how much of a frame one crops, and which crops least. Pure."""

from __future__ import annotations

from collections.abc import Iterable

Shape = tuple[int, int]


def cut_off(shape: Shape, ratio: str) -> float:
    """Return the share of a frame that a ratio crops; 0 if the ratio cannot be parsed.

    :param shape: the frame's width and height
    :param ratio: width to height, such as 16:9
    """
    width, _, height = ratio.partition(":")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        return 0.0
    wanted, given = int(width) / int(height), shape[0] / shape[1]
    return 1 - min(wanted / given, given / wanted)


def nearest(shape: Shape, ratios: Iterable[str]) -> str:
    """Return the ratio that crops least of a frame."""
    return min(ratios, key=lambda ratio: cut_off(shape, ratio))
