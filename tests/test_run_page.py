"""The page of a run: what it says is what the run's folder holds, finished or not, and nothing leaves it."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from tests import browser
from tests.test_train_cli import call, refusal
from train.config import change, to_plain
from train.methods.config import PRESETS
from train.study.compare import read_run
from train.study.page import write_page
from train.tasks.config import BLOCKS, DETECT
from train.tasks.config import PRESETS as FINETUNE
from train.tasks.pictures import Panel, draw

TIMING = {"seconds": 2.0, "wait_share": 0.0, "sequences_per_s": 3.0, "memory_gb": 0.5}
CLASSES = ("wall", "floor", "chair")


def fit(cos, constant):
    return {"3d-3d/cos": cos, "3d-3d/constant": constant, "3d-3d/centred": 0.3, "3d-3d/top1": 0.25}


def record(step, **more):
    line = {"step": step, "loss": 1 / step, "terms": {"3d-3d": 1 / step}, "spread": {}, "fit": {}, "lr": 0.1}
    return line | {"gradient": 1.0, "skipped": 0, "timing": TIMING} | more


def write_run(folder, config, log, **more):
    """A run's folder. more: lines of further files, by their stems."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    for name, lines in {"log": log, **more}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def pretrained(folder, log):
    settings = to_plain(change(PRESETS["small"], lr=0.5, block_scans=2))
    settings["run"]["precision"] = "float32"
    config = {"task": "pretrain", "data": "4065", "scans": ["room<b>0", "room1"], "settings": settings}
    start = {"step": 0, "machine": "gen4d 0.2.0, CPU (test)", "processes": 1, "python": "3.11.2"}
    probe = [{"step": 1, "retrieval": 0.1}, {"step": 2, "retrieval": 0.2}]
    return write_run(folder, config, log, machine=[start], probe=probe)


def finetuned(folder, task, log=(), validations=()):
    settings = to_plain({"segment": FINETUNE, "blocks": BLOCKS, "detect": DETECT}[task]["small"])
    config = {"task": task, "data": "8a", "classes": CLASSES, "weights": "none", "scans": [], "settings": settings}
    return write_run(folder, config, log, validation=validations)


def segmented(iou, beside="voxels"):
    classes = {name: {"iou": iou, "recall": 0.5, "count": 10} for name in CLASSES}
    one = {"miou": iou, "macc": 0.5, "accuracy": 0.5, "count": 30, "classes": classes}
    return {"scans": 1, "points": one, beside: one}


def section_of(text, title):
    return re.search(rf"<h2>{re.escape(title)}</h2>(.*?)</section>", text, re.S)[1]


def cells_of(text):
    rows = re.findall(r"<tr>(.*?)</tr>", text, re.S)
    return [[re.sub("<.*?>", "", cell) for cell in re.findall(r"<t[dh].*?>(.*?)</t[dh]>", row, re.S)] for row in rows]


def page_of(folder):
    out = folder / "run.html"
    write_page(folder, out)
    text = out.read_text()
    assert "default-src 'none'" in text and not re.search(r'(?:src|href)="(?!data:)', text)
    return text


def test_a_pretraining_says_what_it_reached_whether_terms_are_learned_and_which_settings_differ(tmp_path):
    run = pretrained(tmp_path / "run", [record(1, fit=fit(0.1, 0.4)), record(2, fit=fit(0.2, 0.4))])
    draw(np.random.default_rng(0).random((500, 3)) * 4, [Panel(np.full((500, 3), 0.5))], run / "features.png")
    text = page_of(run)
    row = ["3d-3d", "0.200", "0.400", "0.300", "25.00", "BELOW a constant"]
    assert cells_of(section_of(text, "Are the terms learned?"))[1:] == [row]
    settings, rest = section_of(text, "Settings").split("<details>")
    assert cells_of(settings)[1:] == [["optim.lr", "0.5", "1"]]  # neither precision nor block_scans
    assert "preset small" in settings and "run.batch" in rest
    assert cells_of(section_of(text, "Environment"))[1][1:] == ["gen4d 0.2.0, CPU (test)", "3.11.2", "1"]
    assert "data:image/webp;base64," in section_of(text, "Pictures")
    curves = section_of(text, "Curves")
    assert all(name in curves for name in ("loss", "fit of 3d-3d", "good for: retrieval", "learning rate"))
    assert "2 of 120 steps made: not finished" in text
    assert f"pretrain --data DATA --config {run}/config.json --run {run}" in section_of(text, "How to go on")
    assert "room&lt;b&gt;0" in text and "room<b>0" not in text


