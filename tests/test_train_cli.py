"""The command line: what users see when it works, when they stop it, and when something is wrong."""

import dataclasses
import io
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner
from PIL import Image

import gen4d
from gen4d.shards import open_dataset
from gen4d.shards.format import seal
from tests.makers import recordings
from tests.makers.sequences import write_dataset
from tests.shared import SHARED, needs_shared_data
from tests.test_loop import digest, log_of
from train import doctor, errors
from train.__main__ import main
from train.commands import frame
from train.commands.progress import CollapseWatch, ConstantWatch, Progress
from train.config import ConfigError, change, from_plain, leaves, resolve, to_plain
from train.inputs.order import Share
from train.methods.config import PRESETS, advice
from train.methods.contrast4d.config import METHODS
from train.methods.distill.config import METHODS as DISTILLATIONS
from train.methods.pretrain import make
from train.nets import sparse
from train.nets.cost import widths
from train.nets.unet import NETS
from train.nets.weights import load_backbone
from train.run import memory, world
from train.run.log import Record, read_lines
from train.run.loop import Running
from train.run.together import Process, _wait
from train.run.world import World
from train.study.compare import thinned
from train.tasks.features import read_stored_scan

ROOT = pathlib.Path(__file__).parents[1]
TINY = ("net_3d=small-4d", "width=8", "hidden=4", "samples=16", "voxel_m=0.2", "voxel_4d_m=0.4", "workers=1", "steps=3")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data set of two scans with four sequences each."""
    return write_dataset(tmp_path_factory.mktemp("built"), points=1500)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A finished run of three steps."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    result = call(*pretrain(data, folder))
    assert result.exit_code == 0, result.output
    return folder


def pretrain(data, run, *more, preset="small", settings=TINY):
    settings = [word for setting in settings for word in ("--set", setting)]
    return ["pretrain", "--data", str(data), "--preset", preset, "--run", str(run), *settings, *more]


def call(*arguments):
    """The command in this process; an exception that is no exit fails the test."""
    torch.set_num_threads(1)
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def refusal(*arguments):
    """The one line that a refused command prints."""
    result = call(*arguments)
    assert result.exit_code == 1, result.output
    lines = result.output.strip().splitlines()
    assert lines[-1].startswith("Error: ")
    assert "Traceback" not in result.output
    return lines[-1]


def test_pretraining_prints_every_step_and_leaves_a_run_folder(data, run):
    assert sorted(path.name for path in run.iterdir()) == [
        "checkpoint-00000003",
        "config.json",
        "curves.png",
        "features.png",
        "log.jsonl",
        "machine.jsonl",
        "probe.jsonl",
        "tensorboard",
    ]
    config = json.loads((run / "config.json").read_text())
    assert (config["task"], config["data"]) == ("pretrain", open_dataset(data).digest)
    assert config["settings"]["run"]["precision"] == "float32"
    assert config["scans"] == list(open_dataset(data).scan_names) == ["room0000", "room0001"]
    again = call(*pretrain(data, run, "--set", "steps=4"))
    assert re.search(r"^step 4/4  loss -?\d\.\d+  3d-3d .* spread 3d 0\.\d+ 4d 0\.\d+  lr 1 ", again.output, re.M)
    assert "step 3/" not in again.output


@pytest.mark.parametrize("method", [name for name in METHODS | DISTILLATIONS if not name.startswith("static-3d-")])
def test_every_method_trains(method, data, tmp_path):
    """And its backbone is found again."""
    result = call(*pretrain(data, tmp_path, "--set", f"method={method}", "--set", "steps=1"))
    assert result.exit_code == 0, result.output
    assert tuple(read_lines(tmp_path / "log.jsonl")[0]["terms"]) == (METHODS | DISTILLATIONS)[method].terms
    assert load_backbone(tmp_path).voxel_m == 0.2


def test_a_dry_run_prints_the_configuration_and_the_memory_and_writes_nothing(data, tmp_path):
    result = call(*pretrain(data, tmp_path / "none", "--dry-run", "--set", "lr=0.125"))
    assert result.exit_code == 0
    for line in ("optim.lr = 0.125", "method = 4dcontrast", "data: 8 sequences of 2 scans, seen 0.75 times"):
        assert line in result.output.splitlines()
    assert re.search(r"memory on the device: about \d+\.\d\d GB, free \d+", result.output)
    assert not (tmp_path / "none").exists()


def prepared(data, *settings):
    """What the loop would get."""
    return make(resolve("small", settings, PRESETS), open_dataset(data), World(0, 1, torch.device("cpu")))


def test_the_memory_estimate_is_what_autograd_keeps(data):
    model, _, loader, _ = prepared(data, "batch=2", "samples=64")
    kept, weights = {}, {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(loader.sample(2))
    measured = sum(size for pointer, size in kept.items() if pointer not in weights)
    assert loss.total.requires_grad
    assert memory.estimate(loader, model, "float32").kept == pytest.approx(measured, rel=0.04)


@pytest.mark.parametrize(
    "method",
    ["4dcontrast", "moving-3d", "4dcontrast-simclr", "static-3d-infonce"]
    + ["moving-3d-csc", "moving-3d-vicreg", "static-3d-msc", "moving-3d-distill"],
)
@pytest.mark.parametrize("hidden", [32, 96])
def test_what_heads_and_losses_keep_is_counted_where_nets_keep_nothing(data, method, hidden):
    """By recomputing, which leaves a gigabyte of the paper's batch to them."""
    nets = ("net_3d=small-4d", "voxel_m=0.4", "voxel_4d_m=0.8", "recompute=true")
    size = (f"method={method}", f"hidden={hidden}", "width=96", "batch=2", "samples=300", "mask_patch=1")
    model, _, loader, _ = prepared(data, *size, *nets)
    kept, weights = {}, {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    batch = loader.sample(2)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(batch)
    measured = sum(one.untyped_storage().nbytes() for pointer, one in kept.items() if pointer not in weights)
    assert model.forwards(batch, 4)[-1].kept == pytest.approx(measured, rel=0.25)


# What is wrong with the input ----------------------------------------------------------------------------------------


def test_an_unknown_setting_suggests_the_one_that_was_meant(data, tmp_path):
    assert "--set momentun=0.5: no such key; did you mean optim.momentum?" in refusal(
        *pretrain(data, tmp_path, "--set", "momentun=0.5")
    )
    assert "--preset papr: did you mean paper?" in refusal(*pretrain(data, tmp_path, preset="papr"))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("lr=fast", "--set lr=fast: 'fast' is not a number"),
        ("steps=1.5", "--set steps=1.5: '1.5' is not a whole number"),
        ("lr=nan", "--set lr=nan: must be finite"),
        ("lr", "--set lr: needs key=value"),
        ("method=4d", "method = 4d: one of static-3d, moving-3d, 4dcontrast, static-3d-simclr"),
        ("batch=0", "batch = 0: at least 1"),
        ("moving_share=1.5", "moving_share = 1.5: a share from 0 to 1, or none"),
        ("accumulate=5", "a batch of 2 does not divide into 1 processes x 5 parts: set batch=5, or accumulate"),
        ("precision=float16", "precision = float16: needs CUDA; set precision=float32 on a CPU"),
    ],
)
def test_a_bad_value_is_refused_with_its_rule(setting, message, data, tmp_path):
    extra = ("--device", "cpu", "--set", setting)
    assert message in refusal(*pretrain(data, tmp_path, *extra))


