"""The study: its arithmetic against scipy and simulation, its pairs, and a tiny one from rooms to table."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from tests.makers.labelled import keyed
from tests.test_train_cli import call, refusal
from train.config import ConfigError, resolve, to_plain
from train.methods.contrast4d.config import METHODS
from train.methods.pretrain import make_model
from train.run.log import read_lines
from train.study import plan as plans
from train.study import run as study
from train.study.plan import STUDIES, Cell
from train.study.report import report
from train.study.run import Work
from train.study.statistics import paired

TINY = ("arms=scratch,static-3d", "rooms=3", "sequences=1", "net_3d=small-4d", "voxel_m=0.3")
TINY += ("voxel_4d_m=0.5", "pretrain_steps=2", "seeds=1", "subsets=2", "percents=50", "finetune_steps=2")
TINY += ("samples=100", "queries=100")
SETTINGS = [word for setting in TINY for word in ("--set", setting)]
PLAN = {"arms": ["scratch", "a", "b"], "percents": [5.0], "seeds": 2, "subsets": 4}
PLAN |= {"generator_version": 1, "samples_digest": "d" * 64}


def line(arm, seed, subset, miou, percent=5.0):
    scored = {"miou": miou, "linear": miou / 2, "knn": miou / 4, "pretrain_seconds": 0.0 if arm == "scratch" else 60.0}
    return Cell(arm, seed, percent, subset)._asdict() | scored | {"test": {"scans": 3, "points": 9, "classes": 5}}


def drawn(gain=0.0, seeds=2, subsets=4, sd=0.02):
    """Lines of scratch and of arm `a`, which is better by `gain` on average."""
    rng = keyed(1)
    lines = []
    for seed in range(seeds):
        for subset in range(subsets):
            base = rng.uniform(0.1, 0.4)
            lines += [line("scratch", seed, subset, base), line("a", seed, subset, base + gain + rng.normal(0, sd))]
    return lines


# Arithmetic ----------------------------------------------------------------------------------------------------------


def test_a_paired_difference_equals_scipys_and_does_not_depend_on_the_order():
    lines = drawn(0.01)
    values = {arm: [100 * x["miou"] for x in lines if x["arm"] == arm] for arm in ("scratch", "a")}
    expected = stats.ttest_rel(values["a"], values["scratch"])
    for given in (lines, lines[::-1]):
        found = paired(given, "a", 5.0, "miou")
        assert found.p == pytest.approx(expected.pvalue) and found.pairs == 8
        assert found.mean == pytest.approx(np.mean(values["a"]) - np.mean(values["scratch"]))
        assert found.sd == pytest.approx(np.std(np.subtract(values["a"], values["scratch"]), ddof=1))
    halves = [np.mean(np.subtract(values["a"], values["scratch"])[part]) for part in (slice(0, 4), slice(4, 8))]
    assert list(found.by_seed.values()) == pytest.approx(halves)


def test_only_cells_that_both_arms_have_are_pairs():
    lines = [*drawn(), line("a", 7, 0, 0.9), line("scratch", 8, 0, 0.9), line("a", 0, 0, 0.9, percent=20.0)]
    assert paired(lines, "a", 5.0, "miou").pairs == 8
    with pytest.raises(ValueError, match="no pair of a and scratch at 20 %"):
        paired(lines, "a", 20.0, "miou")


def test_one_pair_has_no_spread_and_no_p():
    found = paired([line("scratch", 0, 0, 0.2), line("a", 0, 0, 0.3)], "a", 5.0, "miou")
    assert found.mean == pytest.approx(10) and np.isnan([found.sd, found.p, found.visible]).all()


def test_the_visible_difference_is_seen_in_four_of_five_simulated_studies():
    rng = keyed(2)
    pairs, sd = 12, 2.0
    error = sd / np.sqrt(pairs)
    visible = error * (stats.t.ppf(0.975, pairs - 1) + stats.t.ppf(0.8, pairs - 1))
    draws = rng.normal(visible, sd, (4000, pairs))
    seen = stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05
    assert 0.76 < seen.mean() < 0.84
    lines = drawn(0.0, seeds=3, subsets=4)
    found = paired(lines, "a", 5.0, "miou")
    assert found.visible == pytest.approx(found.sd / sd * visible)


def test_the_table_says_n_pairs_and_where_the_rooms_are_from():
    text = "\n".join(report(drawn(0.02), PLAN, "a machine"))
    assert len(re.findall(r"^\| 5 %", text, re.M)) == 6  # two arms in three tables; arm b has no line yet
    assert re.search(r"\| 5 % +\| +a \| +[\d.]+ \| +[\d.]+ \| +8 \| +\+[\d.]+ \| +[\d.]+ \| +8 \|", text)
    for words in ("generator 1, digest dddddddddddd", "2 pre-training seeds x 4 subsets", "a 60 s", "a machine"):
        assert words in text


def test_what_the_4d_terms_add_is_their_difference_to_the_same_loss_without():
    lines = [dict(x, arm={"scratch": "moving-3d", "a": "4dcontrast"}[x["arm"]]) for x in drawn(0.02)]
    text = "\n".join(report(lines, PLAN | {"arms": ["moving-3d", "4dcontrast"]}, "a machine"))
    gain = paired(drawn(0.02), "a", 5.0, "miou")
    assert re.search(rf"\| 5 % +\| +4dcontrast \| +moving-3d \| +{re.escape(f'{gain.mean:+.2f}')} \|", text)
    assert "against" not in "\n".join(report(drawn(0.02), PLAN, "a machine"))


# Plans ---------------------------------------------------------------------------------------------------------------


def test_the_small_plan_has_the_size_that_was_agreed():
    small = STUDIES["small"]
    assert (len(small.arms), small.seeds, small.percents, small.subsets) == (4, 2, (5.0, 20.0), 4)
    assert STUDIES["full"].percents == (2.0, 5.0, 10.0, 20.0, 100.0)
    assert set(STUDIES["full"].arms) <= set(plans.ARMS)
    assert len(plans.cells(small)) == len(set(plans.cells(small))) == 64


def test_pairs_share_their_seed_and_nothing_else_does():
    by_seed = {}
    for cell in plans.cells(STUDIES["full"]):
        by_seed.setdefault(cell.pair_seed, set()).add((cell.seed, cell.subset))
    assert all(len(group) == 1 for group in by_seed.values())


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("arms=scratch,simclr", "arms = .*: of scratch, static-3d"),
        ("arms=static-3d", "arms = .*: scratch among them"),
        ("percents=5,200", "percents = .*: above 0, and 100 at most"),
        ("percents=5,x", "'x' is not a number"),
        ("rooms=2", "rooms = 2: at least 3"),
    ],
)
def test_a_plan_that_compares_nothing_is_refused(assignment, message):
    with pytest.raises(ConfigError, match=message):
        resolve("small", (assignment,), STUDIES)


# A whole one ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A tiny study, made in one process of its own at a time."""
    folder = tmp_path_factory.mktemp("study") / "tiny"
    result = call("study", "--out", folder, "--workers", "1", *SETTINGS)
    assert result.exit_code == 0, result.output
    assert "4 to do" in result.output
    return folder


