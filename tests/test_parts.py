"""A build in parts that share a folder and nothing else: the same bytes as one build, and no shard with two owners."""

import concurrent.futures
import errno
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from gen4d import files
from gen4d.building import parts
from gen4d.building import plan as plan_module
from gen4d.building.plan import Part
from gen4d.shards.format import seal, unseal
from tests import faults
from tests.equal import files_of
from tests.faults import At, scaled
from tests.makers import commands
from tests.makers.commands import gen4d

ROOMS = 5


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    return commands.write_rooms(tmp_path_factory.mktemp("rooms"), ROOMS)


@pytest.fixture(scope="module")
def whole(rooms):
    return files_of(commands.build(rooms, out="whole"))


@pytest.fixture(autouse=True)
def no_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def build(rooms, out, part="", *more):
    """Arguments of a build of one part, or of the whole."""
    return commands.build_arguments(rooms, "--out", str(out), *(("--part", part) if part else ()), *more)


def in_child(*arguments, effect=None) -> int:
    return faults.child(lambda: gen4d(*arguments).code, effect)


class Held:
    """A process that stops at an effect until it is let go."""

    def __init__(self, arguments, number=None, name="", suffix=""):
        self.reached, self.go = os.pipe(), os.pipe()
        self.name, self.suffix = name, suffix
        self.pid = in_child(*arguments, effect=self if number is None else At(number, self.wait))
        assert os.read(self.reached[0], 1) == b"!"

    def __call__(self, name, path):
        if name == self.name and path.name.endswith(self.suffix):
            self.name = "done"
            self.wait(name, path)

    def wait(self, name, path):
        os.close(self.go[1])  # so that it goes on when the tests end
        os.write(self.reached[1], b"!")
        os.read(self.go[0], 1)

    def end(self) -> int:
        os.write(self.go[1], b"!")
        code = faults.wait(self.pid)
        for end in (*self.reached, *self.go):
            os.close(end)
        return code


def check_merged(out, whole):
    outcome = gen4d("merge", out)
    assert outcome.code == 0, outcome.text
    assert files_of(out) == whole
    assert [path for path in out.rglob("*") if path.suffix in (".tmp", ".lock")] == []


# The same bytes


def test_every_shard_has_one_owner():
    rng = np.random.default_rng(9)
    for _ in range(1000):
        of, shards = int(rng.integers(1, 12)), int(rng.integers(0, 60))
        owned = [[n for n in range(shards) if Part(i, of).owns(n)] for i in range(1, of + 1)]
        assert sorted(n for numbers in owned for n in numbers) == list(range(shards))
        assert max(map(len, owned)) - min(map(len, owned)) <= 1


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2, 3, 3), (2, 3, 1, 1)])
def test_parts_in_any_order_and_run_again_merge_to_the_bytes_of_one_build(rooms, whole, tmp_path, order):
    out = tmp_path / "out"
    for number in order:
        outcome = gen4d(*build(rooms, out, f"{number}/3"))
        assert outcome.code == 0, outcome.text
        assert f"part {number}/3 done in" in outcome.out and f"gen4d merge {out}" in outcome.out
        assert not (out / "dataset.json").exists()
    outcome = gen4d("merge", out)
    assert outcome.code == 0 and "5 scans, 10 sequences in 5 shards" in outcome.out
    assert f"merged 5 shards: gen4d verify {out}" in outcome.out
    check_merged(out, whole)  # again: nothing changes
    assert gen4d("verify", out).code == 0


def test_more_parts_than_shards_and_a_single_part(rooms, whole, tmp_path):
    for number in range(1, 8):
        assert gen4d(*build(rooms, tmp_path / "many", f"{number}/7")).code == 0
    check_merged(tmp_path / "many", whole)
    assert gen4d(*build(rooms, tmp_path / "one", "1/1")).code == 0
    check_merged(tmp_path / "one", whole)


def test_parts_that_all_begin_at_the_same_time(rooms, whole, tmp_path):
    """In a folder that is not there yet; each with two workers in every second round."""
    for trial in range(scaled(6, 200)):
        out = tmp_path / str(trial)
        more = ("--workers", "2") if trial % 2 else ()
        running = [in_child(*build(rooms, out, f"{number}/3", *more)) for number in (1, 2, 3)]
        assert [faults.wait(pid) for pid in running] == [0, 0, 0]
        check_merged(out, whole)


