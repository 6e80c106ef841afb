"""Damaged and forged records: none of them takes a page down, changes a header, or counts as money."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_luma.jobs.ledger import SUFFIX
from airflow_provider_luma.jobs.record import Identity, JobRecord
from airflow_provider_luma.plugins.checks import check
from tests.plugins import clips
from tests.plugins.conftest import Shown

pytestmark = pytest.mark.airflow
Damage = Callable[[dict[str, Any]], None]


def _set(**values: Any) -> Damage:
    return lambda record: record.update(values)


def _of(part: str, **values: Any) -> Damage:
    return lambda record: record[part].update(values)


YEAR_1, YEAR_1_UTC = "0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00+00:00"
#: Shown, with what can be shown of them.
ODD: dict[str, Damage] = {
    "half_a_character": _of("parameters", prompt="\ud800 x"),
    "half_a_character_in_a_name": _of("parameters", **{"\ud800": "x"}),
    "no_time_of_delivery": _set(delivered_at=YEAR_1),
    "no_time_of_completion": _set(completed_at=YEAR_1),
    "deep": _of("parameters", loop=json.loads("[" * 400 + "]" * 400)),
    "fields_of_another": _set(started="x", takes=[1], key=3, is_in_flight=True, changed=1),
    "header": _set(sha256='x"\r\nSet-Cookie: forged=1\r\n\r\n<script>alert(1)</script>'),
    "no_latin_header": _set(sha256="\u0100" * 64),
    "no_url": _set(start_frame="http://[no host/a.jpg"),
    "zero": _of("parameters", prompt="a\0b"),
}
#: Not shown: no page could say anything true about them.
REFUSED: dict[str, Damage] = {
    "no_prompt": lambda record: record["parameters"].pop("prompt"),
    "prompt_is_no_text": _of("parameters", prompt={"a": 1}),
    "a_million_digits": _set(cost="1E+999999"),
    "infinite_in_a_plot": _set(cost="1E+400"),
    "balance_of_a_million_digits": _set(remaining_credits="1E+999999"),
    "year_1": _set(submitted_at=YEAR_1_UTC),
    "before_year_1": _set(submitted_at=YEAR_1),
    "after_year_9999": _set(submitted_at="9999-12-31T23:59:59-14:00"),
    "year_9999": _set(submitted_at="9999-12-31T23:59:59+00:00"),
    "more_bytes_than_a_float": _set(bytes=10**400),
    "way_out_of_the_app": _of("identity", run_id="../../../auth/logout?x="),
    "dots": _of("identity", task_id=".."),
    "zero_in_an_id": _of("identity", dag_id="damaged\0"),
    "reversed_id": _of("identity", run_id="\u202etxt"),
    "negative_index": _of("identity", map_index=-5),
    "bool": lambda record: record.update(identity=True),
}


@pytest.fixture(scope="module")
def damaged(shown: Shown) -> dict[str, Identity]:
    made = {}
    for name, damage in (ODD | REFUSED).items():
        whose = shown.identity("damaged", task_id=name)
        clip = shown.path(whose)
        record = json.loads(clips.put(clip, whose, request_id=name).to_bytes())
        damage(record)
        clip.with_name(clip.name + SUFFIX).write_text(json.dumps(record))
        made[name] = whose
    last = shown.identity("damaged", task_id="zz_last")
    clips.put(shown.path(last), last, request_id="zz_last")
    shown.wait(last, "<video")
    return made


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_in_a_record_does_not_keep_the_rest_from_being_shown(
    shown: Shown, damaged: dict[str, Identity], name: str
) -> None:
    page = shown.get("of_damaged", damaged[name])
    assert (page.status_code, "<video" in page.text) == (200, True)
    video = shown.get("of_damaged", damaged[name], "/video")
    assert (video.status_code, video.content) == (200, clips.VIDEO)
    assert "Set-Cookie" not in video.headers
    assert "Content-Security-Policy" in video.headers


@pytest.mark.parametrize("name", REFUSED)
def test_a_record_that_cannot_be_true_is_not_shown(
    shown: Shown, damaged: dict[str, Identity], name: str
) -> None:
    page = shown.get("of_damaged", damaged[name])
    assert (page.status_code, "No clip of this task instance" in page.text) == (200, True)
    assert shown.get("of_damaged", damaged[name], "/video").status_code == 404


@pytest.mark.parametrize("path", ["gallery", "run/damaged/{run_id}"])
def test_lists_have_the_records_that_can_be_true_and_their_sum(
    shown: Shown, damaged: dict[str, Identity], path: str
) -> None:
    page = shown.server.get("of_damaged", path.format(run_id=shown.run_id))
    assert page.status_code == 200
    assert page.text.count('class="tile ') == len(ODD) + 1
    assert f"<strong>{1.6 * (len(ODD) + 1):.2f} USD</strong>" in page.text
    assert len(page.text) < 50_000
    assert "logout" not in page.text


def test_a_database_is_never_asked_about_an_id_that_it_cannot_hold(shown: Shown) -> None:
    for path in ("clip/clips%00/run/task/0", "clip/clips%00/run/task/0/video", "run/clips%00/run"):
        assert shown.server.get("anna", path).status_code == 403


@pytest.mark.parametrize("name", REFUSED)
def test_a_record_that_cannot_be_true_is_refused_by_the_name_of_what_is_wrong(
    tmp_path: Path, name: str
) -> None:
    record = json.loads(clips.put(tmp_path / "a.mp4", clips.identity()).to_bytes())
    REFUSED[name](record)
    with pytest.raises(ValueError):  # noqa: PT011 - pydantic's own say more
        check(JobRecord.load(record))


def test_a_clip_of_no_dag_is_shown_to_nobody(shown: Shown) -> None:
    nobodys = Identity.outside_tasks(f"coffee {shown.run_id}")
    clips.put(shown.root / f"nobodys-{shown.run_id}.mp4", nobodys)
    last = shown.identity("damaged", task_id="later")
    clips.put(shown.path(last), last)
    shown.wait(last, "<video")
    for user in ("anna", "of_damaged"):
        page = shown.server.get(user, "gallery?dag_id=damaged")
        assert (page.status_code, "clip//" in page.text, "nobodys" in page.text) == (200, False, False)


@pytest.mark.parametrize("path", ["gallery", "clip/damaged/run/task/0/video", "static/app.js"])
@pytest.mark.parametrize("user", [None, "of_damaged"])
def test_no_other_site_may_embed_a_reply(shown: Shown, user: str | None, path: str) -> None:
    assert shown.server.get(user, path).headers["Cross-Origin-Resource-Policy"] == "same-origin"
