"""The clips of a task that buys several with the hook, each by its key."""

from __future__ import annotations

import re
from html import unescape

import pytest

from airflow_provider_luma.jobs.record import Identity
from tests.plugins import clips
from tests.plugins.clips import VIDEO
from tests.plugins.conftest import Shown

pytestmark = pytest.mark.airflow
KEYS = ("coffee", "a/b?v=1&c=<b>", "")


@pytest.fixture(scope="module")
def keyed(shown: Shown) -> dict[str, Identity]:
    """One task's clips, each with a video of its own."""
    made = {}
    for number, key in enumerate(KEYS):
        whose = shown.identity().model_copy(update={"key": key})
        clip = shown.root / "clips" / shown.run_id / f"{number}.mp4"
        clips.put(clip, whose, video=VIDEO + bytes([number]), request_id=f"{shown.run_id}-{number}")
        made[key] = whose
    shown.wait(made[KEYS[-1]], "<video")
    return made


@pytest.mark.parametrize("key", KEYS)
def test_each_clip_has_its_page_and_its_video(shown: Shown, keyed: dict[str, Identity], key: str) -> None:
    page = shown.get("of_clips", keyed[key]).text
    (video,) = re.findall(r'<video[^>]* src="\.\./\.\./\.\./\.\./([^"]+)"', page)
    assert shown.server.get("of_clips", unescape(video)).content == VIDEO + bytes([KEYS.index(key)])
    assert "<b>" not in page
    assert len(re.findall(r'class="tile ', page)) == len(KEYS) - 1


@pytest.mark.parametrize("where", ["gallery", "run", "task"])
def test_lists_lead_to_every_clip_and_count_each(
    shown: Shown, keyed: dict[str, Identity], where: str
) -> None:
    path = {
        "gallery": "gallery",
        "run": f"run/clips/{shown.run_id}",
        "task": clips.url_of(shown.identity()),
    }[where]
    page = shown.server.get("of_clips", path).text
    links = [unescape(link) for link in re.findall(r'class="tile [^"]*" href="([^"]+)"', page)]
    mine = {link.removeprefix("../" * link.count("../")) for link in links if shown.run_id in link}
    assert len(mine) == len(KEYS)
    assert all("<video" in shown.server.get("of_clips", link).text for link in mine)
    if where == "run":
        assert "<strong>4.80 USD</strong>" in page


@pytest.mark.parametrize(("user", "status"), [(None, 401), ("of_others", 403), ("nobody", 403)])
@pytest.mark.parametrize("part", ["", "/video"])
def test_a_key_opens_no_clip_of_a_dag_that_a_user_may_not_read(
    shown: Shown, keyed: dict[str, Identity], user: str | None, status: int, part: str
) -> None:
    for key in ("coffee", "no such key"):
        reply = shown.get(user, keyed["coffee"].model_copy(update={"key": key}), part)
        assert (reply.status_code, "coffee" in reply.text) == (status, False)


def test_a_key_that_is_not_on_record_has_no_clip(shown: Shown, keyed: dict[str, Identity]) -> None:
    other = keyed["coffee"].model_copy(update={"key": "tea"})
    assert shown.get("of_clips", other, "/video").status_code == 404
    assert "<video" not in shown.get("of_clips", other).text