# Settings ------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Inner:
    size: int = 1
    share: float | None = 0.5


@dataclasses.dataclass(frozen=True)
class Outer:
    first: Inner = Inner()
    second: Inner = Inner(size=2)
    names: tuple[str, ...] = ()
    sure: bool = False


def test_a_setting_is_named_by_its_path_or_by_an_end_of_it_that_is_its_own():
    found = resolve("a", ("first.size=5", "second.share=none", "names=x, y", "sure=yes"), {"a": Outer()})
    assert found == Outer(Inner(5), Inner(2, None), ("x", "y"), True)
    with pytest.raises(ConfigError, match=r"--set size=3: size is first.size and second.size: name one of them"):
        resolve("a", ("size=3",), {"a": Outer()})
    with pytest.raises(ConfigError, match=r"no such key; did you mean first.size\?"):
        resolve("a", ("first.sice=3",), {"a": Outer()})
    with pytest.raises(ConfigError, match="neither true nor false"):
        resolve("a", ("sure=perhaps",), {"a": Outer()})


def test_settings_survive_their_way_through_json_and_other_versions_are_refused():
    config = resolve("small", ("moving_share=none", "lr=2"), PRESETS)
    plain = json.loads(json.dumps(to_plain(config)))
    assert from_plain(plain, type(config)) == config
    del plain["contrast"]["views"]["tilt_rad"]
    with pytest.raises(ConfigError, match=r"another version, with other settings .contrast.views.tilt_rad"):
        from_plain(plain, type(config))


