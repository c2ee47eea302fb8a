"""The same bytes however a build is spread: workers, start methods, orders, parts, threads, hash seeds, Pythons.

The scans have so many points that arrays take several chunks, and chunks several compressed blocks.
"""

import hashlib
import itertools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from gen4d.shards import open_dataset, verify
from tests.faults import SOAK
from tests.makers import commands
from tests.same import Way, hash_of

ROOMS, SIZE = 4, {"points": 60_000, "side_m": 5.0}
WORKERS, STARTS, ORDERS, PARTS = (1, 2, 3), ("fork", "forkserver", "spawn"), (False, True), (1, 4)
THREADS, SEEDS = ("1", "2"), ("0", "1")
FACTORS = (THREADS, SEEDS, WORKERS, STARTS, ORDERS, PARTS)
OTHER = os.environ.get("GEN4D_OTHER_PYTHON", "")


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    return commands.write_rooms(tmp_path_factory.mktemp("rooms"), ROOMS, **SIZE)


def pairwise_cover(factors) -> list[tuple]:
    """Few rows of the product in which every two values of every two factors meet."""
    missing = {
        ((a, x), (b, y))
        for (a, first), (b, second) in itertools.combinations(enumerate(factors), 2)
        for x, y in itertools.product(first, second)
    }
    rows = []
    while missing:
        met = [set(itertools.combinations(enumerate(row), 2)) & missing for row in itertools.product(*factors)]
        best = max(range(len(met)), key=lambda i: len(met[i]))
        missing -= met[best]
        rows.append(next(itertools.islice(itertools.product(*factors), best, None)))
    return rows


def hashes(folder: pathlib.Path, threads: str, seed: str, ways: list[Way], place: pathlib.Path) -> list[str]:
    """Builds in a process of an environment."""
    shutil.copytree(folder, place)
    names = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "BLOSC_NTHREADS")
    environment = os.environ | dict.fromkeys(names, threads) | {"PYTHONHASHSEED": seed}
    lines = "".join(json.dumps(way) + "\n" for way in ways)
    command = [sys.executable, "-m", "tests.same", str(place)]
    done = subprocess.run(command, input=lines, env=environment, cwd=commands.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_one_hash_however_a_build_is_spread(rooms, tmp_path):
    """Every two settings together; in the long version all settings with all others."""
    rows = list(itertools.product(*FACTORS)) if SOAK else pairwise_cover(FACTORS)
    found = {hash_of(pathlib.Path(shutil.copytree(rooms, tmp_path / "here")), Way(1, "", False, 1)): ["here"]}
    for number, (threads, seed) in enumerate(itertools.product(THREADS, SEEDS)):
        ways = [Way(*row[2:]) for row in rows if row[:2] == (threads, seed)]
        results = hashes(rooms, threads, seed, ways, tmp_path / str(number))
        assert len(results) == len(ways)
        for way, result in zip(ways, results, strict=True):
            found.setdefault(result, []).append((threads, seed, *way))
    assert len(found) == 1, found
    print(f"{len(rows)} builds in {len(THREADS) * len(SEEDS)} environments, one hash")


def test_the_rooms_are_large_enough_to_see_blocks_in_another_order(rooms, tmp_path):
    """Chunks of several blocks: what a compressor with several threads would put in any order."""
    shard = next((commands.build(rooms, out="blocks") / "shards").glob("*.zarr.zip"))
    with zipfile.ZipFile(shard) as entries:
        heads = [entries.read(name)[4:12] for name in entries.namelist() if "/c/" in name]
    blocks = [-(-whole // block) for whole, block in (np.frombuffer(head, "<u4").tolist() for head in heads)]
    assert sum(count >= 2 for count in blocks) >= 8


# Other Pythons

_ARRAYS = """
import hashlib, json, pathlib, platform, sys, numpy as np, zarr
found = {}
for path in sorted(pathlib.Path(sys.argv[1]).glob("shards/*.zarr.zip")):
    with zarr.storage.ZipStore(path, mode="r") as store:
        group = zarr.open_group(store, mode="r")
        for name, array in sorted(group.members(max_depth=None)):
            if hasattr(array, "dtype"):
                rows = np.ascontiguousarray(array[:])
                found[f"{path.name}/{name}"] = [str(rows.dtype), list(rows.shape), hashlib.sha256(rows).hexdigest()]
print(json.dumps({"versions": [platform.python_version(), zarr.__version__, np.__version__], "arrays": found}))
"""


def arrays(python: str, dataset: pathlib.Path) -> dict:
    """Type, shape and hash of every array of a data set, as zarr alone decodes it."""
    done = subprocess.run([python, "-c", _ARRAYS, str(dataset)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(not OTHER, reason="GEN4D_OTHER_PYTHON names no other Python with gen4d's packages")
def test_another_python_with_another_zarr_writes_and_reads_the_same(rooms, tmp_path):
    """Both ways: its shards are read here, ours there, by zarr and by gen4d; says whether the bytes are equal too."""
    ours, theirs = commands.build(rooms, "--pairs", out="ours"), tmp_path / "theirs"
    entry = "from gen4d.cli import main; main()"
    environment = os.environ | {"PYTHONPATH": str(commands.ROOT), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    for command in (commands.build_arguments(rooms, "--pairs", "--out", str(theirs)), ("verify", ours)):
        run = [OTHER, "-c", entry, *map(str, command)]
        done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    read = {(reader, data): arrays(reader, data) for reader in (sys.executable, OTHER) for data in (ours, theirs)}
    versions = read[sys.executable, ours]["versions"], read[OTHER, ours]["versions"]
    assert versions[0][0] != versions[1][0]
    assert len(read[OTHER, ours]["arrays"]) > 30 * ROOMS
    assert all(found["arrays"] == read[sys.executable, ours]["arrays"] for found in read.values())
    assert [line for line in verify.verify(open_dataset(theirs)) if line] == []
    digests = [
        {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("shards/*.zip")}
        for folder in (ours, theirs)
    ]
    equal = sum(digests[0][name] == digests[1][name] for name in digests[0])
    print(f"python, zarr, numpy {versions[0]} and {versions[1]}: {equal} of {len(digests[0])} shards equal in bytes")
