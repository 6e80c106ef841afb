"""The record on its two legs."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_luma.exceptions import LumaRayRecordError
from airflow_provider_luma.jobs.ledger import STATE_KEY, Ledger
from tests.jobs.test_decision import ME, SIBLING, record
from tests.support import MemoryStore


class BrokenStore:
    def get(self, key: str) -> Any:
        raise ConnectionError("the API server is away")

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        raise ConnectionError("the API server is away")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "clip.mp4"


@pytest.mark.parametrize("lost", ["neither", "file", "store"])
def test_either_leg_alone_suffices(output: Path, lost: str) -> None:
    store = MemoryStore()
    ledger = Ledger(ME, output, store)
    written = ledger.write(record("submitted"))
    if lost == "file":
        Path(str(ledger.path)).unlink()
    if lost == "store":
        store.values.clear()
    assert ledger.read() == (written, None)
    assert ledger.legs_agree is (lost == "neither")


def test_the_newer_copy_counts_where_the_legs_differ(output: Path) -> None:
    store = MemoryStore()
    Ledger(ME, output, store).write(record("submitted"))
    newer = Ledger(ME, output, None).write(replace(record("delivered"), revision=1))
    assert Ledger(ME, output, store).read() == (newer, None)
    newest = replace(record("failed"), revision=7)
    store.set(STATE_KEY, newest.to_json())
    assert Ledger(ME, output, store).read() == (newest, None)


def test_nothing_on_either_leg_is_no_record(output: Path) -> None:
    assert Ledger(ME, output, MemoryStore()).read() == (None, None)


def test_anothers_record_at_the_path_is_told_apart(output: Path) -> None:
    theirs = Ledger(SIBLING, output, None).write(record("submitted", owner=SIBLING))
    assert Ledger(ME, output, MemoryStore()).read() == (None, theirs)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b'{"schema_version": 99}'])
def test_an_unreadable_file_is_an_error_even_if_the_store_has_the_record(
    output: Path, content: bytes
) -> None:
    store = MemoryStore()
    ledger = Ledger(ME, output, store)
    ledger.write(record("submitted"))
    Path(str(ledger.path)).write_bytes(content)
    with pytest.raises(LumaRayRecordError, match=r"clip\.mp4\.job\.json is there but cannot be read"):
        ledger.read()


def test_a_directory_in_the_records_place_is_an_error(output: Path) -> None:
    ledger = Ledger(ME, output, None)
    Path(str(ledger.path)).mkdir()
    with pytest.raises(LumaRayRecordError, match="cannot be read"):
        ledger.read()


def test_an_unreadable_store_is_an_error_even_if_the_file_has_the_record(output: Path) -> None:
    Ledger(ME, output, None).write(record("submitted"))
    with pytest.raises(LumaRayRecordError, match="task state store"):
        Ledger(ME, output, BrokenStore()).read()


def test_before_a_purchase_both_legs_must_take_the_record(output: Path) -> None:
    with pytest.raises(LumaRayRecordError, match="Nothing was bought"):
        Ledger(ME, output, BrokenStore()).write(record("intent"), before_purchase=True)


def test_after_a_purchase_one_leg_is_enough(output: Path) -> None:
    written = Ledger(ME, output, BrokenStore()).write(record("submitted"))
    assert Ledger(ME, output, None).read() == (written, None)


def test_after_a_purchase_no_leg_is_an_error_that_begins_with_the_id(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LumaRayRecordError, match=r"^r1: .* not on record"):
        Ledger(ME, tmp_path / "file" / "clip.mp4", BrokenStore()).write(record("submitted"))


def test_a_write_that_dies_leaves_the_old_record_whole(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(ME, output, None)
    first = ledger.write(record("intent"))

    def die(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", die)
        with pytest.raises(KeyboardInterrupt):
            ledger.write(replace(first, error="x" * 10_000))
    assert ledger.read() == (first, None)
    assert [path.name for path in output.parent.iterdir()] == ["clip.mp4.job.json"]


def test_neighbours_are_the_other_records_in_the_folder(output: Path) -> None:
    Ledger(ME, output, None).write(record("intent"))
    theirs = Ledger(SIBLING, output.with_name("b.mp4"), None).write(record("submitted", owner=SIBLING))
    (output.parent / "notes.json").write_text(json.dumps({}))
    assert list(Ledger(ME, output, None).neighbours(datetime.now(UTC))) == [theirs]
