"""Check what ``make build`` made: wheel and sdist have what they need and nothing else, and Airflow finds the provider.

Some of the tests are run in the unpacked sdist, on its own code.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import distributions
from pathlib import Path, PurePosixPath
from zipfile import ZipFile

import airflow_provider_luma

PACKAGE = "airflow_provider_luma"
SDIST_TOPS = {
    PACKAGE, "ARCHITECTURE.md", "CHANGELOG.md", "LICENSE", "Makefile", "PKG-INFO", "README.md", "benchmarks",
    "constraints", "constraints.txt", "dags_examples", "docs",
    "pyproject.toml", "scripts", "tests", ".gitignore",
}  # fmt: skip
LICENSES = {"LICENSE", f"{PACKAGE}/plugins/static/uplot.LICENSE"}
#: Seconds, not minutes: they read files of tests/, and ask the simulator.
TESTS = ["tests/segmind/test_money.py", "tests/segmind/test_transcript.py", "tests/hooks/test_account.py"]
#: An index shows the README alone: it has no other file to link to.
RELATIVE_LINK = re.compile(r"\]\((?!https?://|#)[^)]*\)")


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
    inside = {PurePosixPath(*p.parts[1:]).as_posix() for p in paths}
    if Path(".git").exists():
        listed = subprocess.run(["git", "ls-files", "-z"], check=True, capture_output=True, text=True).stdout
        tracked = {p for p in listed.split("\0") if p.partition("/")[0] in SDIST_TOPS and Path(p).exists()}
        strays = inside ^ tracked ^ {"PKG-INFO"}
        check(not strays, f"sdist and repository differ in {sorted(strays)}: commit them, or remove them.")

    with tempfile.TemporaryDirectory() as target:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
        subprocess.run([*pip, "--no-index", "--target", target, str(wheels[0])], check=True)
        check((Path(target) / PACKAGE / "py.typed").exists(), "py.typed is missing.")
        (installed,) = distributions(path=[target])
        check(installed.version == airflow_provider_luma.__version__, f"its version is {installed.version}.")
        licenses = set(installed.metadata.get_all("License-File") or ())
        check(licenses == LICENSES, f"it carries the licences {sorted(licenses)}.")
        links = RELATIVE_LINK.findall(installed.read_text("METADATA") or "")
        check(not links, f"an index cannot follow the README's {', '.join(links)}.")
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

    with tempfile.TemporaryDirectory() as folder:
        shutil.unpack_archive(sdists[0], folder)
        (source,) = Path(folder).iterdir()
        pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS]
        tested = subprocess.run(pytest, cwd=source, env=os.environ | {"PYTHONPATH": str(source)})
        check(tested.returncode == 0, "tests fail in the unpacked sdist.")
    print(f"{wheels[0].name} and {sdists[0].name} are right.")


if __name__ == "__main__":
    main(sys.argv[1])
