"""The contract check as a program: against the simulator, and against vendors that differ in one respect."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import requests

from airflow_provider_luma.hooks import limiter
from airflow_provider_luma.hooks.probe import Probe, picture
from airflow_provider_luma.segmind import polling
from airflow_provider_luma.segmind.contract import Finding, Outcome, examine
from airflow_provider_luma.segmind.transcript import Exchange, load
from airflow_provider_luma.simulator import Simulator
from tests.cli.conftest import Done
from tests.cli.test_settle import submits
from tests.hooks.peer import HANG_UP, Peer, Seen, http, to_json
from tests.support import API_KEY, set_connection

Cli = Callable[..., Done]
EMAIL = "some.one@example.com"


@pytest.fixture(autouse=True)
def early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Poll soon, as the jobs here take no time."""
    monkeypatch.setattr(polling, "_FIRST_PAUSE", 0.1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "contract"


@pytest.fixture
def check(cli: Cli, folder: Path) -> Callable[..., Done]:
    return lambda *arguments: cli("contract", "--folder", str(folder), *arguments)


def told(folder: Path) -> Any:
    """The last transcript; none may have anything private."""
    names = sorted(folder.glob("transcript-*.json"))
    text = names[-1].read_text()
    for secret in (API_KEY, EMAIL, "someone@", "simulator@example.com", "soft gradient", "base64"):
        assert secret not in text
    return json.loads(text)


def findings(folder: Path) -> dict[str, Finding]:
    return {one.assumption.text: one for one in examine(load(told(folder)))}


def broken(folder: Path) -> set[str]:
    return {text for text, one in findings(folder).items() if one.outcome is Outcome.BROKEN}


def paid_posts(simulator: Simulator) -> int:
    return sum(one.method == "POST" and one.call != "upload" for one in simulator.requests)


@contextmanager
def vendor(
    monkeypatch: pytest.MonkeyPatch, simulator: Simulator, change: Callable[[Seen, bytes], bytes | None]
) -> Iterator[Peer]:
    """A vendor that is the simulator, but for what a function changes in its JSON replies."""

    def answer(seen: Seen) -> bytes:
        reply = requests.request(
            seen.method,
            f"{simulator.url}{seen.target}",
            data=seen.body,
            headers={name: value for name, value in seen.headers.items() if name != "host"},
            timeout=20,
        )
        changed = change(seen, reply.content)
        return (
            changed
            if changed is not None
            else http(reply.status_code, reply.content, Date=reply.headers["Date"])
        )

    with Peer(answer) as peer:
        set_connection(monkeypatch, peer.url, timeout=5)
        yield peer


def earlier_jobs(simulator: Simulator, number: int = 3) -> None:
    for count in range(number):
        body = {"prompt": f"{count}", "resolution": "540p"}
        url = f"{simulator.url}/v2/luma-ray-img-2-video"
        requests.post(url, json=body, headers={"x-api-key": API_KEY}, timeout=20).raise_for_status()


def test_the_simulator_breaks_nothing_and_nothing_is_bought(
    simulator: Simulator, check: Cli, folder: Path
) -> None:
    earlier_jobs(simulator)
    bought = paid_posts(simulator)
    done = check()
    assert (done.code, done.err) == (0, "")
    assert paid_posts(simulator) == bought
    found = findings(folder)
    unknown = {text for text, one in found.items() if one.outcome is Outcome.UNKNOWN}
    assert not broken(folder)
    assert unknown == {
        "a row appears within two minutes",
        "the rate limit's reset is a time in UTC",
        "a submit returns the job's id",
        "status is QUEUED, PROCESSING, then COMPLETED",
        "a completed job says what it cost, and the balance",
        "the result names the video",
        "the video is an MP4, public and without a key",
        "the history shows the inputs as sent",
        "the history finds one job by its id",
        "a clip is charged once",
    }
    for one in found.values():
        (line,) = (line for line in done.out.splitlines() if f"  {one.assumption.text}  " in line)
        assert line.startswith(one.outcome)
        assert line.endswith(f"  {one.seen}")
        assert one.assumption.where in line
    assert "22 hold, 0 do not, 10 unknown." in done.out


@pytest.mark.parametrize("shape", ["items", "bare_list", "nested"])
def test_a_purchase_tells_the_rest(
    clips: Path, monkeypatch: pytest.MonkeyPatch, check: Cli, folder: Path, shape: str
) -> None:
    with Simulator(
        latency=0.02, clip_seconds=0.2, api_key=API_KEY, work_dir=clips, history_shape=shape, id_style="plain"
    ) as simulator:
        set_connection(monkeypatch, simulator.url)
        earlier_jobs(simulator)
        before = submits(simulator)
        done = check("--buy", "--yes")
        assert (done.code, done.err) == (0, ""), done
        assert "31 hold, 0 do not, 1 unknown." in done.out
        assert submits(simulator) == before + 1
        clip = folder / "luma-ray-img-2-video.mp4"
        assert str(clip) in done.out
        assert clip.read_bytes()[4:8] == b"ftyp"
        assert json.loads((folder / f"{clip.name}.job.json").read_text())["state"] == "delivered"

        again = check("--buy", "--yes")
        assert again.code == 0, again
        assert submits(simulator) == before + 1


def test_a_transcript_is_judged_again_without_any_call(
    simulator: Simulator, check: Cli, folder: Path, cli: Cli
) -> None:
    simulator.fault("history", "wrong_order", times=20)
    earlier_jobs(simulator)
    done = check()
    assert done.code == 1
    assert "Does not hold: rows come newest first." in done.err
    (name,) = folder.glob("transcript-*.json")
    calls = len(simulator.requests)
    again = cli("contract", "--replay", str(name))
    assert again.code == 1
    assert done.err.endswith(again.err)  # the simulator logs there as well
    assert again.out.splitlines() == done.out.splitlines()[1:]
    assert len(simulator.requests) == calls


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"format": 9, "exchanges": []}', "\0"])
def test_what_cannot_be_replayed_is_refused(cli: Cli, tmp_path: Path, content: str | None) -> None:
    name = tmp_path / "transcript.json"
    if content is not None:
        name.write_text(content)
    done = cli("contract", "--replay", str(name))
    assert (done.code, done.out) == (2, "")
    assert f"{name} cannot be re" in done.err


