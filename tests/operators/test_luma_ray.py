"""The operator over real HTTP: what it delivers, what it pays, and what it does the second time."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
import traceback
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import av
import pytest
import requests
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred
from airflow.sdk import DAG
from PIL import Image

from airflow_provider_luma.exceptions import (
    LumaRayAuthenticationError,
    LumaRayConfigurationError,
    LumaRayDeliveryFailed,
    LumaRayInsufficientCredits,
    LumaRayJobFailed,
    LumaRayModelUnavailable,
    LumaRayRecordError,
    LumaRayRefused,
    LumaRayResultExpired,
    LumaRayTimeout,
)
from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.jobs.job import Job
from airflow_provider_luma.media import send_frame
from airflow_provider_luma.operators.luma_ray import LumaRayImageToVideoOperator
from airflow_provider_luma.simulator import Simulator
from airflow_provider_luma.storage.local import LOCK_NAME
from tests.support import (
    API_KEY,
    MemoryStore,
    make_operator,
    record_path,
    recorded,
    set_connection,
    task_context,
)

pytestmark = pytest.mark.usefixtures("connection")


@pytest.mark.parametrize("resumed", [False, True])
def test_an_error_comes_without_the_frames_that_led_to_it(
    simulator: Simulator, frame: Path, clip: Path, caplog: pytest.LogCaptureFixture, resumed: bool
) -> None:
    """Airflow prints an exception's traceback above its text, whose remedy then is off the screen."""
    operator = make_operator(frame, clip.with_suffix(".mov"))
    caplog.set_level("DEBUG", "airflow_provider_luma.exceptions")
    with pytest.raises(LumaRayConfigurationError, match=r"\.mp4") as caught:
        operator.execute_complete(task_context(), {"request_id": "r"}) if resumed else operator.execute(
            task_context()
        )
    frames = traceback.extract_tb(caught.value.__traceback__)
    ours = [one.name for one in frames if "airflow_provider_luma" in one.filename]
    assert ours == ["run"], "the one that strips the others"
    assert "in execute" in caplog.text, "the frames are there at DEBUG"


def files_beside(clip: Path) -> set[str]:
    """Return the file names in a clip's folder, except the lock, which stays."""
    return {path.name for path in clip.parent.iterdir()} - {LOCK_NAME}


def calls(simulator: Simulator, call: str) -> int:
    return sum(request.call == call for request in simulator.requests)


# What it delivers


@pytest.mark.parametrize(
    ("reason", "told"), [("error", "could not poll the job"), ("ready", "believed the job had ended")]
)
def test_a_task_woken_while_its_job_runs_defers_again(
    frame: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    reason: str,
    told: str,
) -> None:
    clip = tmp_path / "clip.mp4"
    with Simulator(latency=60, clip_seconds=0.2, api_key=API_KEY) as slow:
        set_connection(monkeypatch, slow.url)
        arguments: dict[str, Any] = {"deferrable": True, "poll_interval": 5}
        with pytest.raises(TaskDeferred) as first:
            make_operator(frame, clip, **arguments).execute(task_context())
        event = {"request_id": slow.jobs[0].request_id, "reason": reason}
        with pytest.raises(TaskDeferred) as second:
            make_operator(frame, clip, **arguments).execute_complete(task_context(), event)
        before, after = (deferred.value.trigger.serialize()[1] for deferred in (first, second))
        assert before.pop("deferred_at") < after.pop("deferred_at"), "it is quiet again"
        assert before == after, "its deadline stays"
        assert told in "".join(capsys.readouterr())
        slow.advance(60)
        make_operator(frame, clip, **arguments).execute_complete(task_context(), event)
        assert (clip.exists(), slow.charges) == (True, 1)


def test_a_frame_becomes_a_saved_video_and_the_xcoms_have_its_cost(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    outputs = make_operator(frame, clip, aspect_ratio="16:9").execute(task_context())

    assert outputs == {
        "video_path": str(clip),
        "remaining_credits": 18.4,
        "credits_used": 1.6,
        "request_id": simulator.jobs[0].request_id,
        "model": "luma-ray-img-2-video",
    }
    assert json.loads(json.dumps(outputs)) == outputs
    with av.open(str(clip)) as video:
        stream = video.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height) == ("h264", 960, 540)
    assert files_beside(clip) == {"clip.mp4", "clip.mp4.job.json"}


def test_the_record_is_the_videos_provenance(simulator: Simulator, frame: Path, clip: Path) -> None:
    make_operator(frame, clip, concepts=["push_in"], extra_parameters={"seed": 7}).execute(task_context())

    record = recorded(clip)
    assert record["state"] == "delivered"
    assert record["parameters"] == {
        "prompt": "a slow push in",
        "loop": False,
        "resolution": "540p",
        "aspect_ratio": "1:1",
        "concepts": ["push_in"],
        "seed": 7,
    }
    assert record["start_frame"] == str(frame)
    assert record["bytes"] == clip.stat().st_size
    assert (record["cost"], record["remaining_credits"]) == ("1.6", "18.4")
    assert record["intent_at"] <= record["submitted_at"] <= record["completed_at"] <= record["delivered_at"]


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        ({"frame_transfer": "auto"}, "http"),
        ({"frame_transfer": "upload"}, "http"),
        ({"frame_transfer": "base64"}, "/9j/"),
    ],
)
def test_a_file_is_uploaded_or_sent_inline(
    simulator: Simulator, frame: Path, clip: Path, arguments: dict[str, Any], sent: str
) -> None:
    make_operator(frame, clip, **arguments).execute(task_context())
    assert simulator.jobs[0].body["start_frame"].startswith(sent)


