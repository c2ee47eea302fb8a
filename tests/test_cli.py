"""Every command as a user types it: what it prints, writes and answers, and its help."""

import itertools
import json
import os
import pickle
import shlex
import signal
import subprocess
import sys

import click
import numpy as np
import pytest
import zarr

from gen4d import cli
from gen4d.shards import open_dataset
from tests import faults
from tests.equal import files_of
from tests.makers import commands
from tests.makers.commands import gen4d
from tests.makers.files import ply
from tests.makers.rooms import bare_floor

COMMANDS = sorted(cli.cli.commands)
READERS = {
    "inspect": ("inspect",),
    "verify": ("verify",),
    "verify --quick": ("verify", "--quick"),
    "view": ("view", "--out", "picture.png"),
    "export": ("export", "--out", "exported"),
}


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    return commands.write_rooms(tmp_path_factory.mktemp("rooms"), rooms=3)


@pytest.fixture(scope="module")
def data(rooms):
    return commands.build(rooms, out="data")


def test_every_command_is_listed():
    outcome = gen4d("--help")
    assert outcome.code == 0
    for name in COMMANDS:
        assert f"\n  {name} " in outcome.out
    assert set(COMMANDS) >= {"build", "inspect", "verify", "view", "export", "samples", "doctor"}


def test_summaries_of_commands_are_not_cut_off():
    assert "..." not in gen4d("--help").out.partition("Commands:")[2]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example_that_parses(name):
    outcome = gen4d(name, "--help")
    assert outcome.code == 0
    lines = [line.strip() for line in outcome.out.split("Example:")[1].splitlines() if line.strip()]
    assert lines
    for line in lines:
        program, command, *rest = shlex.split(line)
        assert (program, command) == ("gen4d", name)
        cli.cli.commands[name].make_context(name, rest)  # raises click.UsageError where an option does not exist


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_does(name):
    options = [item for item in cli.cli.commands[name].params if isinstance(item, click.Option)]
    assert all(item.help or item.metavar for item in options)


def test_version_is_printed():
    assert gen4d("--version").out.startswith("gen4d, version ")


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ((), "Usage"),
        (("built",), "No such command"),
        (("build",), "missing --scans"),
        (("build", "--scans", "s"), "missing --shapes"),
        (("build", "--scans", "s", "--shapes", "s", "--workers", "0"), "0 is not in the range"),
        (("build", "--scans", "s", "--shapes", "s", "--workers", "many"), "not a valid integer"),
        (("export", "here", "--to", "csv", "--out", "there"), "hdf5"),
        (("view", "here", "--out", "picture.jpg"), "ends in .html, .png or .gif"),
        (("doctor",), "--shapes"),
        (("report", "here", "--out", "page.txt"), "ends in .html"),
    ],
)
def test_wrong_usage_is_code_2(arguments, wanted):
    outcome = gen4d(*arguments)
    assert outcome.code == 2
    assert wanted in outcome.text


def test_build_says_what_it_did_and_how_to_go_on(rooms, tmp_path):
    outcome = gen4d(*commands.build_arguments(rooms, "--out", str(tmp_path / "out")))
    assert outcome.code == 0
    for part in ("3 scans, 6 sequences in 3 shards", "% accepted", "free floor", f"gen4d verify {tmp_path / 'out'}"):
        assert part in outcome.out
    commands.check_untorn(tmp_path / "out")


def test_a_rerun_writes_nothing_again(rooms, tmp_path):
    arguments = commands.build_arguments(rooms, "--out", str(tmp_path / "out"))
    assert gen4d(*arguments).code == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()}
    outcome = gen4d(*arguments)
    assert outcome.code == 0
    assert "3 of 3 shards are there already" in outcome.out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()} == before


