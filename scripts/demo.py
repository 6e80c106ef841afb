"""``make demo``: runs the example DAG in Airflow until there is a finished video.

Without ``SEGMIND_API_KEY`` the vendor is the built-in simulator and nothing is bought. With it, the vendor is Segmind:
the script shows the price and asks for confirmation (``YES=1`` gives it in advance).

Airflow keeps its files in ``.airflow/``, the video goes to ``videos/``, and no process is left running, however this
ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import unquote, urlsplit

import av

from airflow_provider_luma.segmind.models import CATALOGUE, DEFAULT_MODEL

REPO = Path(__file__).resolve().parent.parent
HOME = REPO / ".airflow"
VIDEOS = REPO / "videos"
UNFINISHED = HOME / "unfinished_run"  # the date, and thus the id, of a run that may have bought a video
DAG_ID = "luma_ray_image_to_video"
DAG_FILE = REPO / "dags_examples" / f"{DAG_ID}.py"

SIMULATOR_START = 30  # seconds
MIGRATION = 180
DAG_RUN = 180
PAID_DAG_RUN = 1800

# A log line of the provider's in Airflow's log.
PROVIDER_LINE = re.compile(
    r"\[(?:info|warning|error) *\] (?!Success criteria)(.*\S) +\[(?:airflow\.task\.operators\.)?airflow_provider_luma\b"
)


class DemoError(Exception):
    """The demo failed: a sentence for the user, and the log file that explains it."""

    def __init__(self, sentence: str, log: Path | None = None) -> None:
        super().__init__(sentence)
        self.log = log


class Stopped(BaseException):
    """A signal asked the demo to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def say(label: str, text: str) -> None:
    print(f"{label:<12}{text}", flush=True)


# Processes


def die_with_parent() -> Any:
    """Return a ``preexec_fn`` that makes a child end with us, even if we are killed; Linux only."""
    if sys.platform != "linux":
        return None
    libc, parent = ctypes.CDLL(None, use_errno=True), os.getpid()

    def child() -> None:
        libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)

    return child


@contextlib.contextmanager
def running(command: list[str], env: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in its own process group, its output in ``log``; kill the group on exit."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *command],
            env=env,
            cwd=HOME,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent(),
        )
    try:
        yield process
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=2)  # Airflow does not end a task on SIGTERM


def finish(
    command: list[str], env: dict[str, str], log: Path, timeout: float, show: re.Pattern[str] | None = None
) -> int:
    """Run a program to completion and return its exit code, printing what ``show`` matches in its log."""
    deadline = time.monotonic() + timeout
    with running(command, env, log) as process, log.open(errors="replace") as output:
        code, rest = None, ""
        while code is None:
            if time.monotonic() > deadline:
                raise DemoError(f"it did not finish within {timeout:.0f} seconds.", log)
            time.sleep(0.2)
            code = process.poll()
            *lines, rest = (rest + output.read()).split("\n")
            for found in filter(None, map(show.search, lines) if show else ()):
                say("", found[1])
    return code


@contextlib.contextmanager
def simulator(env: dict[str, str]) -> Iterator[str]:
    """Run the simulator on a free port; yield its URL."""
    log = HOME / "simulator.log"
    command = ["-m", "airflow_provider_luma.simulator", "--port", "0", "--credits", "20", "--latency", "2"]
    with running(command, env, log) as process:
        deadline = time.monotonic() + SIMULATOR_START
        while not (found := re.search(r"http://127\.0\.0\.1:\d+(?=\W)", log.read_text(errors="replace"))):
            if process.poll() is not None:
                raise DemoError("the simulator did not start.", log)
            if time.monotonic() > deadline:
                raise DemoError(f"the simulator did not print its URL within {SIMULATOR_START} seconds.", log)
            time.sleep(0.1)
        yield found[0]


# The steps


def environment() -> dict[str, str]:
    """Return an environment for a separate Airflow, whatever other Airflow the user has."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW") and k != "SEGMIND_API_KEY"}
    return env | {
        "AIRFLOW_HOME": str(HOME),
        "AIRFLOW__CORE__DAGS_FOLDER": str(REPO / "dags_examples"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME}/airflow.db",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(HOME / "logs"),
        "PYTHONUNBUFFERED": "1",
    }


def agree_to_pay(resumed: bool) -> None:
    """Show the price and continue only if the user agrees."""
    price = CATALOGUE[DEFAULT_MODEL].price
    say("Price", f"one video costs about {price} USD at Segmind, paid by the account of SEGMIND_API_KEY")
    if resumed:
        say("", "the last run did not finish and is resumed, at no charge if it had already bought its video")
        say("", f"(to start a new run instead, delete {UNFINISHED.relative_to(REPO)})")
    if os.environ.get("YES") == "1":
        return
    if not sys.stdin.isatty():
        raise DemoError(
            "there is no terminal to confirm the price, so nothing was bought; set YES=1 to confirm in advance."
        )
    if input("Continue? [y/N] ").strip().lower() not in ("y", "yes"):
        raise DemoError("nothing was bought.")


def migrate(env: dict[str, str]) -> None:
    """Create Airflow's database, unless this version of Airflow has created it before."""
    stamp, wanted = HOME / "migrated", version("apache-airflow")
    if stamp.exists() and stamp.read_text() == wanted and (HOME / "airflow.db").exists():
        return
    say("Airflow", f"creating its database in {HOME.name}/, once")
    if finish(["-m", "airflow", "db", "migrate"], env, log := HOME / "migrate.log", MIGRATION):
        raise DemoError("Airflow could not create its database.", log)
    stamp.write_text(wanted)


