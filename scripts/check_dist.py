"""Check what ``make build`` made: the wheel has the package and nothing else, and Airflow will discover it."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import distributions
from pathlib import Path, PurePosixPath
from zipfile import ZipFile

PACKAGE = "airflow_provider_luma"
SDIST_TOPS = {
    PACKAGE, "ARCHITECTURE.md", "CHANGELOG.md", "LICENSE", "Makefile", "PKG-INFO", "README.md", "benchmarks",
    "constraints", "constraints.txt", "dags_examples",
    "pyproject.toml", "scripts", "tests", ".gitignore",
}  # fmt: skip


def check(condition: object, sentence: str) -> None:
    if not condition:
        sys.exit(f"The build is wrong: {sentence}")


def main(folder: str) -> None:
    wheels, sdists = sorted(Path(folder).glob("*.whl")), sorted(Path(folder).glob("*.tar.gz"))
    check(len(wheels) == 1 and len(sdists) == 1, f"{folder} should have one wheel and one sdist.")

    with ZipFile(wheels[0]) as wheel:
        packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    sources = {p.as_posix() for p in Path(PACKAGE).rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    check(packed == sources, f"wheel and source tree differ in {sorted(packed ^ sources)}.")

    with tarfile.open(sdists[0]) as sdist:
        paths = [PurePosixPath(member.name) for member in sdist.getmembers() if member.isfile()]
    check(
        {p.parts[1] for p in paths} <= SDIST_TOPS,
        f"the sdist contains {sorted({p.parts[1] for p in paths} - SDIST_TOPS)}.",
    )
    check(not any(p.suffix == ".pyc" for p in paths), "the sdist contains compiled files.")

    with tempfile.TemporaryDirectory() as target:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
        subprocess.run([*pip, "--no-index", "--target", target, str(wheels[0])], check=True)
        check((Path(target) / PACKAGE / "py.typed").exists(), "py.typed is missing.")
        (installed,) = distributions(path=[target])
        (entry,) = installed.entry_points.select(group="apache_airflow_provider")
        module, _, function = entry.value.partition(":")
        code = "import sys; sys.path.insert(0, sys.argv[1]); "
        code += f"from {module} import {function} as info; print(info()['package-name'])"
        answer = subprocess.run(
            [sys.executable, "-I", "-c", code, target], check=True, capture_output=True, text=True
        )
        check(
            answer.stdout.strip() == installed.name,
            "Airflow requires the distribution's name as 'package-name'.",
        )
    print(f"{wheels[0].name} and {sdists[0].name} are right.")


if __name__ == "__main__":
    main(sys.argv[1])
