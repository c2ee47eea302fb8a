"""The page of a data set: its numbers are those of a slow recount, what breaks a rule is called OUTSIDE, nothing leaves
it, and it says what each kind of data set is."""

import dataclasses
import html
import itertools
import math
import re
import urllib.parse

import numpy as np
import pytest

import gen4d
from gen4d.report import sheet
from gen4d.report.overview import write_report
from gen4d.sequence import FloorPlan
from tests import browser
from tests.makers import builds, commands, recordings
from tests.makers.kinds import MAKERS, three_movers
from tests.makers.meshes import write_shapes
from tests.makers.rooms import write_furnished


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Three furnished rooms with one or two shapes that move."""
    folder = tmp_path_factory.mktemp("report")
    scans, shapes = write_furnished(folder / "scans", 3, 4000), write_shapes(folder / "shapes")
    settings = {"sequences": 3, "scans_per_shard": 2, "movers_max": 2, "shape_points": 200}
    builds.run_build(folder / "built", builds.make_inputs(scans, shapes, **settings))
    return folder / "built"


@pytest.fixture(scope="module")
def page(built):
    """The text of its report."""
    return report(built, built.parent / "report.html")


def report(folder, out, sound=True, **options) -> str:
    """The page of a data set, as it reads."""
    written = write_report(gen4d.open_dataset(folder), out, **options)
    assert written.sound == sound, written.lines
    return out.read_text()


def words(markup: str) -> str:
    """What is read of a piece of markup."""
    return html.unescape(
        re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", re.sub(r"<title>.*?</title>", "", markup)))
    ).strip()


def card(page: str, title: str) -> str:
    """What the page says of a rule."""
    found = [part for part in re.findall(r"<article.*?</article>", page, re.S) if f"<h3>{title}</h3>" in part]
    assert len(found) == 1, title
    return words(found[0])


def part(page: str, heading: str) -> str:
    """The section under a heading."""
    return next(text for text in re.findall(r"<section>.*?</section>", page, re.S) if f"<h2>{heading}</h2>" in text)


def row(page: str, first: str) -> list[str]:
    """The cells of the row of a table that begins with a text."""
    rows = [re.findall(r"<td.*?</td>", part, re.S) for part in re.findall(r"<tr>.*?</tr>", page, re.S)]
    found = [[words(cell) for cell in cells] for cells in rows if cells and words(cells[0]).startswith(first)]
    assert len(found) == 1, (first, found)
    return found[0]


# Numbers -------------------------------------------------------------------------------------------------------------


def recount(dataset) -> dict[str, list[float]]:
    """What the cards show, by other ways: sets of identities, angles between vectors, every cell, many moments."""
    found: dict[str, list[float]] = {}

    def add(name, value):
        found.setdefault(name, []).append(value)

    for number, sequence in enumerate(dataset):
        frames, total = sequence.frames, sum(len(actor.cloud) for actor in sequence.actors)
        plan = dataset.floor_plan(number)
        for frame in frames:
            add("points that a frame keeps", len(frame.point) / total)
        discs = []
        for a, actor in enumerate(sequence.actors):
            seen = [set(frame.point_index[frame.actor == a].tolist()) for frame in frames]
            common = len(set.intersection(*seen)) / len(actor.cloud)
            add("shape points in all frames" if a else "scan points in all frames", common)
            if not a:
                continue
            for frame in seen:
                add("shape points that a frame keeps", len(frame) / len(actor.cloud))
            places = actor.pose[:, :2, 3].astype(float)
            steps = [b - a for a, b in itertools.pairwise(places)]
            for step in steps:
                add("length of a step", math.hypot(*step))
            for one, other in itertools.pairwise(steps):
                cosine = one @ other / (math.hypot(*one) * math.hypot(*other))
                add("turn between steps", math.degrees(math.acos(np.clip(cosine, -1, 1))))
            radius = sequence.movers[actor.mover].radius_m
            discs.append((places, radius))
            for place in places:
                add("free floor around a shape", nearest_taken(plan, place) - radius)
        for (one, a), (other, b) in itertools.combinations(discs, 2):
            moments = np.linspace(0, len(one) - 1, 1501)
            ways = [[np.interp(moments, range(len(way)), way[:, k]) for k in (0, 1)] for way in (one, other)]
            add("between the discs of two shapes", np.hypot(*np.subtract(*ways)).min() - a - b)
    return found


def nearest_taken(plan: FloorPlan, place) -> float:
    """How far the nearest cell that is not free, or the plan's edge, is from a place."""
    padded = np.argwhere(~np.pad(plan.valid, 1)) - 1 + plan.origin
    low = padded * plan.cell_m
    return float(np.hypot(*np.maximum(np.maximum(low - place, place - low - plan.cell_m), 0).T).min())