def test_a_limited_build_is_continued_without_the_limit(rooms, data, tmp_path):
    arguments = commands.build_arguments(rooms, "--out", str(tmp_path / "out"))
    assert gen4d(*arguments, "--limit", "1").code == 0
    assert len(open_dataset(tmp_path / "out")) == 2
    outcome = gen4d(*arguments)
    assert "1 of 3 shards are there already" in outcome.out
    assert files_of(tmp_path / "out") == files_of(data)


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("--kind", "frames", "--scans", "here", "--up", "y"), "--up"),
        (("--scans", "here", "--classes", "chair"), "--classes"),
        (("--kind", "views", "--shapes", "here", "--units", "cm"), "--units"),
    ],
)
def test_doctor_refuses_options_that_would_change_nothing(arguments, option):
    outcome = gen4d("doctor", *arguments)
    assert outcome.code == 2 and f"{option}: says nothing of" in outcome.err


def test_dry_run_estimates_and_writes_nothing(rooms, tmp_path):
    outcome = gen4d(*commands.build_arguments(rooms, "--out", str(tmp_path / "out"), "--dry-run"))
    assert outcome.code == 0
    for part in ("sequences  6", "disk", "time", "memory", "3 scans, built in memory"):
        assert part in outcome.out
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_fails_as_the_build_would_where_a_scan_is_refused(tmp_path):
    commands.write_rooms(tmp_path)
    (tmp_path / "scans" / "gone.ply").symlink_to("nowhere")
    outcome = gen4d(*commands.build_arguments(tmp_path, "--dry-run"))
    assert outcome.code == 1 and "refused: " in outcome.err and "gone.ply" in outcome.err and "memory" in outcome.out


def test_split_and_classes_choose(rooms, tmp_path):
    (tmp_path / "list.txt").write_text("# two of three\nroom0\nroom2\n")
    arguments = commands.build_arguments(rooms, "--out", str(tmp_path / "out"), "--split", str(tmp_path / "list.txt"))
    assert gen4d(*arguments, "--classes", "chair, sofa").code == 0
    assert open_dataset(tmp_path / "out").scan_names == ["room0", "room2"]


@pytest.mark.parametrize(
    ("assignment", "wanted"),
    [
        ("kep=0.9", "did you mean keep?"),
        ("qqqqq=1", "known: seed"),
        ("keep=many", "is not a number"),
        ("scans_per_shard=1.5", "is not a whole number"),
        ("keep=nan", "a finite number"),
        ("keep=1.5", "a probability"),
        ("height_m=1", "option"),
        ("cell_m", "is not a number"),
        ("keep=0.3", "changed: keep = 0.9 ("),
    ],
)
def test_a_wrong_constant_is_refused_with_its_rule(rooms, tmp_path, assignment, wanted):
    outcome = gen4d(*commands.build_arguments(rooms, "--out", str(tmp_path / "out"), "--set", assignment))
    assert outcome.code == 1
    assert outcome.err.splitlines()[-1].startswith("Error: ")
    assert wanted in outcome.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "value", "wanted"),
    [
        ("--up", "north", "north"),
        ("--up", "0,0,0", "0,0,0"),
        ("--units", "furlong", "furlong"),
        ("--units", "-1", "-1"),
        ("--shape-up", "w", "--shape-up: 'w'"),
        ("--frames", "1", "nothing to correspond"),
        ("--frames", "9", "from 2"),
        ("--seed", "-1", "a seed is a whole number"),
        ("--sequences", "0", "at least 1"),
        ("--classes", ",", "class"),
    ],
)
def test_a_wrong_value_is_refused_with_its_rule(rooms, tmp_path, option, value, wanted):
    outcome = gen4d(*commands.build_arguments(rooms, "--out", str(tmp_path / "out"), option, value))
    assert outcome.code in (1, 2)
    assert wanted in outcome.err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_another_config_in_the_same_folder_is_refused_with_the_difference(rooms, data):
    before = files_of(data)
    outcome = gen4d(*commands.build_arguments(rooms, "--seed", "5", out="data"))
    assert outcome.code == 1
    assert "seed: 0 there, 5 here" in outcome.err
    assert "another --out" in outcome.err
    assert files_of(data) == before


def test_inspect_says_what_a_data_set_holds(data):
    outcome = gen4d("inspect", data)
    assert outcome.code == 0
    for part in ("format 1.0", "seed 0", "numpy", "3 scans, 6 sequences in 3 shards", "room1"):
        assert part in outcome.out


