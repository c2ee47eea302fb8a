"""One thread for torch in every test and every process that a test starts, as the trainer's command line has it.

Sums depend on the number of threads, and a child that is forked from a process with OpenMP threads hangs at its first
parallel loop. Tests of other counts set them themselves.

What is kept of shapes goes to a folder of this run, not to the user's.
"""

import os
import tempfile

_KEPT = tempfile.TemporaryDirectory(prefix="gen4d-tests-")
os.environ["GEN4D_CACHE"] = _KEPT.name

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"