def test_every_card_shows_the_numbers_of_a_slow_recount(built, page):
    dataset = gen4d.open_dataset(built)
    counted = recount(dataset)
    assert any(len(sequence.movers) == 2 for sequence in dataset) and len(counted) == 8
    for title, values in counted.items():
        text = card(page, title)
        shown = re.search(r"(-?[\d.e-]+)(?: to (-?[\d.e-]+))?\D*?, median (-?[\d.e-]+)", text)
        assert shown, text
        low, high, median = (float(value or shown[1]) for value in shown.groups())
        expected = (min(values), max(values), float(np.median(values)))
        assert (low, high, median) == pytest.approx(expected, rel=0.01, abs=2e-3), title
        assert "within" in text and "OUTSIDE" not in text
        bars = re.findall(r"<article.*?</article>", page, re.S)
        drawn = next(part for part in bars if f"<h3>{title}</h3>" in part)
        assert sum(int(n.replace(",", "")) for n in re.findall(r": ([\d,]+)</title>", drawn)) == len(values)


def test_tiles_scans_and_classes_are_those_of_the_data_set(built, page):
    dataset = gen4d.open_dataset(built)
    sequences = list(dataset)
    tiles = dict(reversed(pair) for pair in re.findall(r"<div><b>([^<]*)</b><span>([^<]*)</span>", page))
    points = sum(len(frame.point) for sequence in sequences for frame in sequence)
    assert (tiles["scans"], tiles["sequences"], tiles["frames"]) == ("3", str(len(dataset)), str(4 * len(dataset)))
    assert float(tiles["points in frames"].removesuffix(" k")) == pytest.approx(points / 1000, rel=0.005)
    assert dataset.digest in page and "Intact." in words(page) and "OUTSIDE" not in page
    for name in dataset.scan_names:
        cells = row(part(page, "Scans"), name)
        numbers = dataset.numbers(name)
        assert cells[2] == f"{len(sequences[numbers[0]].actors[0].cloud):,}"
        assert float(cells[3]) == pytest.approx(dataset.floor_plan(numbers[0]).valid_m2, abs=0.06)
        assert cells[5] == str(len(numbers))
    movers = [mover for sequence in sequences for mover in sequence.movers]
    for name in {mover.class_name for mover in movers}:
        assert row(part(page, "Classes of shapes"), name)[1] == str(sum(mover.class_name == name for mover in movers))
    assert page.count('src="data:image/webp') == 3 and page.count('<svg class="plan"') == 3


# Forged data ---------------------------------------------------------------------------------------------------------


def forge(dataset, change, out):
    """A data set of the same config whose first sequence was changed, written by gen4d's writers, so that every hash
    is right."""
    made = []
    for name in dataset.scan_names:
        numbers = dataset.numbers(name)
        sequences = [dataset[i] for i in numbers]
        if not made:
            sequences[0] = change(sequences[0])
        cloud = sequences[0].actors[0].cloud
        made.append(gen4d.Recording(name, tuple(sequences), cloud, dataset.floor_plan(numbers[0]), 1.0))
    return gen4d.write_dataset(made, out, config=dataset.config)


def with_actor(sequence, number, **changes):
    actors = list(sequence.actors)
    actors[number] = actors[number]._replace(**changes)
    return gen4d.Sequence(sequence.scan, sequence.k, tuple(actors), sequence.movers, attempt=sequence.attempt)


def moved(sequence, frame, shift):
    pose = sequence.actors[1].pose.copy()
    pose[frame, :3, 3] += shift
    return with_actor(sequence, 1, pose=pose)


