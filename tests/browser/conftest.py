"""A real Airflow, the simulator, and headless Chromium (Debian's) that is signed in. Screenshots are kept."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_luma.simulator import Simulator
from scripts.ui import EXAMPLES, photos
from tests.e2e.cluster import Cluster

USER = ("admin", "of the tests")
#: Where the screenshots go.
SHOTS = Path(os.environ.get("LUMA_SCREENSHOTS", ".screenshots"))
DESKTOP, PHONE = (1440, 900), (390, 844)


@dataclass(frozen=True)
class Rig:
    """Airflow with the examples, and the vendor.

    :param home: the home folder of its DAGs, in which ``photos`` and, made by the examples, ``luma-ray-videos`` are
    """

    cluster: Cluster
    simulator: Simulator
    browser: Any
    home: Path

    def page(self, size: tuple[int, int] = DESKTOP, scheme: str = "light") -> Any:
        """Open a page, signed in by the form."""
        context = self.browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, base_url=self.cluster.url
        )
        page = context.new_page()
        page.goto("/")
        page.fill("input[name=username]", USER[0])
        page.fill("input[name=password]", USER[1])
        page.click("button[type=submit]")
        page.get_by_role("link", name="Dags").first.wait_for()
        return page


@pytest.fixture(scope="session")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    home = tmp_path_factory.mktemp("browser")
    photos(home / "photos")
    SHOTS.mkdir(exist_ok=True)
    roots = (home / "luma-ray-videos", home / "photos", EXAMPLES / "frames")
    settings = {"HOME": str(home), "AIRFLOW__LUMA_RAY__PREVIEW_ROOTS": ", ".join(map(str, roots))}
    amount = len(list(EXAMPLES.glob("*.py")))
    with (
        Simulator(latency=12, clip_seconds=3, credits="60") as simulator,
        Cluster(home / "airflow", dags=EXAMPLES, amount=amount, settings=settings, user=USER) as cluster,
        playwright.sync_playwright() as started,
    ):
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        cluster.make_pool("luma_ray", 8)
        yield Rig(cluster, simulator, browser, home)
        browser.close()
