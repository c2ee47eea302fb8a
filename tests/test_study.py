"""The study: its statistics on thousands of simulated studies, its plans, and tiny ones from scans to table."""

import copy
import dataclasses
import json
import pathlib
import shutil
import signal
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from gen4d import workers
from gen4d.shards import open_dataset
from gen4d.sources.splits import read_split
from tests.makers import commands
from tests.makers.labelled import keyed, write_rooms
from tests.test_train_cli import call, refusal
from train.config import ConfigError, resolve
from train.inputs.labels import SceneError
from train.inputs.voxels import voxelise
from train.methods import pretrain
from train.methods.pretrain import make_model
from train.nets.sparse import SparseError
from train.nets.unet import NETS, UNet, match_norms
from train.run.loop import LoopError, Stopped
from train.study import cells, report, run
from train.study import plan as plans
from train.study.arms import ARMS, pretrained_as
from train.study.plan import STUDIES, Cell, Chosen, Costs, Study
from train.study.report import answers, make_tests
from train.study.rooms import Given, StudyError, make_few, make_rooms
from train.study.statistics import compare, detectable, holm, intraclass, mean_iou, rooms_interval, steps_to_reach
from train.tasks.instances.ap import InstanceError
from train.tasks.metrics import scores
from train.tasks.segment.model import SegmentError

STUDIED = 20_000  # simulated studies
SEEDS, SUBSETS = 5, 4


def simulated(effect, correlation, tests=1, seeds=SEEDS, subsets=SUBSETS, key=1):
    """Differences (STUDIED, tests, seeds, subsets) of unit variance whose cells of one seed are correlated, and whose
    tests share half of what a seed is like, as tests against one scratch do."""
    rng = keyed(key)
    shape = (STUDIED, tests, seeds, 1)
    of_seed = np.sqrt(0.5) * (rng.normal(size=(STUDIED, 1, seeds, 1)) + rng.normal(size=shape))
    of_cell = rng.normal(size=(*shape[:3], subsets))
    return effect + np.sqrt(correlation) * of_seed + np.sqrt(1 - correlation) * of_cell


def near(share, expected, sigmas=4.0):
    """Whether a share of simulated studies is the expected one, as far as a binomial can tell."""
    return abs(share - expected) <= sigmas * np.sqrt(expected * (1 - expected) / STUDIED)


# Statistics ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("correlation", [0.0, 0.6, 0.9])
def test_false_positives_come_at_the_stated_rate_whatever_the_correlation_within_seeds(correlation):
    difference = simulated(0.0, correlation)[:, 0]
    assert near((compare(difference).p < 0.05).mean(), 0.05)
    pairs = difference.reshape(STUDIED, -1)  # what a study does wrong that takes cells for independent
    naive = stats.ttest_1samp(pairs, 0, axis=1).pvalue < 0.05
    assert near(naive.mean(), 0.05) == (correlation == 0.0)


@pytest.mark.parametrize(("seeds", "level"), [(5, 0.05), (5, 0.01), (8, 0.05), (3, 0.05)])
def test_the_detectable_difference_is_found_in_four_of_five_studies(seeds, level):
    sd = np.sqrt(0.6 + 0.4 / SUBSETS)  # of a seed's mean
    difference = simulated(detectable(seeds, level) * sd, 0.6, seeds=seeds)[:, 0]
    assert near((compare(difference).p < level).mean(), 0.8)
    assert np.isnan(detectable(1))


def test_holm_keeps_the_rate_over_all_tests_and_finds_what_is_there():
    nothing = compare(simulated(0.0, 0.6, tests=5)).p
    wrong = (holm(nothing) < 0.05).any(axis=1).mean()
    assert wrong < 0.05 + 4 * np.sqrt(0.05 * 0.95 / STUDIED)
    assert wrong > 0.02 and (nothing < 0.05).any(axis=1).mean() > 0.1
    effect = np.array([0.0, 0.0, 0.0, 0.0, 3.0])[:, None, None]
    found = holm(compare(simulated(effect, 0.6, tests=5)).p) < 0.05
    assert found[:, :4].any(axis=1).mean() < 0.05 + 4 * np.sqrt(0.05 * 0.95 / STUDIED)
    assert found[:, 4].mean() > 0.8


def test_holms_p_by_hand():
    np.testing.assert_allclose(holm(np.array([0.04, 0.01, 0.03, np.nan])), [0.09, 0.04, 0.09, np.nan])
    np.testing.assert_allclose(holm(np.array([[0.5, 0.9], [0.02, 0.03]])), [[1, 1], [0.04, 0.04]])


def test_a_comparison_equals_scipys_on_the_means_of_seeds():
    difference = simulated(0.3, 0.5)[0, 0]
    expected = stats.ttest_1samp(difference.mean(axis=1), 0)
    found = compare(difference)
    assert found.p == pytest.approx(expected.pvalue) and found.mean == pytest.approx(difference.mean())
    assert found.sd == pytest.approx(difference.mean(axis=1).std(ddof=1))
    assert np.isnan(compare(difference[:1]).p) and np.isnan(compare(np.ones((3, 1))).p)