def test_a_term_above_a_constant_is_said_to_be(tmp_path):
    run = pretrained(tmp_path / "run", [record(step, fit=fit(0.9, 0.4)) for step in range(1, 121)])
    text = page_of(run)
    assert "above a constant" in text and "BELOW" not in text and "120 of 120 steps made.<" in text
    assert f"--weights {run}" in section_of(text, "How to go on")


@pytest.mark.parametrize(
    ("net", "command"),
    [("small", "finetune --data SCANS --preset small"), ("34", "finetune --data SCANS --weights"),
     ("pointnet", "classify --data SHAPES"), ("dgcnn-seg", "finetune --task blocks --data S3DIS")],
)  # fmt: skip
def test_a_backbone_goes_on_to_what_takes_it(net, command, tmp_path):
    run = pretrained(tmp_path / "run", [record(step, fit=fit(0.9, 0.4)) for step in range(1, 121)])
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"backbone": {"net": net}}))
    told = section_of(page_of(run), "How to go on")
    assert command in told and ("probe --data" in told) == (net in ("small", "34"))


def test_a_segmentation_has_its_scores_confusion_and_pictures(tmp_path):
    run = finetuned(tmp_path / "run", "segment", [record(200)], [{"step": 200} | segmented(0.25)])
    matrix = [[3, 1, 0, 0], [0, 0, 0, 0], [0, 2, 2, 0]]
    results = {"last": segmented(0.25), "best": segmented(0.75)}
    about = {"step": {"last": 200, "best": 150}, "machine": "a machine", "confusion": {"points": matrix}}
    (run / "results.json").write_text(json.dumps(about | {"results": results}))
    (run / "pictures").mkdir()
    Image.new("RGB", (2000, 1000)).save(run / "pictures" / "scene.png")
    text = page_of(run)
    rows = cells_of(section_of(text, "Scores"))
    assert rows[0][:3] == ["class", "points", "last IoU"] and "best IoU" in rows[0]
    assert rows[1] == ["wall", "10", "25.00", "50.00", "25.00", "75.00", "50.00", "75.00"]
    assert rows[-1][:3] == ["mean", "30", "25.00"]
    heat = cells_of(section_of(text, "Confusion"))
    assert heat == [["truth", *CLASSES], ["wall", "75", "25", ""], ["chair", "", "50", "50"]]
    assert "--v:75%" in text
    assert '<h3>scene</h3><img src="data:image/webp' in text and 'width="1440" height="720"' in text
    assert "a machine" in section_of(text, "Environment")


def test_blocks_have_scores_of_sampled_points(tmp_path):
    run = finetuned(tmp_path / "run", "blocks", [record(100)], [{"step": 100} | segmented(0.25, "sampled")])
    text = page_of(run)
    head = cells_of(section_of(text, "Scores"))[0]
    assert head == ["class", "points", *(f"validation {name}" for name in ("IoU", "accuracy", "IoU of sampled points"))]
    assert "Segmentation by blocks" in text