def few(sequence, number, frame, share):
    actor = sequence.actors[number]
    masks = np.stack([actor.mask(f) for f in range(sequence.t)])
    masks[frame, : int(share * masks.shape[1])] = False
    return with_actor(sequence, number, planes=np.packbits(masks, axis=1))


def taller(sequence):
    movers = tuple(mover._replace(height_m=3.0) for mover in sequence.movers)
    return gen4d.Sequence(sequence.scan, sequence.k, sequence.actors, movers, attempt=sequence.attempt)


def turned(sequence):
    pose = sequence.actors[1].pose.copy()
    pose[2, :2, :2] = pose[2, :2, :2] @ np.float32([[0, -1], [1, 0]])
    return with_actor(sequence, 1, pose=pose)


def doubled(sequence):
    cloud = sequence.actors[0].cloud
    point = cloud.point.copy()
    point[1] = point[0]
    return with_actor(sequence, 0, cloud=gen4d.Cloud(point, cloud.vertex, cloud.label, cloud.instance))


FORGED = {
    "length of a step": lambda s: moved(s, 3, (5, 0, 0)),
    "free floor around a shape": lambda s: moved(s, 0, (40, 0, 0)),
    "points that a frame keeps": lambda s: few(s, 0, 1, 0.9),
    "scan points in all frames": lambda s: few(s, 0, 1, 0.9),
    "shape points in all frames": lambda s: few(s, 1, 0, 0.8),
    "shape points that a frame keeps": lambda s: few(s, 1, 0, 0.2),
    "height of a shape's foot above the floor": lambda s: moved(s, 1, (0, 0, 0.01)),
    "turn of a shape beyond that of its way": turned,
    "points of a scan that share a voxel": doubled,
}


@pytest.mark.parametrize("title", FORGED)
def test_what_breaks_a_rule_is_outside(built, tmp_path, title):
    dataset = gen4d.open_dataset(built)
    forged = forge(dataset, FORGED[title], tmp_path / "forged")
    assert not any(gen4d.verify(forged))
    text = report(tmp_path / "forged", tmp_path / "report.html", sound=False)
    assert "OUTSIDE" in (card(text, title) if f"<h3>{title}</h3>" in text else row(text, title)[3])
    assert re.search(r"OUTSIDE\. \d+ of \d+ rules are broken: [^.]*" + title, words(text))
    if f"<h3>{title}</h3>" in text:
        assert dataset[0].id in card(text, title)


def test_a_height_out_of_its_class_is_outside_there(built, tmp_path):
    dataset = gen4d.open_dataset(built)
    forge(dataset, taller, tmp_path / "forged")
    text = report(tmp_path / "forged", tmp_path / "report.html", sound=False)
    assert row(text, dataset[0].class_name)[-1] == "OUTSIDE"


def test_an_honest_copy_is_within_and_the_command_says_so(built, tmp_path):
    dataset = gen4d.open_dataset(built)
    forge(dataset, lambda sequence: sequence, tmp_path / "copy")
    done = commands.gen4d("report", tmp_path / "copy", "--out", tmp_path / "report.html")
    assert done.code == 0 and "rules kept" in done.out, done.text
    forge(dataset, FORGED["length of a step"], tmp_path / "forged")
    done = commands.gen4d("report", tmp_path / "forged", "--out", tmp_path / "report.html")
    assert done.code == 1 and "OUTSIDE: length of a step" in done.out


# Kinds ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_data_set_of_each_kind_that_states_no_rules(make, tmp_path):
    recording = make()
    gen4d.write_dataset([recording], tmp_path / "data")
    text = report(tmp_path / "data", tmp_path / "report.html")
    kind = recording[0].kind
    assert f"of kind {kind}" in text and recording.name in words(text)
    assert "bar" in text and "OUTSIDE" not in text


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames")
    recordings.write_frames_25k(folder / "scans", recordings.camera_poses(6))
    for choose, count in (("windows", 3), ("pairs", 2)):
        settings = {"least_points": 50, "choose": choose, "frames": count}
        gen4d.build_dataset(folder / "scans", out=folder / choose, kind="frames", **settings)
    return folder