@pytest.mark.parametrize("correlation", [0.0, 0.4, 0.8])
def test_the_correlation_within_seeds_is_found(correlation):
    difference = simulated(1.0, correlation, seeds=40)[:400, 0]
    assert abs(intraclass(difference).mean() - correlation) < 0.02
    assert np.isnan(intraclass(difference[:, :, :1])).all()


def test_mean_iou_of_many_matrices_is_that_of_each():
    matrix = keyed(2).integers(0, 50, (6, 4, 5))
    matrix[3, 2], matrix[3, :, 2] = 0, 0  # a class that is nowhere
    np.testing.assert_allclose(mean_iou(matrix), [scores(one).miou for one in matrix])


def test_the_interval_over_rooms_holds_the_true_difference_as_often_as_it_says():
    """Rooms whose points are right with shares that differ from room to room, by .1 more for one arm on the average."""
    rng, inside, studies = keyed(3), 0, 100
    for _ in range(studies):
        share = np.clip(rng.normal([[0.6], [0.5]], 0.1, (2, 40)), 0, 1)
        right = (100 * share).round()
        matrix = np.zeros((2, 40, 2, 3))
        matrix[:, :, 0, 0] = matrix[:, :, 1, 1] = right
        matrix[:, :, 0, 1] = matrix[:, :, 1, 0] = 100 - right
        low, high = rooms_interval(*matrix[:, None], [f"room{n}" for n in range(40)], rng)
        inside += low < 100 * (0.6 / 1.4 - 0.5 / 1.5) < high
    assert 0.85 < inside / studies <= 0.99


def test_scans_of_one_room_are_drawn_together():
    matrix = keyed(4).integers(1, 50, (1, 6, 3, 4))
    alone = rooms_interval(matrix, matrix[:, ::-1], ["a"] * 6, keyed(5))
    assert alone == pytest.approx([0, 0])  # one room: nothing to draw, and both arms have the same sum
    low, high = rooms_interval(matrix, matrix[:, ::-1], list("abcdef"), keyed(5))
    assert low < 0 < high


def test_where_a_curve_reaches_a_score():
    steps, curve = np.array([100, 200, 300]), np.array([1.0, 3.0, 2.0])
    assert steps_to_reach(steps, curve, 2.0) == 150 and steps_to_reach(steps, curve, 0.5) == 100
    assert np.isnan(steps_to_reach(steps, curve, 3.5))


# Plans ---------------------------------------------------------------------------------------------------------------


def test_every_test_is_planned_for_every_measure_and_share():
    study = dataclasses.replace(
        Study(), tests=("pretraining=moving-3d-infonce:scratch",), percents=(5.0, 20.0), measures=("detection",)
    )
    assert [(measure, percent) for measure, percent, _ in study.planned] == [("detection", 5.0), ("detection", 20.0)]


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("arms=scratch,simclr,best", "arms = .*: of scratch, scratch-long"),
        ("arms=static-3d,best", "arms = .*: scratch among them"),
        ("candidates=", "candidates = .*: arms, if best is compared"),
        ("candidates=scratch-long", "candidates = .*: arms that are not compared anyway"),
        ("tests=motion=moving-3d:simclr", "tests = .*: each of two of the arms"),
        ("tests=speed=moving-3d:scratch", "tests = speed=moving-3d:scratch: one of pretraining, motion"),
        ("recipes=some:1", "recipes = some:1: one of all, layered"),
        ("recipes=all:x", "recipes = all:x: one of all"),
        ("lengths=600,300", "lengths = .*: rising"),
        ("lengths=601", "lengths = .*: multiples of looks = 8"),
        ("percents=5,200", "percents = .*: above 0, and 100 at most"),
        ("percents=5,x", "'x' is not a number"),
        ("rooms=2", "rooms = 2: at least 3"),
        ("measures=speed", "measures = .*: of segmentation, instances, detection"),
        ("screened=static-3d,static-3d", "screened = .*: each once"),
        ("percents=10,10", "percents = .*: each once"),
        ("recipes=all:1,all:1.0", "recipes = .*: each once"),
    ],
)
def test_a_plan_that_compares_nothing_is_refused(assignment, message):
    with pytest.raises(ConfigError, match=message):
        resolve("small", (assignment,), STUDIES)


def test_a_head_that_starts_as_a_probe_is_for_segmentation_alone():
    with pytest.raises(ConfigError, match="head-first is for segmentation alone"):
        dataclasses.replace(Study(), recipes=("head-first:1",), measures=("segmentation", "instances"))


def chosen_for(study):
    """As if the first of everything had been chosen."""
    of = [(measure, percent) for measure in study.measures for percent in study.percents]
    recipe = {(*one, arm): study.recipes[0] for one in of for arm in study.arms}
    return Chosen(study.candidates[0] if study.candidates else "", dict.fromkeys(of, study.lengths[0]), recipe)


