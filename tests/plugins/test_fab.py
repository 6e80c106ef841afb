"""Who may see what under Airflow's FAB auth manager, by a real API server.

Skipped where its provider is not installed: ``pip install -c constraints.txt apache-airflow-providers-fab``.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_luma.jobs.record import Identity
from tests.plugins import clips
from tests.plugins.clips import VIDEO
from tests.plugins.server import Server

pytest.importorskip("airflow.providers.fab")
pytestmark = [pytest.mark.airflow, pytest.mark.slow]

DAGS = ("clips", "others")
MINE, THEIRS = (clips.identity(dag_id) for dag_id in DAGS)
NOBODYS = Identity.outside_tasks("coffee")


class FabServer(Server):
    """A server with roles: a reader of each DAG, one of every DAG, and one who may read a DAG but no task instance."""

    def make_users(self) -> None:
        program = [sys.executable, "-c", _MAKE_USERS, *DAGS]
        subprocess.run(program, env=self.env, capture_output=True, check=True, timeout=300)


#: One process for all: Airflow's command line takes seconds for each user, role and permission.
_MAKE_USERS = """
import sys
from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder

roles = {f"of_{dag_id}": [f"DAG:{dag_id}", "DAG Runs", "Task Instances"] for dag_id in sys.argv[1:]}
roles["no_tasks"] = ["DAG:clips", "DAG Runs"]
users = {role: role for role in roles} | {"nobody": "Public", "anna": "Viewer"}
with get_application_builder() as builder:
    security = builder.sm
    security.sync_roles()
    for role, resources in roles.items():
        made = security.add_role(role)
        for resource in resources:
            security.add_permission_to_role(made, security.create_permission("can_read", resource))
    for user, role in users.items():
        security.add_user(user, user, user, f"{user}@example.com", security.find_role(role), password=f"{user}'s")
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if sys.platform != "linux":
        pytest.skip("finds processes in /proc")
    root = tmp_path_factory.mktemp("shown")
    for whose in (MINE, THEIRS, NOBODYS):
        clip: Path = root / f"{whose.dag_id or 'nobodys'}.mp4"
        clips.put(clip, whose, request_id=f"job of {clip.stem}")
    settings = {
        "AIRFLOW__CORE__AUTH_MANAGER": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"
    }
    with FabServer(tmp_path_factory.mktemp("fab") / "airflow", str(root), settings) as running:
        yield running


@pytest.mark.parametrize("part", ["", "/video", "/poster"])
@pytest.mark.parametrize("run_id", ["run_1", "no_such_run"])
@pytest.mark.parametrize(
    ("user", "status"), [(None, 401), ("nobody", 403), ("of_others", 403), ("no_tasks", 403)]
)
def test_no_refusal_tells_whether_there_is_a_clip(
    server: Server, user: str | None, status: int, run_id: str, part: str
) -> None:
    reply = server.get(user, clips.url_of(MINE.model_copy(update={"run_id": run_id}), part))
    assert (reply.status_code, "clips" in reply.text) == (status, False)


@pytest.mark.parametrize("user", ["of_clips", "anna"])
def test_a_reader_of_the_dag_sees_its_clip(server: Server, user: str) -> None:
    assert "<video" in server.get(user, clips.url_of(MINE)).text
    assert server.get(user, clips.url_of(MINE, "/video")).content == VIDEO
    assert "clip/clips/run_1/generate/-1" in server.get(user, "run/clips/run_1").text


@pytest.mark.parametrize(
    ("user", "dags"),
    [
        ("of_clips", {"clips"}),
        ("of_others", {"others"}),
        ("anna", set(DAGS)),
        ("nobody", set()),
        ("no_tasks", set()),
    ],
)
def test_the_gallery_has_the_clips_of_the_dags_that_the_user_may_read(
    server: Server, user: str, dags: set[str]
) -> None:
    page = server.get(user, "gallery?dag_id=clips").text
    assert {dag_id for dag_id in DAGS if f"clip/{dag_id}/" in page} == dags
    assert page.count('class="tile ') == len(dags)  # and none of the clip that belongs to no DAG


def test_all_dags_at_once_are_never_asked_for(server: Server) -> None:
    for user in ("of_clips", "anna"):
        assert server.get(user, clips.url_of(MINE.model_copy(update={"dag_id": "~"}))).status_code == 403
        assert server.get(user, "run/~/run_1?dag_id=clips").status_code == 403