def test_a_runs_own_settings_are_a_configuration_file(data, run, tmp_path):
    result = call("pretrain", "--data", data, "--config", run / "config.json", "--set", "steps=5", "--dry-run")
    assert result.exit_code == 0, result.output
    for line in ("contrast.net_3d = small-4d", "contrast.voxel_4d_m = 0.4", "run.steps = 5", "optim.lr = 1.0"):
        assert line in result.output.splitlines()
    again = call("pretrain", "--data", data, "--config", run / "config.json", "--run", run, "--set", "steps=4")
    assert again.exit_code == 0, again.output
    file = tmp_path / "mine.toml"
    file.write_text("method = 'moving-3d'\n[optim]\nlr = 2\n")
    result = call("pretrain", "--data", data, "--preset", "small", "--config", file, "--dry-run")
    assert {"method = moving-3d", "optim.lr = 2.0", "run.steps = 120"} < set(result.output.splitlines())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "neither JSON nor TOML"),
        ("[1]", "holds a list, not settings"),
        ('{"optim": {"rate": 1}}', "no setting optim.rate here"),
        ('{"optim": {"lr": "fast"}}', "optim.lr: 'fast' is not a number"),
        ('{"run": {"steps": 1.5}}', "run.steps: 1.5 is not a whole number"),
        ('{"run": {"steps": 0}}', "steps = 0: at least 1"),
    ],
)
def test_a_bad_file_of_settings_is_one_line(content, message, data, tmp_path):
    (tmp_path / "mine.json").write_text(content)
    assert message in refusal(*pretrain(data, tmp_path / "run", "--config", tmp_path / "mine.json", settings=()))
    assert "mine2.json: No such file" in refusal(*pretrain(data, tmp_path, "--config", tmp_path / "mine2.json"))


def copied(data, tmp_path):
    return pathlib.Path(shutil.copytree(data, tmp_path / "copy"))


def test_a_data_set_of_another_version_is_refused(data, tmp_path):
    copy = copied(data, tmp_path)
    manifest = json.loads((copy / "dataset.json").read_bytes())
    manifest.pop("sha256")
    (copy / "dataset.json").write_bytes(seal(manifest | {"version": "9.0"}))
    line = refusal(*pretrain(copy, tmp_path / "run"))
    assert "dataset.json" in line and "9.0" in line


def test_a_missing_shard_is_named(data, tmp_path):
    copy = copied(data, tmp_path)
    for path in (copy / "shards").glob("*.zip"):
        path.unlink()
    assert "the shard is missing; restore it" in refusal(*pretrain(copy, tmp_path / "run"))


def test_a_shard_damaged_behind_the_first_is_an_error_of_its_batch_not_a_hang(data, tmp_path):
    copy = copied(data, tmp_path)
    shard = sorted((copy / "shards").glob("*.zip"))[1]
    content = bytearray(shard.read_bytes())
    for i in range(2000, len(content) - 3000, 500):
        content[i] ^= 1
    shard.write_bytes(content)
    line = refusal(*pretrain(copy, tmp_path / "run", "--set", "workers=3", "--set", "steps=8"))
    assert shard.name in line


def test_a_folder_that_is_no_data_set_is_refused(tmp_path):
    assert "dataset.json: not there" in refusal(*pretrain(tmp_path, tmp_path / "run"))


def test_another_configuration_in_the_same_folder_is_refused_with_the_difference(data, run):
    line = refusal(*pretrain(data, run, "--set", "lr=0.5", "--set", "workers=0"))
    assert "started with another configuration (optim.lr: 1.0 there, 0.5 here)" in line


def test_another_data_set_in_the_same_folder_is_refused(run, tmp_path):
    other = write_dataset(tmp_path, scans=1, points=1500)
    assert re.search(r"another configuration \(data: \w{64} there, \w{64} here", refusal(*pretrain(other, run)))