def run_dag(env: dict[str, str], timeout: float, at: str, resumed: bool) -> dict[str, Any]:
    """Run the example DAG and return the XComs of the task that made the video.

    A resumed run does not wait for credits: fetching what it has bought costs nothing.
    """
    say("Airflow", f"running the DAG {DAG_ID}")
    result, log = HOME / "result.json", HOME / "dag_run.log"
    result.unlink(missing_ok=True)
    command = [str(REPO / "scripts" / "run_dag.py"), str(DAG_FILE), DAG_ID, "--at", at]
    command += [
        "--conf",
        json.dumps({"videos": f"{VIDEOS}/"}),
        "--xcoms-of",
        "generate",
        "--result",
        str(result),
    ]
    command += ["--done", "enough_credits"] if resumed else []
    code = finish(command, env, log, timeout, PROVIDER_LINE)
    outcome = json.loads(result.read_text()) if result.exists() else {}
    if code or outcome.get("state") != "success":
        raise DemoError("; ".join(outcome.get("errors", [])) or "the DAG run ended early.", log)
    return dict(outcome["xcoms"])


def report(xcoms: dict[str, Any]) -> None:
    video = str(xcoms["video_path"])
    path = Path(unquote(urlsplit(video).path) if video.startswith("file:") else video)
    size = path.stat().st_size
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        seconds = (container.duration or 0) / 1_000_000
        picture = f"{stream.width}x{stream.height}"
    used = xcoms.get("credits_used")
    print()
    say("Video", str(path))
    say("Size", f"{size:,} bytes ({size / 1e6:.1f} MB)")
    say("Clip", f"{seconds:.1f} s, {picture}")
    say(
        "Credits",
        f"{'unknown' if used is None else format(used, '.2f')} used, {xcoms['remaining_credits']:.2f} left",
    )


def demo() -> None:
    key = os.environ.get("SEGMIND_API_KEY", "").strip()
    HOME.mkdir(exist_ok=True)
    lock = (HOME / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise DemoError("another demo is running in this folder.") from None

    env, at = environment(), datetime.now(UTC).isoformat()
    if key:
        # A paid run that did not finish is resumed under its own id, so that no video is bought twice.
        resumed = UNFINISHED.exists()
        at = UNFINISHED.read_text() if resumed else at
        agree_to_pay(resumed)
        migrate(env)
        UNFINISHED.write_text(at)
        say("Vendor", "Segmind")
        xcoms = run_dag(env | connection(key), PAID_DAG_RUN, at, resumed)
        UNFINISHED.unlink()
    else:
        migrate(env)
        with simulator(env) as url:
            say("Vendor", f"the simulator at {url}: nothing is bought")
            xcoms = run_dag(env | connection("SG_simulator", url), DAG_RUN, at, resumed=False)
    report(xcoms)


def connection(key: str, url: str | None = None) -> dict[str, str]:
    """Return the environment variables that define the default connection."""
    value = {"conn_type": "luma_ray", "password": key} | ({"host": url} if url else {})
    entries = {"AIRFLOW_CONN_LUMA_RAY_DEFAULT": json.dumps(value)}
    if url:
        reached = [os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), "127.0.0.1"]
        entries["NO_PROXY"] = entries["no_proxy"] = ",".join(filter(None, reached))
    return entries


def main() -> int:
    def stop(number: int, _: Any) -> NoReturn:
        for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(other, signal.SIG_IGN)  # already stopping: do not interrupt that
        raise Stopped(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    try:
        demo()
    except Stopped as stopped:
        print(f"\nStopped by {stopped}; nothing is left running.", file=sys.stderr)
        return 128 + stopped.number
    except DemoError as error:
        if error.log and error.log.exists():
            lines = error.log.read_text(errors="replace").splitlines()
            print(*lines[-60:], f"\n(the whole log: {error.log})\n", sep="\n", file=sys.stderr)
        print(f"No video: {error}", file=sys.stderr)
        return 1
    except Exception as error:
        traceback.print_exc()
        print(f"\nNo video: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
