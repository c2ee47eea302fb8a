"""Figures that are shown to people are right: what a dry run, the doctor and the summary of a build say."""

import re
import shutil

import pytest

from gen4d import build_dataset
from gen4d.building.estimate import Estimate, Trial, try_scans
from gen4d.report import summary
from gen4d.shards import open_dataset
from tests.makers.builds import make_inputs
from tests.makers.commands import gen4d
from tests.makers.meshes import write_shapes
from tests.makers.rooms import write_full_size, write_furnished

UNITS = {"bytes": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    return write_furnished(folder / "scans", 4, 8000), write_shapes(folder / "shapes")


@pytest.fixture(scope="module")
def build(folders):
    """Arguments of a build with the sequences that doctor counts with."""
    scans, shapes = folders
    return ("build", "--scans", scans, "--shapes", shapes, "--out", scans.parent / "out")


@pytest.fixture(scope="module")
def built(build):
    """What the build printed, and what it made."""
    outcome = gen4d(*build)
    assert outcome.code == 0, outcome.text
    return outcome.out, open_dataset(build[-1])


def size_in(text: str, before: str, after: str = "") -> float:
    """The size in bytes that stands between two patterns."""
    number, unit = re.search(rf"{before}([\d.]+) ({'|'.join(UNITS)}){after}", text).groups()
    return float(number) * UNITS[unit]


# Before a build


def test_a_dry_run_says_the_disk_and_the_sequences_that_the_build_takes(build, built):
    text, totals = gen4d(*build, "--dry-run").out, built[1].manifest["totals"]
    assert size_in(text, r"disk +") == pytest.approx(totals["bytes"], rel=0.15)
    assert int(re.search(r"sequences +(\d+)", text)[1]) == pytest.approx(totals["sequences"], rel=0.1)
    free = shutil.disk_usage(build[-1].parent).free
    assert size_in(text, r"disk .*, ", " free") == pytest.approx(free, rel=0.2)


def test_a_trial_of_some_scans_is_scaled_to_all_scans_and_workers():
    trial = Trial(scans=2, sequences=36, bytes=3_000_001, seconds=1.5, memory=200_000_000, failed=(), reason="")
    assert trial.scaled(2, 1) == Estimate(36, 3_000_001, 1.5, 200_000_000)
    assert trial.scaled(100, 4) == Estimate(1800, 150_000_050, 18.75, 800_000_000)


def test_a_trial_counts_the_memory_of_a_whole_shard(folders):
    """Of the process, which only grows, and three copies of all scans of a shard."""
    memory = {}
    for size in (1, 201):
        inputs = make_inputs(*folders, sequences=1, scans_per_shard=size)
        memory[size] = try_scans(inputs, inputs.scans[:1]).memory
    cloud = 7000 * 3 * 4  # bytes of the points of a scan; labels, masks and the shard's content come on top
    assert 200 * 3 * cloud < memory[201] - memory[1] < 200 * 12 * cloud


def test_doctor_says_about_the_disk_that_the_build_takes(folders, tmp_path):
    """By a figure per point that was measured on other rooms: for scans of a real size, since shapes cost the same
    whatever the scan."""
    scans = write_full_size(tmp_path / "scans", 1)
    said = size_in(gen4d("doctor", "--scans", scans).text, "a build takes about ")
    taken = build_dataset(scans, folders[1], tmp_path / "out").manifest["totals"]["bytes"]
    assert 0.7 < said / taken < 1.4


# After it


def test_a_build_says_how_many_attempts_were_accepted(built):
    text, dataset = built
    totals = dataset.manifest["totals"]
    attempts, share, given_up = re.search(r"(\d+) attempts, (\d+)% accepted, (\d+) sequences given up", text).groups()
    assert (int(attempts), int(given_up)) == (totals["attempts"], totals["gaps"])
    assert int(share) == round(100 * totals["sequences"] / totals["attempts"])
    assert 0 < totals["sequences"] < totals["attempts"]
    assert size_in(text, "4 scans, 80 sequences in 1 shard, ") == pytest.approx(totals["bytes"], rel=0.05)


def test_the_classes_in_the_summary_add_up_to_the_sequences_that_are_there(built):
    text, dataset = built
    rows = re.findall(r"^  (\w+) +(\d+)% of the sequences, (\d+) of (\d+) attempts", text, re.M)
    assert {name for name, *_ in rows} == {"chair", "table", "night_stand"}
    for name, share, accepted, drawn in rows:
        there = sum(sequence.class_name == name for sequence in dataset)
        assert int(accepted) == there <= int(drawn)
        assert int(share) == round(100 * there / len(dataset))
    assert sum(int(drawn) for *_, drawn in rows) == dataset.manifest["totals"]["attempts"]


def scan(name, made, attempts, free_m=0.8, area_m2=6.0, **more):
    figures = {"points": 900, "valid_m2": area_m2, "free_m": free_m}
    return {"name": name, "sequences": list(range(made)), "attempts": attempts, **figures, **more}


def test_the_summary_of_two_shards_has_their_sums():
    one = scan("a", 2, 7, drawn={"chair": 5, "sofa": 2}, accepted={"chair": 2}, shrunk={"chair": 1}, gaps=[2])
    one |= {"rejections": {"too low": 3, "too wide": 2}, "examples": {"too low": "at 1", "too wide": "at 2"}}
    two = scan("b", 1, 3, drawn={"sofa": 3}, accepted={"sofa": 1}, shrunk={}, free_m=1.25, area_m2=8.04)
    two |= {"rejections": {"too wide": 2}, "examples": {"too wide": "at 3"}}
    none = scan("c", 0, 3, drawn={"chair": 3}, accepted={}, rejections={"too high": 1, "too low": 2})
    none |= {"examples": {"too high": "at 4", "too low": "at 5"}}
    lines = summary.summary([{"scans": [one], "bytes": 1_000_000}, {"scans": [two, none], "bytes": 2_340_000}])
    assert lines[0] == "3 scans, 3 sequences in 2 shards, 3.3 MB"
    assert lines[1].startswith("13 attempts, 23% accepted, 1 ")
    text = "\n".join(lines)
    assert re.search(r"b .* 8\.0 m2, .* 1\.25 m, 1 sequences in 3 attempts", text)
    assert re.search(r"chair +67% .*, 2 of 8 attempts, 1 shrunk", text)
    assert re.search(r"sofa +33% .*, 1 of 5 attempts$", text, re.M)
    assert re.search(r" 5 too low \(first: a, at 1\)\n +4 too wide \(first: a, at 2\)\n +1 too high \(first: c", text)
    assert "c: at 5" in lines[-1]  # the rule that most of its attempts failed


def test_many_scans_are_summed_up_by_least_most_and_median():
    scans = [scan(str(i), 1, 1, free_m=0.1 * i, area_m2=1.0 * i) for i in range(1, 26)]
    text = "\n".join(summary.summary([{"scans": scans, "bytes": 1}]))
    for figures in (r"1\.0 to 25\.0 m2, median 13\.0", r"0\.10 to 2\.50 m, median 1\.30"):
        assert re.search(figures, text)


SIZES = {0: "0 bytes", 999: "999 bytes", 1000: "1.0 KB", 2_345_678: "2.3 MB", 1e9: "1.0 GB", 7.26e13: "72.6 TB"}
TIMES = {0.4: "0:00:00", 59.6: "0:01:00", 3725: "1:02:05", 90_000: "25:00:00"}


@pytest.mark.parametrize("count", SIZES)
def test_sizes_are_shown_in_the_unit_that_suits_them(count):
    assert summary.format_bytes(count) == SIZES[count]


@pytest.mark.parametrize("seconds", TIMES)
def test_times_are_shown_in_hours_minutes_and_seconds(seconds):
    assert summary.format_seconds(seconds) == TIMES[seconds]


def test_classes_with_long_names_stay_in_their_columns():
    names = {"chair": 1, "a_class_with_a_very_long_name_indeed": 2}
    lines = summary.summary([{"scans": [scan("a", 3, 3, drawn=names, accepted=names)], "bytes": 1}])
    rows = [line for line in lines if "% of the sequences" in line]
    assert len({row.index("%") for row in rows}) == 1 and len(rows) == 2


def test_what_a_scan_contradicts_is_a_warning_and_many_are_counted():
    scans = [scan(str(i), 1, 1, doubts=[f"{i}.ply: has steps"]) for i in range(8)]
    lines = summary.summary([{"scans": scans, "bytes": 1}])
    assert lines.count("warning: 0.ply: has steps") == 1 and "warning: and 3 more like these" in lines