def test_an_interrupted_checkpoint_is_left_and_a_damaged_one_named(data, run, tmp_path):
    copy = pathlib.Path(shutil.copytree(run, tmp_path / "run"))
    (copy / "checkpoint-00000009").mkdir()
    (copy / "checkpoint-00000009/model.safetensors").write_bytes(b"half")
    result = call(*pretrain(data, copy, "--set", "steps=5"))
    assert result.exit_code == 0 and "step 5/5" in result.output
    shutil.rmtree(copy / "checkpoint-00000004", ignore_errors=True)
    for path in copy.glob("checkpoint-*/model.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    line = refusal(*pretrain(data, copy, "--set", "steps=6"))
    assert "model.safetensors" in line and "no other checkpoint is left" in line


def test_a_checkpoint_of_another_architecture_is_refused(data, run, tmp_path):
    copy = pathlib.Path(shutil.copytree(run, tmp_path / "run"))
    config = json.loads((copy / "config.json").read_text())
    config["settings"]["contrast"]["width"] = 16
    (copy / "config.json").write_text(json.dumps(config))
    line = refusal(*pretrain(data, copy, "--set", "width=16", "--set", "steps=9"))
    assert "another architecture: encoder3d.projector.weight is (8, 16) there, (16, 16) in this model" in line


def test_too_little_memory_is_refused_before_the_start_with_the_split_that_fits(data, tmp_path, monkeypatch):
    model, _, loader, _ = prepared(data, *TINY, "batch=8")
    needed = memory.estimate(loader, model, "float32")
    monkeypatch.setattr(memory, "available", lambda device: needed.device // 2)
    extra = ("--set", "batch=8", "--device", "cpu")
    line = refusal(*pretrain(data, tmp_path / "run", *extra))
    split = re.search(r"a step needs about .* GB on cpu, .* GB are free: set accumulate=(\d)", line)
    assert int(split[1]) in (2, 4)
    assert not (tmp_path / "run").exists()
    assert call(*pretrain(data, tmp_path / "run", *extra, "--no-memory-check")).exit_code == 0
    monkeypatch.setattr(memory, "available", lambda device: 1000)
    assert "use larger voxels or a smaller net" in refusal(*pretrain(data, tmp_path / "run", *extra))


def test_the_remedy_for_too_little_memory_is_never_what_is_set_already(monkeypatch):
    """The loader's batches count too."""
    needed = memory.Estimate(1, 0, 1, 0, 15_600_000_000, 1, 0, 13_600_000_000)
    monkeypatch.setattr(memory, "available", lambda device: 22_600_000_000)
    told = memory.problem(needed, Share(4), torch.device("cpu"))
    assert re.search(r"needs about 3\d\.\d GB on cpu, 22.6 GB are free: set accumulate=2$", told), told


def test_a_tensor_that_spconv_cannot_address_is_foreseen_with_the_split_that_fits():
    """Fine-tuning's batch of 48 scans of 90,000 voxels in one forward, on a device with memory enough for it."""
    shape = NETS["34"]
    assert widths(shape) == [128, 128, 256, 384, 256]
    needed = memory.Estimate(4_320_000, 0, 1, 1, 1, 4_320_000 * max(widths(shape)[:1]) * 4, 1, 1)
    cpu = torch.device("cpu")
    assert memory.problem(needed._replace(widest=needed.widest // 2), Share(48), cpu) == ""  # in half precision
    with pytest.raises(
        memory.NeedsMemory, match=r"of about 2.21 GB, spconv addresses less than 2.15 GB: set accum.*=2"
    ):
        memory.check(needed, Share(48), cpu)
    assert "set accumulate=6" in memory.problem(needed._replace(widest=2**31), Share(48, accumulate=3), cpu)


def test_the_widest_tensor_is_what_the_layers_of_a_net_read_and_write(data):
    """Seen by hooks on every convolution of one forward."""
    model, _, loader, _ = prepared(data, "batch=2", "samples=64", "method=moving-3d")
    batch, seen = loader.sample(2), []

    def see(layer, given, out):
        rows = max(len(given[0].features), len(out.features)) if layer.kind == "up" else len(given[0].features)
        seen.append(rows * max(layer.channels) * 4)

    for part in model.modules():
        if isinstance(part, sparse.Conv):
            part.register_forward_hook(see)
    model(batch)
    assert max(forward.widest for forward in model.forwards(batch, 4)) == max(seen)


class Screen(io.StringIO):
    """Output that says whether it is a terminal."""

    def __init__(self, terminal):
        super().__init__()
        self.isatty = lambda: terminal


def follow(out, seconds, steps=10, every=1):
    """Progress over all steps, each of which takes so long."""
    time_now = [0.0]
    progress = Progress(Running(steps=steps, batch=6), "scans", out, lambda: time_now[0])
    for step in range(every, steps + 1, every):
        time_now[0] += every * seconds
        timing = {"seconds": every * seconds, "sequences_per_s": 6 / seconds, "wait_share": 0.0}
        progress.see(Record(step, 0.5, {}, {}, {}, 0.1, 1.0, 0, timing))
        if step == 4:
            progress.say("a word")
    return out.getvalue()


def test_a_file_gets_the_first_record_one_in_half_a_minute_and_the_last_with_the_time_that_is_left():
    lines = follow(Screen(False), 11.0).splitlines()
    assert [re.match(r"step (\d+)|a word", line)[1] for line in lines] == ["1", "4", None, "7", "10"]
    assert lines[0].endswith("  0:00:11, 0:01:39 left") and lines[-1].endswith("  0:01:50, 0:00:00 left")
    assert follow(Screen(False), 360.0, every=2).splitlines()[0].endswith("0:12:00, 0:48:00 left")


def test_a_terminal_has_one_line_that_is_refreshed_and_words_on_lines_of_their_own():
    text = follow(Screen(True), 11.0)
    assert text.count("\r") == 10 and text.count("\n") == 3 and text.endswith("\n")
    before, _, after = text.partition("\na word\n")
    assert "step 4/10" in before.split("\r")[-1] and "step 5/10" in after.split("\r")[1]
    assert len({len(part) for part in before.split("\r")[1:]}) == 1  # what a longer line left is wiped away


def test_results_come_as_json_where_that_is_asked_for(data, run, tmp_path):
    for command, key in (
        (pretrain(data, tmp_path / "run", "--set", "steps=1"), "last"),
        (pretrain(data, tmp_path / "dry", "--dry-run"), "needs"),
        (["features", run, "--data", data, "--out", tmp_path / "f.npy", "--device", "cpu"], "shape"),
        (["export-weights", run, "--out", tmp_path / "w.safetensors"], "layout"),
    ):
        result = call(*command, "--json")
        assert result.exit_code == 0, result.output
        assert key in json.loads(result.stdout) and result.stderr
    assert {finding["level"] for finding in json.loads(call("doctor", "--json").stdout)} == {"ok"}


def test_a_collapse_is_warned_about_once_in_a_hundred_steps():
    watch, said = CollapseWatch(advice("4dcontrast").collapsed), []
    for step in range(1, 202):
        spread = {"3d": 0.59 if step > 50 else 0.61, "4d": 0.9}
        watch.see(Record(step, 0.0, {}, spread, {}, 0.1, 1.0, 0, {}), said.append)
    assert [re.search(r"step (\d+)", line)[1] for line in said] == ["51", "151"]
    assert "3d 0.59" in said[0] and "4d" not in said[0]


@pytest.mark.parametrize("method", ["strl", *METHODS, *DISTILLATIONS])
def test_what_a_warning_advises_are_settings_of_its_method(method):
    """Named settings exist, and none is of another method."""
    config = change(PRESETS["small"], method=method)
    settings = r"\b(lr|target_decay|stop_gradient|samples|prototypes|vicreg_weights|predictors|steps|weight)\b"
    named = re.findall(settings, " ".join(advice(method)))
    known = set(leaves(type(config)))
    of = {"strl": "strl."}.get(method, "distill." if method in DISTILLATIONS else "contrast.")
    own = {name for name in named if name not in ("lr", "steps", "weight")}
    assert own and all(of + name in known for name in own)
    assert ("predictors" in own) == (method in METHODS and METHODS[method].cosine)


def test_a_comparison_below_a_constant_is_warned_about_when_it_stays_there_and_ever_less_often():
    watch, said = ConstantWatch(advice("4dcontrast").unlearned), []
    for step in range(1, 1001):
        reached = 0.8 if step == 40 else 0.4  # once it is learned, for a moment
        fit = {"3d-4d/cos": reached, "3d-4d/constant": 0.7, "3d-3d/cos": 0.9, "3d-3d/constant": 0.5}
        watch.see(Record(step, 0.0, {}, {}, fit, 0.1, 1.0, 0, {}), said.append)
    assert [int(re.search(r"step (\d+)", line)[1]) for line in said] == [141, 241, 441, 841]
    assert "3d-4d has a cosine of 0.40, a constant vector would have 0.70" in said[0]
    assert "since step 41" in said[0] and "predictors=own" in said[0]


# Stopping ------------------------------------------------------------------------------------------------------------


def start(data, run):
    command = [sys.executable, "-m", "train", *pretrain(data, run, "--set", "steps=40", "--set", "checkpoint_steps=4")]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def stop_after(process, run, step, number):
    """Send a signal as soon as the log has a step; returns the exit code and what was printed."""
    deadline = time.monotonic() + 90
    while not any(line["step"] >= step for line in read_lines(run / "log.jsonl")):
        assert process.poll() is None and time.monotonic() < deadline, process.stdout.read()
        time.sleep(0.02)
    process.send_signal(number)
    output = process.communicate(timeout=60)[0]
    return process.returncode, output


def test_a_run_stopped_by_kill_sigterm_and_ctrl_c_ends_in_the_same_bits(data, tmp_path):
    whole, run = tmp_path / "whole", tmp_path / "stopped"
    more = ("--set", "steps=40", "--set", "checkpoint_steps=4")
    assert call(*pretrain(data, whole, *more)).exit_code == 0
    assert stop_after(start(data, run), run, 6, signal.SIGKILL)[0] == -signal.SIGKILL
    code, output = stop_after(start(data, run), run, 14, signal.SIGTERM)
    assert code == 143 and "SIGTERM at step" in output and "saved" in output, output
    code, output = stop_after(start(data, run), run, 24, signal.SIGINT)
    assert code == 130 and "SIGINT at step" in output and "Traceback" not in output, output
    stopped = len(log_of(run))
    resumed = call(*pretrain(data, run, *more, "--set", "workers=0"))
    said = re.findall(r"^step (\d+)", resumed.output, re.M)
    assert (said[0], said[-1]) == (str(stopped + 1), "40")
    assert digest(run) == digest(whole)
    assert log_of(run) == log_of(whole)


def start_two(data, run, steps=12):
    """The command in two processes that gloo joins, as torchrun starts them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    settings = ("--set", f"steps={steps}", "--set", "checkpoint_steps=4", "--device", "cpu")
    command = [sys.executable, "-m", "train", *pretrain(data, run, *settings)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    ranks = [shared | {"RANK": str(rank), "OMP_NUM_THREADS": "1"} for rank in range(2)]
    return [subprocess.Popen(command, cwd=ROOT, env=env, **pipes) for env in ranks]


def end_of(processes):
    """Exit codes and what was printed."""
    said = [process.communicate(timeout=120)[0] for process in processes]
    return [process.returncode for process in processes], said


def test_two_processes_of_which_one_is_killed_resume_to_the_bits_of_an_unbroken_run(data, tmp_path):
    codes, said = end_of(start_two(data, tmp_path / "whole"))
    assert codes == [0, 0], said
    assert said[1] == "" and "done: 12 steps" in said[0]
    killed = start_two(data, tmp_path / "run")
    stop_after(killed[1], tmp_path / "run", 6, signal.SIGKILL)
    codes, said = end_of(killed)
    assert codes[1] == -signal.SIGKILL and codes[0] not in (0, None), said
    codes, said = end_of(start_two(data, tmp_path / "run"))
    assert codes == [0, 0], said
    assert digest(tmp_path / "run") == digest(tmp_path / "whole")
    assert log_of(tmp_path / "run") == log_of(tmp_path / "whole")


def together(*arguments):
    """The command in two processes."""
    command = [sys.executable, "-m", "train", "together", "2", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=600)


def test_processes_started_together_make_the_steps_of_one_and_say_things_once(data, tmp_path):
    settings = ("--set", "steps=3", "--set", "shared_norms=true", "--set", "precision=float64", "--device", "cpu")
    done = together(*pretrain(data, tmp_path / "two", *settings))
    assert done.returncode == 0 and done.stdout.count("done: 3 steps") == 1, done.stderr
    assert call(*pretrain(data, tmp_path / "one", *settings)).exit_code == 0
    losses = [[line["loss"] for line in log_of(tmp_path / name)] for name in ("two", "one")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    refused = together(*pretrain(data, tmp_path / "odd", "--set", "batch=3", "--device", "cpu"))
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert refused.stderr.count("does not divide into 2 processes") == 1, refused.stderr


LEFT = "import sys, time; time.sleep(1); sys.exit(75)"
DAMAGED = "import sys; sys.exit('Error: sequence room3/002: damaged')"


@pytest.mark.parametrize(("first", "second", "said"), [(LEFT, DAMAGED, True), (DAMAGED, LEFT, False)])
def test_what_failed_is_said_and_not_that_others_lost_it(first, second, said, tmp_path):
    processes = []
    for rank, code in enumerate((first, second)):
        errors = open(tmp_path / str(rank), "w+b") if rank else None
        running = subprocess.Popen([sys.executable, "-c", code], stderr=errors)
        processes.append(Process(rank, running, errors))
    outcome = _wait(processes)
    assert outcome.code == 1
    assert outcome.said == ("process 1 of 2 failed:\nError: sequence room3/002: damaged\n" if said else "")


def test_a_lost_connection_to_another_process_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    with pytest.raises(SystemExit) as ended, frame.one_line_errors():
        raise RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:4711")
    assert ended.value.code == errors.LEFT_ALONE and "another process of the run has ended" in capsys.readouterr().err


# Runs side by side ---------------------------------------------------------------------------------------------------


def test_runs_are_compared_by_the_settings_that_differ_and_what_they_reached(data, run, tmp_path):
    assert call(*pretrain(data, tmp_path / "other", "--set", "lr=0.5", "--set", "method=moving-3d")).exit_code == 0
    result = call("compare", run, tmp_path / "other", "--out", tmp_path / "c.png", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["differences"]["optim.lr"] == [1.0, 0.5]
    assert found["differences"]["method"] == ["4dcontrast", "moving-3d"]
    assert not {"data", "run.batch", "optim.momentum", "scans"} & found["differences"].keys()
    for folder, last in zip((run, tmp_path / "other"), found["last"].values(), strict=True):
        line = read_lines(folder / "log.jsonl")[-1]
        assert last["loss"] == line["loss"] and last["terms.3d-3d"] == line["terms"]["3d-3d"]
    assert re.search(r"^\| optim.lr +\| +1 \| +0.5 \|$", result.stderr, re.M)
    assert re.search(r"^\| terms.4d-4d +\| +-?[\d.e-]+ \(-?[\d.e-]+\) \| +- \|$", result.stderr, re.M)
    assert Image.open(tmp_path / "c.png").size[0] > 1000 and Image.open(run / "curves.png").size[0] > 1000
    assert "no run there: give run folders" in refusal("compare", tmp_path, "--out", tmp_path / "d.png")


def test_long_curves_are_thinned_by_means_and_keep_their_span():
    steps, values = thinned(np.arange(10_000.0), np.arange(10_000.0) * 2)
    assert len(steps) == 400 and np.allclose(values, 2 * steps)
    assert steps[0] == 12 and steps[-1] == 9987


# What a backbone is used for -----------------------------------------------------------------------------------------


def test_features_come_one_row_a_point_with_a_picture(data, run, tmp_path):
    out = tmp_path / "new" / "f.npy"
    result = call("features", run, "--data", data, "--name", "room0001", "--out", out, "--device", "cpu")
    assert result.exit_code == 0, result.output
    values = np.load(out)
    cloud = open_dataset(data)[4].actors[0].cloud
    assert values.shape == (len(cloud.point), 16) and values.dtype == np.float32
    assert np.isfinite(values).all() and values.std(axis=0).min() > 0
    picture = np.asarray(Image.open(out.with_suffix(".png")).convert("RGB"))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50


def test_frames_are_looked_at_where_they_stand(tmp_path):
    recordings.write_frames_25k(tmp_path / "scans", recordings.camera_poses(4))
    gen4d.build_dataset(tmp_path / "scans", out=tmp_path / "made", kind="frames", least_points=50, frames=3)
    point, row, count = read_stored_scan(tmp_path / "made", None)
    frame = open_dataset(tmp_path / "made")[0].frame(0)
    np.testing.assert_allclose(point, frame.point, atol=1e-5)
    assert count == len(row) == len(frame.point)


def test_points_in_one_voxel_share_their_features_and_broken_rows_are_nan(data, run, tmp_path):
    import trimesh

    point = np.random.Generator(np.random.Philox(key=[1, 1])).uniform(0, 1, (200, 3)).astype(np.float32)
    point[1] = point[0]
    point[7] = np.nan
    trimesh.PointCloud(point).export(tmp_path / "scan.ply")
    out = tmp_path / "f.npy"
    result = call("features", run, "--scan", tmp_path / "scan.ply", "--out", out, "--device", "cpu")
    assert result.exit_code == 0, result.output
    values = np.load(out)
    assert np.isnan(values[7]).all() and np.isfinite(np.delete(values, 7, axis=0)).all()
    assert np.array_equal(values[0], values[1])


def test_exported_weights_give_the_same_features_and_say_how_they_lie(data, run, tmp_path):
    file = tmp_path / "backbone.safetensors"
    result = call("export-weights", run, "--out", file)
    assert result.exit_code == 0 and "(out, kx, ky, kz, in)" in result.output
    tensors = safetensors.torch.load_file(file)
    assert tensors["stem.conv.weight"].shape == (8, 3, 3, 3, 3)
    found = [tmp_path / "a.npy", tmp_path / "b.npy"]
    for weights, out in zip((run, file), found, strict=True):
        call("features", weights, "--data", data, "--out", out, "--device", "cpu")
    assert np.array_equal(np.load(found[0]), np.load(found[1]))


def test_the_layout_note_is_true_for_dense_convolutions(run):
    """weight.permute(0, 4, 1, 2, 3) in torch.nn.functional.conv3d computes what the sparse stem does."""
    net = load_backbone(run).net
    dense = torch.zeros(1, 3, 5, 5, 5)
    dense[0, :, 1:4, 2, 1:3] = torch.tensor([1.0, 2.0, 3.0])[:, None, None]
    coordinate = torch.nonzero(dense[0, 0]).int()
    coordinate = torch.cat([torch.zeros(len(coordinate), 1, dtype=torch.int32), coordinate], dim=1)
    values = dense[0][:, *coordinate[:, 1:].long().T].T.contiguous()
    out = net.stem.conv(sparse.tensor(coordinate, values, (5, 5, 5), 1)).features
    expected = torch.nn.functional.conv3d(dense, net.stem.conv.weight.permute(0, 4, 1, 2, 3), padding=1)
    torch.testing.assert_close(out, expected[0][:, *coordinate[:, 1:].long().T].T, rtol=1e-5, atol=1e-6)


@needs_shared_data
def test_features_of_a_real_scan(run, tmp_path):
    out = tmp_path / "f.npy"
    result = call("features", run, "--scan", SHARED / "pcl_indoor/room_scan1.pcd", "--out", out, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert np.load(out).shape == (112_586, 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["features", "{run}", "--data", "{data}", "--name", "attic"], "no sequence of a scan 'attic'"),
        (["features", "{run}", "--scan", "{data}/nothing.ply"], "nothing.ply"),
        (["features", "{data}", "--data", "{data}"], "no checkpoint there: give a run folder"),
        (["features", "{data}/dataset.json", "--data", "{data}"], "not weights that export-weights wrote"),
        (["export-weights", "{data}"], "no checkpoint there: give a run folder"),
    ],
)
def test_a_wrong_scan_or_weights_is_one_clear_line(arguments, message, data, run, tmp_path):
    filled = [a.format(run=run, data=data) for a in arguments]
    assert message in refusal(*filled, "--out", tmp_path / "out.npy")


COMMANDS = {
    "pretrain": ["--data", "x"],
    "finetune": ["--data", "x", "--weights", "none"],
    "classify": ["--data", "x"],
    "evaluate": ["x", "--data", "x"],
    "predict": ["x", "x"],
    "probe": ["--data", "x", "--weights", "none"],
    "features": ["x", "--data", "{data}"],
    "study": ["--size", "small"],
}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_gpu_that_is_not_there_is_one_line_in_every_command(command, data):
    arguments = [argument.format(data=data) for argument in COMMANDS[command]]
    line = refusal(command, *arguments, "--device", "cuda")
    assert line.startswith("Error: --device cuda: torch ") and line.endswith("gen4d-train doctor says more")


def test_every_command_with_a_device_is_asked_for_one_that_is_not_there():
    named = {name for name, command in main.commands.items() if any(p.name == "device" for p in command.params)}
    assert named == set(COMMANDS)


def test_more_processes_than_gpus_are_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert world.choose_device("cuda", 1) == torch.device("cuda", 1)
    with pytest.raises(
        world.DeviceError, match="GPU 2 of this machine is asked for, it has 2: start --nproc_per_node 2"
    ):
        world.choose_device("cuda", 2)


def test_a_terminal_that_hung_up_does_not_cost_a_step():
    class Gone:
        def isatty(self):
            return False

        def write(self, text):
            raise OSError(5, "Input/output error")

    Progress(PRESETS["small"].run, "sequences", Gone()).say("step")


def test_an_error_without_words_is_named_by_its_kind():
    assert (errors.reason(EOFError()), errors.reason(ValueError("a\nb"))) == ("EOFError", "a")


def test_features_need_one_source(run):
    result = call("features", run)
    assert result.exit_code == 2 and "either --scan or --data" in result.output


# Doctor --------------------------------------------------------------------------------------------------------------


def test_the_doctor_finds_this_machine_fit():
    result = call("doctor")
    assert result.exit_code == 0, result.output
    assert "equal dense ones" in result.output and "spconv" in result.output


@pytest.mark.parametrize("missing", ["torch", "spconv"])
@pytest.mark.parametrize("command", [["doctor"], ["features", "run", "--data", "data"]])
def test_without_its_packages_a_command_says_what_to_install(missing, command):
    """As where only the generator was installed."""
    code = f"import sys; sys.modules['{missing}'] = None; from train.__main__ import main; main({command})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert ".[cpu]" in done.stdout + done.stderr and missing in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("installed", "cuda", "message"),
    [
        ({}, False, "no spconv: install one of the extras"),
        ({"spconv": "2.3.8", "spconv-cu126": "2.3.8", "cumm": "0.7"}, False, "2 packages of spconv overwrite each"),
        ({"spconv-cu126": "2.3.8", "cumm": "0.7"}, True, "different builds"),
        ({"spconv": "2.3.8", "cumm": "0.7"}, True, "a CUDA machine with spconv's CPU build"),
    ],
)
def test_the_doctor_finds_mixed_packages(installed, cuda, message):
    findings = doctor.check_packages(installed, cuda)
    assert any(finding.level == "bad" and message in finding.text for finding in findings)


@pytest.mark.parametrize(
    ("installed", "cuda", "levels"),
    [
        ({"spconv-triton": "1.0.0"}, True, {"ok"}),
        ({"spconv-triton": "1.0.0"}, False, {"ok", "bad"}),
        ({"spconv-triton": "1.0.0", "cumm-cu126": "0.7", "spconv-cu126": "2.3"}, True, {"ok"}),
    ],
)
def test_the_doctor_takes_triton_alone_with_a_gpu_and_beside_spconv(installed, cuda, levels):
    assert {finding.level for finding in doctor.check_packages(installed, cuda)} == levels


def test_the_doctor_finds_no_fault_with_one_build():
    assert {f.level for f in doctor.check_packages({"cumm-cu126": "0.7", "spconv-cu126": "2.3"}, True)} == {"ok"}


@pytest.mark.parametrize(
    ("capability", "levels"), [((9, 0), []), ((8, 6), []), ((10, 0), ["warning"]), ((3, 5), ["bad"])]
)
def test_the_doctor_compares_gpus_with_the_wheels(capability, levels):
    archs = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100"]
    assert [finding.level for finding in doctor.check_capability(capability, archs)] == levels


@pytest.mark.parametrize("command", sorted(main.commands))
def test_help_has_an_example(command):
    result = call(command, "--help")
    assert result.exit_code == 0 and f"gen4d-train {command}" in result.output