def numbers(folder):
    return [{k: v for k, v in x.items() if "seconds" not in k} for x in read_lines(folder / "results.jsonl")]


def test_a_study_leaves_its_plan_lines_table_and_picture(out):
    plan = json.loads((out / "study.json").read_text())
    assert plan["pretraining"] == {"static-3d": to_plain(plans.ARMS["static-3d"])}
    assert plan["samples_digest"] == json.loads((out / "samples" / "gen4d_samples.json").read_text())["digest"]
    assert {study.cell_of(x) for x in numbers(out)} == set(plans.cells(resolve("small", TINY, STUDIES)))
    assert all(0 < x["miou"] < 1 and 0 < x["linear"] < 1 and 0 < x["knn"] < 1 for x in numbers(out))
    assert Image.open(out / "results.png").size[0] > 500
    assert "| 50 %" in (out / "results.md").read_text() and "fine-tuned:" in (out / "results.md").read_text()
    assert not list((out / "cells").iterdir())
    assert sorted(path.name for path in (out / "pretrain").iterdir()) == ["static-3d-0"]


def test_a_study_goes_on_where_it_stopped_and_finds_the_same_in_this_process(out):
    before = numbers(out)
    path = out / "results.jsonl"
    text = path.read_text().splitlines(keepends=True)
    path.write_text("".join(text[:-1]) + text[-1][:40])  # as a kill leaves it
    result = call("study", "--out", out, "--workers", "0", *SETTINGS)
    assert "3 cells are done, 1 to do" in result.output
    key = json.dumps
    assert sorted(map(key, numbers(out))) == sorted(map(key, before))


def test_another_plan_in_the_same_folder_is_refused_with_the_difference(out):
    line = refusal("study", "--out", out, *SETTINGS, "--set", "finetune_steps=3")
    assert "holds another study (finetune_steps: 2 there, 3 here): use another --out" in line


def test_scratch_is_the_net_that_the_other_arms_started_from_with_the_same_labels(out):
    plan = resolve("small", TINY, STUDIES)
    works = {arm: Work(out, plan, Cell(arm, 0, 50.0, 1), "cpu") for arm in plan.arms}
    scratch, trained = (study.weights_of(works[arm]).net.state_dict() for arm in ("scratch", "static-3d"))
    for arm in ("static-3d", "4dcontrast"):
        started = make_model(plans.pretrain_config(plan, arm, 0)).encoder3d.backbone.state_dict()
        assert all(torch.equal(started[name], value) for name, value in scratch.items())
    assert not torch.equal(trained["stem.conv.weight"], scratch["stem.conv.weight"])
    learned = [[scan.name for scan in study.labels_of(works[arm]).train] for arm in ("scratch", "static-3d")]
    assert learned[0] == learned[1]


def test_arms_are_pre_trained_at_their_rate_and_those_without_a_4d_encoder_for_more_steps():
    for name, arm in plans.ARMS.items():
        if arm.method:
            config = plans.pretrain_config(STUDIES["small"], name, 0)
            assert config.run.steps == (600 if METHODS[arm.method].has_4d else 900)
            assert config.optim.lr == (2.0 if name.endswith("simclr") else 1.0)