def _changed(target: str, change: Callable[[Any], object]) -> Callable[[Seen, bytes], bytes | None]:
    def answer(seen: Seen, body: bytes) -> bytes | None:
        if target not in seen.target:
            return None
        value = json.loads(body)
        if "error" in value:
            return None
        change(value)
        return to_json(value, Date=formatdate(usegmt=True))

    return answer


def _answers(target: str, reply: bytes) -> Callable[[Seen, bytes], bytes | None]:
    return lambda seen, body: reply if target in seen.target else None


@pytest.mark.parametrize(
    ("change", "assumption"),
    [
        (
            _changed("get-user-credits", lambda body: body.pop("credits")),
            "the balance is credits and free-credits, in USD",
        ),
        (
            _changed("per_page=2", lambda body: body.update(data=[{"request_id": "same"}] * 5)),
            "a page has as many rows as asked for",
        ),
        (_changed("per_page=100", lambda body: body["data"].reverse()), "rows come newest first"),
        (
            _changed("upload-asset", lambda body: body.update(file_urls=["https://x.example/1.png"])),
            "the same picture gets another URL each time",
        ),
        (_answers("/status", http(404, "<h1>no</h1>")), "an unknown id is a 404 of status"),
        (
            _answers("/upload-asset", http(302, Location="https://elsewhere.example/")),
            "the API does not redirect",
        ),
    ],
    ids=["balance", "page", "order", "upload", "status", "redirect"],
)
def test_a_vendor_that_differs_is_found_out(
    simulator: Simulator,
    monkeypatch: pytest.MonkeyPatch,
    check: Cli,
    folder: Path,
    change: Callable[[Seen, bytes], bytes | None],
    assumption: str,
) -> None:
    earlier_jobs(simulator)
    bought = paid_posts(simulator)
    with vendor(monkeypatch, simulator, change):
        done = check("--buy", "--yes")
    assert done.code == 1
    assert assumption in broken(folder)
    assert "Nothing was bought" in done.err
    assert paid_posts(simulator) == bought


@pytest.mark.parametrize("style", ["raw", "json", "html", "percent"])
def test_an_echoed_key_is_not_in_the_transcript(
    simulator: Simulator, check: Cli, folder: Path, style: str
) -> None:
    for call in ("status", "history_one", "upload"):
        simulator.fault(call, "echo_key", status=404, style=style, times=2)
    check()
    assert "<api key>" in json.dumps(told(folder))


def test_nothing_private_of_the_account_is_in_the_transcript(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, check: Cli, folder: Path
) -> None:
    escaped = API_KEY.replace("S", "\\u0053")
    signed = "https://bucket.example/x.mp4?X-Amz-Signature=0a1b2c"

    def change(seen: Seen, body: bytes) -> bytes | None:
        if "per_page" not in seen.target or not body.startswith(b'{"data": [{'):
            return None
        value = json.loads(body)
        value |= {"user": EMAIL, "owner": {EMAIL: 1}, "token": "eyJhbGciOi.0a1b2c.x"}
        for row in value["data"]:
            row |= {"generation_url": signed, "error": f"{EMAIL} {signed}", "user_name": "Some One"}
            row["request_body"] |= {
                "prompt": "secret prompt",
                "start_frame": f"data:image/png;base64,{'A' * 9999}",
            }
        return http(200, json.dumps(value).replace('"page"', f'"k": "{escaped}", "page"'))

    earlier_jobs(simulator)
    with vendor(monkeypatch, simulator, change):
        check()
    text = json.dumps(told(folder))
    assert len(text) < 100_000
    for secret in ("0a1b2c", "Some One", "secret prompt", "AAAA", "u0053"):
        assert secret not in text
    assert "<api key>" not in text  # a text under an unknown name is not kept at all


