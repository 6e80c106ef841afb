"""``make ui``: runs Airflow on a free port, with the examples and their clips, until Ctrl-C.

The vendor is the built-in simulator and nothing is bought. Airflow's home is a temporary folder, removed at the end.
"""

from __future__ import annotations

import contextlib
import secrets
import signal
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from PIL import Image, ImageDraw, ImageOps

from airflow_provider_luma.simulator import Simulator
from tests.e2e.cluster import FINISHED, Cluster

REPO = Path(__file__).resolve().parent.parent
EXAMPLES = REPO / "dags_examples"
USER = "admin"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Seconds per job: quick while the clips are made, then slow enough to see a job in flight.
QUICK, SLOW = 2.0, 45.0
#: A task's state while it waits for a person, by Airflow version.
WAITS = ("awaiting_input", "deferred")
SKIES = (
    ("#1b2a6b", "#f6a35c"),
    ("#0f3d3e", "#e2c275"),
    ("#3b1c52", "#f28fad"),
    ("#12355b", "#9ad1d4"),
    ("#4a1d1f", "#f4b860"),
    ("#14213d", "#fca311"),
    ("#22333b", "#eae0d5"),
    ("#2d3a3a", "#b5d99c"),
    ("#451952", "#f39f5a"),
    ("#1d2d44", "#f0ebd8"),
    ("#37123c", "#ddb4f6"),
    ("#0b3954", "#ff6663"),
)


def photos(folder: Path) -> None:
    """Paint a dozen photos: the sun over a horizon, each at a different hour."""
    folder.mkdir(parents=True)
    for number, (dark, light) in enumerate(SKIES):
        sky = ImageOps.colorize(Image.linear_gradient("L").resize((960, 540)), dark, light)
        pen = ImageDraw.Draw(sky)
        x, y = 160 + 55 * number, 380 - 22 * number
        pen.ellipse((x - 60, y - 60, x + 60, y + 60), fill="#fff3d6")
        pen.polygon([(0, 400), (300, 330), (560, 420), (960, 340), (960, 540), (0, 540)], fill=dark)
        sky.save(folder / f"horizon-{number + 1:02d}.jpg", quality=88)


def fill(cluster: Cluster, simulator: Simulator, videos: Path) -> None:
    """Run the examples: clips that are delivered, refused, failed at first, and lost."""
    cluster.make_pool("luma_ray", 8)
    simulator.fault("submit", "status", status=422, message="The prompt violates the content policy", times=2)
    simulator.fault("submit", "failed", message="The model could not process the frame")
    nightly = {
        "photos": str(videos.parent / "photos"),
        "videos": str(videos / "nightly"),
        "max_credits": 100,
    }
    cluster.trigger("luma_ray_nightly_batch", "dozen", **nightly)
    wait_for_run(cluster, "luma_ray_nightly_batch", "dozen")
    simulator.fault("submit", "reset", accepted=False)
    for run_id, prompt in {"coffee_1": "Steam rises, warm morning light", "coffee_2": "Slow push-in"}.items():
        cluster.trigger("luma_ray_image_to_video", run_id, prompt=prompt, videos=f"{videos}/")
        wait_for_run(cluster, "luma_ray_image_to_video", run_id)
    folders = {"drafts": f"{videos}/drafts/", "published": f"{videos}/published/"}
    cluster.trigger("luma_ray_review", "to_approve", **folders)
    cluster.wait(
        "a clip waits for approval",
        lambda: any(
            ti["state"] in WAITS for ti in cluster.task_instances("luma_ray_review", "to_approve", "approve")
        ),
        timeout=300,
        every=1,
    )


def wait_for_run(cluster: Cluster, dag_id: str, run_id: str) -> None:
    cluster.wait(
        f"{run_id} ends", lambda: cluster.run_states(dag_id)[run_id] in FINISHED, timeout=600, every=2
    )


class Stopped(BaseException):
    """A signal asked the script to stop."""


def stop(*_: object) -> NoReturn:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # already stopping: do not interrupt that
    raise Stopped


def serve(home: Path) -> NoReturn:
    """Run Airflow until a signal arrives."""
    videos, password = home / "videos", secrets.token_urlsafe(9)
    photos(home / "photos")
    settings = {"AIRFLOW__LUMA_RAY__PREVIEW_ROOTS": f"{videos}, {home / 'photos'}, {EXAMPLES / 'frames'}"}
    airflow = Cluster(
        home / "airflow",
        dags=EXAMPLES,
        amount=len(list(EXAMPLES.glob("*.py"))),
        settings=settings,
        user=(USER, password),
    )
    with Simulator(latency=QUICK, clip_seconds=3, credits="60") as quick, airflow as cluster:
        cluster.connect("luma_ray_default", quick.url, quick.api_key)
        fill(cluster, quick, videos)
        with Simulator(latency=SLOW, clip_seconds=3, credits=str(quick.balance)) as slow:
            cluster.reconnect("luma_ray_default", slow.url, slow.api_key)
            for number in (3, 4):
                cluster.trigger("luma_ray_image_to_video", f"coffee_{number}", videos=f"{videos}/")
            print(f"\n  {cluster.url}\n  user {USER}, password {password}\n\nCtrl-C ends it.", flush=True)
            while True:
                signal.pause()


def main() -> int:
    for number in SIGNALS:
        signal.signal(number, stop)
    print("Starting Airflow and making a dozen clips: five minutes ...", flush=True)
    with contextlib.suppress(Stopped), tempfile.TemporaryDirectory(prefix="luma_ray_ui_") as folder:
        serve(Path(folder))
    print("\nNothing is left running.", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
