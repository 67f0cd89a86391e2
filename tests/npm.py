"""Packages from npm that tests need and no project does."""

import shutil
import subprocess

from filelock import FileLock
from servers import REPOSITORY, require


def install(*packages):
    """
    Return the folder that node finds `packages` from; they are installed into build/ once.

    packages: str with a version each, such as "typescript@7.0.2". Without npm, or when it fails, the test is skipped.
    """
    npm = shutil.which("npm")
    require(npm and shutil.which("node"), "node and npm are not installed")
    directory = REPOSITORY / "build" / "-".join(packages).replace("@", "-").replace("/", "-").strip("-")
    directory.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{directory}.lock"):
        if not (directory / "complete").exists():
            command = [npm, "install", "--no-audit", "--no-fund", "--prefix", directory, *packages]
            installed = subprocess.run(command, capture_output=True, encoding="utf-8")
            require(installed.returncode == 0, f"{packages} cannot be installed: {installed.stderr}")
            (directory / "complete").touch()
    return directory