def test_an_unfinished_detection_shows_its_last_validation(tmp_path):
    one = {"ap25": 0.5, "ap50": None, "recall50": 0.1, "count": 4}
    line = {"step": 100, "scans": 2, "ap25": 0.5, "ap50": 0.25, "count": 4, "classes": {"chair": one}}
    run = finetuned(tmp_path / "run", "detect", [record(100), record(150)], [line, line | {"step": 150, "ap25": 0.6}])
    text = page_of(run)
    rows = cells_of(section_of(text, "Scores"))
    assert rows[0] == ["class", "objects", "validation AP50", "validation AP25"]
    assert rows[1:] == [["chair", "4", "", "50.00"], ["mean", "4", "25.00", "60.00"]]
    assert "step 150" in text and "150 of 300 steps made: not finished" in text
    validated = read_run(run).curves["validation.ap25"]
    assert validated[1].tolist() == [0.5, 0.6] and "validation.classes.chair.ap25" not in read_run(run).curves
    assert "finetune --task detect --data SCANS --weights none --config" in section_of(text, "How to go on")


def test_a_classification_has_the_tables_of_its_report(tmp_path):
    config = {"task": "classify", "data": "6e", "weights": ["runs/strl"], "settings": {"net": "pointnet"}}
    run = write_run(tmp_path / "run", config, [])
    row = {"features": "pre-trained", "C": "1", "accuracy": "81.25", "n": 1, "accuracies": [0.8125]}
    (run / "results.json").write_text(json.dumps({"svm": [row], "tuned": [], "machine": "a machine"}))
    (run / "log.jsonl").unlink()
    text = page_of(run)
    assert cells_of(section_of(text, "Scores")) == [
        ["features", "C", "accuracy", "n"],
        ["pre-trained", "1", "81.25", "1"],
    ]
    assert "runs/strl" in text and "Curves" not in text


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "config.json").unlink(), "no run there: give a run folder"),
        (lambda run: (run / "config.json").write_text("{"), "config.json: damaged"),
        (lambda run: (run / "log.jsonl").write_text(""), "has logged nothing yet: wait for its first step"),
        (lambda run: (run / "results.json").write_text("[]"), "results.json: damaged"),
    ],
)
def test_what_is_no_run_is_one_line(spoil, message, tmp_path):
    run = finetuned(tmp_path / "run", "segment", [record(1)])
    spoil(run)
    (run / "probe.jsonl").unlink(missing_ok=True)
    assert message in refusal("report", run, "--out", tmp_path / "run.html")
    assert not (tmp_path / "run.html").exists()


def test_a_page_replaces_no_file_of_another_kind(tmp_path):
    run = finetuned(tmp_path / "run", "segment", [record(1)])
    before = (run / "config.json").read_bytes()
    assert call("report", run, "--out", run / "config.json").exit_code == 2
    assert (run / "config.json").read_bytes() == before


def test_the_command_writes_it(tmp_path):
    run = finetuned(tmp_path / "run", "segment", [record(1)])
    result = call("report", run, "--out", tmp_path / "new" / "run.html", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["shows"] == "Segmentation, 1 of 200 steps made: not finished"
    assert (tmp_path / "new" / "run.html").read_text().startswith("<!doctype html>")


@browser.needs_browser
def test_a_browser_shows_it_and_is_asked_for_nothing(tmp_path):
    run = pretrained(tmp_path / "run", [record(1, fit=fit(0.1, 0.4)), record(2, fit=fit(0.2, 0.4))])
    draw(np.random.default_rng(0).random((500, 3)) * 4, [Panel(np.full((500, 3), 0.5))], run / "features.png")
    write_page(run, tmp_path / "run.html")
    with browser.opened(tmp_path / "profile") as page:
        page.open(tmp_path / "run.html")
        loaded = page.evaluate("[...document.images].map((image) => image.naturalWidth)")
        wide = page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        asked = [url for url in page.requests if not url.startswith(("file:", "about:", "data:"))]
        assert (loaded, wide, asked, page.errors, page.dialogs) == ([720], True, [], [], 0)