@pytest.mark.parametrize("size", STUDIES)
def test_seeds_of_the_comparison_are_not_those_of_the_stages_before(size):
    study = STUDIES[size]
    made = {stage: plans.cells_of(study, chosen_for(study), stage) for stage in plans.STAGES}
    seeds = {stage: {cell.seed for cell in found} for stage, found in made.items()}
    assert len(seeds["compare"]) == study.seeds >= 5
    assert not seeds["compare"] & (seeds["length"] | seeds["screen"] | seeds["tries"])
    tried = [cell for cell in made["tries"] if cell.arm == "scratch"]
    assert all(len([c for c in made["tries"] if c.arm == arm]) == len(tried) for arm in study.arms)
    names = [cell.name for found in made.values() for cell in found]
    assert len(names) == len(set(names))


def test_pairs_share_their_seed_and_nothing_else_does():
    study = dataclasses.replace(STUDIES["small"], subsets=3)
    by_seed = {}
    for cell in plans.cells_of(study, chosen_for(study), "compare"):
        by_seed.setdefault(cell.pair_seed, set()).add((cell.seed, cell.subset))
    assert all(len(group) == 1 for group in by_seed.values())


def test_scratch_that_has_the_time_of_pre_training_on_top_makes_so_many_steps_more():
    study = dataclasses.replace(Study(), pretrain_steps=600, long_factor=3.0, looks=8)
    assert plans.steps_of(study, "scratch-long", 800) == 800 + 1800
    assert plans.steps_of(study, "scratch", 800) == plans.steps_of(study, "best", 800) == 800


def test_dear_arms_make_fewer_steps_and_settings_of_an_arm_count():
    for name, arm in ARMS.items():
        if arm.method:
            config = plans.pretrain_config(STUDIES["small"], name, 3)
            assert config.run.steps == round(STUDIES["small"].pretrain_steps / arm.cost) and config.run.seed == 3
            assert config.contrast.voxel_m == STUDIES["small"].voxel_m
    config = plans.pretrain_config(STUDIES["small"], "moving-3d-infonce-uniform", 0)
    assert config.contrast.moving_share is None
    assert plans.pretrain_config(STUDIES["small"], "4dcontrast-printed", 0).contrast.stop_gradient == "printed"


def test_arms_that_differ_after_pre_training_share_it():
    assert pretrained_as("moving-3d-infonce-norms") == "moving-3d-infonce"
    assert pretrained_as("moving-3d-infonce-uniform") == "moving-3d-infonce-uniform"
    assert pretrained_as("scratch-long") == ""


def test_every_method_starts_from_the_net_that_is_scratch():
    study = dataclasses.replace(STUDIES["small"], net_3d="small-4d")
    drawn = make_model(plans.pretrain_config(study, cells._DRAWN_BY, 7)).encoder3d.backbone.state_dict()
    for method, name in {arm.method: name for name, arm in ARMS.items() if arm.method}.items():
        config = plans.pretrain_config(study, name, 7)
        prefix = pretrain._maker(method).describe_backbone(config)["prefix"]
        own = make_model(config).get_submodule(prefix.rstrip(".")).state_dict()
        assert all(torch.equal(own[key], value) for key, value in drawn.items()), method


def test_what_a_plan_costs_by_hand():
    study = dataclasses.replace(
        Study(),
        seeds=5,
        lengths=(80, 160),
        looks=2,
        recipes=("all:1", "all:2"),
        pretrain_steps=100,
        screened=("static-3d",),
    )
    steps = {"moving-3d-infonce": 0.5, "static-3d": 0.25}
    found = plans.seconds_of_stages(study, Costs(steps, {"segmentation": 0.1}, {"segmentation": 1.0}, 7.0, 3.0))
    cell = 160 * 0.1 + 2 * 3 * 1.0
    assert found["length"] == pytest.approx(80 * 0.1 + 160 * 0.1 + 2 * 6)
    assert found["screen"] == pytest.approx(100 * 0.5 + 100 * 0.25 + 3 * 7)
    assert found["tries"] == pytest.approx(2 * 2 * cell)
    assert found["compare"] == pytest.approx(5 * (100 * 0.5 + 2 * cell + 2 * 7))


def test_a_stage_that_has_nothing_to_choose_is_left_out():
    study = dataclasses.replace(Study(), lengths=(80,), recipes=("all:2",))
    chosen = run.choose(study, [])
    assert [plans.cells_of(study, chosen, stage) for stage in plans.STAGES[:3]] == [[], [], []]
    assert chosen.steps == {("segmentation", 10.0): 80} and set(chosen.recipe.values()) == {"all:2"}
    assert {cell.steps for cell in plans.cells_of(study, chosen, "compare")} == {0, 80}


# Choices and answers -------------------------------------------------------------------------------------------------


def line(stage, arm, seed, score, **more):
    made = Cell(stage, arm, seed, "segmentation", 10.0, more.pop("subset", 0), "all:1", 600)._asdict()
    return made | {"name": f"{stage}-{arm}-{seed}", "score": score} | more


