"""Sizes of shapes: heights of their class or their own, drawn again before they are shrunk."""

import numpy as np
import pytest

import gen4d
from gen4d.config import Config, ConfigError
from gen4d.moving.feasible import with_heights
from gen4d.moving.generate import Drawn, Rejection, draw_shape, group_shapes
from gen4d.moving.models import Figures
from gen4d.sources import MeshSource, height_ranges
from tests.makers import commands, meshes, rooms
from tests.makers.meshes import CUBE_TRIANGLES, CUBE_VERTEX


def box(x, y, z):
    return (CUBE_VERTEX - [0.5, 0.5, 0]) * [x, y, z], CUBE_TRIANGLES


def floor(side_m, density=2000, key=1):
    point = np.random.default_rng(key).uniform((0, 0, -0.01), (side_m, side_m, 0.01), (int(density * side_m**2), 3))
    return point.astype(np.float32)


def drawn_heights(config, class_name, count=4000):
    return np.array([config.height_of(class_name, draw) for draw in (np.arange(count) + 0.5) / count])


def test_tables_are_mostly_for_dining_and_some_for_coffee():
    config = with_heights(Config(), ["table"], {})
    heights = drawn_heights(config, "table")
    low = heights < 0.6
    assert ((heights >= 0.70) & (heights <= 0.78) | (heights >= 0.40) & (heights <= 0.52)).all()
    assert low.mean() == pytest.approx(0.2, abs=0.01) and np.median(heights) == pytest.approx(0.735, abs=0.01)


def test_ranges_are_drawn_by_their_shares_and_evenly_within():
    config = with_heights(Config(), ["shelf"], {"shelf": [(1.0, 2.0, 1), (5.0, 5.0, 3)]})
    heights = drawn_heights(config, "shelf")
    assert (heights == 5).mean() == pytest.approx(0.75, abs=0.001)
    assert np.histogram(heights[heights < 5], 4, (1, 2))[0] == pytest.approx([250] * 4, abs=2)


@pytest.mark.parametrize("given", ["tall", (1,), [(1, 2, 3, 4)], [(2, 1)], [(1, 2, 0)], 3])
def test_heights_that_are_none_are_refused(given):
    with pytest.raises(ConfigError, match=r"heights of 'chair'|height_m"):
        with_heights(Config(), ["chair"], {"chair": given})


def test_every_class_of_the_paper_has_heights():
    assert all(height_ranges(name) for name in Config.classes) and not height_ranges("gnome")


def test_shapes_with_a_unit_keep_their_sizes():
    given = {"gnome": {"small": box(20, 20, 45), "large": box(30, 30, 90)}}
    recording = gen4d.generate(floor(5), given, sequences=12, shape_metres=0.01)
    assert {(s.shape, round(s.movers[0].height_m, 9)) for s in recording} == {("small", 0.45), ("large", 0.9)}
    assert all(sequence.movers[0].shrink == 1 for sequence in recording)


def test_a_shape_of_no_size_of_furniture_is_rejected_with_the_option_to_check():
    sources = [MeshSource("cup", "cup", *box(0.4, 0.4, 0.9))]
    shapes = group_shapes(sources, "auto")
    result = draw_shape(shapes, Config(shape_metres=0.001), np.random.default_rng(1))
    assert isinstance(result, Rejection) and "check --shape-units" in result.detail


def test_the_command_line_takes_the_unit_of_shapes(tmp_path):
    folder = commands.write_rooms(tmp_path)
    commands.build(folder, "--shape-units", "m", out="metric")
    mover = gen4d.open_dataset(folder / "metric")[0].movers[0]
    assert mover.height_m == pytest.approx(0.8, abs=1e-6)  # as it is in its file
    outcome = commands.gen4d(*commands.build_arguments(folder, "--shape-units", "parsec", out="none"))
    assert outcome.code == 1 and "--shape-units" in outcome.err


def narrow_and_wide() -> list[MeshSource]:
    return [MeshSource("narrow", "chair", *box(0.3, 0.3, 1)), MeshSource("wide", "chair", *box(3, 3, 1))]


def test_a_shape_is_drawn_again_while_it_fits_nowhere():
    config, shapes = with_heights(Config(), ["chair"], {}), group_shapes(narrow_and_wide(), "auto")
    draws = [draw_shape(shapes, config, np.random.default_rng(key), widest_m=0.5) for key in range(200)]
    assert sum(drawn.source.name == "wide" for drawn in draws) <= 2  # of 2^-9 each
    free = [draw_shape(shapes, config, np.random.default_rng(key), widest_m=9.0) for key in range(200)]
    assert 70 < sum(drawn.source.name == "wide" for drawn in free) < 130
    once = with_heights(Config(redraws=0), ["chair"], {})
    assert [draw_shape(shapes, once, np.random.default_rng(key), 0.5).source.name for key in range(200)] == [
        drawn.source.name for drawn in free
    ]


def test_where_nothing_fits_the_narrowest_draw_is_taken():
    config, shapes = with_heights(Config(), ["chair"], {}), group_shapes(narrow_and_wide(), "auto")
    drawn = draw_shape(shapes, config, np.random.default_rng(4), widest_m=0.01)
    assert isinstance(drawn, Drawn) and drawn.source.name == "narrow" and drawn.radius_m("disc") < 0.2


def test_a_sphere_is_asked_for_where_the_config_says_so():
    figures = Figures(0.4, 0.7, 1.0, None)
    drawn = Drawn(narrow_and_wide()[0], figures, 0.5)
    assert (drawn.radius_m("disc"), drawn.radius_m("sphere")) == (0.2, 0.35)


def test_a_shape_is_shrunk_in_the_later_half_of_the_attempts_alone():
    """On a floor of 1.2 m for chairs with a radius of 0.53 m, which fit but cannot take a step."""
    given = {"chair": [box(0.75, 0.75, 1)]}
    options = {"sequences": 6, "heights": {"chair": (1.0, 1.0)}, "keep": 1.0, "chunks_min": 0, "chunks_max": 0}
    shrunk = gen4d.generate(floor(1.2), given, **options, shrink_min=0.5)
    assert len(shrunk) == 6
    assert all(sequence.attempt >= 25 and 0.5 <= sequence.movers[0].shrink < 1 for sequence in shrunk)
    assert len(gen4d.generate(floor(1.2), given, **options, shrink_min=1.0)) == 0


def test_the_summary_says_how_many_were_shrunk_in_all_and_by_how_much(tmp_path):
    scans, shapes = rooms.write_furnished(tmp_path / "scans", 1, 9000), meshes.write_shapes(tmp_path / "shapes")
    places = ("--scans", scans, "--shapes", shapes, "--classes", "table", "--sequences", "8")
    outcome = commands.gen4d(
        "build", *places, "--out", tmp_path / "out", "--set", "shrink_min=0.3", "--set", "attempts=20"
    )
    assert outcome.code == 0
    shrunk = [m.shrink for s in gen4d.open_dataset(tmp_path / "out") for m in s.movers if m.shrink < 1]
    if shrunk:
        assert f"{len(shrunk)} shrunk to fit, to {min(shrunk):.2f}" in outcome.out
    else:
        assert "none shrunk" in outcome.out