@pytest.mark.parametrize("answer", ["\n", "no\n", "y\n", ""])
def test_a_person_has_to_type_yes(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, check: Cli, answer: str
) -> None:
    typed = StringIO(answer)
    monkeypatch.setattr(typed, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdin", typed)
    done = check("--buy")
    assert done.code == 1
    assert "about 1.60 USD" in done.err
    assert done.err.endswith("Not bought: the answer was not yes.\n")
    assert submits(simulator) == 0


def test_yes_buys(simulator: Simulator, monkeypatch: pytest.MonkeyPatch, check: Cli) -> None:
    typed = StringIO("yes\n")
    monkeypatch.setattr(typed, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdin", typed)
    assert check("--buy").code == 0
    assert submits(simulator) == 1


def test_a_person_may_buy_although_something_is_broken(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, check: Cli, folder: Path
) -> None:
    earlier_jobs(simulator)
    before = submits(simulator)
    typed = StringIO("yes\n")
    monkeypatch.setattr(typed, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdin", typed)
    with vendor(monkeypatch, simulator, _changed("per_page=100", lambda body: body["data"].reverse())):
        done = check("--buy")
    assert done.code == 1
    assert "may not be found again: rows come newest first." in done.err
    assert submits(simulator) == before + 1
    assert broken(folder) == {"rows come newest first"}
    assert (folder / "luma-ray-img-2-video.mp4").exists()


def test_a_reply_that_cannot_be_kept_loses_no_bought_job(
    connection: None, simulator: Simulator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def keep(exchange: Exchange) -> None:
        raise RecursionError("too deep")

    (tmp_path / "frame.png").write_bytes(picture())
    clip = tmp_path / "clip.mp4"
    bought = Probe("luma_ray_default", keep).image_to_video(
        prompt="x", start_frame=tmp_path / "frame.png", output_path=clip, key="one"
    )
    assert bought["request_id"] == simulator.jobs[0].request_id
    assert clip.exists()
    assert API_KEY not in caplog.text


def test_without_a_person_nothing_is_asked(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, check: Cli
) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO("yes\n"))
    done = check("--buy")
    assert (done.code, done.out) == (2, "")
    assert not simulator.requests


@pytest.mark.slow
@pytest.mark.parametrize("call", ["submit", "download"])
def test_a_killed_purchase_is_finished_and_not_bought_twice(
    simulator: Simulator, check: Cli, folder: Path, call: str
) -> None:
    simulator.fault(call, "timeout")
    command = [
        sys.executable,
        "-m",
        "airflow_provider_luma",
        "contract",
        "--buy",
        "--yes",
        "--folder",
        str(folder),
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 60
            while not (simulator.charges and simulator.calls.get(call)):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
        finally:
            process.kill()
    simulator.clear_faults()
    told(folder)
    done = check("--buy", "--yes")
    assert done.code == 0, done
    assert submits(simulator) == 1
    assert simulator.charges == 1
    assert (folder / "luma-ray-img-2-video.mp4").exists()


@pytest.mark.parametrize(("kind", "code"), [("reset", 0), ("broken_json", 1), ("html", 1), (504, 0)])
def test_a_lost_answer_is_looked_up_and_not_repeated(
    simulator: Simulator, check: Cli, folder: Path, kind: str | int, code: int
) -> None:
    simulator.fault("submit", kind, accepted=True)
    done = check("--buy", "--yes")
    assert done.code == code, done
    assert (submits(simulator), simulator.charges) == (1, 1)
    assert (folder / "luma-ray-img-2-video.mp4").exists()


def test_a_job_that_failed_is_not_bought_again_by_itself(simulator: Simulator, check: Cli) -> None:
    simulator.fault("submit", "failed")
    done = check("--buy", "--yes")
    assert done.code == 1
    assert "FAILED" in done.err
    assert submits(simulator) == 1


@pytest.mark.parametrize("call", ["upload", "history", "status", "history_one", "credits"])
def test_nothing_is_bought_while_a_free_call_has_no_answer(
    simulator: Simulator, check: Cli, call: str
) -> None:
    simulator.fault(call, 503, times=2)
    done = check("--buy", "--yes")
    assert done.code == 1
    assert "Nothing was bought" in done.err
    assert paid_posts(simulator) == 0


def test_a_refused_purchase_is_shown(simulator: Simulator, check: Cli, folder: Path) -> None:
    simulator.retire("luma-ray-img-2-video")
    done = check("--buy", "--yes")
    assert done.code == 1
    assert "luma-ray-3-2" in done.err
    assert broken(folder) == {"a submit returns the job's id"}
    assert submits(simulator) == 1
    assert simulator.charges == 0
    assert check("--buy", "--yes", "--model", "luma-ray-3-2").code == 0
    assert simulator.charges == 1


def test_a_wrong_key_is_said_once_and_nothing_else_is_asked(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, check: Cli, folder: Path
) -> None:
    set_connection(monkeypatch, simulator.url, password="SG_ffffffffffffffff")
    done = check("--buy", "--yes")
    assert done.code == 1
    assert "Does not hold: the key is accepted" in done.err
    assert "Check the connection's password." in done.err
    assert "HTTP 401: Invalid API key" in done.out
    assert simulator.calls == {"credits": 1}
    assert "ffffffffffffffff" not in json.dumps(told(folder))


@pytest.mark.parametrize(
    "answer", [HANG_UP, http(200, "<html>a portal</html>"), http(503, "<html>down</html>")]
)
def test_a_host_that_is_no_vendor(
    monkeypatch: pytest.MonkeyPatch, check: Cli, folder: Path, answer: bytes
) -> None:
    with Peer(answer) as peer:
        set_connection(monkeypatch, peer.url, timeout=5)
        done = check("--buy", "--yes")
        assert done.code == 1
        assert done.err
        assert "Traceback" not in done.err
        assert not [one for one in peer.seen if one.method == "POST" and "upload" not in one.target]
        assert len(peer.seen) == (2 if answer == HANG_UP else 1)
    assert bool(broken(folder)) == (b"portal" in answer)


def test_no_connection(monkeypatch: pytest.MonkeyPatch, check: Cli, folder: Path) -> None:
    with Peer(HANG_UP) as peer:
        url = peer.url
    set_connection(monkeypatch, url)
    done = check("--buy", "--yes")
    assert done.code == 1
    assert "Nothing could be checked: No answer from 127.0.0.1" in done.err
    assert {one.outcome for one in findings(folder).values()} == {Outcome.UNKNOWN}


def test_no_such_connection(monkeypatch: pytest.MonkeyPatch, check: Cli, folder: Path) -> None:
    done = check("--conn", "no_such_connection")
    assert done.code == 1
    assert "'no_such_connection' is not defined" in done.err


def test_a_slow_vendor(
    monkeypatch: pytest.MonkeyPatch, simulator: Simulator, check: Cli, folder: Path
) -> None:
    set_connection(monkeypatch, simulator.url, timeout=0.3)
    simulator.fault("history", "timeout")
    done = check()
    assert done.code == 0, done
    assert "history/wrong key" in [one["call"] for one in told(folder)["exchanges"] if "problem" in one]


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_asked(
    simulator: Simulator, cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    done = cli("contract", "--folder", str(tmp_path / "file"))
    assert done.code == 1
    assert "FileExistsError" in done.err
    assert not simulator.requests


def test_a_rate_limit_of_the_vendor_is_waited_for(simulator: Simulator, folder: Path, check: Cli) -> None:
    for call in ("credits", "upload", "history_one"):
        simulator.fault(call, 429, seconds=0.2)
    done = check("--buy", "--yes")
    assert done.code == 0, done
    assert findings(folder)["the rate limit's reset is a time in UTC"].outcome is Outcome.HOLDS


def test_a_rate_limit_that_lasts_stops_the_purchase(simulator: Simulator, folder: Path, check: Cli) -> None:
    simulator.fault("history_one", 429, times=2, seconds=0.1)
    done = check("--buy", "--yes")
    assert done.code == 1
    assert "a free call not answered: history_one/unknown id." in done.err
    assert paid_posts(simulator) == 0


def test_our_own_rate_limit_is_waited_for(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, folder: Path, check: Cli
) -> None:
    monkeypatch.setattr(limiter, "_WINDOW", 0.2)
    set_connection(monkeypatch, simulator.url, requests_per_minute=5)
    assert check().code == 0
    assert len(told(folder)["exchanges"]) == 13


def test_the_probe_is_a_hook_like_any_other(connection: None, simulator: Simulator) -> None:
    kept: list[Any] = []
    probe = Probe("luma_ray_default", kept.append)
    assert probe.get_credits().total == 20
    assert [one.call for one in kept] == ["credits"]
    assert API_KEY not in repr(kept) + repr(kept[0].reply.headers)


@pytest.mark.slow
def test_make_contract(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "scripts" / "contract.py"
    done = subprocess.run(
        [sys.executable, str(script), "--folder", str(tmp_path / "x")],
        env=os.environ | {"PYTHONPATH": str(script.parents[1])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "31 hold, 0 do not, 1 unknown." in done.stdout
