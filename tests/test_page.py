"""The page of a scan: what is in it is what is stored, it draws and obeys in a real browser, and nothing leaves it."""

import base64
import itertools
import json
import re
import zlib

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import gen4d
from gen4d.report.page import describe, outward, write_page
from gen4d.sequence import FloorPlan, frame_pairs
from tests import browser
from tests.makers import commands
from tests.makers.kinds import MAKERS, three_movers


def read_page(path):
    """The scene and the bytes of a page, by what its markup says."""
    text = path.read_text()
    scene = json.loads(re.search(r'id="scene">(.*?)</script>', text, re.S)[1])
    return scene, zlib.decompress(base64.b64decode(re.search(r'id="data">(.*?)</script>', text, re.S)[1]))


def points_of(cloud, payload):
    """Points of a cloud of a page, read by another way than page.js has."""
    start, size = cloud["point"]
    split = np.frombuffer(payload, np.uint8, size, start).reshape(3, 4, cloud["n"]).astype(np.int64)
    folded = (split * (256 ** np.arange(4))[:, None]).sum(axis=1)
    change = np.where(folded % 2, -(folded // 2) - 1, folded // 2)
    return np.array(cloud["low"]) + cloud["step"] * change.cumsum(axis=1).T


def array_of(place, payload, kind, *shape):
    start, size = place
    return np.frombuffer(payload[start : start + size], kind).reshape(shape)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_page_holds_what_is_stored(make, tmp_path):
    recording = make()
    dataset = gen4d.write_dataset([recording], tmp_path / "data")
    write_page(dataset, 0, tmp_path / "page.html")
    scene, payload = read_page(tmp_path / "page.html")
    for shown, sequence in zip(scene["sequences"], dataset, strict=True):
        frames = sequence.frames
        assert (shown["id"], shown["t"]) == (sequence.id, sequence.t)
        assert [mover["shape"] for mover in shown["movers"]] == [mover.shape for mover in sequence.movers]
        for there, actor in zip(shown["actors"], sequence.actors, strict=True):
            cloud = scene["clouds"][there["cloud"]]
            assert np.abs(points_of(cloud, payload) - actor.cloud.point).max() <= cloud["step"] * 0.51 <= 0.00051
            assert_array_equal(array_of(there["planes"], payload, np.uint8, *actor.planes.shape), actor.planes)
            pose = array_of(there["pose"], payload, "<f4", sequence.t, 4, 4).transpose(0, 2, 1)
            assert_array_equal(pose, actor.pose)
            if actor.cloud.label is not None:
                assert_array_equal(array_of(cloud["label"], payload, "<i4", cloud["n"]), actor.cloud.label)
        for (i, j), place in zip(frame_pairs(sequence.t), shown["pairs"], strict=True):
            a, b = sequence.correspondences(i, j)
            rows = np.stack(
                [frames[i].actor[a], frames[i].point_index[a], frames[j].actor[b], frames[j].point_index[b]]
            )
            known = set(map(tuple, rows.T.tolist()))
            drawn = array_of(place, payload, "<i4", -1, 4)
            assert set(map(tuple, drawn.tolist())) <= known and (len(drawn) > 0) == (len(known) > 0)


def test_points_at_the_outline_face_out_and_others_do_not():
    plan = FloorPlan(np.ones((40, 40), bool), np.array([0, 0], np.int32), 0.0, 0.1)
    spread = np.linspace(0.2, 3.8, 30)
    walls = {0: (4.05, None), 90: (None, 4.05), 180: (-0.05, None), 270: (None, -0.05)}
    for degrees, (x, y) in walls.items():
        point = np.stack([np.full(30, x) if x else spread, np.full(30, y) if y else spread, np.ones(30)], axis=1)
        faced = outward(np.concatenate([point, [[2.0, 2.0, 1.0]]]), plan)
        turns = (faced[5:25].astype(float) - 1) / 254 * 360
        assert (np.abs((turns - degrees + 180) % 360 - 180) < 20).all() and faced[-1] == 0


def test_a_name_cannot_end_the_script_it_is_in(tmp_path):
    recording = three_movers()
    name = "room<script>alert(1)<!--"
    sequence = recording[0]
    sequence.scan = name
    dataset = gen4d.write_dataset([type(recording)(name, (sequence,), recording.cloud)], tmp_path / "data")
    write_page(dataset, 0, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "<script>alert" not in text and read_page(tmp_path / "page.html")[0]["scan"] == name
    assert "default-src 'none'" in text


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(browser.opened, marks=browser.needs_browser, id="chromium"),
        pytest.param(browser.opened_firefox, marks=browser.needs_firefox, id="firefox"),
    ],
)
def page(request, tmp_path_factory):
    with request.param(tmp_path_factory.mktemp("browser")) as page:
        yield page


REFUSED = """(address) => new Promise((done) => {
  document.addEventListener("securitypolicyviolation", (event) => done(event.effectiveDirective));
  fetch(address).then(() => done("it left"), () => 0);
})"""
PICTURE = "['points','lines'].map((id) => document.getElementById(id).toDataURL()).join()"


def test_it_draws_obeys_keys_and_asks_for_nothing(page, tmp_path):
    recording = three_movers()
    dataset = gen4d.write_dataset([recording], tmp_path / "data")
    write_page(dataset, 0, tmp_path / "page.html")
    page.open(tmp_path / "page.html")
    page.requests.clear()
    page.open(tmp_path / "page.html", "sequence=0")
    assert page.evaluate("document.body.dataset.state") == "drawn"
    seen = [page.evaluate(PICTURE)]
    for key in ("ArrowRight", "c", "c", "c", "c", "c", "b", "p", "ArrowDown", "f"):
        page.press(key)
        page.wait("!waiting")
        seen.append(page.evaluate(PICTURE))
    assert all(a != b for a, b in itertools.pairwise(seen))
    page.evaluate(
        "document.getElementById('frame').value = 2, document.getElementById('frame').dispatchEvent(new Event('input'))"
    )
    page.wait("!waiting")
    assert page.evaluate("[state.time, state.sequence, state.colour, state.beside]") == [2, 1, "kept", 3]
    assert page.evaluate(PICTURE) != seen[-1]
    assert [url for url in page.requests if not url.startswith(("file:", "about:", "data:"))] == []
    assert len([url for url in page.requests if url.startswith("file:")]) == page.files_are_heard
    assert (page.errors, page.dialogs) == ([], 0)
    assert page.evaluate(f"({REFUSED})('http://127.0.0.1:9/')") == "connect-src"


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_every_kind_is_drawn_from_the_same_numbers(make, page, tmp_path):
    recording = make()
    dataset = gen4d.write_dataset([recording], tmp_path / "data")
    write_page(dataset, 0, tmp_path / "page.html")
    page.open(tmp_path / "page.html", "sequence=0&frame=1&pairs=1&beside=2")
    assert page.evaluate("document.body.dataset.state") == "drawn", page.errors
    scene, payload = read_page(tmp_path / "page.html")
    sequence = dataset[0]
    for number, actor in enumerate(sequence.actors):
        cloud = scene["clouds"][scene["sequences"][0]["actors"][number]["cloud"]]
        there = np.array(page.evaluate(f"[...drawn[{number}].xyz]")).reshape(-1, 3)
        assert np.abs(there - points_of(cloud, payload)).max() < 1e-5
        kept = page.evaluate(f"[...maskOf(drawn[{number}], {len(actor.cloud)}, 1)].map((v) => v > 0)")
        assert_array_equal(kept, actor.mask(1))
        assert_array_equal(np.float32(page.evaluate(f"[...poseAt(drawn[{number}], 1)]")).reshape(4, 4).T, actor.pose[1])
    background = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    look = (
        "(() => { const c = document.createElement('canvas'), p = $('points'); c.width = p.width; c.height = p.height;"
    )
    look += "const x = c.getContext('2d'); x.drawImage(p, 0, 0);"
    look += "return [...x.getImageData(0, 0, c.width, c.height).data]; })()"
    pixels = np.array(page.evaluate(look)).reshape(-1, 4)[:, :3]
    assert (np.abs(pixels - background).max(axis=1) > 8).mean() > 0.001


def test_walls_that_face_the_camera_come_and_go(page, tmp_path):
    recording = three_movers()
    x, y = np.meshgrid(np.arange(-0.3, 2.9, 0.03), [0.2, 2.4])
    wall = np.concatenate([np.stack([x, y, np.full_like(x, z)], axis=-1).reshape(-1, 3) for z in np.arange(0, 2, 0.05)])
    cloud = gen4d.Cloud(np.concatenate([recording.cloud.point, wall]))
    mover = recording[0].actors[1]
    actors = (gen4d.make_actor(cloud, np.ones((4, len(cloud)), bool)), mover)
    sequence = gen4d.Sequence("walls", 0, actors, recording[0].movers[:1])
    data = [gen4d.Recording("walls", (sequence,), cloud, recording.floor)]
    write_page(gen4d.write_dataset(data, tmp_path / "data"), 0, tmp_path / "page.html")
    page.open(tmp_path / "page.html")
    before = page.evaluate(PICTURE)
    page.press("w")
    page.wait("!waiting")
    assert page.evaluate(PICTURE) != before
    page.press("w")
    page.wait("!waiting")
    assert page.evaluate(PICTURE) == before


@browser.needs_browser
def test_it_says_so_without_webgl(one_sequence, tmp_path):
    dataset = gen4d.open_dataset(one_sequence)
    write_page(dataset, 0, tmp_path / "page.html")
    with browser.opened(tmp_path / "profile", "--disable-3d-apis") as page:
        page.open(tmp_path / "page.html")
        assert page.evaluate("[document.body.dataset.state, $('notice').hidden]") == ["refused", False]
        assert "WebGL 2" in page.evaluate("$('notice').textContent")


def test_the_command_writes_it(one_sequence, tmp_path):
    out = tmp_path / "scan.html"
    done = commands.gen4d("view", one_sequence, "--out", out)
    assert done.code == 0 and out.is_file()
    scan = gen4d.open_dataset(one_sequence).scan_names[0]
    assert read_page(out)[0]["scan"] == scan
    wrong = commands.gen4d("view", one_sequence, "nowhere/000", "--out", tmp_path / "no.html")
    assert wrong.code != 0 and not (tmp_path / "no.html").exists()
    assert "nowhere" in wrong.err.strip().splitlines()[-1]


def test_labels_have_the_names_of_their_space(tmp_path):
    dataset = gen4d.write_dataset([three_movers()], tmp_path / "data")  # of nyu40
    assert describe(dataset, dataset.numbers("three"), 0)[0]["labels"]["2"] == "floor"
