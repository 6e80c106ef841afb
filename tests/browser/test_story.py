"""A person makes clips, watches, looks through and publishes them, all in Airflow's own UI."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import DESKTOP, PHONE, SHOTS, Rig
from tests.e2e.cluster import FINISHED

EXAMPLE, NIGHTLY, REVIEW = "luma_ray_image_to_video", "luma_ray_nightly_batch", "luma_ray_review"
#: Of Playwright, which only this folder's tests need.
Error: type[Exception] = pytest.importorskip("playwright.sync_api").Error
LOOKS = [("light", DESKTOP), ("dark", DESKTOP), ("light", PHONE)]
PLAYS = "document.querySelector('video')?.readyState >= 2"


def until(page: Any, true: str, seconds: float = 60) -> None:
    """Wait for something to be true in a page. Playwright's own wait is an eval, which our pages forbid."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(Error):  # it is on its way to another page
            if page.evaluate(f"Boolean({true})"):
                return
        time.sleep(0.1)
    raise AssertionError(f"not true: {true}; {page.content()[-3000:]}")


def frame_of(page: Any, part: str) -> Any:
    """Return the frame of one of our pages, when it is there."""
    page.wait_for_function(
        "part => [...document.querySelectorAll('iframe')].some((one) => one.src.includes(part))", arg=part
    )
    for _ in range(100):
        for frame in page.frames[1:]:
            if part in frame.url:
                frame.wait_for_selector("main")
                return frame
        page.wait_for_timeout(100)
    raise AssertionError(f"no frame of {part}: {[frame.url for frame in page.frames]}")


def take_shots(rig: Rig, path: str, part: str, name: str) -> None:
    """Keep how a page looks, by light and dark, on a desktop and on a phone; nothing may stick out at the side."""
    for scheme, size in LOOKS:
        page = rig.page(size, scheme)
        page.goto(path)
        frame = frame_of(page, part)
        page.wait_for_timeout(1500)  # for the posters and the plots
        assert frame.evaluate("document.documentElement.scrollWidth <= innerWidth")
        dark = frame.evaluate("getComputedStyle(document.documentElement).colorScheme") == "dark"
        assert dark == (scheme == "dark")
        page.screenshot(path=SHOTS / f"{name}-{scheme}-{size[0]}.png")
        page.context.close()


@pytest.fixture(scope="session")
def connected(rig: Rig) -> Rig:
    """The connection, made in Airflow's form."""
    page = rig.page()
    page.goto("/connections")
    page.get_by_role("button", name="Add Connection").click()
    page.fill("input[name=connection_id]", "luma_ray_default")
    page.locator("#conn_type input, input#conn_type, [role=combobox]").first.click()
    page.keyboard.type("Luma")
    page.get_by_text("Luma Ray (Segmind)").last.click()
    page.fill("input[name=password]", rig.simulator.api_key)
    page.fill("input[name=host]", rig.simulator.url)
    page.get_by_role("button", name="Save").click()
    page.get_by_text("luma_ray_default").first.wait_for()
    page.context.close()
    return rig


def test_the_tab_follows_a_clip_from_in_flight_to_playing(connected: Rig) -> None:
    rig, run_id = connected, "watched"
    page = rig.page()
    rig.cluster.trigger(EXAMPLE, run_id)
    page.goto(f"/dags/{EXAMPLE}/runs/{run_id}/tasks/generate/plugin/luma-clip")
    frame = frame_of(page, "luma/clip/")
    frame.wait_for_selector(".state.in-flight", timeout=60_000)
    page.screenshot(path=SHOTS / "clip-in-flight.png")
    frame.wait_for_selector(".state.delivered", timeout=60_000)  # by itself
    until(frame, PLAYS)
    video = frame.evaluate(
        "(v => [v.videoWidth, v.videoHeight, Math.round(v.duration)])(document.querySelector('video'))"
    )
    assert video == [1280, 720, 3]
    frame.evaluate("document.querySelector('video').currentTime = 2.5")
    until(frame, "(v => !v.seeking && v.currentTime === 2.5)(document.querySelector('video'))")
    frame.evaluate("(v => { v.muted = true; return v.play(); })(document.querySelector('video'))")
    until(frame, "(v => v.currentTime > 0 && v.currentTime !== 2.5)(document.querySelector('video'))")
    page.context.close()
    take_shots(rig, f"/dags/{EXAMPLE}/runs/{run_id}/tasks/generate/plugin/luma-clip", "luma/clip/", "clip")


def test_the_tasks_link_leads_to_the_clip(connected: Rig) -> None:
    rig, run_id = connected, "linked"
    rig.cluster.trigger(EXAMPLE, run_id)
    rig.cluster.wait("the run ends", lambda: rig.cluster.run_states(EXAMPLE)[run_id] in FINISHED)
    page = rig.page()
    page.goto(f"/dags/{EXAMPLE}/runs/{run_id}/tasks/generate/details")
    page.locator("a[href^='luma/clip/']").first.click()
    page.wait_for_url(f"**/luma/clip/{EXAMPLE}/{run_id}/generate/-1")
    until(page, PLAYS)
    page.screenshot(path=SHOTS / "clip-page.png")
    page.context.close()