def test_inspect_describes_one_sequence_by_number_and_by_id(data):
    sequence = open_dataset(data)[3]
    by_number, by_id = gen4d("inspect", data, "3"), gen4d("inspect", data, sequence.id)
    assert by_number == by_id
    assert by_number.code == 0
    counts = [f"{i}-{j}: {len(sequence.correspondences(i, j)[0])}" for j in range(4) for i in range(j)]
    for part in (sequence.id, "chair_0001", "actor 1: moving of mover 0, 20 points", *counts):
        assert part in by_number.out


@pytest.mark.parametrize("name", ["6", "-1", "room0", "room0/9", "room9/000", "room0/-1", "\N{SUPERSCRIPT TWO}", "1e3"])
def test_an_unknown_sequence_is_refused_with_an_example(data, name):
    shown = () if name == "room0" else (("view", data, "--out", "never.png", "--", name),)  # a scan can be viewed
    for arguments in (("inspect", data, "--", name), *shown):
        outcome = gen4d(*arguments)
        assert outcome.code == 2
        assert "neither a number below 6 nor an id like room0/000" in outcome.err
        assert f"Invalid value for {'WHAT' if arguments[0] == 'view' else 'SEQUENCE'}: " in outcome.err


def test_verify_is_silent_on_errors_only(data):
    for options in ((), ("--quick",)):
        outcome = gen4d("verify", data, *options)
        assert (outcome.code, outcome.err) == (0, "")
        assert "3 shards, 6 sequences" in outcome.out
    assert "every file" in gen4d("verify", data).out
    assert "names and sizes" in gen4d("verify", data, "--quick").out


def test_view_draws_a_picture(data, tmp_path):
    outcome = gen4d("view", data, "room1/001", "--out", tmp_path / "new" / "picture.png")
    assert outcome.code == 0
    assert "room1/001" in outcome.out
    assert (tmp_path / "new" / "picture.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_an_export_is_a_data_set_of_the_same_sequences(data, tmp_path):
    outcome = gen4d("export", data, "--to", "hdf5", "--out", tmp_path / "h5", "--pairs")
    assert outcome.code == 0
    assert "3 shards, 6 sequences in hdf5" in outcome.out
    commands.check_untorn(tmp_path / "h5")
    for one, other in zip(open_dataset(data), open_dataset(tmp_path / "h5"), strict=True):
        assert one.id == other.id
        for i in range(4):
            np.testing.assert_array_equal(one.frame(i).point, other.frame(i).point)
    assert gen4d("inspect", tmp_path / "h5", "room2/001").out.splitlines()[1:] == gen4d(
        "inspect", data, "room2/001"
    ).out.splitlines()[1:]  # fmt: skip
    again = gen4d("export", data, "--to", "hdf5", "--out", tmp_path / "h5", "--pairs")
    assert again.code == 0


def test_samples_are_written_once(tmp_path):
    arguments = ("samples", tmp_path / "samples", "--rooms", "1", "--shapes", "1")
    first = gen4d(*arguments)
    assert first.code == 0
    before = files_of(tmp_path)
    second = gen4d(*arguments)
    assert second.code == 0
    assert "there already" in second.out
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("command", READERS.values(), ids=READERS)
@pytest.mark.parametrize(
    ("place", "wanted"),
    [
        ("missing", ("missing/dataset.json", "not a gen4d data set")),
        ("foreign", ("foreign/dataset.json", "not a gen4d data set")),
        ("file", ("file: is a file: give the folder of a data set",)),
        ("half", ("half/dataset.json", "run")),
    ],
)
def test_a_folder_that_is_no_data_set_is_refused_by_name(rooms, tmp_path, monkeypatch, command, place, wanted):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "build.json").write_text("{}")
    before = files_of(tmp_path)
    outcome = gen4d(*command, place)
    assert outcome.code == 1
    assert len(outcome.err.splitlines()) == 1
    assert all(words in outcome.err for words in wanted)
    assert files_of(tmp_path) == before