def test_fine_tuning_is_as_long_as_scratch_gains():
    study = dataclasses.replace(Study(), lengths=(600, 1200, 2400), gain=1.0, recipes=("all:1",))
    for scored, expected in (((0.20, 0.205, 0.30), 600), ((0.20, 0.30, 0.305), 1200), ((0.2, 0.3, 0.4), 2400)):
        lines = [line("length", "scratch", 500, s, steps=n) for n, s in zip(study.lengths, scored, strict=True)]
        assert run.choose(study, lines).steps == {("segmentation", 10.0): expected}
    assert run.choose(study, lines[:2]).steps == {}


def test_every_arm_keeps_its_own_recipe_and_best_is_the_best_candidate():
    study = STUDIES["small"]
    tried = {"scratch": (0.1, 0.3), "moving-3d": (0.3, 0.2)}
    lines = [
        line("tries", arm, 500, s, recipe=r)
        for arm, found in tried.items()
        for r, s in zip(study.recipes, found, strict=True)
    ]
    probes = {"moving-3d-infonce": 0.9, "static-3d-hardest": 0.8} | {arm: 0.1 for arm in study.candidates}
    probes[study.candidates[1]] = 0.2
    lines += [line("screen", arm, 500, 0, linear=value) for arm, value in probes.items()]
    chosen = run.choose(study, lines)
    assert chosen.recipe == {
        ("segmentation", 10.0, "scratch"): study.recipes[1],
        ("segmentation", 10.0, "moving-3d"): study.recipes[0],
    }
    assert chosen.best == study.candidates[1]


def answered(gain, sd=0.01, seeds=5):
    study = dataclasses.replace(Study(), tests=("pretraining=moving-3d-infonce:scratch",), seeds=seeds)
    rng, lines = keyed(6), []
    for seed in range(seeds):
        base = rng.uniform(0.1, 0.4)
        better = base + gain + rng.normal(0, sd)
        lines += [line("compare", "scratch", seed, base), line("compare", "moving-3d-infonce", seed, better)]
    return "\n".join(answers(study, make_tests(study, lines)))


def test_the_first_paragraph_says_what_the_tests_found():
    assert "**Does pre-training help?** Yes: moving-3d-infonce against scratch, 10 % of the labels" in answered(0.05)
    assert "It harms: moving-3d-infonce against scratch" in answered(-0.05)
    nothing = answered(0.0)
    assert "Not shown: " in nothing and "would probably have been seen" in nothing and "over 5 seeds" in nothing
    assert "Not known yet: no test of it has two seeds." in answered(0.05, seeds=1)


def test_arms_that_do_not_differ_are_not_tested():
    assert "Not tested: moving-3d-infonce against scratch" in answered(0.0, sd=0.0)


def test_bars_are_over_seeds_and_scratch_reaches_its_own_last_score():
    rng = keyed(9)
    for count in (3, 12, 20):
        curves = rng.uniform(0, 1, (count, 2, 8))
        curves[..., -1] += 1
        lines = [
            line("compare", "scratch", seed, curves[seed, k, -1], subset=k, pretrain_seconds=0.0,
                 curve={"step": [*range(1, 9)], "score": curves[seed, k].tolist(), "seconds": [*range(8)]})
            for seed in range(count) for k in range(2)
        ]  # fmt: skip
        (row,) = report._arms(dataclasses.replace(Study(), arms=("scratch",)), lines)
        assert row[5] == "8 steps"
        panel = Panel()
        report._draw_arm((panel, panel), "scratch", lines)
        expected = 100 * curves.mean(axis=1).std(axis=0, ddof=1) / np.sqrt(count)
        np.testing.assert_allclose(panel.error, expected)


class Panel:
    """What a picture's axes are asked to draw."""

    def errorbar(self, along, mean, error, **_):
        self.error = error

    def grid(self, alpha):
        pass


def test_seeds_that_lack_an_arm_or_a_subset_are_left_out():
    study = dataclasses.replace(Study(), tests=("pretraining=moving-3d-infonce:scratch",), seeds=4, subsets=2)
    lines = [
        line("compare", arm, seed, 0.1 * seed, subset=subset)
        for arm in study.arms
        for seed in range(4)
        for subset in range(2)
        if (arm, seed, subset) != ("scratch", 2, 1)
    ]
    (found,) = make_tests(study, lines)
    assert found.each.shape == (3, 2)