@pytest.mark.parametrize("scan", ["room1", "room3"])
def test_parts_with_a_scan_that_cannot_be_read_answer_1_and_merge_as_one_build_does(rooms, tmp_path, scan):
    folder = pathlib.Path(shutil.copytree(rooms, tmp_path / "rooms", ignore=shutil.ignore_patterns("whole")))
    (folder / f"scans/{scan}.ply").write_bytes(b"ply\nbroken")
    outcomes = [gen4d(*build(folder, tmp_path / "whole"))]
    outcomes += [gen4d(*build(folder, tmp_path / "out", f"{number}/2")) for number in (1, 2)]
    assert [outcome.code for outcome in outcomes] == [1, 0, 1]  # shards 1 and 3 are part 2's
    merged = gen4d("merge", tmp_path / "out")
    assert merged.code == 1 and f"refused: scans/{scan}.ply: " in merged.err
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_a_part_leaves_scans_that_failed_before_to_a_build_of_the_whole(rooms, tmp_path):
    """Whether they can be read now would make plans of parts depend on when they begin."""
    folder = pathlib.Path(shutil.copytree(rooms, tmp_path / "rooms", ignore=shutil.ignore_patterns("whole")))
    scan = folder / "scans/room1.ply"
    sound = scan.read_bytes()
    scan.write_bytes(b"ply\nbroken")
    out = tmp_path / "out"
    for number in (1, 2):
        gen4d(*build(folder, out, f"{number}/2"))
    scan.write_bytes(sound)
    assert gen4d(*build(folder, out, "2/2")).code == 1
    assert len(unseal((out / "build.json").read_bytes(), "")["plan"]) == ROOMS
    assert gen4d(*build(folder, out)).code == 0
    assert len(unseal((out / "build.json").read_bytes(), "")["plan"]) == ROOMS + 1


# Extension


def test_parts_that_see_more_scans_extend_the_plan_and_none_is_built_twice(rooms, tmp_path):
    """Also while parts run that saw fewer."""
    out, plain = tmp_path / "out", tmp_path / "plain"
    for limit in ("2", "5"):
        assert gen4d(*build(rooms, plain, "", "--limit", limit)).code == 0
    early = Held(build(rooms, out, "1/2", "--limit", "2"), name="rename", suffix="00000.zarr.zip")
    assert gen4d(*build(rooms, out, "2/2")).code == 0
    assert early.end() == 0
    outcome = gen4d("merge", out)
    assert outcome.code == 1 and "2 of 5 shards are missing or incomplete: 00002, 00004: " in outcome.err
    assert gen4d(*build(rooms, out, "1/2")).code == 0
    check_merged(out, files_of(plain))


def test_a_part_that_sees_fewer_scans_than_it_has_to_build_is_refused(rooms, whole, tmp_path):
    out = tmp_path / "out"
    assert gen4d(*build(rooms, out, "1/2")).code == 0
    outcome = gen4d(*build(rooms, out, "2/2", "--limit", "3"))
    assert outcome.code == 1 and "scan room3 (1 in all) was planned here" in outcome.err
    assert gen4d(*build(rooms, out, "2/2")).code == 0
    check_merged(out, whole)


def test_two_parts_that_extend_at_the_same_time_write_one_plan(rooms, whole, tmp_path):
    """The second reads the first one's plan again before it writes its own."""
    out = tmp_path / "out"
    first = Held(build(rooms, out, "1/2", "--limit", "2"), name="rename", suffix="build.json")
    pid = in_child(*build(rooms, out, "2/2"))
    time.sleep(0.1)
    assert not (out / "build.json").exists()
    assert first.end() == 0
    assert faults.wait(pid) == 0
    assert gen4d(*build(rooms, out, "1/2")).code == 0
    check_merged(out, whole)


# One owner


def test_a_whole_build_a_merge_and_the_same_part_are_refused_while_a_part_runs(rooms, whole, tmp_path):
    out = tmp_path / "out"
    running = Held(build(rooms, out, "2/3"), name="rename", suffix="00001.zarr.zip")
    before = files_of(out)
    start = time.monotonic()
    for arguments, wanted in [
        (build(rooms, out), f"{out}: one of 3 parts is building here; wait"),
        (("merge", out), f"{out}: one of 3 parts is building here; wait"),
        (build(rooms, out, "2/3"), f"{out}: part 2/3, process {running.pid} on "),
        (build(rooms, out, "1/2"), f"--part 1/2: {out} is being built in 3 parts now: give --part I/3, or wait"),
    ]:
        outcome = gen4d(*arguments)
        assert (outcome.code, len(outcome.err.splitlines())) == (1, 1), outcome.text
        assert wanted in outcome.err
    assert time.monotonic() - start < 4
    assert {name: content for name, content in files_of(out).items() if not name.endswith(".lock")} == {
        name: content for name, content in before.items() if not name.endswith(".lock")
    }
    assert gen4d(*build(rooms, out, "1/3")).code == 0
    assert any((out / "shards").glob("00001.zarr.zip.*.tmp"))  # a living part's is left alone
    assert running.end() == 0
    assert gen4d(*build(rooms, out, "3/3")).code == 0
    check_merged(out, whole)