def test_a_source_without_a_way_says_which_rule_failed(tmp_path):
    commands.write_rooms(tmp_path, rooms=2)
    (tmp_path / "scans/room1.ply").write_bytes(ply(bare_floor(1, side_m=0.2)))
    (tmp_path / "scans/room2.ply").write_bytes(ply(bare_floor(2, side_m=0.8)))
    outcome = gen4d(*commands.build_arguments(tmp_path, "--set", "turn_max_deg=20"))
    assert "no sequence from room1: no cell is wide enough for chair_0001: radius 0." in outcome.out
    assert "widest free disc 0." in outcome.out
    assert "no sequence from room2: no walk of 4 positions for chair_0001" in outcome.out
    assert outcome.code == 1  # the rest is there and valid
    commands.check_untorn(tmp_path / "out")


def test_a_build_without_any_sequence_fails_and_stays_readable(tmp_path):
    commands.write_rooms(tmp_path, rooms=1, side_m=0.2)
    outcome = gen4d(*commands.build_arguments(tmp_path))
    assert outcome.code == 1
    assert outcome.err.splitlines()[-1].startswith("Error: no sequence")
    commands.check_untorn(tmp_path / "out")
    for arguments in (("inspect", tmp_path / "out"), ("export", tmp_path / "out", "--out", tmp_path / "h5")):
        assert gen4d(*arguments).code == 0
    assert gen4d("view", tmp_path / "out").code == 1


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("verify", "data"), 0), (("verify", "nowhere"), 1), (("verify",), 2), (("--help",), 0), ((), 2)],
)
def test_exit_codes_of_real_processes(rooms, data, arguments, code, monkeypatch):
    monkeypatch.chdir(rooms)
    outcome = commands.process(*arguments)
    assert outcome.code == code
    assert "Traceback" not in outcome.text


def test_a_file_of_a_data_set_is_not_its_folder(data):
    outcome = gen4d("inspect", data / "dataset.json")
    assert outcome.code == 1 and "dataset.json: is a file: give the folder of a data set" in outcome.err


@pytest.mark.parametrize("command", [("inspect",), ("export", "--to", "npz", "--out"), ("card", "--out")])
def test_a_closed_pipe_ends_quietly(data, tmp_path, command):
    reader, writer = os.pipe()
    os.close(reader)
    name, *options = command
    running = commands.start(name, data, *options, *([tmp_path / "out"] if options else []), stdout=writer)
    os.close(writer)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 1
    assert all(line.startswith("note: ") for line in err.splitlines()), err


