"""The unchanged examples on a fleet, from bucket to bucket."""

from __future__ import annotations

import pytest

from tests.e2e.cluster import FINISHED
from tests.fleet import audit
from tests.fleet.rig import FRAME, Rig

pytestmark = [pytest.mark.airflow, pytest.mark.slow]


def test_the_examples(rig: Rig) -> None:
    with rig.vendor(latency=2.0) as simulator:
        rig.connect(simulator, "default")
        rig.fleet.make_pool("luma_ray", 8)
        for name in ("shoe.jpg", "bag.jpg", "hat.jpg"):
            rig.bucket.put(f"photos/{name}", rig.bucket.get(FRAME) + name.encode())
        clip, night = "luma_ray_image_to_video", "luma_ray_nightly_batch"
        rig.fleet.trigger(
            clip, "clip", photo=f"s3://aws_default@media/{FRAME}", videos="s3://aws_default@media/example/"
        )
        rig.fleet.trigger(
            night,
            "night",
            photos="s3://aws_default@media/photos/",
            videos="s3://aws_default@media/nightly/",
            max_credits=3.2,
        )

        def ended() -> tuple[str, str] | None:
            found = rig.fleet.run_states(clip)["clip"], rig.fleet.run_states(night)["night"]
            return found if set(found) <= set(FINISHED) else None

        assert rig.fleet.wait("both end", ended) == ("success", "success"), rig.fleet.log_of("*", "*")
        assert simulator.charges == len(simulator.jobs) == 3
        there = {name for name in rig.bucket.names() if name.startswith(("example/", "nightly/"))}
        clips = {f"example/{clip}/clip/generate.mp4", "nightly/bag.jpg.mp4", "nightly/hat.jpg.mp4"}
        assert there == clips | {f"{name}.job.json" for name in clips}
        assert rig.bucket.uploads() == []
        assert rig.fleet.xcoms(night, "night", task_id="report")["return_value"] == 3.2
        audit.check_secrets(rig)
