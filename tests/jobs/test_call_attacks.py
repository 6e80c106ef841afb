"""Calls of the hook's verb that overlap, and what their errors advise."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from airflow_provider_luma.cli.main import main
from airflow_provider_luma.exceptions import LumaRayError, LumaRayResultExpired, LumaRaySubmitUnknown
from airflow_provider_luma.simulator import Simulator
from tests.claims.test_counterexamples import advised
from tests.jobs.test_call import attempt, call
from tests.support import MemoryStore

pytestmark = pytest.mark.usefixtures("connection")


@pytest.mark.parametrize("accepted", [True, False])
def test_a_lost_call_outside_a_task_is_settled_as_its_error_says(
    simulator: Simulator, frame: Path, clip: Path, accepted: bool
) -> None:
    simulator.fault("submit", "reset", accepted=accepted)
    simulator.fault("history", "status", status=401)
    with pytest.raises(LumaRaySubmitUnknown) as caught:
        call(frame, clip, key="a b/c")
    if accepted:
        command = [
            word for word in advised(caught.value, "adopt") if not word.startswith("<") and word != "id>"
        ]
        assert main([*command, simulator.jobs[0].request_id]) == 0
    else:
        assert main(advised(caught.value, "not-bought")) == 0
    call(frame, clip, key="a b/c")
    assert simulator.charges == 1


def test_an_expired_clip_outside_a_task_is_bought_again_as_its_error_says(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    call(frame, clip, key="coffee")
    clip.unlink()
    simulator.advance(8 * 24 * 3600)
    with pytest.raises(LumaRayResultExpired) as caught:
        call(frame, clip, key="coffee")
    # By the command's clock the clip is young, so it asks once more.
    assert main([*advised(caught.value, "give-up"), "--yes"]) == 0
    call(frame, clip, key="coffee")
    assert simulator.charges == 2


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("folder", [True, False])
def test_calls_at_once_buy_one_clip(
    simulator: Simulator, frame: Path, tmp_path: Path, inside: bool, folder: bool
) -> None:
    together = Barrier(4, timeout=20)
    output = f"{tmp_path}/out/" if folder else f"{tmp_path}/out/a.mp4"
    store = MemoryStore()

    def run(_: int) -> Any:
        together.wait()
        try:
            if inside:
                return attempt(lambda: call(frame, output, key="k"), store=store)[0]
            return call(frame, output, key="k")
        except LumaRayError as error:
            return error

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(run, range(4)))
    assert (len(simulator.jobs), simulator.charges) == (1, 1), results


def test_keys_that_look_alike_are_different_clips(simulator: Simulator, frame: Path, tmp_path: Path) -> None:
    keys = ["a b", "a-b", "a/b", "a_b", "A b", "..", ".", "a" * 300, "a" * 299 + "b", "ä"]
    paths = [call(frame, f"{tmp_path}/out/", key=key)["video_path"] for key in keys]
    assert len({path.lower() for path in paths}) == len(keys) == simulator.charges, paths
