"""One fleet for all these tests, and the table of what they measured."""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.report import Report
from tests.fleet.endings import Endings
from tests.fleet.fleet import Fleet
from tests.fleet.rig import Rig
from tests.storage.server import Store

SHORT = os.environ.get("LUMA_FLEET_SHORT") == "1"
CLIPS = int(os.environ.get("LUMA_FLEET_CLIPS") or (20 if SHORT else 500))
#: What decides about random faults; a failure is run again with its seed.
SEED = int(os.environ.get("LUMA_FLEET_SEED") or random.randrange(1_000_000))
long_form_only = pytest.mark.skipif(SHORT, reason="the long form only")

_FLEET = pytest.StashKey[Fleet]()
_ENDINGS = pytest.StashKey[Endings]()
_REPORTS = pytest.StashKey[list[Report]]()


@pytest.fixture(scope="session")
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """A running fleet with its bucket. Its folder is kept only if something failed."""
    if sys.platform != "linux" or not shutil.which("redis-server"):
        pytest.skip("needs Debian's PostgreSQL and Redis (make fleet)")
    home = Path(tempfile.mkdtemp(prefix="luma_ray_fleet_"))
    home.chmod(0o755)  # PostgreSQL's user goes through it
    frame = home / "frame.jpg"
    Image.linear_gradient("L").convert("RGB").save(frame)
    fleet = Fleet(home / "fleet")
    store = Store()
    request.config.stash[_FLEET] = fleet
    keeps = False
    try:
        with fleet:
            fleet.watch(store.pid)
            rig = Rig(fleet, store, frame)
            yield rig
            rig.close()
    except Exception:
        keeps = True
        raise
    finally:
        store.kill()
        if not keeps and not request.session.testsfailed:
            shutil.rmtree(home)


@pytest.fixture
def reports(request: pytest.FixtureRequest) -> list[Report]:
    """Tables to print at the end."""
    return request.config.stash.setdefault(_REPORTS, [])


@pytest.fixture
def endings(request: pytest.FixtureRequest) -> Endings:
    """How runs ended, for one table."""
    return request.config.stash.setdefault(_ENDINGS, Endings())


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show with each failure where the fleet's logs are, and their warnings."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    fleet = item.config.stash.get(_FLEET, None)
    if report.failed and fleet is not None:
        report.sections += fleet.complaints()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the tables and the seed."""
    reports = config.stash.get(_REPORTS, [])
    if (endings := config.stash.get(_ENDINGS, None)) is not None:
        reports.append(endings.report)
    for report in reports:
        terminalreporter.write_line(f"\n{report}")
    fleet = config.stash.get(_FLEET, None)
    if fleet is not None:
        terminalreporter.write_line(
            f"\nSeed: LUMA_FLEET_SEED={SEED}. Started again: {dict(fleet.restarts) or 'nothing'}."
        )
