"""Articulated shapes: URDF in, parts that move on one another out.

What is stored is compared with joints that are read and put together here, by matrices turned into the joint's own
frame and back, with nothing of the reader or the generator.
"""

import itertools
import json
import math
import pathlib
import xml.etree.ElementTree as xml

import numpy as np
import pytest
import trimesh
from scipy import stats
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

import gen4d
from gen4d import sources
from gen4d.building import moving
from gen4d.config import Config
from gen4d.moving import joints, models, shape
from gen4d.moving.generate import lane
from gen4d.report.rules import Rules
from gen4d.samples import write_samples
from gen4d.sequence import Cloud, Sequence, make_actor
from gen4d.shards import open_dataset
from gen4d.sources import SourceError, find_shapes, load_shape
from tests import laws, naive, raw
from tests.equal import files_of
from tests.makers import commands
from tests.makers.builds import make_inputs, run_build
from tests.makers.files import write
from tests.makers.rooms import write_furnished
from tests.makers.urdfs import write_cupboard


class Twin:
    """A URDF put together by hand: meshes of its parts at rest in metres, and where they come at some joint values."""

    def __init__(self, path: pathlib.Path):
        root = xml.parse(path).getroot()
        self.joint = {joint.find("child").get("link"): joint for joint in root.findall("joint")}
        self.links = {link.get("name"): link for link in root.findall("link")}
        self.moving = [name for name, joint in self.joint.items() if joint.get("type") != "fixed"]
        self.order = sorted(self.moving, key=lambda name: (self.depth(name), self.moving.index(name)))
        self.path = path

    def depth(self, link):
        return 0 if link not in self.joint else 1 + self.depth(self.joint[link].find("parent").get("link"))

    def place(self, link, value):
        """The frame (4, 4) of a link at joint values by child link."""
        if link not in self.joint:
            return np.eye(4)
        joint = self.joint[link]
        own = np.eye(4)
        if joint.get("type") != "fixed":
            axis = numbers(joint.find("axis"), "xyz")
            axis = axis / np.linalg.norm(axis)
            if joint.get("type") == "prismatic":
                own[:3, 3] = axis * value[link]
            else:
                own[:3, :3] = Rotation.from_rotvec(axis * value[link]).as_matrix()
        return self.place(joint.find("parent").get("link"), value) @ origin(joint) @ own

    def above(self, link):
        """The links between a link and the root."""
        parent = self.joint[link].find("parent").get("link")
        return [parent, *self.above(parent)] if parent in self.joint else [parent]

    def limits(self, link):
        limit = self.joint[link].find("limit")
        return (-math.pi, math.pi) if limit is None else (float(limit.get("lower")), float(limit.get("upper")))

    def part_of(self, link):
        """The number of the part that a link belongs to: 0 is the base."""
        while link in self.joint and link not in self.moving:
            link = self.joint[link].find("parent").get("link")
        return 0 if link not in self.joint else 1 + self.order.index(link)

    def meshes(self):
        """(part, mesh at rest in the frame of the root) of every visual."""
        rest = dict.fromkeys(self.joint, 0.0)
        for name, link in self.links.items():
            for visual in link.findall("visual"):
                box, file = visual.find("geometry/box"), visual.find("geometry/mesh")
                if box is not None:
                    mesh = trimesh.creation.box(numbers(box, "size"))
                else:
                    mesh = trimesh.load(self.path.parent / file.get("filename"), process=False, force="mesh")
                    mesh.apply_scale(numbers(file, "scale", (1, 1, 1)))
                mesh.apply_transform(self.place(name, rest) @ origin(visual))
                yield self.part_of(name), mesh


def numbers(element, key, default=(0, 0, 0)):
    text = None if element is None else element.get(key)
    return np.array([float(word) for word in text.split()] if text else default, float)


def origin(element):
    out, at = np.eye(4), element.find("origin")
    out[:3, :3] = Rotation.from_euler("xyz", numbers(at, "rpy")).as_matrix()
    out[:3, 3] = numbers(at, "xyz")
    return out


