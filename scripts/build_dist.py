"""Build wheel and sdist twice: here, and again from the sdist in another folder. Both must give the same bytes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

#: Whose last commit dates the build; without a repository (in an unpacked sdist) it is the date of this file.
_DATED = "PKG-INFO"


def epoch(root: Path) -> str:
    """Return the build's date in seconds: SOURCE_DATE_EPOCH, else the last commit's, else the sdist's."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return given
    if shutil.which("git"):
        log = ["git", "-C", str(root), "log", "-1", "--format=%ct", "--", "."]
        if committed := subprocess.run(log, capture_output=True, text=True).stdout.strip():
            return committed
    return str(int((root / _DATED).stat().st_mtime))


def build(source: Path, target: Path, date: str, **differently: str) -> dict[str, bytes]:
    """Build the sdist, and the wheel from it; return both files by name."""
    # The tools are those of the environment that runs this, which constraints.txt pins.
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(target), str(source)]
    env = os.environ | differently | {"SOURCE_DATE_EPOCH": date}
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"{done.stdout}\nThe build failed.")
    return {path.name: path.read_bytes() for path in target.iterdir()}


def main(folder: str) -> None:
    root, dist = Path.cwd(), Path(folder).absolute()
    shutil.rmtree(dist, ignore_errors=True)
    date = epoch(root)
    built = build(root, dist, date)
    with tempfile.TemporaryDirectory(prefix="luma ray build ") as other:
        shutil.unpack_archive(next(dist.glob("*.tar.gz")), other)
        (source,) = Path(other).iterdir()
        for path in source.rglob("*"):  # as under another umask, and at another time
            path.chmod(path.stat().st_mode & 0o700)
            os.utime(path, (0, 0))
        again = build(source, Path(other, "dist"), date, TZ="Asia/Kathmandu", LC_ALL="C", PYTHONHASHSEED="7")
    if changed := sorted(name for name in built | again if built.get(name) != again.get(name)):
        sys.exit(f"The build is not reproducible: its own sdist gives another {' and '.join(changed)}.")
    print(f"Built twice, with the same bytes, as of {date}: {', '.join(sorted(built))}.")


if __name__ == "__main__":
    main(sys.argv[1])