def test_a_closed_pipe_ends_a_build_that_can_be_continued(rooms, data, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    arguments = commands.build_arguments(rooms, "--out", str(tmp_path / "out"), "--workers", "2")
    running = commands.start(*arguments, stdout=writer)
    os.close(writer)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 1
    assert "Traceback" not in err
    commands.check_untorn(tmp_path / "out")
    assert gen4d(*arguments).code == 0
    assert files_of(tmp_path / "out") == files_of(data)


def test_doctor_answers_in_json(rooms):
    outcome = gen4d("doctor", "--scans", rooms / "scans", "--shapes", rooms / "shapes", "--json")
    assert outcome.code == 0
    assert {finding["level"] for finding in json.loads(outcome.out)} <= {"note", "warning"}
    assert all(set(finding) == {"level", "path", "message"} for finding in json.loads(outcome.out))


def test_an_early_interrupt_shows_no_trace(data):
    """Most of a short command's time goes into imports: Ctrl-C then is answered like any other."""
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += f"import os, sys; sys.argv = ['gen4d', 'verify', {str(data)!r}]\n"
    code += "from gen4d.cli import main\n"
    code += "import importlib.abc\nclass Stop(importlib.abc.MetaPathFinder):\n"
    code += "    def find_spec(self, name, path, target=None):\n"
    code += f"        if name == 'numpy': os.kill(os.getpid(), {int(signal.SIGINT)})\n"
    code += "sys.meta_path.insert(0, Stop())\nmain()\n"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(commands.ROOT)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 130
    assert "Traceback" not in run.stderr


CONSUMER = r"""
import sys

class Nobody:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("gen4d", "train", "tests"):
            raise ImportError(f"a consumer has no {name}")

sys.meta_path.insert(0, Nobody())
import pickle
import numpy, zarr

recipe, shards, target = pickle.load(sys.stdin.buffer)
result = {}
for path, sequences in shards:
    for s in range(sequences):
        names = {"path": path, "s": s}
        exec(recipe, names)
        frames = [(numpy.asarray(points), numpy.asarray(identities)) for points, identities in names["frames"]]
        t = len(frames)
        pairs = {(i, j): tuple(map(numpy.asarray, names["pairs"](i, j))) for j in range(t) for i in range(j)}
        result[path, s] = frames, pairs
assert not any(name.partition(".")[0] in ("gen4d", "train") for name in sys.modules)
pickle.dump(result, open(target, "wb"))
"""


def test_anybody_reads_the_shards_with_zarr_and_numpy_alone(data, tmp_path):
    """The recipe of docs/format.md, in a process that cannot import gen4d, against the reader."""
    text = (commands.ROOT / "docs" / "format.md").read_text().split("<!-- recipe -->")[1]
    recipe = text.split("```python\n")[1].split("```")[0]
    dataset = open_dataset(data)
    counts = [(str(data / "shards" / s["file"]), sum(n for _, n in s["scans"])) for s in dataset.manifest["shards"]]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run = subprocess.run(
        [sys.executable, "-c", CONSUMER],
        input=pickle.dumps((recipe, counts, str(tmp_path / "read"))),
        env=environment,
        cwd=tmp_path,
        capture_output=True,
    )
    assert run.returncode == 0, run.stderr.decode()
    read = list(pickle.loads((tmp_path / "read").read_bytes()).values())
    assert len(read) == len(dataset) > 0
    for (frames, pairs), sequence in zip(read, dataset, strict=True):
        for (point, identity), frame in zip(frames, sequence.frames, strict=True):
            np.testing.assert_allclose(point, frame.point, rtol=0, atol=1e-6)
            np.testing.assert_array_equal(point[frame.actor == 0], frame.point[frame.actor == 0])
            np.testing.assert_array_equal(identity, np.stack([frame.actor, frame.point_index], axis=1))
        for (i, j), rows in pairs.items():
            np.testing.assert_array_equal(rows, sequence.correspondences(i, j))


def workers_that_read(clouds, wanted) -> int:
    """How many of four forked processes read all clouds several times as they are, after the parent has read one."""

    def use():
        same = [np.array_equal(clouds[c], wanted[c]) for _ in range(8) for c in range(len(clouds))]
        return 0 if all(same) else 1

    np.testing.assert_array_equal(clouds[0], wanted[0])
    return [faults.wait(child) for child in [faults.child(use) for _ in range(4)]].count(0)


def test_forked_workers_read_by_the_recipe_for_workers_and_not_by_the_parents_store(data):
    text = (commands.ROOT / "docs" / "format.md").read_text().split("<!-- recipe for workers -->")[1]
    recipe = {"zarr": zarr}
    exec(text.split("```python\n")[1].split("```")[0], recipe)
    path = data / "shards" / open_dataset(data).manifest["shards"][0]["file"]
    group = zarr.open_group(zarr.storage.ZipStore(path, mode="r"), mode="r")
    start, point = group["cloud/start"][:], group["cloud/point"][:]
    wanted = [point[low:high] for low, high in itertools.pairwise(start)]
    clouds = recipe["Clouds"](path)
    assert workers_that_read(clouds, wanted) == 4
    opened = recipe["opened"]
    recipe["opened"] = lambda path, process: opened(path, 0)  # what the parent has opened
    assert workers_that_read(clouds, wanted) < 4


WINDOWS = """
import os, signal, sys

sys.modules["fcntl"] = sys.modules["resource"] = None
del signal.SIGHUP, signal.SIGALRM, os.pread
"""


@pytest.mark.parametrize(
    "use", ["from gen4d.cli import main; main()", "import gen4d; gen4d.open_dataset('.')", "from gen4d import files"]
)
def test_a_system_without_posix_locks_is_told_so_in_one_line(use):
    run = subprocess.run([sys.executable, "-c", WINDOWS + use], capture_output=True, text=True)
    assert run.returncode == 1
    assert "Linux and macOS" in run.stderr.strip().splitlines()[-1]
    assert "cli" not in use or run.stderr.count("\n") == 1