@pytest.fixture(scope="module")
def articulated(tmp_path_factory):
    """Rooms, and a data set of built-in articulated furniture and the cupboard, one or two at once."""
    folder = tmp_path_factory.mktemp("articulated")
    write_samples(folder / "samples", rooms=0, shapes=2)
    shapes = folder / "samples" / "articulated"
    write_cupboard(shapes)
    scans = write_furnished(folder / "scans", 3, 9000)
    classes = ("cabinet", "chair", "dresser", "night_stand")
    found = sources.find_scans(scans), find_shapes(shapes, classes)
    inputs = moving.make_inputs(*found, Config(sequences=14, movers_max=2, classes=classes))
    run_build(folder / "built", inputs)
    return folder / "built", raw.source_of(scans), shapes


def test_sequences_of_articulated_shapes_obey_every_law(articulated):
    folder, source, _ = articulated
    report = laws.check_dataset(folder, source)
    assert report.sequences >= 40, report


def test_a_part_without_points_is_no_obstacle_to_a_report(articulated):
    """A knob may be too small to get one."""
    dataset = open_dataset(articulated[0])
    number, sequence = next((i, one) for i, one in enumerate(dataset) if sum(a.mover == 0 for a in one.actors) > 1)
    whole, bare = (Rules("moving", dataset.config) for _ in range(2))
    whole.measure([sequence], None, None, ())
    at = next(i for i, actor in enumerate(sequence.actors) if actor.mover == 0)
    none = make_actor(Cloud(np.zeros((0, 3))), np.zeros((len(sequence), 0), bool), sequence.actors[at].pose, mover=0)
    actors = (*sequence.actors[:at], none, *sequence.actors[at + 1 :])
    bare.measure([Sequence(sequence.scan, sequence.k, actors, sequence.movers)], None, None, ())
    assert len(bare.measured()) == len(whole.measured()), number


def test_every_layout_of_the_work_gives_the_same_bytes(articulated, tmp_path):
    folder, _, shapes = articulated
    names = ("cabinet", "chair", "dresser", "night_stand")
    settings = {"classes": names, "sequences": 3, "movers_min": 1, "movers_max": 2, "scans_per_shard": 1}

    def build(name, **more):
        return gen4d.build_dataset(folder.parent / "scans", shapes, tmp_path / name, **settings, **more)

    build("one")
    build("two", workers=2)
    for number in (2, 1):
        build("parts", part=(number, 2))
    gen4d.merge(tmp_path / "parts")
    build("grown", limit=1)
    build("grown")
    build("resumed")
    for name in ("shards/00001.json", "shards/00002.zarr.zip", "dataset.json"):
        (tmp_path / "resumed" / name).unlink()
    build("resumed")
    wanted = files_of(tmp_path / "one")
    assert any(len(sequence.movers) == 2 for sequence in gen4d.open_dataset(tmp_path / "one"))
    for name in ("two", "parts", "grown", "resumed"):
        assert files_of(tmp_path / name) == wanted, name


def parts_of(folder):
    """(shape, class, height, points by part, own poses by part) of every shape in every sequence."""
    for path in sorted((folder / "shards").glob("*.zarr.zip")):
        shard = laws.read_shard(path)
        for row in range(len(shard.table["sequence/k"])):
            start = shard.table["mover/start"][row]
            for number, mover in enumerate(laws.movers_of(shard, row, "")):
                name = shard.shapes[shard.table["mover/shape"][start + number]]
                rows = [laws.cloud_rows(shard, int(shard.table["actor/cloud"][a])) for a in mover.actors]
                own = [np.linalg.inv(mover.pose) @ shard.table["actor/pose"][a] for a in mover.actors]
                yield name, mover, [shard.table["cloud/point"][r].astype(float) for r in rows], own


def urdf_of(shapes, name):
    name = name.removeprefix("cabinet_") if "cupboard" in name else name
    return next(shapes.glob(f"*/{name}/*.urdf"))


