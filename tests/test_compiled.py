"""Compiled loops are kept somewhere, wherever gen4d is installed and whoever runs it."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pytest

from gen4d import compiled
from tests.makers.commands import ROOT

NOBODY = 65534
USE = """
import numpy as np
from gen4d import sequence_kernels
from gen4d.cli import main
sequence_kernels.count_bits(np.zeros(4, np.uint8))
print(sequence_kernels.count_bits.stats.cache_path, sum(sequence_kernels.count_bits.stats.cache_hits.values()))
sys.argv = ["gen4d", "--version"]
main()
"""


@pytest.fixture
def installed():
    """A copy of the package that nobody can write to, beside a folder for temporary files that everybody can."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="gen4d-installed-"))
    leave_out = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "gen4d", folder / "package" / "gen4d", ignore=leave_out)
    shutil.copy(ROOT / "datasets_manifest.yaml", folder / "package")
    for path in (folder / "package").rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    (folder / "package").chmod(0o555)
    folder.chmod(0o755)
    (folder / "temporary").mkdir()
    (folder / "temporary").chmod(0o777)
    yield folder
    for path in (folder / "package").rglob("*"):
        path.chmod(0o755)
    (folder / "package").chmod(0o755)
    shutil.rmtree(folder)


def run(folder: pathlib.Path, code: str) -> subprocess.CompletedProcess:
    """Python code with the installed package, as a user who may write to temporary files alone."""
    as_nobody = []
    if os.getuid() == 0:
        if not (setpriv := shutil.which("setpriv")):
            pytest.skip("root may write anywhere, and setpriv is not here to become somebody else")
        as_nobody = [setpriv, f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "XDG_"))}
    environment |= {"PYTHONPATH": str(folder / "package"), "HOME": "/proc/nowhere"}
    environment |= {"TMPDIR": str(folder / "temporary"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [*as_nobody, sys.executable, "-c", "import sys\n" + code], env=environment, cwd=folder, text=True,
        capture_output=True, timeout=120,
    )  # fmt: skip
    unread = "Permission denied" in done.stderr and "site-packages" in done.stderr
    if unread or "No module named 'numpy'" in done.stderr:  # a folder that may not be entered is passed over
        pytest.skip("another user cannot read this Python")
    return done


def test_a_package_and_a_home_that_cannot_be_written_keep_compiled_loops_among_temporary_files(installed):
    first, second = run(installed, USE), run(installed, USE)
    assert first.returncode == second.returncode == 0, first.stderr
    place, hits = first.stdout.split()[:2]
    assert place.startswith(str(installed / "temporary")) and hits == "0"
    assert second.stdout.split()[:2] == [place, "1"]  # from the first one's
    assert first.stderr.count("cannot be written: compiled loops are kept in ") == 1
    kept = next((installed / "temporary").iterdir())
    assert kept.stat().st_mode & 0o777 == 0o700


def test_a_library_warns_once(installed):
    done = run(installed, "import gen4d\ngen4d.Config\ngen4d.Sequence\ngen4d.open_dataset\n")
    assert done.returncode == 0 and done.stderr.count("cannot be written: compiled loops are kept in ") == 1


def test_what_another_user_may_have_put_there_is_not_run(installed):
    planted = installed / "temporary" / f"gen4d-numba-{NOBODY if os.getuid() == 0 else os.getuid()}"
    planted.mkdir()
    planted.chmod(0o777)
    done = run(installed, USE)
    assert done.returncode == 0 and not list(planted.iterdir())
    assert str(planted) + "/" not in done.stdout


def test_where_something_can_be_written_nothing_changes():
    assert compiled.NOTE == "" and compiled.keep() == ""