def test_a_part_is_refused_while_a_whole_build_runs(rooms, whole, tmp_path):
    out = tmp_path / "out"
    running = Held(build(rooms, out), name="rename", suffix="00001.zarr.zip")
    outcome = gen4d(*build(rooms, out, "2/3"))
    assert outcome.code == 1
    assert f"{out}: process {running.pid} on " in outcome.err and "is building here; wait" in outcome.err
    assert running.end() == 0
    assert files_of(out) == whole


def test_another_number_of_parts_is_taken_up_when_nobody_runs(rooms, whole, tmp_path):
    """Also when all parts of the new number begin at the same time."""
    out = tmp_path / "out"
    assert gen4d(*build(rooms, out, "1/2")).code == 0
    pid = in_child(*build(rooms, out, "2/2"), effect=At(20, faults.kill))
    assert faults.wait(pid) == -signal.SIGKILL
    assert parts.read_count(out) == 2
    running = [in_child(*build(rooms, out, f"{number}/3")) for number in (1, 2, 3)]
    assert [faults.wait(pid) for pid in running] == [0, 0, 0]
    assert parts.read_count(out) == 3
    check_merged(out, whole)


def test_locks_work_where_only_what_is_open_for_writing_can_be_locked_alone(tmp_path, monkeypatch):
    """NFS of version 4 makes them so."""
    lock = files.fcntl.flock

    def of_nfs(file, how):
        if how & files.fcntl.LOCK_EX and not file.writable():
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        lock(file, how)

    monkeypatch.setattr(files.fcntl, "flock", of_nfs)
    path = tmp_path / "part-1.lock"
    assert not files.is_held(path)
    with files.locked(tmp_path, path.name):
        assert files.is_held(path)
    path.write_text("of one that died")
    assert not files.is_held(path) and path.read_text() == "of one that died"


def test_the_locks_of_a_part_that_died_are_taken_over(rooms, whole, tmp_path):
    out = tmp_path / "out"
    running = Held(build(rooms, out, "2/2"), name="rename", suffix="00001.zarr.zip")
    os.kill(running.pid, signal.SIGKILL)
    assert running.end() == -signal.SIGKILL
    assert (out / "part-2.lock").exists() and any((out / "shards").glob("*.tmp"))
    assert gen4d(*build(rooms, out, "1/2")).code == 0
    assert any((out / "shards").glob("*.tmp"))  # of part 2, whose to clean it is
    assert gen4d(*build(rooms, out, "2/2")).code == 0
    assert not any((out / "shards").glob("*.tmp"))
    check_merged(out, whole)


@pytest.mark.parametrize("number", [signal.SIGTERM])  # a part's end is a build's, whose tests send them all
def test_a_signal_ends_a_part_without_litter(rooms, whole, tmp_path, number):
    out = tmp_path / "out"
    assert gen4d(*build(rooms, out, "1/2")).code == 0
    running = commands.start(*build(rooms, out, "2/2", "--sequences", "2", "--workers", "2"))
    while not (out / "part-2.lock").exists():
        assert running.poll() is None
        time.sleep(0.001)
    running.send_signal(number)
    running.communicate(timeout=10)
    assert running.returncode == 128 + number
    assert [path.name for path in out.rglob("*") if path.suffix == ".tmp" or path.name == "part-2.lock"] == []
    assert gen4d(*build(rooms, out, "2/2")).code == 0
    check_merged(out, whole)


def test_two_writers_of_one_file_in_one_process_do_not_share_a_temporary_file(tmp_path, monkeypatch):
    """A cluster's worker may still build a shard for a build that was stopped when the next one asks for it."""
    first, path, together = threading.get_ident(), tmp_path / "00000.json", threading.Barrier(2, timeout=10)

    def effect(name, where):
        if name == "rename" and threading.get_ident() != first:
            together.wait()
            together.wait()

    monkeypatch.setattr(files, "effect", effect)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        slow = pool.submit(files.write, path, b"slow")
        together.wait()
        files.write(path, b"fast")
        assert (
            path.read_bytes() == b"fast" and len(files.leftovers(tmp_path)) == len(files.own_leftovers(tmp_path)) == 1
        )
        together.wait()
        slow.result()
    assert [item.name for item in tmp_path.iterdir()] == [path.name] and path.read_bytes() == b"slow"