def test_parts_lie_on_their_meshes_and_move_by_their_joints(articulated):
    folder, _, shapes = articulated
    seen = set()
    for name, mover, points, own in parts_of(folder):
        twin = Twin(urdf_of(shapes, name))
        meshes = list(twin.meshes())
        assert len(points) == len(twin.order) + 1
        used = np.concatenate([mesh.vertices for _, mesh in meshes])
        scale = mover.height_m / np.ptp(used[:, 2])
        foot = find_foot(twin, meshes, used[:, 2].min())
        for part, point in enumerate(points):
            whole = trimesh.util.concatenate([mesh for number, mesh in meshes if number == part])
            some = point[:: max(1, len(point) // 20)]
            _, gap, _ = trimesh.proximity.closest_point_naive(whole, some / scale + foot)
            assert gap.max(initial=0) < 1e-4, (name, part)
        shift = np.eye(4)
        shift[:3, 3] = foot
        values = np.stack([find_values(twin, own, f, scale, shift) for f in range(4)])
        for number, link in enumerate(twin.order):
            low, high = twin.limits(link)
            value = np.unwrap(values[:, number]) if high - low > 6 else values[:, number]
            assert np.abs(np.diff(value, 2)).max() < 1e-3, "at a constant rate"
            assert high - low > 6 or (low - 1e-4 <= value.min() and value.max() <= high + 1e-4)
        seen.add(name.rstrip("0123456789"))
    assert len(seen) >= 4 and any("cupboard" in name for name in seen), seen


def find_foot(twin, meshes, low):
    """Where the axis of the whole stands: in the middle of the smallest circle around all that its parts sweep, each at
    33 values of its joint, or 17 where its way has two joints."""
    swept = [mesh.vertices for part, mesh in meshes if part == 0]
    rest = dict.fromkeys(twin.joint, 0.0)
    for number, link in enumerate(twin.order, 1):
        chain = [name for name in twin.order if name == link or name in twin.above(link)]
        steps = {1: 33, 2: 17}[len(chain)]
        for values in itertools.product(*(np.linspace(*twin.limits(name), steps) for name in chain)):
            move = twin.place(link, rest | dict(zip(chain, values, strict=True))) @ np.linalg.inv(
                twin.place(link, rest)
            )
            swept += [mesh.vertices @ move[:3, :3].T + move[:3, 3] for part, mesh in meshes if part == number]
    flat = np.concatenate(swept)[:, :2]
    x, y, _ = naive.enclosing_circle(np.ascontiguousarray(flat[ConvexHull(flat).vertices]))
    return np.array([x, y, low])


def find_values(twin, own, frame, scale, shift):
    """Joint values for which the parts are where they were stored in a frame; fails where there are none."""
    value = dict.fromkeys(twin.joint, 0.0)
    rest = {link: twin.place(link, value) for link in twin.order}
    for number, link in enumerate(twin.order):
        pose = own[number + 1][frame].copy()
        pose[:3, 3] /= scale
        wanted = shift @ pose @ np.linalg.inv(shift) @ rest[link]
        value[link] = 0.0
        step = np.linalg.inv(twin.place(link, value)) @ wanted
        axis = numbers(twin.joint[link].find("axis"), "xyz")
        axis = axis / np.linalg.norm(axis)
        if twin.joint[link].get("type") == "prismatic":
            value[link] = float(step[:3, 3] @ axis)
        else:
            value[link] = float(Rotation.from_matrix(step[:3, :3]).as_rotvec() @ axis)
        assert np.abs(twin.place(link, value) - wanted).max() < 2e-3, link
    return [value[link] for link in twin.order]


def test_joints_go_from_any_value_to_any_other_evenly():
    joint = sources.Joint("hinge", "hinge", 1, 0, np.zeros(3), np.array([0.0, 0, 1]), -0.5, 1.5)
    slide = joint._replace(kind="slide", part=2, low=0.0, high=0.3)
    made = np.stack([joints.draw_joints((joint, slide), 5, lane(Config(), "", k, 0, "joints")) for k in range(3000)])
    for number, (low, high) in enumerate([(-0.5, 1.5), (0, 0.3)]):
        for frame in (0, -1):
            share = (made[:, frame, number] - low) / (high - low)
            assert 0 <= share.min() < 0.01 and 0.99 < share.max() < 1 and stats.kstest(share, "uniform").pvalue > 1e-3
    assert np.abs(np.diff(made, 2, axis=1)).max() < 1e-12
    drawn = [made[:, frame, number] for frame in (0, -1) for number in (0, 1)]
    assert np.abs(np.corrcoef(drawn) - np.eye(4)).max() < 0.08


def test_a_disc_holds_a_shape_at_every_value_of_its_joints(tmp_path):
    """Between the values at which its sweep was taken too."""
    write_cupboard(tmp_path)
    mesh = load_shape(find_shapes(tmp_path).sources[0])
    model = shape.make_model(mesh.vertex, mesh.face, mesh.part, mesh.joints)
    low, high = (np.array([getattr(joint, end) for joint in model.joints]) for end in ("low", "high"))
    value = low + (high - low) * np.random.default_rng(1).random((4000, len(low)))
    pose = joints.part_poses(model.joints, value)
    reach, tall = 0.0, 0.0
    for part in range(len(pose)):
        vertex = model.vertex[np.unique(model.face[model.part == part])]
        moved = vertex @ pose[part, :, :3, :3].transpose(0, 2, 1) + pose[part, :, None, :3, 3]
        reach = max(reach, np.hypot(moved[..., 0], moved[..., 1]).max())
        tall = max(tall, np.linalg.norm(moved - [0, 0, 0.5], axis=-1).max())
    assert reach <= model.disc < 1.02 * reach and tall <= model.sphere < 1.02 * tall
    assert [joint.name for joint in model.joints] == ["hinge", "slide", "latch"]
    assert [joint.parent for joint in model.joints] == [0, 0, 1]


def test_joints_that_are_not_to_move_stay_nearest_to_rest_and_nothing_else_changes(tmp_path):
    write_cupboard(tmp_path / "shapes")
    scans = write_furnished(tmp_path / "scans", 1, 4000)
    for name in ("on", "off"):
        run_build(tmp_path / name, make_inputs(scans, tmp_path / "shapes", sequences=3, joints=name == "on"))
    on, off = (gen4d.open_dataset(tmp_path / name) for name in ("on", "off"))
    assert on.config["joints"] is True and off.config["joints"] is False
    for one, other in zip(on, off, strict=True):
        assert [a.planes.tobytes() for a in one.actors] == [a.planes.tobytes() for a in other.actors]
        assert one.actors[1].pose.tobytes() == other.actors[1].pose.tobytes()
        own = [np.linalg.inv(other.actors[1].pose.astype(float)) @ actor.pose for actor in other.actors[2:]]
        assert all(np.abs(pose - pose[0]).max() < 1e-5 for pose in own)
        turn = Rotation.from_matrix(own[0][0, :3, :3]).magnitude()
        assert turn == pytest.approx(0.2, abs=1e-5), "the hinge's range begins at 0.2"


def test_a_shape_that_is_turned_turns_with_its_joints(tmp_path):
    write_cupboard(tmp_path)
    source = find_shapes(tmp_path).sources[0]
    upright, turned = load_shape(source), load_shape(source, "y")
    turn = sources.up_rotation("y")
    value = np.array([[0.4, 0.1, 2.0]])
    for one, other in zip(
        joints.part_poses(upright.joints, value), joints.part_poses(turned.joints, value), strict=True
    ):
        assert np.allclose(turn @ one[0, :3, :3], other[0, :3, :3] @ turn)
        assert np.allclose(turn @ one[0, :3, 3], other[0, :3, 3])


def test_what_was_read_is_told_with_every_mesh(articulated):
    folder, _, _ = articulated
    read = [file for path in (folder / "shards").glob("*.json") for file in json.loads(path.read_bytes())["shapes"]]
    names = [name for name, _, _ in read]
    assert any(name.endswith("mesh/case.off") for name in names) and any(name.endswith(".urdf") for name in names)


BAD = {
    "not readable XML": ("</robot>", ""),
    "declares a document type": ("<robot", '<!DOCTYPE robot [<!ENTITY a "b">]><robot'),
    "two links named 'tray'": ('<link name="handle">', '<link name="tray">'),
    "a link without a name": ('<link name="tray">', "<link>"),
    "below the file's own folder": ("mesh/case.off", "../../../etc/case.off"),
    "is not a regular file|cannot be read": ("mesh/case.off", "mesh/none.off"),
    "unknown suffix": ("mesh/case.off", "cupboard.urdf"),
    "neither mesh nor box": ('<box size="0.5 0.3 0.02"/>', '<sphere radius="1"/>'),
    "of type 'floating'": ('type="prismatic"', 'type="floating"'),
    "without limits": ('<limit lower="-0.02" upper="0.25"/>', ""),
    "a range that rises": ('lower="-0.02" upper="0.25"', 'lower="0.5" upper="0.25"'),
    "at most once around": ('upper="1.7"', 'upper="17"'),
    "an axis of length 0": ('axis xyz="0 -1 0"', 'axis xyz="0 0 0"'),
    "3 finite numbers": ('axis xyz="0 -1 0"', 'axis xyz="0 nan 0"'),
    "which is not a link": ('child link="tray"', 'child link="trai"'),
    "two joints to the link": ('child link="tray"', 'child link="door"'),
    "in a circle": ('parent link="feet"/><child link="case"', 'parent link="door"/><child link="case"'),
    "mimics another": ('<origin xyz="0.4 0.2 0.5"', '<mimic joint="hinge"/><origin xyz="0.4 0.2 0.5"'),
}


@pytest.mark.parametrize("rule", BAD)
def test_a_bad_urdf_is_refused_in_one_line_that_names_it(tmp_path, rule):
    write_cupboard(tmp_path, change=BAD[rule])
    with pytest.raises(SourceError, match=rule) as error:
        load_shape(find_shapes(tmp_path).sources[0])
    assert "cabinet/cupboard_1/" in str(error.value) and len(str(error.value)) < 400


def test_xml_of_something_else_is_no_urdf(tmp_path):
    write(tmp_path / "cabinet" / "a" / "a.urdf", b"<sdf/>")
    with pytest.raises(SourceError, match="not of a robot"):
        load_shape(find_shapes(tmp_path).sources[0])


def test_joints_that_reach_below_the_floor_are_refused(tmp_path):
    write_cupboard(
        tmp_path,
        change=(
            'axis xyz="0 -1 0"/><limit lower="-0.02" upper="0.25"/>',
            'axis xyz="0 0 -1"/><limit lower="0" upper="2"/>',
        ),
    )
    with pytest.raises(shape.ShapeError, match="below its foot"):
        models.load_model(find_shapes(tmp_path).sources[0], "auto")


def test_a_bad_shape_costs_its_draws_and_the_others_go_on(tmp_path):
    write_cupboard(tmp_path / "shapes", change=BAD["without limits"])
    write_cupboard(tmp_path / "shapes", "cupboard_2")
    scans = write_furnished(tmp_path / "scans", 1, 4000)
    manifest = run_build(tmp_path / "built", make_inputs(scans, tmp_path / "shapes", sequences=4))
    assert manifest["totals"]["sequences"] == 4
    outcome = commands.gen4d("inspect", str(tmp_path / "built"))
    assert "cupboard_1/cupboard.urdf: has joint 'slide' of type prismatic without limits" in outcome.out
    checked = commands.gen4d("doctor", "--shapes", str(tmp_path / "shapes"), "--classes", "cabinet")
    assert checked.code == 1 and "error: " in checked.out and "without limits" in checked.out


def test_partnet_mobility_has_its_classes_in_a_file_beside_each_shape(tmp_path):
    for number, name in ((101, "StorageFurniture"), (7, "Chair"), (8, None)):
        path = write_cupboard(tmp_path / "made", str(number))
        folder = tmp_path / "partnet" / str(number)
        folder.parent.mkdir(exist_ok=True)
        path.parent.rename(folder)
        (folder / "cupboard.urdf").rename(folder / "mobility.urdf")
        write(folder / "meta.json", json.dumps({"model_cat": name}).encode())
    found = find_shapes(tmp_path / "partnet")
    assert [(one.name, one.class_name) for one in found.sources] == [("cabinet_101", "cabinet"), ("chair_7", "chair")]
    assert found.entry == "partnet-mobility" and "no model_cat" in found.refused[0][1]
    assert len(load_shape(found.sources[0]).joints) == 3
