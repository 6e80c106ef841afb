"""``make stills``: the pictures of the documentation, taken of the pages that ``make ui`` shows.

It takes seven minutes and needs Chromium. Nothing is bought, and no process is left.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from pathlib import Path

import av
from PIL import Image
from playwright.sync_api import sync_playwright  # type: ignore[import-not-found,unused-ignore]

from airflow_provider_luma.simulator import Simulator
from scripts.ui import EXAMPLES, QUICK, REPO, fill, photos
from tests.browser.conftest import USER, Rig
from tests.browser.test_story import frame_of
from tests.e2e.cluster import Cluster

PICTURES = REPO / "docs" / "pictures"
#: Bytes, all together: they are in the repository for good.
MOST = 300_000
WIDTH = 1280
#: Each page: its path in Airflow, what its frame's URL has, and how high the picture is. The clip's ends
#: above the file's path, which is of this machine.
PAGES = {
    "gallery": ("/plugin/luma-clips", "luma/gallery", 800),
    "run": ("/dags/luma_ray_nightly_batch/runs/dozen/plugin/luma-clips-of-run", "luma/run/", 800),
    "clip": (
        "/dags/luma_ray_image_to_video/runs/coffee_2/tasks/generate/plugin/luma-clip",
        "luma/clip/",
        800,
    ),
}


def keep(picture: Image.Image, name: str) -> None:
    picture.convert("RGB").save(PICTURES / f"{name}.webp", quality=70, method=6)


def take(rig: Rig) -> None:
    """Photograph the pages."""
    for name, (path, part, height) in PAGES.items():
        page = rig.page((WIDTH, height))
        page.goto(path)
        frame_of(page, part)
        page.wait_for_timeout(3000)  # for the posters and the plots
        keep(Image.open(io.BytesIO(page.screenshot())), name)
        page.context.close()


def still(video: Path) -> None:
    """Keep a clip's frame from its middle."""
    with av.open(str(video)) as container:
        frames = [Image.fromarray(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    keep(frames[len(frames) // 2].resize((960, 540)), "still")


def main() -> str | None:
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="luma_ray_stills_") as folder:
        home = Path(folder)
        videos = home / "videos"
        photos(home / "photos")
        settings = {"AIRFLOW__LUMA_RAY__PREVIEW_ROOTS": f"{videos}, {home / 'photos'}, {EXAMPLES / 'frames'}"}
        amount = len(list(EXAMPLES.glob("*.py")))
        with (
            Simulator(latency=QUICK, clip_seconds=3, credits="60") as simulator,
            Cluster(home / "airflow", dags=EXAMPLES, amount=amount, settings=settings, user=USER) as cluster,
            sync_playwright() as started,
        ):
            cluster.connect("luma_ray_default", simulator.url, simulator.api_key)
            fill(cluster, simulator, videos)
            browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            take(Rig(cluster, simulator, browser, home))
            browser.close()
        still(next(videos.glob("luma_ray_image_to_video/coffee_2/*.mp4")))
    sizes = {path.name: path.stat().st_size for path in sorted(PICTURES.iterdir())}
    print(sizes, sum(sizes.values()))
    return (
        None
        if sum(sizes.values()) < MOST
        else f"The pictures have {sum(sizes.values())} bytes, more than {MOST}."
    )


if __name__ == "__main__":
    sys.exit(main())