def test_a_plan_that_appears_while_a_part_looks_at_the_folder_is_no_strange_file(rooms, whole, tmp_path, monkeypatch):
    out, real, looked = tmp_path / "out", plan_module.manifest.read_build, []

    def read_stored(folder):
        found = real(folder)
        if not looked:
            looked.append(shutil.copytree(rooms / "whole", out))
        return found

    monkeypatch.setattr(plan_module.manifest, "read_build", read_stored)
    assert gen4d(*build(rooms, out, "1/2")).code == 0
    assert looked
    check_merged(out, whole)


# Refused


@pytest.mark.parametrize("part", ["0/4", "5/4", "abc", "1/", "1/0", "-1/4", "1/4/2", "1.0/2", "١/٢"])
def test_a_wrong_part_is_wrong_usage(rooms, tmp_path, part):
    outcome = gen4d(*build(rooms, tmp_path / "out", part))
    assert outcome.code == 2 and f"{part!r} is not I/N with I from 1 to N" in outcome.err
    assert not (tmp_path / "out").exists()


DAMAGE = {
    "a shard is missing": lambda shards: (shards / "00001.zarr.zip").unlink(),
    "a description is missing": lambda shards: (shards / "00001.json").unlink(),
    "a description is damaged": lambda shards: (shards / "00001.json").write_bytes(b"{}"),
    "a shard is cut short": lambda shards: (shards / "00001.zarr.zip").write_bytes(b"PK"),
    "a description of another shard": lambda shards: shutil.copy(shards / "00000.json", shards / "00001.json"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_merge_without_every_shard_says_which_and_whose_and_writes_nothing(rooms, whole, tmp_path, damage):
    out = tmp_path / "out"
    for number in (1, 2, 3):
        assert gen4d(*build(rooms, out, f"{number}/3")).code == 0
    DAMAGE[damage](out / "shards")
    (out / "shards/00004.json").unlink()
    before = files_of(out)
    for _ in range(2):
        outcome = gen4d("merge", out)
        assert outcome.code == 1 and outcome.out == ""
        assert outcome.err.splitlines() == [
            f"Error: {out}: 2 of 5 shards are missing or incomplete: 00001, 00004: run gen4d build again with the "
            "same options and --part 2/3, then merge"
        ]
        assert files_of(out) == before
    assert gen4d(*build(rooms, out, "2/3")).code == 0
    check_merged(out, whole)


def test_shards_with_the_scans_of_another_plan_are_not_taken(rooms, whole, tmp_path):
    """A shard and its description, both whole, under another's number."""
    out = tmp_path / "out"
    for number in (1, 2):
        assert gen4d(*build(rooms, out, f"{number}/2")).code == 0
    sidecar = unseal((out / "shards/00002.json").read_bytes(), "")
    shutil.copy(out / "shards/00002.zarr.zip", out / "shards/00003.zarr.zip")
    (out / "shards/00003.json").write_bytes(seal(sidecar | {"file": "00003.zarr.zip"}))
    assert "1 of 5 shards are missing or incomplete: 00003" in gen4d("merge", out).err
    assert gen4d(*build(rooms, out, "2/2")).code == 0
    check_merged(out, whole)


def test_a_merge_of_an_unfinished_whole_build_names_no_parts(rooms, whole, tmp_path):
    out = pathlib.Path(shutil.copytree(rooms / "whole", tmp_path / "out"))
    (out / "shards/00002.json").unlink()
    outcome = gen4d("merge", out)
    assert "00002: run gen4d build again with the same options, then merge" in outcome.err
    assert gen4d(*build(rooms, out)).code == 0
    check_merged(out, whole)


def test_a_merge_where_no_build_is_says_so_and_leaves_the_place_as_it_was(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    for folder in (tmp_path, tmp_path / "nowhere"):
        outcome = gen4d("merge", folder)
        assert outcome.code == 1 and f"{folder}: holds no build (no build.json)" in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_merge_by_another_generator_is_refused_and_by_another_release_done(rooms, tmp_path):
    out = pathlib.Path(shutil.copytree(rooms / "whole", tmp_path / "out"))
    stored = unseal((out / "build.json").read_bytes(), "")
    (out / "build.json").write_bytes(seal(stored | {"gen4d": "9.9.9", "generator": 999}))
    outcome = gen4d("merge", out)
    assert outcome.code == 1 and "built by generator 999 of gen4d 9.9.9, this is generator" in outcome.err
    (out / "build.json").write_bytes(seal(stored | {"gen4d": "9.9.9"}))
    outcome = gen4d("merge", out)
    assert outcome.code == 0, outcome.text


@pytest.mark.parametrize("place", ["other files", "another config"])
def test_a_part_in_a_folder_of_something_else_is_refused_and_leaves_it_as_it_was(rooms, whole, tmp_path, place):
    out = tmp_path / "out"
    if place == "other files":
        out.mkdir()
        (out / "thesis.tex").write_text("mine")
        arguments, wanted = build(rooms, out, "1/2"), "holds other files (thesis.tex, 1 in all)"
    else:
        shutil.copytree(rooms / "whole", out)
        arguments, wanted = build(rooms, out, "1/2", "--seed", "5"), "seed: 0 there, 5 here"
    before = files_of(out)
    outcome = gen4d(*arguments)
    assert outcome.code == 1 and wanted in outcome.err
    assert files_of(out) == before and not list(out.glob("*.lock"))


# Killed


def _kill_points(arguments):
    recorder = faults.Recorder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "effect", recorder)
        assert gen4d(*arguments).code == 0
    torn = [(i, faults.tear) for i, op in enumerate(recorder.ops) if op.name == "write"]
    return [(i, faults.kill) for i in range(len(recorder.ops))] + torn


def test_a_part_killed_at_every_effect_continues(rooms, whole, tmp_path):
    """The first one in the folder, so that it also makes folder and plan; the other one runs before it continues."""
    points = _kill_points(build(rooms, tmp_path / "recorded", "1/4"))
    assert len(points) > 30
    for number, act in points:
        out = tmp_path / "out"
        pid = in_child(*build(rooms, out, "1/4"), effect=At(number, act))
        assert faults.wait(pid) == -signal.SIGKILL
        for part in ("2/4", "3/4", "4/4", "1/4"):
            assert gen4d(*build(rooms, out, part)).code == 0
        check_merged(out, whole)
        shutil.rmtree(out)


def test_a_merge_killed_at_every_effect_continues(rooms, whole, tmp_path):
    built = tmp_path / "built"
    for number in (1, 2):
        assert gen4d(*build(rooms, built, f"{number}/2")).code == 0
    points = _kill_points(("merge", shutil.copytree(built, tmp_path / "recorded")))
    for number, act in points:
        out = shutil.copytree(built, tmp_path / "out")
        pid = in_child("merge", out, effect=At(number, act))
        assert faults.wait(pid) == -signal.SIGKILL
        check_merged(out, whole)
        shutil.rmtree(out)


# The script of docs/cluster.md


def _block(name: str) -> str:
    text = (commands.ROOT / "docs" / "cluster.md").read_text()
    return re.search(rf"<!-- {name}; [^\n]* -->\n```sh\n(.*?)```", text, re.S).group(1)


def test_the_slurm_script_of_the_cluster_page_with_all_its_tasks_at_once(rooms, whole, tmp_path):
    script, submit = _block("sbatch"), _block("submit")
    first, last = map(int, re.search(r"#SBATCH --array=(\d+)-(\d+)\n", script).groups())
    assert first == 1 and f"--part $SLURM_ARRAY_TASK_ID/{last} " in script
    for name, folder in (("scannet", "scans"), ("ModelNet40", "shapes")):
        (tmp_path / name).symlink_to(rooms / folder)
    (tmp_path / "build.sbatch").write_text(script)
    program = tmp_path / "gen4d"
    light = " ".join(commands.LIGHT)
    program.write_text(
        f'#!/bin/bash\nif [ "$1" = build ]; then set -- "$@" {light}; fi\n'
        f'exec {sys.executable} -c "from gen4d.cli import main; main()" "$@"\n'
    )
    program.chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(commands.ROOT)}
    tasks = [
        subprocess.Popen(
            ["bash", "build.sbatch"],
            cwd=tmp_path,
            env=os.environ | path | {"SLURM_ARRAY_TASK_ID": str(i), "SLURM_CPUS_PER_TASK": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(first, last + 1)
    ]
    assert [(task.communicate(timeout=120)[1], task.returncode) for task in tasks] == [("", 0)] * last
    merge = re.search(r'--wrap "(.*)"', submit).group(1)
    done = subprocess.run(merge.split(), cwd=tmp_path, env=os.environ | path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert files_of(tmp_path / "data/sequences") == whole


def test_parts_are_noted_in_a_sealed_file_that_verify_tolerates(rooms, tmp_path):
    """A part that has nothing to do in a finished data set does not spoil it."""
    out = pathlib.Path(shutil.copytree(rooms / "whole", tmp_path / "out"))
    assert gen4d(*build(rooms, out, "1/2")).code == 0
    assert json.loads((out / "parts.json").read_bytes())["parts"] == 2
    assert gen4d("verify", out).code == 0