def test_frames_have_rules_of_their_own(frames, tmp_path):
    windows = report(frames / "windows", tmp_path / "windows.html")
    assert "no rule" in card(windows, "overlap of neighbouring frames")
    assert row(windows, "frames left out in a window")[3] == "within"
    pairs = report(frames / "pairs", tmp_path / "pairs.html")
    dataset = gen4d.open_dataset(frames / "pairs")
    overlap = dataset.views(0).overlap
    either = np.maximum(overlap, overlap.T)
    least = min(either[tuple(dataset.members(i))] for i in range(len(dataset)))
    text = card(pairs, "overlap of neighbouring frames")
    assert "within" in text and float(text.split("within")[1].split(" to ")[0].split()[-1]) == pytest.approx(
        least, rel=0.01
    )
    assert row(pairs, "difference of an overlap")[3] == "within"


def test_sweeps_have_those_of_frames(tmp_path):
    recordings.write_kitti(tmp_path / "kitti", recordings.lidar_poses(6))
    gen4d.build_dataset(tmp_path / "kitti", out=tmp_path / "out", kind="sweeps", every=1, frames=3, least_points=50)
    text = report(tmp_path / "out", tmp_path / "report.html")
    assert "of kind sweeps" in text and row(text, "points of a frame that share a voxel")[3] == "within"
    point = max(
        float(np.linalg.norm(one.point, axis=1).max()) for one in gen4d.open_dataset(tmp_path / "out").views(0).clouds
    )
    assert f"to {sheet.figure(point)} m" in card(text, "distance of the farthest point")


def test_a_data_set_without_a_sequence_has_a_page_that_says_why(tmp_path):
    commands.write_rooms(tmp_path, 1, side_m=0.4)
    assert commands.gen4d(*commands.build_arguments(tmp_path)).code == 1
    text = words(report(tmp_path / "out", tmp_path / "report.html", views=True))
    assert "There is no sequence" in text and "no cell is wide enough" in text and "2 sequences given up" in text


def test_frames_that_are_not_where_their_views_are_are_outside(frames, tmp_path):
    dataset = gen4d.open_dataset(frames / "windows")
    views, sequences = dataset.views(0), [dataset[i] for i in range(len(dataset))]
    actors = []
    for sequence, members in zip(sequences, map(dataset.members, range(len(dataset))), strict=True):
        poses = [actor.pose + np.float32(0.02) * (np.arange(16).reshape(4, 4) == 3) for actor in sequence.actors]
        clouds = [views.clouds[member] for member in members]
        actors.append([a._replace(pose=p, cloud=c) for a, p, c in zip(sequence.actors, poses, clouds, strict=True)])
    made = [
        gen4d.Sequence(s.scan, s.k, tuple(a), kind="frames", match_m=s.match_m)
        for s, a in zip(sequences, actors, strict=True)
    ]
    recording = gen4d.Recording(sequences[0].scan, tuple(made), views=views)
    gen4d.write_dataset([recording], tmp_path / "forged", config=dataset.config)
    text = report(tmp_path / "forged", tmp_path / "report.html", sound=False)
    assert row(text, "distance of a frame's pose from its view's")[3] == "OUTSIDE"


def test_a_frame_without_a_point_has_no_distances(frames, tmp_path):
    dataset = gen4d.open_dataset(frames / "windows")
    views, sequence = dataset.views(0), dataset[0]
    assert max(dataset.members(0)) < len(views.clouds) - 1
    clouds = (*views.clouds[:-1], gen4d.Cloud(np.empty((0, 3), np.float32)))
    recording = gen4d.Recording(sequence.scan, (sequence,), views=views._replace(clouds=clouds, overlap=None))
    gen4d.write_dataset([recording], tmp_path / "data")
    assert "distance of the farthest point" in report(tmp_path / "data", tmp_path / "report.html")


