"""Eight real processes write one file on disk at the same instant: one wins, and no write is torn."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.pool import Pool
from pathlib import Path
from threading import Barrier

import pytest

from airflow_provider_luma.storage import LocalFile
from airflow_provider_luma.storage.local import LOCK_NAME

WRITERS, ROUNDS, STEPS = 8, 5, 20
#: Larger than what a disk writes at once.
LENGTH = 200_000

Write = Callable[[int, LocalFile, str], bool]


def content_of(writer: int) -> bytes:
    return f"{writer}".encode() * LENGTH


def create(writer: int, file: LocalFile, before: str) -> bool:
    return file.create(content_of(writer)) is not None


def replace(writer: int, file: LocalFile, before: str) -> bool:
    return file.replace(content_of(writer), before) is not None


def put(writer: int, file: LocalFile, before: str) -> bool:
    """Put a video in place unless the file there has changed, like a delivery."""

    def allowed() -> bool:
        there = file.read_version()
        return there is not None and there.token == before

    with file.staged(f"{writer}") as part:
        part.write_bytes(content_of(writer))
        try:
            return file.put(part, allowed) is not None
        except FileNotFoundError:  # the winner removes the others' partial files
            return False


def count_up(writer: int, file: LocalFile, before: str) -> bool:
    """Increment a number, retrying if another process was faster."""
    for _ in range(STEPS):
        written = None
        while written is None:
            there = file.read_version()
            assert there is not None
            written = file.replace(str(int(there.content) + 1).encode(), there.token)
    return True


class Writers:
    """Processes that start writing at the same time."""

    def __init__(self, pool: Pool, start: Barrier) -> None:
        self._pool = pool
        self._start = start

    def write(self, write_once: Write, path: Path) -> list[bool]:
        """Let all write at once; return those that report success."""
        there = LocalFile(path).read_version()
        job = partial(begin, write_once, self._start, path=path, before=there.token if there else "")
        return self._pool.map(job, range(WRITERS), chunksize=1)


def begin(write_once: Write, start: Barrier, writer: int, path: Path, before: str) -> bool:
    start.wait(60)
    return write_once(writer, LocalFile(path), before)


@pytest.fixture(scope="module")
def writers() -> Iterator[Writers]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["airflow_provider_luma.storage"])
    with context.Manager() as manager, context.Pool(WRITERS) as pool:
        yield Writers(pool, manager.Barrier(WRITERS))


@pytest.mark.parametrize("round_", range(ROUNDS))
@pytest.mark.parametrize("write_once", [create, replace, put])
def test_of_many_writers_one_wins(writers: Writers, tmp_path: Path, write_once: Write, round_: int) -> None:
    path = tmp_path / "folder" / "v.mp4"
    if write_once is not create:
        LocalFile(path).create(b"before")
    said = writers.write(write_once, path)
    assert sum(said) == 1
    assert path.read_bytes() == content_of(said.index(True))
    assert {one.name for one in path.parent.iterdir()} - {LOCK_NAME} == {"v.mp4"}


def test_no_write_is_lost(writers: Writers, tmp_path: Path) -> None:
    path = tmp_path / "n.json"
    LocalFile(path).create(b"0")
    assert writers.write(count_up, path) == [True] * WRITERS
    assert path.read_bytes() == str(WRITERS * STEPS).encode()