@pytest.mark.parametrize("frame_transfer", ["upload", "base64"])
def test_a_file_replaced_after_the_check_is_sent_as_checked(
    simulator: Simulator, frame: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, frame_transfer: Any
) -> None:
    checked = frame.read_bytes()

    def replace_and_send(*arguments: Any) -> Any:
        frame.write_bytes(b"\xff\xd8\xff another picture")
        return send_frame(*arguments)

    monkeypatch.setattr("airflow_provider_luma.jobs.submit.send_frame", replace_and_send)
    make_operator(frame, clip, frame_transfer=frame_transfer).execute(task_context())
    sent = simulator.jobs[0].body["start_frame"]
    got = requests.get(sent, timeout=10).content if sent.startswith("http") else base64.b64decode(sent)
    assert got == checked
    assert recorded(clip)["frame_identity"] == f"sha256:{hashlib.sha256(checked).hexdigest()}"


def test_a_url_is_sent_unchanged_and_its_signature_is_not_recorded(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    url = LumaRayHook().upload_image(frame)
    make_operator(f"{url}?X-Amz-Signature=abc&v=1", clip).execute(task_context())
    assert simulator.jobs[0].body["start_frame"] == f"{url}?X-Amz-Signature=abc&v=1"
    assert recorded(clip)["start_frame"] == f"{url}?v=1"


def test_a_folder_gets_a_file_named_after_the_task_instance(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    runs = [
        make_operator(frame, f"{tmp_path}/out/").execute(
            task_context(run_id="manual__2026-11-22T10:00:00+00:00", map_index=index)
        )
        for index in (-1, 0, 1)
    ]
    names = [Path(run["video_path"]).relative_to(tmp_path / "out") for run in runs]
    assert [name.name for name in names] == ["generate.mp4", "generate-0.mp4", "generate-1.mp4"]
    assert {name.parts[0] for name in names} == {"clips"}
    assert all(":" not in part and "+" not in part for name in names for part in name.parts)
    assert simulator.charges == 3


def test_v1_streams_the_video(simulator: Simulator, frame: Path, clip: Path) -> None:
    outputs = make_operator(frame, clip, api_version="v1").execute(task_context())
    assert (outputs["remaining_credits"], outputs["credits_used"]) == (18.4, 1.6)
    assert clip.read_bytes()[4:8] == b"ftyp"
    assert (calls(simulator, "v1"), calls(simulator, "submit"), simulator.charges) == (1, 0, 1)


@pytest.mark.parametrize("refusal", [404, 405])
def test_auto_uses_v1_if_v2_refuses_the_slug(
    simulator: Simulator, frame: Path, clip: Path, refusal: int
) -> None:
    simulator.v1_only("luma-ray-img-2-video", refusal=refusal)
    make_operator(frame, clip).execute(task_context())
    assert (recorded(clip)["api_version"], simulator.charges) == ("v1", 1)


def test_v2_alone_does_not_fall_back(simulator: Simulator, frame: Path, clip: Path) -> None:
    simulator.v1_only("luma-ray-img-2-video")
    with pytest.raises(LumaRayModelUnavailable):
        make_operator(frame, clip, api_version="v2").execute(task_context())
    assert (calls(simulator, "v1"), simulator.charges) == (0, 0)


def test_a_retired_model_names_its_successor(simulator: Simulator, frame: Path, clip: Path) -> None:
    simulator.retire("luma-ray-img-2-video")
    with pytest.raises(LumaRayModelUnavailable, match="luma-ray-3-2"):
        make_operator(frame, clip).execute(task_context())
    assert recorded(clip)["state"] == "failed"


def test_another_model_gets_its_own_fields(simulator: Simulator, frame: Path, clip: Path) -> None:
    make_operator(
        frame,
        clip,
        model="ray-flash-2-720p",
        resolution="720p",
        aspect_ratio="16:9",
        extra_parameters={"duration": 5},
    ).execute(task_context())
    body = simulator.jobs[0].body
    assert sorted(body) == ["aspect_ratio", "duration", "loop", "prompt", "start_image_url"]


# What it does the second time


def test_a_second_execute_returns_the_delivered_video_at_no_charge(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    first = make_operator(frame, clip).execute(task_context())
    simulator.clear_faults()
    requests = len(simulator.requests)
    assert make_operator(frame, clip).execute(task_context()) == first
    assert [entry.call for entry in simulator.requests[requests:]] == ["credits"], (
        "the balance is that of now"
    )
    assert simulator.charges == 1


class Died(BaseException):
    """The worker is gone."""


def die(*args: object) -> None:
    raise Died


def attempt_that_dies(phase: str, frame: Path, clip: Path, **arguments: Any) -> None:
    """Make an attempt of the default task instance die when it begins to wait or deliver, or after its submit."""
    submit = LumaRayHook.submit

    def submit_and_die(self: LumaRayHook, request: Any) -> str:
        submit(self, request)
        raise Died

    dying, name, death = (LumaRayHook, phase, submit_and_die) if phase == "submit" else (Job, phase, die)
    context = task_context(**{name: arguments.pop(name) for name in ("store", "clears") if name in arguments})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(dying, name, death)
        with pytest.raises(Died):
            make_operator(frame, clip, **arguments).execute(context)


@pytest.mark.parametrize("api_version", ["v2", "auto"])
@pytest.mark.parametrize("phase", ["wait", "deliver"])
@pytest.mark.parametrize("lost", ["nothing", "file", "store"])
def test_an_attempt_after_a_death_reattaches(
    simulator: Simulator,
    frame: Path,
    clip: Path,
    phase: str,
    lost: str,
    api_version: str,
) -> None:
    store = MemoryStore()
    attempt_that_dies(phase, frame, clip, api_version=api_version, store=store)
    if lost == "file":
        record_path(clip).unlink()
    if lost == "store":
        store.values.clear()

    outputs = make_operator(frame, clip, api_version=api_version).execute(task_context(store=store))
    assert outputs["request_id"] == simulator.jobs[0].request_id
    assert clip.exists()
    assert (calls(simulator, "submit"), simulator.charges) == (1, 1)


def test_a_death_right_after_the_paid_call_is_found_in_the_history(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    attempt_that_dies("submit", frame, clip)
    assert recorded(clip)["state"] == "intent"

    outputs = make_operator(frame, clip).execute(task_context())
    assert outputs["request_id"] == simulator.jobs[0].request_id
    assert (calls(simulator, "submit"), simulator.charges) == (1, 1)


# What a retry finishes, and what a clear buys


@pytest.mark.parametrize("phase", ["submit", "wait", "deliver"])
@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "another"},
        {"generation_tag": "take 2"},
        {"prompt": ""},
        {"loop": "yes"},
        {"start_frame": "/nowhere/frame.jpg"},
    ],
)
def test_a_retry_finishes_what_was_bought_whatever_its_inputs_are_now(
    simulator: Simulator,
    frame: Path,
    clip: Path,
    caplog: pytest.LogCaptureFixture,
    phase: str,
    change: dict[str, Any],
) -> None:
    attempt_that_dies(phase, frame, clip)
    outputs = make_operator(**{"start_frame": frame, "output_path": clip} | change).execute(task_context())
    assert outputs["request_id"] == simulator.jobs[0].request_id
    assert recorded(clip)["parameters"]["prompt"] == "a slow push in"
    assert simulator.charges == 1
    assert "The inputs have changed" in caplog.text or "Ignored for now" in caplog.text


def test_a_retry_delivers_the_video_even_if_its_frame_is_gone(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    attempt_that_dies("wait", frame, clip)
    frame.unlink()
    make_operator(frame, clip).execute(task_context())
    assert (clip.exists(), simulator.charges) == (True, 1)


def test_a_clear_with_wrong_inputs_buys_nothing_and_names_what_was_bought(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    attempt_that_dies("wait", frame, clip)
    with pytest.raises(LumaRayConfigurationError, match=r"prompt='' is wrong") as wrong:
        make_operator(frame, clip, prompt="").execute(task_context(clears=1))
    request_id = simulator.jobs[0].request_id
    stays = f"Nothing new was bought; job {request_id} stays on record at {record_path(clip)}."
    assert stays in str(wrong.value)
    assert len(simulator.jobs) == 1


@pytest.mark.parametrize("phase", ["submit", "wait"])
def test_a_clear_leaves_a_job_in_flight_for_other_inputs_and_another_clear_resumes_it(
    simulator: Simulator, frame: Path, clip: Path, caplog: pytest.LogCaptureFixture, phase: str
) -> None:
    """Within one attempt, whether or not its id is known."""
    attempt_that_dies(phase, frame, clip)
    second = make_operator(frame, clip, prompt="another").execute(task_context(clears=1))
    assert "never delivered; it stays on record at" in caplog.text
    ids = [job.request_id for job in simulator.jobs]
    assert (ids[1:], len(ids)) == ([second["request_id"]], 2)

    first = make_operator(frame, clip).execute(task_context(clears=2))
    assert first["request_id"] == ids[0]
    record = recorded(clip)
    assert (record["request_id"], record["state"]) == (ids[0], "delivered")
    assert [(one["request_id"], one["state"]) for one in record["superseded"]] == [(ids[1], "delivered")]
    assert len(simulator.jobs) == 2


@pytest.mark.parametrize(
    "change", [{"prompt": "another"}, {"loop": True}, {"generation_tag": "take 2"}, {"aspect_ratio": "9:16"}]
)
def test_a_clear_with_other_inputs_is_a_new_purchase_and_the_earlier_take_is_kept(
    simulator: Simulator, frame: Path, clip: Path, change: dict[str, Any]
) -> None:
    first = make_operator(frame, clip).execute(task_context())
    second = make_operator(frame, clip, **change).execute(task_context(clears=1))
    assert second["request_id"] != first["request_id"]
    assert simulator.charges == 2
    assert [earlier["request_id"] for earlier in recorded(clip)["superseded"]] == [first["request_id"]]


def test_a_delivered_video_that_is_gone_is_fetched_again_at_no_charge(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    make_operator(frame, clip).execute(task_context())
    content = clip.read_bytes()
    clip.unlink()
    simulator.advance(2 * 3600)  # status and result have expired; the file has not
    make_operator(frame, clip).execute(task_context())
    assert (clip.read_bytes(), simulator.charges) == (content, 1)


def test_a_delivered_video_that_was_changed_is_fetched_again_at_no_charge(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    """It is known by its digest: the size stays the same."""
    make_operator(frame, clip).execute(task_context())
    content = clip.read_bytes()
    clip.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    make_operator(frame, clip).execute(task_context())
    assert (clip.read_bytes(), simulator.charges) == (content, 1)


def test_a_young_job_whose_result_is_missing_for_a_moment_is_delivered(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    simulator.fault("result", "status", status=404, times=2)
    simulator.fault("history_one", "status", status=404, times=2)
    make_operator(frame, clip).execute(task_context())
    assert clip.exists()
    assert simulator.charges == 1


def test_a_video_that_the_vendor_no_longer_has_is_an_error_with_its_id(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    request_id = make_operator(frame, clip).execute(task_context())["request_id"]
    clip.unlink()
    simulator.advance(8 * 24 * 3600)
    with pytest.raises(LumaRayResultExpired, match=f"^{request_id}: ") as expired:
        make_operator(frame, clip).execute(task_context())
    assert isinstance(expired.value, AirflowFailException)
    *_, money, remedy, command = str(expired.value).splitlines()
    assert money == f"The job was bought; on record at {record_path(clip)}. Airflow will not retry."
    assert remedy == "To buy the clip again, give this one up, then clear the task:"
    assert command == f"  python -m airflow_provider_luma give-up {shlex.quote(str(clip))} {request_id}"
    assert simulator.charges == 1


@pytest.mark.parametrize(("if_exists", "charges"), [("overwrite", 2), ("reuse", 1)])
def test_if_exists_decides_about_the_video_of_another_run(
    simulator: Simulator, frame: Path, clip: Path, if_exists: str, charges: int
) -> None:
    first = make_operator(frame, clip).execute(task_context(run_id="sunday"))
    second = make_operator(frame, clip, if_exists=if_exists).execute(task_context(run_id="monday"))
    assert simulator.charges == charges
    assert (second["request_id"] == first["request_id"]) == (if_exists == "reuse")
    assert second["credits_used"] == (0.0 if if_exists == "reuse" else 1.6)


def test_if_exists_reuse_takes_a_video_of_unknown_origin(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    clip.parent.mkdir()
    clip.write_bytes(b"\0\0\0\x18ftypisom")
    outputs = make_operator(frame, clip, if_exists="reuse").execute(task_context())
    assert outputs["request_id"] is None
    assert outputs["credits_used"] == 0.0
    assert (files_beside(clip), simulator.jobs) == ({"clip.mp4"}, [])


@pytest.mark.parametrize("content", [b"", b"This is text.", b"\0\0\0\x18fty"])
@pytest.mark.parametrize("is_on_record", [True, False])
def test_a_file_that_is_not_a_video_is_never_reused(
    simulator: Simulator, frame: Path, clip: Path, content: bytes, is_on_record: bool
) -> None:
    if is_on_record:
        make_operator(frame, clip).execute(task_context(run_id="sunday"))
    clip.parent.mkdir(exist_ok=True)
    clip.write_bytes(content)
    with pytest.raises(LumaRayConfigurationError, match=r"is not an MP4, so if_exists='reuse' cannot use it"):
        make_operator(frame, clip, if_exists="reuse").execute(task_context(run_id="monday"))
    assert clip.read_bytes() == content
    assert len(simulator.jobs) == is_on_record


def test_another_runs_damaged_video_is_replaced_by_ones_own(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    first = make_operator(frame, clip).execute(task_context(run_id="sunday"))
    content = clip.read_bytes()
    make_operator(frame, clip, prompt="another").execute(task_context(run_id="monday"))
    clip.write_bytes(clip.read_bytes()[:-1])
    again = make_operator(frame, clip, if_exists="reuse").execute(task_context(run_id="sunday"))
    assert again["request_id"] == first["request_id"]
    assert (clip.read_bytes(), simulator.charges) == (content, 2)


def test_another_task_instance_in_flight_on_the_path_is_an_error_that_names_both(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    simulator.fault("status", "status", status=500, times=99)
    with pytest.raises(LumaRayTimeout):
        make_operator(frame, clip, timeout=timedelta(seconds=0.2)).execute(task_context(map_index=0))
    with pytest.raises(LumaRayConfigurationError, match=r"generate\[0\].*generate\[1\]"):
        make_operator(frame, clip).execute(task_context(map_index=1))
    assert calls(simulator, "submit") == 1


# What the vendor refuses, and what goes wrong after the purchase


def test_a_failed_job_is_not_billed_and_a_retry_buys_again(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    simulator.fail_next(error="the prompt was moderated")
    with pytest.raises(LumaRayJobFailed, match="the prompt was moderated") as failed:
        make_operator(frame, clip).execute(task_context())
    assert not isinstance(failed.value, AirflowFailException)
    assert str(failed.value).startswith(simulator.jobs[0].request_id)
    make_operator(frame, clip).execute(task_context())
    assert simulator.charges == 1


def test_a_job_that_failed_only_for_a_moment_is_resumed(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    """Even if another run has put its video at the path in the meantime."""
    simulator.fault("status", "gateway", status=200, accepted=True)
    with pytest.raises(LumaRayJobFailed):
        make_operator(frame, clip).execute(task_context(run_id="sunday"))
    make_operator(frame, clip).execute(task_context(run_id="monday"))
    outputs = make_operator(frame, clip).execute(task_context(run_id="sunday", clears=1))
    assert outputs["request_id"] == simulator.jobs[0].request_id
    assert recorded(clip)["identity"]["run_id"] == "sunday"
    assert simulator.charges == 2


def test_a_late_job_times_out_and_a_retry_delivers_it(
    monkeypatch: pytest.MonkeyPatch, frame: Path, clip: Path
) -> None:
    with Simulator(latency=30, clip_seconds=0.2) as simulator:
        set_connection(monkeypatch, simulator.url, password="SG_simulator")
        with pytest.raises(LumaRayTimeout, match="the next attempt re-attaches at no charge"):
            make_operator(frame, clip, timeout=timedelta(seconds=0.3)).execute(task_context())
        with pytest.raises(LumaRayTimeout):
            make_operator(frame, clip, timeout=timedelta(seconds=0.3)).execute(task_context())
        simulator.advance(60)
        make_operator(frame, clip, timeout=timedelta(seconds=0.3)).execute(task_context())
        assert (clip.exists(), calls(simulator, "submit"), simulator.charges) == (True, 1, 1)


def test_too_little_credit_is_refused_by_the_vendor(simulator: Simulator, frame: Path, clip: Path) -> None:
    simulator.set_credits("0.5")
    with pytest.raises(LumaRayInsufficientCredits, match=r"[Tt]op up"):
        make_operator(frame, clip).execute(task_context())
    simulator.set_credits("5")
    make_operator(frame, clip).execute(task_context())
    assert simulator.charges == 1


@pytest.mark.parametrize(("least", "charges"), [(18, 1), (Decimal("18.4"), 1), (18.41, 0)])
def test_min_remaining_credits_is_checked_before_the_purchase(
    simulator: Simulator, frame: Path, clip: Path, least: Any, charges: int
) -> None:
    operator = make_operator(frame, clip, min_remaining_credits=least)
    if charges:
        operator.execute(task_context())
    else:
        with pytest.raises(LumaRayInsufficientCredits, match=r"min_remaining_credits=18\.41"):
            operator.execute(task_context())
    assert simulator.charges == charges


def test_the_money_is_in_the_log(
    simulator: Simulator, frame: Path, clip: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    make_operator(frame, clip).execute(task_context())
    assert "Expected cost: 1.60 USD." in caplog.text
    assert "Cost: 1.60 USD; balance after: 18.40 USD." in caplog.text
    assert calls(simulator, "credits") == 0

    make_operator(frame, clip, generation_tag="2", min_remaining_credits=5).execute(task_context(clears=1))
    told = "Balance before: 18.40 USD, 0.00 USD of it for jobs in flight; expected cost: 1.60 USD."
    assert told in caplog.text


def test_the_floor_counts_what_is_known_to_be_in_flight(
    monkeypatch: pytest.MonkeyPatch, frame: Path, clip: Path
) -> None:
    with Simulator(latency=60, clip_seconds=0.2, credits="20", api_key=API_KEY) as slow:
        set_connection(monkeypatch, slow.url, timeout=5)
        with pytest.raises(TaskDeferred):
            make_operator(frame, clip.with_name("slow.mp4"), deferrable=True).execute(
                task_context(run_id="a")
            )
        floor: dict[str, Any] = {"min_remaining_credits": 17, "deferrable": True}
        with pytest.raises(LumaRayInsufficientCredits, match=r"less 1\.60 USD for jobs in flight"):
            make_operator(frame, clip, **floor).execute(task_context())
        slow.fault("history", "status", status=503, times=9)  # not known: the balance alone
        with pytest.raises(TaskDeferred):
            make_operator(frame, clip, **floor).execute(task_context())


def test_tasks_that_check_at_the_same_moment_undercut_the_floor_together(
    simulator: Simulator, frame: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As documented, it is not a cap, unlike a batch's ``max_credits``."""
    operators = [make_operator(frame, tmp_path / f"{n}.mp4", min_remaining_credits=4) for n in range(20)]
    with ThreadPoolExecutor(20) as threads:
        for number, operator in enumerate(operators):
            threads.submit(operator.execute, task_context(run_id=str(number)))
    with capsys.disabled():
        print(f"\n20 tasks at a floor that covers 10: {simulator.charges} bought")
    assert simulator.charges >= 10


def test_a_balance_that_cannot_be_read_does_not_lose_the_video(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    simulator.fault("credits", "status", status=500, times=99)
    outputs = make_operator(frame, clip, api_version="v2").execute(task_context())
    assert outputs["remaining_credits"] == 18.4  # from the job's own metrics


def test_a_wrong_key_is_reported_by_the_first_call(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, frame: Path, clip: Path
) -> None:
    set_connection(monkeypatch, simulator.url, password="SG_ffffffffffffffff")
    with pytest.raises(LumaRayAuthenticationError, match=r"[Cc]heck the API key"):
        make_operator(frame, clip).execute(task_context())
    assert {request.call for request in simulator.requests} == {"upload"}


def test_an_attempt_whose_successor_delivers_first_returns_that_video(
    simulator: Simulator, frame: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Delivering removes other attempts' partial files, although these attempts may still be running."""
    download = LumaRayHook.download_video
    outputs: list[dict[str, Any]] = []

    def download_and_be_overtaken(self: LumaRayHook, url: str, destination: Path, rest: Path) -> Any:
        video = download(self, url, destination, rest)
        if not outputs:
            outputs.append({})
            outputs.append(make_operator(frame, clip).execute(task_context()))
        return video

    monkeypatch.setattr(LumaRayHook, "download_video", download_and_be_overtaken)
    overtaken = make_operator(frame, clip).execute(task_context())
    assert overtaken == outputs[1]
    assert recorded(clip)["state"] == "delivered"
    assert files_beside(clip) == {"clip.mp4", "clip.mp4.job.json"}
    assert simulator.charges == 1


def test_a_full_disk_loses_neither_id_nor_leaves_a_part(
    simulator: Simulator, frame: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("airflow_provider_luma.media.VideoSink.write", full)
        with pytest.raises(LumaRayDeliveryFailed, match="No space left on device"):
            make_operator(frame, clip).execute(task_context())
    assert files_beside(clip) == {"clip.mp4.job.json"}
    make_operator(frame, clip).execute(task_context())
    assert (clip.exists(), simulator.charges) == (True, 1)


def test_on_kill_ends_the_wait_at_once_and_the_next_attempt_delivers(
    monkeypatch: pytest.MonkeyPatch, frame: Path, clip: Path
) -> None:
    with Simulator(latency=30, clip_seconds=0.2) as simulator:
        set_connection(monkeypatch, simulator.url, password="SG_simulator")
        operator = make_operator(frame, clip, poll_interval=60)
        submitted = Job.wait

        def wait_and_be_killed(job: Job, record: Any) -> Any:
            operator.on_kill()
            return submitted(job, record)

        with monkeypatch.context() as patched:
            patched.setattr(Job, "wait", wait_and_be_killed)
            with pytest.raises(
                LumaRayTimeout, match=r"told to stop, so the wait ended\.\n.* re-attaches at no charge\."
            ):
                operator.execute(task_context())
        simulator.advance(60)
        make_operator(frame, clip).execute(task_context())
        assert (clip.exists(), simulator.charges) == (True, 1)


# Bad input: one clear sentence before any money


def not_an_image(tmp_path: Path) -> Path:
    (tmp_path / "frame.txt").write_text("hello")
    return tmp_path / "frame.txt"


def folder_named_mp4(tmp: Path) -> Path:
    path = tmp / "folder.mp4"
    path.mkdir()
    return path


def empty(tmp_path: Path) -> Path:
    (tmp_path / "empty.jpg").touch()
    return tmp_path / "empty.jpg"


def huge(tmp_path: Path) -> Path:
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.write(b"\xff\xd8\xff")
        file.truncate(20 * 1024 * 1024 + 1)
    return tmp_path / "huge.jpg"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"prompt": ""}, r"prompt='' is wrong: give a non-empty string"),
        ({"prompt": "  "}, r"prompt='  ' is wrong"),
        ({"prompt": 7}, r"prompt=7 is wrong"),
        ({"start_frame": None}, r"start_frame=None is wrong.*sample picture and charge"),
        ({"start_frame": ""}, r"start_frame='' is wrong"),
        ({"start_frame": "None"}, r"start_frame='None' is wrong.* a missing XCom"),
        ({"prompt": "None"}, r"prompt='None' is wrong.* a missing XCom"),
        (
            {"start_frame": "https:///frame.jpg"},
            r"start_frame 'https:///frame\.jpg' is not a URL of an image",
        ),
        ({"start_frame": "/nowhere/frame.jpg"}, r"'/nowhere/frame\.jpg' does not exist"),
        ({"start_frame": lambda tmp: tmp}, r"is a directory; name one image"),
        ({"start_frame": not_an_image}, r"frame\.txt' is not an image: it begins with b'hello'"),
        ({"start_frame": empty}, r"empty\.jpg' is empty"),
        ({"start_frame": huge}, r"huge\.jpg' is larger than 20 MB"),
        ({"frame_transfer": "url"}, r"frame_transfer='url' does not work with"),
        (
            {"start_frame": "https://example.com/f.jpg", "frame_transfer": "base64"},
            r"frame_transfer='base64' is for files",
        ),
        ({"output_path": ""}, r"output_path='' is wrong"),
        ({"output_path": lambda tmp: tmp}, r"output_path=.* ending in '\.mp4', or in '/' for a folder"),
        (
            {"output_path": "/clips/shoe.mov"},
            r"shoe\.mov' is wrong: give a path ending in '\.mp4'",
        ),
        ({"output_path": folder_named_mp4}, r"output_path=.* is a directory\.\n.*\nEnd it with '/'"),
        ({"loop": "false"}, r"loop='false' is wrong: give True or False"),
        ({"concepts": "push_in"}, r"concepts='push_in' is wrong: give a list"),
        ({"extra_parameters": "seed"}, r"extra_parameters='seed' is wrong"),
        ({"extra_parameters": {"prompt": "p"}}, r"extra_parameters names \['prompt'\]"),
        ({"model": ""}, r"model='' is wrong"),
        ({"model": "luma-ray-3-2", "frame_transfer": "base64"}, r"does not work with luma-ray-3-2"),
    ],
)
def test_bad_input_is_one_sentence_and_costs_nothing(
    simulator: Simulator, frame: Path, clip: Path, tmp_path: Path, arguments: dict[str, Any], sentence: str
) -> None:
    made = {name: value(tmp_path) if callable(value) else value for name, value in arguments.items()}
    made = {name: str(value) if isinstance(value, Path) else value for name, value in made.items()}
    with pytest.raises(LumaRayConfigurationError, match=sentence):
        make_operator(**{"start_frame": frame, "output_path": clip} | made).execute(task_context())
    assert calls(simulator, "submit") + calls(simulator, "v1") + calls(simulator, "upload") == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"frame_transfer": "fax"}, "frame_transfer='fax' is wrong: give one of auto, url, upload, base64"),
        ({"api_version": "v3"}, "api_version='v3' is wrong"),
        ({"if_exists": "skip"}, "if_exists='skip' is wrong"),
        ({"on_unknown_submit": "hope"}, "on_unknown_submit='hope' is wrong"),
        ({"timeout": timedelta(0)}, "timeout=.* is wrong: give a positive number of seconds, or a timedelta"),
        ({"timeout": None}, "timeout=None is wrong"),
        ({"timeout": float("inf")}, "timeout=inf is wrong"),
        ({"poll_interval": float("nan")}, "poll_interval=nan is wrong"),
        ({"timeout": timedelta(seconds=-1)}, "timeout=.* is wrong"),
        ({"timeout": "900"}, "timeout='900' is wrong"),
        ({"poll_interval": 0}, "poll_interval=0 is wrong"),
        ({"poll_interval": -5}, "poll_interval=-5 is wrong"),
        ({"poll_interval": "soon"}, "poll_interval='soon' is wrong"),
        ({"min_remaining_credits": "much"}, "min_remaining_credits='much' is wrong"),
        ({"min_remaining_credits": float("nan")}, "min_remaining_credits=nan is wrong"),
        ({"min_remaining_credits": -1}, "min_remaining_credits=-1 is wrong"),
    ],
)
def test_arguments_without_templates_are_checked_at_parse_time(
    frame: Path, clip: Path, arguments: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(LumaRayConfigurationError, match=sentence):
        make_operator(frame, clip, **arguments)


@pytest.mark.parametrize("timeout", [900, 900.0, timedelta(seconds=900)])
def test_a_timeout_is_seconds_or_a_timedelta(frame: Path, clip: Path, timeout: Any) -> None:
    """``default_args={"timeout": 3600}`` is common, for a DAG's sensors."""
    with DAG("clips", schedule=None, default_args={"timeout": timeout}):
        operator = make_operator(frame, clip, deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(task_context())
    assert deferred.value.trigger.serialize()[1]["timeout"] == 900.0


def test_paths_may_be_path_objects(simulator: Simulator, frame: Path, clip: Path) -> None:
    arguments: dict[str, Any] = {"task_id": "generate", "prompt": "p", "poll_interval": 0.02}
    operator = LumaRayImageToVideoOperator(start_frame=frame, output_path=clip, **arguments)
    first = operator.execute(task_context())
    as_text = LumaRayImageToVideoOperator(start_frame=str(frame), output_path=str(clip), **arguments)
    assert as_text.execute(task_context()) == first
    assert (first["video_path"], simulator.charges) == (str(clip), 1)


def test_a_tag_is_the_same_as_a_number_and_as_a_string(simulator: Simulator, frame: Path, clip: Path) -> None:
    """It depends on ``render_template_as_native_obj``."""
    first = make_operator(frame, clip, generation_tag=20261124).execute(task_context())
    again = make_operator(frame, clip, generation_tag="20261124").execute(task_context(clears=1))
    assert (first["request_id"], simulator.charges) == (again["request_id"], 1)


def test_an_unwritable_path_is_reported_before_the_purchase(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        LumaRayConfigurationError, match=r"output_path '.*clip\.mp4' .*\nThis attempt bought nothing"
    ):
        make_operator(frame, tmp_path / "file" / "clip.mp4").execute(task_context())
    assert simulator.jobs == []


def test_a_record_that_can_be_neither_read_nor_written_is_an_error_in_the_end(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    clip.parent.mkdir()
    record_path(clip).symlink_to("nowhere")
    with pytest.raises(LumaRayRecordError, match=r"clip\.mp4\.job\.json"):
        make_operator(frame, clip).execute(task_context())
    assert simulator.jobs == []


def test_an_unknown_model_is_a_warning_and_the_vendor_has_the_last_word(
    simulator: Simulator, frame: Path, clip: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(LumaRayModelUnavailable):
        make_operator(frame, clip, model="luma-ray-9").execute(task_context())
    assert "model 'luma-ray-9' is not in the catalogue" in caplog.text


def test_an_undocumented_value_is_a_warning_that_names_the_documented_ones(
    simulator: Simulator, frame: Path, clip: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(LumaRayRefused, match="Invalid value for concepts"):
        make_operator(frame, clip, concepts=["zoom_sideways"]).execute(task_context())
    assert "concepts=['zoom_sideways'] is not among the documented values" in caplog.text


def test_a_returned_clip_has_the_current_balance(simulator: Simulator, frame: Path, clip: Path) -> None:
    make_operator(frame, clip).execute(task_context())
    simulator.set_credits("5")
    assert make_operator(frame, clip).execute(task_context())["remaining_credits"] == 5.0
    reused = make_operator(frame, clip, if_exists="reuse").execute(task_context(run_id="monday"))
    assert reused["remaining_credits"] == 5.0


@pytest.mark.parametrize(
    ("map_index", "template", "label"), [(3, None, "frame.jpg"), (3, "mine", None), (-1, None, None)]
)
def test_a_mapped_clip_is_named_after_its_frame(
    simulator: Simulator, frame: Path, clip: Path, map_index: int, template: str | None, label: str | None
) -> None:
    url = LumaRayHook().upload_image(frame)
    for start_frame in (frame, f"{url}?X-Amz-Signature=secret"):
        context = task_context(map_index=map_index) | {"map_index_template": template}
        make_operator(start_frame, clip.with_name(f"{Path(str(start_frame)).stem}.mp4")).execute(context)
        shown = context.get("luma_ray_frame")
        assert shown == label if start_frame == frame else "secret" not in str(shown)
        assert context["map_index_template"] == ("{{ luma_ray_frame }}" if label else template)


@pytest.mark.parametrize("is_there", [False, True])
@pytest.mark.parametrize("is_folder", [False, True])
def test_a_dry_run_describes_the_job_and_sends_nothing(
    simulator: Simulator,
    frame: Path,
    clip: Path,
    capsys: pytest.CaptureFixture[str],
    is_there: bool,
    is_folder: bool,
) -> None:
    if is_there:
        make_operator(frame, clip).execute(task_context())
    before = len(simulator.requests)
    capsys.readouterr()
    make_operator(frame, f"{clip.parent}/" if is_folder else clip, prompt="A slow orbit").dry_run()
    told = capsys.readouterr().out
    assert len(simulator.requests) == before
    assert "A slow orbit" in told
    assert "1.60 USD" in told
    if is_there and not is_folder:
        assert f"exists; on record: job {simulator.jobs[0].request_id} of clips.generate in run run_1" in told


def test_a_dry_run_reports_what_is_wrong(frame: Path, clip: Path) -> None:
    with pytest.raises(LumaRayConfigurationError, match="loop='no' is wrong"):
        make_operator(frame, clip, loop="no").dry_run()


@pytest.fixture
def landscape(tmp_path: Path) -> Path:
    path = tmp_path / "landscape.png"
    Image.new("RGB", (160, 90)).save(path)
    return path


def test_a_crop_is_reported_before_the_purchase(
    simulator: Simulator, landscape: Path, clip: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_operator(landscape, clip).execute(task_context())
    told = "aspect_ratio='1:1' crops 44 % of the start frame (160 x 90); '16:9' crops least"
    assert told in caplog.text
    caplog.clear()
    make_operator(landscape, clip.with_name("wide.mp4"), aspect_ratio="16:9").execute(
        task_context(run_id="b")
    )
    assert "crops" not in caplog.text


def test_the_ratio_can_be_the_frames_own(simulator: Simulator, landscape: Path, clip: Path) -> None:
    make_operator(landscape, clip, aspect_ratio="auto").execute(task_context())
    assert simulator.jobs[0].body["aspect_ratio"] == "16:9"
    landscape.unlink()  # a retry goes by the record
    make_operator(landscape, clip, aspect_ratio="auto").execute(task_context())
    assert simulator.charges == 1


def test_the_ratio_of_a_url_is_not_guessed(simulator: Simulator, frame: Path, clip: Path) -> None:
    url = LumaRayHook().upload_image(frame)
    with pytest.raises(LumaRayConfigurationError, match="aspect_ratio='auto' needs the frame's size"):
        make_operator(url, clip, aspect_ratio="auto").execute(task_context())
    assert simulator.jobs == []