def test_views_have_rules_of_their_own(tmp_path):
    shapes = write_shapes(tmp_path / "shapes")
    gen4d.build_dataset(shapes=shapes, out=tmp_path / "built", kind="views", points=100, sequences=40, frames=3)
    text = report(tmp_path / "built", tmp_path / "report.html")
    assert "-15 to 15°" in card(text, "turn about x, y and z") and "within" in card(text, "factor of size")
    dataset = gen4d.open_dataset(tmp_path / "built")
    poses = np.concatenate(
        [sequence.actors[0].pose[1:] @ np.linalg.inv(sequence.actors[0].pose[:-1]) for sequence in dataset]
    )
    scaled = np.abs(np.cbrt(np.linalg.det(poses[:, :3, :3])) - 1) > 1e-3
    assert float(row(text, "share of steps with scales")[2]) == pytest.approx(scaled.mean(), abs=0.02)
    forged = [
        gen4d.Recording(
            name,
            tuple(grown(dataset[i]) for i in dataset.numbers(name)),
            dataset[dataset.numbers(name)[0]].actors[0].cloud,
        )
        for name in dataset.scan_names
    ]
    gen4d.write_dataset(forged, tmp_path / "forged", config=dataset.config)
    text = report(tmp_path / "forged", tmp_path / "forged.html", sound=False)
    assert "OUTSIDE" in card(text, "factor of size")


@pytest.mark.parametrize("change", ["rotate_deg=0", "shift=0", "scale_min=1 scale_max=1", "rotate_deg=150"])
def test_views_that_lack_a_change_or_turn_far_are_within(change, tmp_path):
    shapes = write_shapes(tmp_path / "shapes")
    settings = {name: float(value) for name, value in (one.split("=") for one in change.split())}
    gen4d.build_dataset(
        shapes=shapes, out=tmp_path / "built", kind="views", points=20, sequences=60, frames=3, **settings
    )
    report(tmp_path / "built", tmp_path / "report.html")


def test_scans_with_empty_frames_and_without_points_near_the_floor_have_a_page(built, tmp_path):
    dataset = gen4d.open_dataset(built)
    sequence, plan = dataset[0], dataset.floor_plan(0)
    high = gen4d.Recording(sequence.scan, (sequence,), floor=plan._replace(floor_m=50.0))
    gen4d.write_dataset([high], tmp_path / "high")
    assert write_report(gen4d.open_dataset(tmp_path / "high"), tmp_path / "high #1 50%.html", views=True).lines
    link = re.search(r'<a href="([^"]*)"', (tmp_path / "high #1 50%.html").read_text())[1]
    assert (tmp_path / urllib.parse.unquote(link)).is_file() and not set(link) & set("# ?")


def grown(sequence):
    pose = sequence.actors[0].pose.copy()
    pose[-1, :3] *= 2
    actors = (sequence.actors[0]._replace(pose=pose),)
    return gen4d.Sequence(sequence.scan, sequence.k, actors, sequence.movers, kind="views")


# What leaves it ------------------------------------------------------------------------------------------------------