# Nets ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
def test_matched_norms_leave_the_function_of_a_net_as_it_is(training):
    net, like = (UNet(NETS["small-4d"], 3, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    rng = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for part in net.modules():
            if isinstance(part, torch.nn.BatchNorm1d):
                part.running_mean.normal_(0, 0.1, generator=rng)
                part.running_var.uniform_(0.5, 2, generator=rng)
            elif hasattr(part, "weight"):
                part.weight *= 3
    voxels, _ = voxelise(keyed(7).uniform(0, 4, (2000, 3)).astype(np.float32), 0.2)
    given, twin = torch.ones(len(voxels.coordinate), 3), copy.deepcopy(net)
    match_norms(net, like)
    found, expected = (one.train(training)(voxels, given, 1).detach() for one in (net, twin))
    assert (found - expected).norm() < 0.01 * expected.norm()
    for name, value in net.state_dict().items():
        if name.endswith(("conv.weight", "second.weight", "shortcut.0.weight")):
            assert value.norm() == pytest.approx(like.state_dict()[name].norm().item(), rel=1e-5), name


def noisy(number: int) -> int:
    """A piece of work that warns of what all pieces share, and of what is its own."""
    for text in ("rooms lack a file", "rooms lack a file", f"room {number}"):
        warnings.warn_explicit(text, UserWarning, "x.py", 1, module="train.tasks.x")
    warnings.warn_explicit("an old name", DeprecationWarning, "y.py", 1, module="elsewhere")
    return 10 * number


@pytest.mark.parametrize("processes", [0, 2])
def test_a_warning_of_many_cells_is_said_once(processes):
    said, told = [], set()
    for _ in range(2):  # stages
        found = dict(run._spread(noisy, [1, 2], processes, said.append, told))
        assert found == {0: 10, 1: 20}
    assert sorted(said) == ["warning: room 1", "warning: room 2", "warning: rooms lack a file"]


def stopped_or_failing(begun: pathlib.Path) -> None:
    """A piece of work that notes its begin, and is ended by a signal once all is saved, or fails after a warning."""
    begun.touch()
    if begun.name == "stopped":
        raise Stopped(signal.SIGTERM, 3)
    warnings.warn_explicit("the reason", UserWarning, "x.py", 1, module="train.tasks.x")
    raise StudyError("it fails")


def test_a_worker_that_was_stopped_begins_nothing_else_and_a_warning_goes_before_a_failure(tmp_path):
    pieces = [tmp_path / name for name in ("stopped", "next")]
    with pytest.raises(workers.WorkerError, match="stopped from outside"):
        list(run._spread(stopped_or_failing, pieces, 1, print, set()))
    assert [path.exists() for path in pieces] == [True, False]
    with pytest.warns(UserWarning, match="the reason"), pytest.raises(StudyError, match="it fails"):
        list(run._spread(stopped_or_failing, pieces[1:], 0, print, set()))


# Whole ones ----------------------------------------------------------------------------------------------------------

TINY = ("arms=scratch,moving-3d-infonce,best", "candidates=moving-3d-infonce-norms", "sequences=1")
TINY += ("tests=pretraining=moving-3d-infonce:scratch,other=best:moving-3d-infonce", "net_3d=small-4d")
TINY += ("voxel_m=0.3", "voxel_4d_m=0.5", "pretrain_steps=2", "seeds=2", "percents=100", "lengths=2,4", "looks=2")
TINY += ("recipes=all:1,all:2", "samples=100", "queries=100", "rooms=3")
SETTINGS = [word for setting in TINY for word in ("--set", setting)]


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Scans to pre-train on, labelled rooms and a shape, as arguments."""
    folder = tmp_path_factory.mktemp("own")
    commands.write_rooms(folder, 3)
    write_rooms(folder / "labels", labels="segments")
    return [f"--{name}={folder / name}" for name in ("scans", "labels", "shapes")]


@pytest.fixture(scope="module")
def out(own, tmp_path_factory):
    """A tiny study on rooms of one's own, made by two parts and then as a whole, in this process."""
    folder = tmp_path_factory.mktemp("study") / "tiny"
    for part, said in (
        (["--part=1/2"], "cells are left to other parts"),
        (["--part=2/2"], "screen"),
        ([], "# Results"),
    ):
        result = call("study", *own, "--out", folder, "--workers", "0", *SETTINGS, *part)
        assert result.exit_code == 0 and said in result.output, result.output
    return folder


def found_in(folder):
    return [{k: v for k, v in x.items() if "seconds" not in k and k != "curve"} for x in run.read_cells(folder)]


def test_a_study_leaves_its_plan_its_cells_its_table_and_its_picture(out):
    plan = json.loads((out / "plan.json").read_text())
    assert plan["number_of_tests"] == 2 and len(plan["rooms"]["final"]["digest"]) == 64 and plan["own"]
    assert plan["planned"][1] == ["segmentation", 100.0, "other", "best", "moving-3d-infonce"]
    judged = [set(plan["rooms"][side]["judged"]) for side in ("tuning", "final")]
    learned = set(plan["rooms"]["final"]["learned"])
    assert not judged[0] & judged[1] and not learned & (judged[0] | judged[1]) and all(judged)
    study, lines = resolve("own", TINY, STUDIES), run.read_cells(out)
    compared = [x for x in lines if x["stage"] == "compare"]
    assert len(compared) == 2 * (3 + 3)
    for x in (x for x in compared if x["measure"] != "probes"):
        assert len(x["curve"]["step"]) == study.looks and x["curve"]["step"][-1] == x["steps"]
        matrix = np.load(out / "cells" / f"{x['name']}.npz")
        assert set(matrix["scan"]) == judged[1]
        assert scores(matrix["each"].sum(axis=0)).miou == pytest.approx(x["score"])
    assert not [path for path in (out / "cells").iterdir() if path.is_dir()]
    text = (out / "results.md").read_text()
    for words in ("**Does pre-training help?**", "## Tests", "## Probes", "moving-3d-infonce-norms", "2 of them"):
        assert words in text
    assert Image.open(out / "results.png").size[0] > 500
    assert sorted(path.name for path in (out / "final" / "pretrain").iterdir()) == [
        f"moving-3d-infonce-{s}" for s in (0, 1)
    ]


def test_a_study_goes_on_where_it_stopped_and_finds_the_same_in_another_process(own, out):
    before = found_in(out)
    lost = [path for path in (out / "cells").glob("compare_*_segmentation_*.json")][:2]
    for path in lost:
        path.unlink()
    left = [out / "cells" / path.stem for path in (lost[0], next((out / "cells").glob("length_*.json")))]
    left[1].mkdir()  # of a process that ended between the result and the removal of its run
    result = call("study", *own, "--out", out, "--workers", "1", *SETTINGS)
    assert not any(path.exists() for path in left)
    assert "2/2  compare" in result.output and "3/3" not in result.output
    assert found_in(out) == before


def test_another_plan_in_the_same_folder_is_refused_with_the_difference(own, out):
    line = refusal("study", *own, "--out", out, "--workers", "0", *SETTINGS, "--set", "pretrain_steps=3")
    assert "holds another study (pretrain_steps: 2 there, 3 here): use another --out" in line


def test_other_data_to_pre_train_on_are_another_study(own, out, tmp_path):
    scans = shutil.copytree(pathlib.Path(own[0].partition("=")[2]), tmp_path / "scans")
    shutil.copytree(out, tmp_path / "out")
    more = sorted(path for path in scans.rglob("*") if path.is_file())[0]
    shutil.copy(more, more.with_name(f"added{more.suffix}"))
    given = [f"--scans={scans}", *own[1:]]
    line = refusal("study", *given, "--out", tmp_path / "out", "--workers", "0", *SETTINGS)
    assert "holds another study (rooms.tuning.sequences: " in line, line


def test_scans_that_cannot_be_used_are_said(own, tmp_path):
    scans = shutil.copytree(pathlib.Path(own[0].partition("=")[2]), tmp_path / "scans")
    (scans / "broken.ply").write_bytes(b"ply\nformat ascii 1.0\n")
    said, (_, labels, shapes) = [], (pathlib.Path(text.partition("=")[2]) for text in own)
    study = dataclasses.replace(Study(), sequences=1)
    make_rooms(study, Given(scans, labels, shapes), tmp_path / "out", 0, said.append)
    assert any("1 files cannot be used, and all arms do without them (first: " in text for text in said)
    assert any("no shape of the class desk" in text for text in said)


def test_a_labelled_scan_that_is_broken_is_refused_and_prepared_ones_are(own, tmp_path):
    """Instead of drawing test rooms from the training part."""
    scans, labels, shapes = (pathlib.Path(text.partition("=")[2]) for text in own)
    broken = shutil.copytree(labels, tmp_path / "labels")
    next(broken.glob("scene*/*_vh_clean_2.ply")).unlink()
    with pytest.raises((SceneError, StudyError), match=r"scene.*_vh_clean_2"):
        make_rooms(Study(), Given(scans, broken, shapes), tmp_path / "out", 0, lambda text: None)
    (tmp_path / "prepared" / "train").mkdir(parents=True)
    assert call("prepare", "scans", labels, "--out", tmp_path / "prepared").exit_code == 0
    with pytest.raises(StudyError, match=r"prepared: holds prepared scans.*: give the folder of raw ones"):
        make_rooms(Study(), Given(scans, tmp_path / "prepared", shapes), tmp_path / "out", 0, lambda text: None)


def test_labels_of_no_known_space_are_refused_before_anything_is_built(own, tmp_path):
    scans, _, shapes = (pathlib.Path(text.partition("=")[2]) for text in own)
    for number in range(4):
        place = tmp_path / "labels" / f"room{number}"
        place.mkdir(parents=True)
        place.joinpath("room.ply").write_bytes(next(scans.rglob("*.ply")).read_bytes())
    with pytest.raises(SceneError, match="label space of these scans is not known: --set label_space="):
        make_rooms(Study(), Given(scans, tmp_path / "labels", shapes), tmp_path / "out", 0, lambda text: None)
    assert not (tmp_path / "out").exists()


def test_a_machine_whose_convolutions_are_wrong_makes_no_study(own, tmp_path, monkeypatch):
    def wrong(*_):
        raise SparseError("sparse convolutions on cpu are wrong")

    monkeypatch.setattr("train.nets.sparse.self_check", wrong)
    assert "sparse convolutions on cpu are wrong" in refusal("study", *own, "--out", tmp_path / "out", *SETTINGS)
    assert not (tmp_path / "out").exists()


def test_rooms_without_lists_are_drawn_whole_and_too_few_are_refused(own, tmp_path):
    scans, _, shapes = (pathlib.Path(text.partition("=")[2]) for text in own)
    write_rooms(tmp_path / "labels", train=5, val=2, labels="segments")
    for name in ("train", "val"):
        (tmp_path / "labels" / f"scannetv2_{name}.txt").unlink()
    study, given = dataclasses.replace(Study(), sequences=1), Given(scans, tmp_path / "labels", shapes)
    few = make_few(study, given, tmp_path / "out", 0, lambda text: None)
    rooms = few.rooms
    parts = [rooms["final"].learned, rooms["tuning"].judged, rooms["final"].judged]
    names = [set(path.read_text().split()) for path in parts]
    assert sum(map(len, names)) == len(set().union(*names)) == 8 and min(map(len, names)) >= 1
    assert few.judged == max(len(names[1]), len(names[2])) and few.share == 1.0
    of_room = [{name[:9] for name in part} for part in names]
    assert not of_room[0] & of_room[1] and not of_room[0] & of_room[2] and not of_room[1] & of_room[2]
    for folder in list((tmp_path / "labels").glob("scene*"))[2:]:
        shutil.rmtree(folder)
    with pytest.raises(StudyError, match=r"labelled rooms left to learn from: .*: label more"):
        make_rooms(study, given, tmp_path / "other", 0, lambda text: None)


def test_sharing_a_gpu_without_mps_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("train.run.world.choose_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr("train.commands.frame.check_machine", lambda world: None)
    monkeypatch.setattr("train.commands.study._dry_run", lambda *given: {})
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    told = "under NVIDIA's MPS they make twice the steps"
    assert told in call("study", "--dry-run").output and told not in call("study", "--dry-run", "--workers", "1").output
    (tmp_path / "control").touch()
    assert told not in call("study", "--dry-run").output


def test_a_part_that_is_none_and_half_of_the_users_data_are_refused(own):
    assert "I/N with I from 1 to N" in call("study", "--part", "3/2").output
    assert "'tiny' is not one of 'small', 'full', 'own'" in call("study", "--size", "tiny").output
    assert "give both, of your own data, or neither" in refusal("study", own[0])


def works(own, out, **changes):
    study = dataclasses.replace(resolve("own", TINY, STUDIES), **changes)
    given = Given(*(pathlib.Path(text.partition("=")[2]) for text in own))
    rooms = make_rooms(study, given, out, 0, lambda text: None)
    empty = Cell("compare", "moving-3d-infonce", 0, "segmentation", 100.0, 0, "all:1", 2)
    return cells.Work(out, study, rooms, empty, "cpu", "moving-3d-infonce-norms")


def test_scratch_is_the_net_that_the_other_arms_started_from_with_the_same_labels(own, out):
    work = works(own, out)
    scratch, trained, matched = (
        cells.weights_of(work._replace(cell=work.cell._replace(arm=arm))).net.state_dict()
        for arm in ("scratch", "moving-3d-infonce", "best")
    )
    name = "decoder.0.0.second.weight"
    assert not torch.equal(trained[name], scratch[name])
    assert matched[name].norm() == pytest.approx(scratch[name].norm().item(), rel=1e-5)
    torch.testing.assert_close(matched[name] / matched[name].norm(), trained[name] / trained[name].norm())
    half = work._replace(cell=work.cell._replace(percent=50.0))
    names = [[scan.name for scan in cells.labels_of(one).train] for one in (half, half._replace(best="scratch"))]
    assert names[0] == names[1] and 0 < len(names[0]) < len(cells.labels_of(work).train)


@pytest.mark.parametrize("recipe", ["frozen:1", "layered:1", "head-first:0.001"])
def test_recipes_do_what_their_names_say(own, out, recipe):
    work = works(own, out)
    work = work._replace(cell=work.cell._replace(recipe=recipe))
    data, weights = cells.labels_of(work), cells.weights_of(work)
    task, prepared = cells.prepare(work, data, weights)
    if recipe.startswith("frozen"):
        assert not any(value.requires_grad for value in task.model.backbone.parameters())
    elif recipe.startswith("layered"):
        assert sorted(group["scale"] for group in prepared.optimiser.param_groups) == [0.1, 0.2, 0.5, 1.0]
    else:
        found = task.validate(task.model)
        drawn, _ = cells.prepare(work._replace(cell=work.cell._replace(recipe="all:1")), data, cells.weights_of(work))
        assert found.score > drawn.validate(drawn.model).score
        assert task.model.training


def test_fine_tuning_that_breaks_has_nothing_and_the_study_goes_on(own, tmp_path):
    work = works(own, tmp_path)
    work = work._replace(cell=work.cell._replace(arm="scratch"))
    weights = cells.weights_of(work)
    with torch.no_grad():
        weights.net.stem.conv.weight.fill_(float("inf"))
    found = cells._finetune(work, cells.labels_of(work), weights)
    assert found["score"] == 0.0 and "step 1: the loss is nan" in found["failed"]
    assert found["curve"] == {"step": [1, 2], "score": [0.0, 0.0], "seconds": [0.0, 0.0]}


@pytest.mark.parametrize("error", [InstanceError("points over 9 cells"), SegmentError("the output is not finite")])
def test_a_look_that_a_net_breaks_has_nothing_too(error, own, tmp_path, monkeypatch):
    def broken(*_):
        raise error
        yield

    monkeypatch.setattr(cells, "finetune_prepared", broken)
    work = works(own, tmp_path)
    found = cells.measure_cell(work._replace(cell=work.cell._replace(arm="scratch")))
    assert found["score"] == 0.0 and found["failed"] == str(error)


def test_pre_training_that_breaks_ends_a_comparison_by_name_and_costs_a_candidate_its_score(own, tmp_path, monkeypatch):
    def broken(*_):
        raise LoopError("step 3: the loss is nan; start another run with lr below 1")
        yield

    monkeypatch.setattr(cells, "pretrain", broken)
    work = works(own, tmp_path)
    with pytest.raises(StudyError, match=r"pretrain/moving-3d-infonce-0: step 3: .*; or compare without moving-3d-inf"):
        cells.pretrain_arm(work)
    screened = work._replace(cell=work.cell._replace(stage="screen", measure="probes", steps=0))
    screened.run.mkdir(parents=True)
    cells.pretrain_arm(screened)
    assert cells.is_pretrained(screened) and not cells.is_pretrained(work)
    found = cells.measure_cell(screened)
    assert found["linear"] == found["knn"] == 0.0 and found["failed"].startswith("step 3: the loss is nan")
    assert found["moving"] is found["objectness"] is None


def test_an_arm_is_trained_once_its_last_checkpoint_is_saved(own, out, tmp_path):
    """Not once its last step is in the log."""
    work = works(own, out)
    assert cells.is_pretrained(work)
    copied = work._replace(out=tmp_path)
    shutil.copytree(work.run, copied.run)
    assert cells.is_pretrained(copied)
    for path in copied.run.glob("checkpoint-*"):
        shutil.rmtree(path)
    assert (copied.run / "log.jsonl").exists() and not cells.is_pretrained(copied)


def test_instances_and_boxes_are_measures_too(own, tmp_path):
    work = works(own, tmp_path, measures=("instances", "detection"), recipes=("all:1",))
    for measure in work.study.measures:
        cell = work.cell._replace(arm="scratch", measure=measure)
        found = cells.measure_cell(work._replace(cell=cell))
        assert 0 <= found["score"] <= 1 and found["curve"]["step"] == [1, 2] and "ap50" in found["figures"]
        assert run.is_done(tmp_path, cell)


def test_a_measure_counts_by_the_figure_that_the_table_names():
    looked = {"points": {"miou": 0.1}, "ap25": 0.2, "ap50": 0.3}
    cell = Cell("compare", "scratch", 0, "segmentation", 10.0, 0, "all:1", 2)
    found = {name: cells._score(cell._replace(measure=name), looked) for name in plans.SCORES}
    assert found == {"segmentation": 0.1, "detection": 0.2, "instances": 0.3}
    assert cells._score(cell._replace(measure="detection"), {"ap25": None}) == 0.0


def test_shapes_that_move_through_judged_built_in_rooms_are_probed(tmp_path):
    study = dataclasses.replace(resolve("own", TINY, STUDIES), voxel_m=0.2, samples=2000, queries=2000)
    rooms = make_rooms(study, Given(), tmp_path, 0, lambda text: None)
    for side in rooms.values():
        names = open_dataset(side.moving).scan_names
        assert set(names) <= set(read_split(side.judged)) and names
        assert not set(names) & set(open_dataset(side.sequences).scan_names)
    asked, seen = ({side: open_dataset(getattr(one, kind)).manifest["shapes"] for side, one in rooms.items()}
                   for kind in ("moving", "sequences"))  # fmt: skip
    assert asked == {"final": seen["tuning"], "tuning": seen["final"]} and seen["final"] != seen["tuning"]
    work = cells.Work(tmp_path, study, rooms, Cell("compare", "scratch", 0, "probes", 100.0, 0, "-", 0), "cpu")
    data, weights = cells.labels_of(work), cells.weights_of(work)
    found = cells._probe(work, data, weights)
    assert all(isinstance(found[name], float) and 0 <= found[name] <= 1 for name in ("moving", "resting"))
    off = {side: one._replace(moving=None) for side, one in rooms.items()}
    assert cells._probe(work._replace(rooms=off), data, weights) == found | {"moving": None, "resting": None}


def test_a_probe_without_a_figure_has_a_dash_and_the_others_their_mean():
    own = {"linear": 0.1, "knn": 0.2, "objectness": None}
    lines = [
        line("compare", "scratch", seed, 0, moving=0.3 + seed / 10, resting=0.5, **own) | {"measure": "probes"}
        for seed in (0, 1)
    ]
    (row,) = report._probe_rows(lines, "compare")
    assert row == ["scratch", "10.00 (0.00)", "20.00 (0.00)", "-", "35.00 (7.07)", "50.00 (0.00)", 2]


def test_a_dry_run_says_what_a_plan_on_built_in_rooms_costs(tmp_path):
    result = call("study", "--dry-run", "--out", tmp_path / "none", "--workers", "0", *SETTINGS, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert set(found["seconds"]) == {"rooms", *plans.STAGES} and min(found["seconds"].values()) > 0
    assert found["total_seconds"] == pytest.approx(sum(found["seconds"].values()))
    assert "tests: 2, for which Holm corrects" in result.stderr and not (tmp_path / "none").exists()
