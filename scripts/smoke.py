"""``make smoke``: what a user gets who installs the wheel alone, and then each extra.

Nothing of the repository is importable here but the example DAG, which runs against the simulator of this process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from airflow_provider_luma.simulator import Simulator

REPO = Path(__file__).resolve().parent.parent
CONSTRAINTS = REPO / "constraints" / "extras.txt"
DAG_ID = "luma_ray_image_to_video"
#: What each extra is for, and a URI of the file system that it brings.
IMPORTS = {
    "simulator": "from airflow_provider_luma.simulator import Simulator",
    "s3": "import s3fs, airflow.providers.amazon.aws.fs.s3",
    "gcs": "import gcsfs, airflow.providers.google.cloud.fs.gcs",
    "azure": "import adlfs, airflow.providers.microsoft.azure.fs.adls",
}
STORES = {"s3": "s3://bucket/clip.mp4", "gcs": "gs://bucket/clip.mp4", "azure": "abfs://bucket/clip.mp4"}


class Installed:
    """A new environment with the wheel, and an Airflow home for it."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self._folder, self._wheel = folder, wheel
        self._python = folder / "venv" / "bin" / "python"
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTHON"))
        }
        self.env = kept | {
            "AIRFLOW_HOME": str(folder / "airflow"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(REPO / "dags_examples"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        }
        subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)

    def install(self, extra: str = "") -> None:
        """Install the wheel, with an extra."""
        what = f"{self._wheel}[{extra}]" if extra else str(self._wheel)
        pip = ["-m", "pip", "--disable-pip-version-check", "install", "-q", "-c", str(CONSTRAINTS), what]
        self.run(*pip)

    def run(self, *arguments: str, fails: bool = False, **env: str) -> str:
        """Run Python and return what it prints; end all if it does not do as expected."""
        done = subprocess.run(
            [str(self._python), *arguments],
            cwd=self._folder,
            env=self.env | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if (done.returncode != 0) != fails:
            sys.exit(f"{done.stdout}\nSmoke: {' '.join(arguments)} ended with {done.returncode}.")
        return done.stdout


def check(condition: object, sentence: str) -> None:
    if not condition:
        sys.exit(f"Smoke: {sentence}")


def check_bare(installed: Installed) -> None:
    """The package imports, Airflow lists it, and each extra that is missing is named."""
    where = installed.run("-c", "import airflow_provider_luma as package; print(package.__file__)")
    check("site-packages" in where, f"the package that is imported is {where}.")
    listed = json.loads(
        installed.run("-m", "airflow", "providers", "list", "--output", "json").splitlines()[-1]
    )
    names = [one["package_name"] for one in listed]
    check("airflow-provider-luma" in names, f"Airflow lists only {', '.join(names)}.")
    told = installed.run("-m", "airflow_provider_luma.simulator", fails=True)
    check(len(told.splitlines()) == 1 and "airflow-provider-luma[simulator]" in told, told)
    for extra, uri in STORES.items():
        code = f"from airflow_provider_luma.storage import open_file; open_file({uri!r})"
        told = installed.run("-c", code, fails=True)
        check(f"install 'airflow-provider-luma[{extra}]'" in told, told)


def check_first_dag(installed: Installed, folder: Path) -> None:
    """The first DAG makes a video."""
    installed.run("-m", "airflow", "db", "migrate")
    result = folder / "result.json"
    with Simulator(latency=1, clip_seconds=1) as simulator:
        connection = {"conn_type": "luma_ray", "password": simulator.api_key, "host": simulator.url}
        installed.run(
            str(REPO / "scripts" / "run_dag.py"),
            str(REPO / "dags_examples" / f"{DAG_ID}.py"),
            DAG_ID,
            f"--at={datetime.now(UTC).isoformat()}",
            f"--conf={json.dumps({'videos': f'{folder}/'})}",
            "--xcoms-of=generate",
            f"--result={result}",
            AIRFLOW_CONN_LUMA_RAY_DEFAULT=json.dumps(connection),
            NO_PROXY="127.0.0.1",
        )
        check(simulator.charges == 1, f"the DAG bought {simulator.charges} clips.")
    video = Path(json.loads(result.read_text())["xcoms"]["video_path"])
    check(video.stat().st_size > 0, f"{video} is empty.")


def main(dist: str, *extras: str) -> None:
    (wheel,) = Path(dist).absolute().glob("*.whl")
    with tempfile.TemporaryDirectory(prefix="luma_ray_smoke_") as name:
        folder = Path(name)
        installed = Installed(folder, wheel)
        installed.install()
        check_bare(installed)
        check_first_dag(installed, folder)
        print(f"{wheel.name} alone: imported, listed by Airflow, and its first DAG made a video.", flush=True)
        for extra in extras:
            installed.install(extra)
            installed.run("-c", IMPORTS[extra])
            print(f"[{extra}]: imported.", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