NAME = "room<script>alert(1)<!--"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A data set in which everything that has a name has one that would be markup."""
    made = three_movers()
    movers = tuple(mover._replace(shape=NAME, class_name=NAME) for mover in made[0].movers)
    sequence = gen4d.Sequence(NAME, 0, made[0].actors, movers)
    folder = tmp_path_factory.mktemp("hostile")
    recording = dataclasses.replace(made, name=NAME, sequences=(sequence,))
    gen4d.write_dataset([recording], folder / "data", config={"note": f'{NAME}" onload="alert(2)'})
    return folder


def test_a_name_stays_text(hostile):
    text = report(hostile / "data", hostile / "report.html", views=True)
    assert "<script>alert" not in text and '" onload="' not in text and text.count("<script>") == 1
    assert row(part(text, "Scans"), NAME)[0] == row(part(text, "Classes of shapes"), NAME)[0] == NAME
    link = re.search(r'<a href="([^"]*)"', text)[1]
    assert re.fullmatch(r"\./report-scans/[\w.-]+\.html", link) and (hostile / link).is_file()


@browser.needs_browser
def test_it_asks_for_nothing_and_sorts(hostile, built, page, tmp_path):
    report(hostile / "data", hostile / "report.html")
    with browser.opened(tmp_path / "profile") as opened:
        for path in (hostile / "report.html", built.parent / "report.html"):
            opened.requests.clear()
            opened.open(path)
            assert [url for url in opened.requests if not url.startswith(("file:", "about:", "data:"))] == []
            assert (opened.errors, opened.dialogs) == ([], 0)
        press = "[...document.querySelectorAll('th button')].find((b) => b.textContent === 'points').click()"
        points = "[...document.querySelectorAll('td:nth-child(3)')].map((c) => +c.dataset.key).filter((n) => n > 2000)"
        opened.evaluate(press)
        falling = opened.evaluate(points)
        opened.evaluate(press)
        assert len(falling) == 3 and falling == sorted(falling, reverse=True)
        assert opened.evaluate(points) == falling[::-1]
        loaded = "[...document.images].every((image) => image.complete && image.naturalWidth > 0)"
        assert opened.evaluate(loaded) and opened.evaluate("document.images.length") == 3
        for width in (390, 1280):
            opened.call(
                "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False
            )
            assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")


# What is refused -----------------------------------------------------------------------------------------------------


def test_bad_input_is_one_line(copy_of_one, tmp_path):
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "file").touch()
    for arguments, said in (
        ((tmp_path / "nowhere",), "dataset.json: not there"),
        ((copy_of_one, "--out", tmp_path / "report.txt"), "ends in .html"),
        ((copy_of_one, "--out", tmp_path / "folder.html"), "name of a file"),
        (
            (copy_of_one, "--out", tmp_path / "file" / "report.html"),
            "file: Not a directory: give another folder",
        ),
    ):
        done = commands.gen4d("report", *arguments)
        assert done.code and said in done.err and len(done.err.strip().splitlines()) <= 4, done.text
    shard = copy_of_one / "shards" / "00000.zarr.zip"
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 1
    shard.write_bytes(content)
    done = commands.gen4d("report", copy_of_one, "--out", tmp_path / "report.html")
    assert done.code == 1 and "00000.zarr.zip" in done.text
    (copy_of_one / "shards" / "00000.json").write_text("{}")
    done = commands.gen4d("report", copy_of_one, "--out", tmp_path / "other.html")
    assert done.code == 1 and "00000.json" in done.err and not (tmp_path / "other.html").exists()


def test_what_is_damaged_but_readable_is_said_on_the_page(copy_of_one, tmp_path):
    (copy_of_one / "notes.txt").write_text("mine")
    text = report(copy_of_one, tmp_path / "report.html", sound=False)
    assert "Damaged." in words(text) and "notes.txt: not part of the data set" in words(text)


def test_sources_are_those_that_the_data_set_names(copy_of_one, tmp_path):
    text = report(copy_of_one, tmp_path / "report.html")
    known = gen4d.open_dataset(copy_of_one).manifest["sources"]
    assert {one["role"] for one in known} == {"scans", "shapes"}
    for one in known:
        assert one["title"] in words(text) and one["terms"] in words(text)


# The parts of a page -------------------------------------------------------------------------------------------------


def test_markup_escapes_what_is_not_markup():
    inside = sheet.tag("p", "<b>", sheet.tag("i", "&"), 3, title='"<')
    assert inside == '<p title="&quot;&lt;">&lt;b&gt;<i>&amp;</i>3</p>'
    cells = sheet.table(("a", sheet.Html("b")), [["<", sheet.number(1234.5, 1)], [">", sheet.number(math.nan)]])
    assert "<td>&lt;</td>" in cells and 'data-key="1234.5">1,234.5</td>' in cells and cells.count("<button>") == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.3, "0.3"), (1 / 3, "0.333"), (12345.6, "12,346"), (2e-5, "2e-05"), (-7, "-7"), (math.nan, "none")],
)
def test_numbers_have_as_few_digits_as_tell_them(value, text):
    assert sheet.figure(value) == text


def test_charts_of_nothing_of_one_value_and_with_gaps():
    assert "<rect" not in sheet.histogram(np.empty(0)) and sheet.histogram(np.ones(5)).count("<g>") == 1
    broken = sheet.histogram(np.array([0.0, 1, 2]), ((0.5, 3.0),), broken=np.array([True, False, False]))
    assert broken.count('class="out"') == 1 and broken.count('class="rule"') == 2
    drawn = sheet.lines({"<loss>": ([0, 1, 2, 3], [1.0, math.nan, 2.0, 3.0]), "b": ([], [])}, "step")
    assert re.search(r'd="M[\d. ]+M[\d. ]+L[\d. ]+"', drawn) and "<loss>" not in drawn and "&lt;loss&gt;" in drawn