def test_another_operators_tab_has_one_quiet_line(connected: Rig) -> None:
    rig, run_id = connected, "quiet"
    rig.cluster.trigger(EXAMPLE, run_id)
    page = rig.page()
    page.goto(f"/dags/{EXAMPLE}/runs/{run_id}/tasks/report/plugin/luma-clip")
    frame = frame_of(page, "luma/clip/")
    assert frame.text_content("main").startswith("No clip of this task instance")
    page.context.close()


@pytest.fixture(scope="session")
def dozen(connected: Rig) -> Rig:
    """A run of twelve clips, one of them refused."""
    rig = connected
    rig.simulator.fault("submit", "status", status=422, message="The prompt violates the content policy")
    videos = rig.home / "luma-ray-videos" / "nightly"
    rig.cluster.trigger(
        NIGHTLY, "dozen", photos=str(rig.home / "photos"), videos=str(videos), max_credits=100
    )
    rig.cluster.wait("the batch ends", lambda: rig.cluster.run_states(NIGHTLY)["dozen"] in FINISHED)
    return rig


def test_a_run_has_a_contact_sheet_of_its_clips_the_failed_one_first(dozen: Rig) -> None:
    path = f"/dags/{NIGHTLY}/runs/dozen/plugin/luma-clips-of-run"
    page = dozen.page((1440, 1600))
    page.goto(path)
    frame = frame_of(page, "luma/run/")
    states = frame.eval_on_selector_all(".tile .state", "all => all.map((one) => one.textContent)")
    assert states == ["failed", *["delivered"] * 11]
    assert "17.60 USD" in frame.text_content("header")
    assert frame.locator("video").count() == 0
    until(frame, "[...document.querySelectorAll('.tile img')].every((one) => one.naturalWidth === 960)")
    frame.locator(".tile.delivered").nth(2).click()
    until(frame, PLAYS)
    page.context.close()
    take_shots(dozen, path, "luma/run/", "run")


def test_the_gallery_is_filtered_and_its_plots_say_what_the_records_say(dozen: Rig) -> None:
    records = [json.loads(path.read_text()) for path in (dozen.home / "luma-ray-videos").rglob("*.job.json")]
    costs = [float(record["cost"]) for record in records if "cost" in record]
    page = dozen.page()
    page.goto("/")
    page.get_by_role("link", name="Clips").click()
    frame = frame_of(page, "luma/gallery")
    frame.wait_for_selector(".plot canvas")
    spent, balance = frame.eval_on_selector_all(".plot", "all => all.map((one) => one.uplot.data)")
    assert sum(spent[1]) == pytest.approx(sum(costs))
    left = sorted((float(r["remaining_credits"]) for r in records if "cost" in r), reverse=True)
    assert sorted(balance[1], reverse=True) == pytest.approx(left)
    frame.select_option("select[name=state]", "failed")
    frame.click("text=Show")
    until(frame, "document.querySelectorAll('.tile').length === 1")
    frame.select_option("select[name=state]", "delivered")
    frame.select_option("select[name=dag]", NIGHTLY)
    frame.click("text=Show")
    until(frame, "document.querySelectorAll('.tile').length === 11")
    frame.locator(".tile").first.focus()
    page.keyboard.press("Enter")
    until(frame, PLAYS)
    page.context.close()
    take_shots(dozen, "/plugin/luma-clips", "luma/gallery", "gallery")


def test_a_person_sees_the_clip_before_approving_it_and_it_is_published(connected: Rig) -> None:
    rig, run_id = connected, "reviewed"
    rig.cluster.trigger(REVIEW, run_id)
    page = rig.page()
    rig.cluster.wait(
        "the clip waits for approval",
        lambda: any(
            ti["state"] in ("awaiting_input", "deferred")
            for ti in rig.cluster.task_instances(REVIEW, run_id, "approve")
        ),
    )
    action = f"/dags/{REVIEW}/runs/{run_id}/tasks/approve/required_actions"
    page.goto(action)
    until(page, "document.querySelector('img[src*=poster]')?.naturalWidth > 100")
    page.screenshot(path=SHOTS / "review.png")
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Watch the clip").click()
    clip = opened.value
    until(clip, PLAYS)
    page.goto(action)
    page.get_by_role("button", name="Approve").click()
    rig.cluster.wait("it is published", lambda: rig.cluster.run_states(REVIEW)[run_id] in FINISHED)
    published = Path(rig.home / "luma-ray-videos" / "published").glob("*.mp4")
    assert len(list(published)) == 1
    page.context.close()
