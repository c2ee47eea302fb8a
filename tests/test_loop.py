"""The loop: resumed anywhere bit for bit, split over processes without changing gradients, stopped by bad numbers."""

import concurrent.futures
import contextlib
import functools
import gc
import hashlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from tests.makers.sequences import make_dataset
from tests.two_processes import BASELINES, CONFIG, GATHERED, SHORT, SMALL_MASKS, run_free, run_frozen, run_gathered
from train.config import change
from train.methods.config import PRESETS
from train.methods.pretrain import make, make_stream, pretrain
from train.run import checkpoint, loop, memory
from train.run.checkpoint import CheckpointError
from train.run.log import Log, Meter, Record, read_lines
from train.run.loop import LoopError, Loss, Stopped
from train.run.world import World

DATA = make_dataset(8, points=200)
ALONE = World(0, 1, torch.device("cpu"))
TINY = change(CONFIG, steps=12, batch=2, checkpoint_steps=5, precision="float32")
GOLDEN = pathlib.Path(__file__).parent / "golden_pretrain.json"


@pytest.fixture(autouse=True)
def one_thread():
    """As the command line does on a CPU."""
    torch.set_num_threads(1)


def run_until(run, config, stop=None, data=SHORT):
    """Train as long as there are steps, or drop everything after `stop` steps, as a kill does."""
    with contextlib.closing(pretrain(config, data, run, ALONE)) as records:
        for record in records:
            if record.step == stop:
                return


def digest(run):
    """One hash of the newest checkpoint's weights, optimiser and random states."""
    found = checkpoint.newest(run)
    sha = hashlib.sha256(str(found.step).encode())
    for name, value in sorted((found.model | found.tensors).items()):
        sha.update(name.encode() + value.numpy().tobytes())
    return sha.hexdigest()


def log_of(run):
    """The log without what the machine took."""
    return [{k: v for k, v in line.items() if k != "timing"} for line in read_lines(run / "log.jsonl")]


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    run = tmp_path_factory.mktemp("whole")
    run_until(run, TINY)
    return run


@pytest.mark.parametrize("stop", range(1, 12))
def test_a_run_killed_at_any_step_ends_in_the_same_bits(stop, whole_run, tmp_path):
    """With another number of loader workers before and after; the steps since the last checkpoint are made again."""
    workers = (0, 2, 1)
    run_until(tmp_path, change(TINY, workers=workers[stop % 3]), stop)
    assert len(log_of(tmp_path)) == stop
    run_until(tmp_path, change(TINY, workers=workers[(stop + 1) % 3]))
    assert digest(tmp_path) == digest(whole_run)
    assert log_of(tmp_path) == log_of(whole_run)


def test_the_log_holds_every_steps_terms_spread_and_timing(whole_run):
    lines = read_lines(whole_run / "log.jsonl")
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert set(lines[0]["terms"]) == {"3d-3d", "3d-4d", "4d-4d"}
    assert set(lines[0]["spread"]) == {"3d", "4d"}
    assert set(lines[0]["timing"]) == {"seconds", "wait_share", "sequences_per_s", "memory_gb"}
    assert lines[0]["loss"] == pytest.approx(sum(lines[0]["terms"].values()), abs=1e-6)
    assert list((whole_run / "tensorboard").iterdir())


def test_another_seed_gives_another_run(whole_run, tmp_path):
    run_until(tmp_path, change(TINY, seed=1, steps=1))
    assert log_of(tmp_path)[0]["loss"] != log_of(whole_run)[0]["loss"]


def test_more_steps_extend_a_finished_run(tmp_path, whole_run):
    run_until(tmp_path, change(TINY, steps=7))
    run_until(tmp_path, TINY)
    assert digest(tmp_path) == digest(whole_run)
    run_until(tmp_path, TINY)
    assert log_of(tmp_path) == log_of(whole_run)


def test_milestones_stay_besides_the_last_two_checkpoints(tmp_path):
    config = change(TINY, steps=11, checkpoint_steps=2, milestone_steps=5)
    run_until(tmp_path, config)
    steps = sorted(int(path.name[-8:]) for path in tmp_path.glob("checkpoint-*"))
    assert steps == [5, 10, 11]
    assert checkpoint.read(tmp_path / "checkpoint-00000005").step == 5


def test_a_log_line_cut_by_a_kill_is_dropped(tmp_path):
    record = Record(1, 0.5, {"a": 0.5}, {}, {}, 0.1, None, 0, {"seconds": 1.0})
    with contextlib.closing(Log(tmp_path, 0)) as log:
        log.write(record)
        log.write(record._replace(step=2))
    path = tmp_path / "log.jsonl"
    path.write_text(path.read_text()[:-9])
    assert [line["step"] for line in read_lines(path)] == [1]
    with contextlib.closing(Log(tmp_path, 1)) as log:
        log.write(record._replace(step=2))
    assert [line["step"] for line in read_lines(path)] == [1, 2]


def test_the_learning_rate_falls_by_one_hundredth_every_thousand_steps():
    lr_at = functools.partial(PRESETS["paper"].optim.lr_at, steps=50_000)
    assert [lr_at(step) for step in (0, 999)] == [0.25, 0.25]
    assert lr_at(1000) == pytest.approx(0.2475)
    assert lr_at(49_999) == pytest.approx(0.25 * 0.99**49)


class Toy(nn.Module):
    """A scalar to fit; `spoil` maps a call's number to what its loss is multiplied with."""

    def __init__(self, spoil):
        super().__init__()
        self.weight, self.calls, self.spoil = nn.Parameter(torch.ones(3)), 0, spoil

    def forward(self, batch):
        self.calls += 1
        total = (self.weight * batch[0]).sum().square() * self.spoil.get(self.calls, 1.0)
        return Loss(total, {"toy": total.detach()}, {})


class ToyStream:
    """Batches of one growing number."""

    def batches(self, step):
        while True:
            yield (torch.full((3,), 0.1 * (step + 1)),)
            step += 1


def toy_plan(steps, every, lr_at):
    return loop.Plan(loop.Running(steps=steps, batch=1, checkpoint_steps=every, log_steps=1), "float32", lr_at, {})


def run_toy(run, model, plan=None, optimiser=None):
    plan = plan or toy_plan(9, 2, lambda step: 0.1)
    optimiser = optimiser or torch.optim.SGD(model.parameters(), lr=0.1)
    with contextlib.closing(loop.train(loop.Prepared(model, optimiser, ToyStream(), plan), run, ALONE)) as records:
        return list(records)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_at_its_step_and_keeps_the_checkpoints_before(value, tmp_path):
    with pytest.raises(LoopError, match=r"step 6: the loss is (nan|inf) \(toy (nan|inf)\).*lr below 0.1"):
        run_toy(tmp_path, Toy({6: value}))
    found = checkpoint.newest(tmp_path)
    assert found.step == 4
    assert [line["step"] for line in read_lines(tmp_path / "log.jsonl")] == [1, 2, 3, 4, 5]


def test_a_gradient_that_is_not_finite_stops_before_it_reaches_the_weights(tmp_path):
    model = Toy({})
    model.weight.register_hook(lambda gradient: gradient * float("nan") if model.calls == 4 else gradient)
    with pytest.raises(LoopError, match="step 4: the gradient's norm is nan"):
        run_toy(tmp_path, model)
    assert torch.isfinite(model.weight).all()


def test_every_update_is_made_with_its_own_learning_rate(tmp_path):
    model = Toy({})
    plan = toy_plan(4, 9, lambda step: (0.5, 0.25, 0.0, 0.0)[step])
    weight = [1.0]
    for step, lr in enumerate((0.5, 0.25, 0.0, 0.0)):
        x = 0.1 * (step + 1)
        weight.append(weight[-1] - lr * 2 * 3 * weight[-1] * x * x)
    records = run_toy(tmp_path, model, plan)
    assert [record.lr for record in records] == [0.5, 0.25, 0.0, 0.0]
    torch.testing.assert_close(model.weight.detach(), torch.full((3,), weight[-1]))


def test_what_is_done_between_records_is_not_counted_as_a_steps_time(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("train.run.log.time.perf_counter", lambda: now[0])
    meter = Meter(torch.device("cpu"))
    for at, act in ((5.0, meter.begin), (7.0, None)):
        now[0] = at
        if act:
            act()
    assert meter.take()["seconds"] == 2.0


def test_signals_act_as_before_when_training_ends(tmp_path):
    before = [signal.getsignal(number) for number in loop.STOPPING]
    run_toy(tmp_path / "done", Toy({}))
    with pytest.raises(LoopError):
        run_toy(tmp_path / "failed", Toy({2: float("nan")}))
    assert [signal.getsignal(number) for number in loop.STOPPING] == before


def test_training_runs_in_another_thread_which_hears_no_signals(tmp_path):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(run_toy, tmp_path / "aside", Toy({})).result(60)
    run_toy(tmp_path / "main", Toy({}))
    assert digest(tmp_path / "aside") == digest(tmp_path / "main")


@pytest.mark.parametrize("number", loop.STOPPING)
def test_a_signal_saves_the_step_and_one_that_is_ignored_is_not_heard(number, tmp_path):
    """As nohup ignores a hang-up. The step that is being made when the signal comes is finished."""
    before = signal.getsignal(number)
    try:
        for handler, steps in ((signal.SIG_IGN, 12), (signal.SIG_DFL, 4)):
            run = tmp_path / str(int(handler))
            signal.signal(number, handler)
            with pytest.raises(Stopped) if steps < 12 else contextlib.nullcontext():
                with contextlib.closing(pretrain(TINY, SHORT, run, ALONE)) as records:
                    for record in records:
                        if record.step == 3:
                            signal.raise_signal(number)
            assert checkpoint.newest(run).step == steps
            assert signal.getsignal(number) == handler
    finally:
        signal.signal(number, before)


def test_any_model_and_optimiser_can_be_trained_and_resumed(tmp_path):
    """What fine-tuning needs: the loop knows a loss, not a method."""
    first, second = Toy({}), Toy({})
    whole = run_toy(tmp_path / "a", first, optimiser=torch.optim.Adam(first.parameters()))
    short = toy_plan(5, 2, lambda step: 0.1)
    run_toy(tmp_path / "b", second, short, torch.optim.Adam(second.parameters()))
    third = Toy({})
    rest = run_toy(tmp_path / "b", third, optimiser=torch.optim.Adam(third.parameters()))
    assert [record.loss for record in whole[5:]] == [record.loss for record in rest]
    assert torch.equal(first.weight, third.weight)


def test_a_part_of_the_batch_at_a_time_gives_the_same_update(tmp_path):
    """With frozen norms: free ones see one part at a time, so `accumulate` belongs to the configuration."""
    whole, _ = run_frozen(tmp_path / "1", ALONE)
    parts, _ = run_frozen(tmp_path / "4", ALONE, change(CONFIG, accumulate=4))
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, rtol=1e-9, atol=1e-12, msg=name)


def start_processes(folder, size, what="order"):
    """Run `tests.two_processes` in processes that gloo joins; fails with what they say."""
    folder.mkdir(exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = os.environ | {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared |= {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.two_processes", str(folder), what]
    root = pathlib.Path(__file__).parents[1]
    started = [
        subprocess.Popen(command, cwd=root, env=shared | {"RANK": str(rank)}, stderr=subprocess.PIPE, text=True)
        for rank in range(size)
    ]
    errors = [process.communicate(timeout=120)[1] for process in started]
    assert [process.returncode for process in started] == [0] * size, errors


def test_two_processes_joined_by_gloo_make_the_one_process_update(tmp_path):
    alone, records = run_frozen(tmp_path / "alone", ALONE)
    folder = tmp_path / "together"
    start_processes(folder, 2)
    found = checkpoint.newest(folder)
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(found.model[name], value, rtol=1e-9, atol=1e-12, msg=name)
    logged = [line["loss"] for line in read_lines(folder / "log.jsonl")]
    assert logged == pytest.approx([record.loss for record in records], rel=1e-9)
    assert_global_order(folder, 2)
    first, second = json.loads((folder / "drawn.json").read_text())
    assert not set(first) & set(second), "what nets draw in training, as dropout does"


def test_two_processes_with_shared_norms_make_the_update_of_one_process_with_the_whole_batch(tmp_path):
    """Weights and running statistics; norms of their own would differ in the first digits, which is looked at too."""
    alone = run_free(tmp_path / "alone", ALONE)
    start_processes(tmp_path / "together", 2, "shared")
    found = checkpoint.newest(tmp_path / "together")
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(found.model[name], value, rtol=1e-8, atol=1e-10, msg=name)
    parts = run_free(tmp_path / "parts", ALONE, change(CONFIG, accumulate=2))
    name = "encoder3d.backbone.stem.norm.running_var"
    assert not torch.allclose(parts.state_dict()[name], alone.state_dict()[name], rtol=1e-3)


def test_two_processes_make_the_update_of_one_by_losses_that_look_at_all_samples_of_the_batch(tmp_path):
    """Moments of VICReg, shares of self-distillation; all others look at one sequence at a time."""
    run_gathered(tmp_path / "alone", ALONE)
    start_processes(tmp_path / "together", 2, "gathered")
    for method in GATHERED:
        alone, together = (checkpoint.newest(tmp_path / place / method).model for place in ("alone", "together"))
        for name, value in alone.items():
            torch.testing.assert_close(together[name], value, rtol=1e-8, atol=1e-10, msg=f"{method}: {name}")


def test_processes_that_see_different_folders_resume_from_the_first_ones(tmp_path):
    """As on two machines with disks of their own. Each reading for itself, they would go on at steps 3 and 1."""
    start_processes(tmp_path, 2, "apart")
    first, second = json.loads((tmp_path / "apart.json").read_text())
    (whole_steps, *whole), (steps, *resumed) = first
    assert (whole_steps, steps) == ([1, 2, 3, 4], [3, 4])
    assert first == second and whole == resumed
    assert not (tmp_path / "own1").exists()


def test_a_second_training_in_the_same_folder_is_refused_until_the_first_has_ended(tmp_path):
    with contextlib.closing(pretrain(TINY, SHORT, tmp_path, ALONE)) as records:
        assert next(records).step == 1
        with pytest.raises(CheckpointError, match=rf"process {os.getpid()} on .* trains here: wait for its end"):
            run_until(tmp_path, TINY)
        assert next(records).step == 2
    run_until(tmp_path, change(TINY, steps=3))
    assert [line["step"] for line in log_of(tmp_path)] == [1, 2, 3]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's thread
@pytest.mark.parametrize("kilobytes", [8, 150, 600])
def test_a_disk_that_fills_stops_the_run_in_one_line_and_it_goes_on_with_space(
    full_disk, whole_run, tmp_path, kilobytes
):
    disk = full_disk(kilobytes * 1024)
    with pytest.raises(CheckpointError, match=r"cannot be written .No space left on device.: free some space; what "):
        run_until(disk / "run", TINY)
    assert not list((disk / "run").rglob("*.tmp"))
    subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
    run_until(disk / "run", TINY)
    assert digest(disk / "run") == digest(whole_run) and log_of(disk / "run") == log_of(whole_run)


def test_four_processes_joined_by_gloo_share_the_global_order(tmp_path):
    start_processes(tmp_path, 4)
    assert_global_order(tmp_path, 4)


def assert_global_order(folder, size):
    """From step 3 on, what the processes took is what one process takes, each sequence once an epoch."""
    order = json.loads((folder / "order.json").read_text())
    together = [[number for rank in range(size) for number in order[rank][step][0]] for step in range(5)]
    expected = make_stream(CONFIG, DATA, ALONE).keys_from(3)
    assert together == [list(next(expected).item) for _ in range(5)]
    assert sorted(together[1] + together[2]) == list(range(8))


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("float64", 1e-9)])
def test_ten_steps_give_the_golden_losses(precision, tolerance, tmp_path):
    """A change that should not alter numbers must reproduce them; `python -m tests.test_loop` writes them anew."""
    golden = json.loads(GOLDEN.read_text())[precision]
    np.testing.assert_allclose(golden_losses(precision, tmp_path), golden, rtol=0, atol=tolerance)


def golden_losses(precision, run):
    """Total loss and terms of ten steps."""
    run_until(run, change(TINY, steps=10, precision=precision, samples=64), data=DATA)
    return [[line["loss"], *line["terms"].values()] for line in log_of(run)]


@pytest.mark.parametrize("method", BASELINES)
def test_four_steps_of_every_baseline_give_the_golden_losses(method, tmp_path):
    golden = json.loads(GOLDEN.read_text())["methods"][method]
    np.testing.assert_allclose(golden_steps(method, tmp_path), golden, rtol=0, atol=1e-9)


def golden_steps(method, run):
    """Total loss of four steps in float64 on short sequences."""
    run_until(run, change(TINY, method=method, steps=4, precision="float64", **SMALL_MASKS), data=SHORT)
    return [line["loss"] for line in log_of(run)]


@pytest.mark.parametrize("method", ["moving-3d-msc", "moving-3d-distill"])
def test_methods_that_mask_and_that_follow_resume_in_the_same_bits(method, tmp_path):
    """What is masked is drawn by step; a teacher and its norms are a part of the checkpoint."""
    config = change(TINY, method=method, steps=5, checkpoint_steps=2, **SMALL_MASKS)
    run_until(tmp_path / "whole", config)
    run_until(tmp_path / "killed", config, stop=3)
    run_until(tmp_path / "killed", config)
    assert digest(tmp_path / "killed") == digest(tmp_path / "whole")
    assert log_of(tmp_path / "killed") == log_of(tmp_path / "whole")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_the_loop_runs_on_a_gpu_close_to_the_cpu(precision, tmp_path):
    config = change(TINY, precision=precision, samples=64)
    world = World(0, 1, torch.device("cuda"))
    with contextlib.closing(pretrain(config, DATA, tmp_path / "gpu", world)) as records:
        gpu = [record.loss for record in records]
    run_until(tmp_path / "cpu", change(TINY, samples=64), data=DATA)
    cpu = [line["loss"] for line in log_of(tmp_path / "cpu")]
    same = 3 if precision == "float32" else 1  # half precision leaves out the first updates until its scale fits
    np.testing.assert_allclose(gpu[:same], cpu[:same], atol=2e-3 if precision == "float32" else 2e-2)
    with contextlib.closing(pretrain(change(config, steps=14), DATA, tmp_path / "gpu", world)) as records:
        assert [record.step for record in records] == [13, 14]


def estimate(config, data, precision, world):
    prepared = make(config, data, world)
    return memory.estimate(prepared.stream, prepared.model, precision)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_step_of_the_paper_preset_is_measured(precision, tmp_path, capsys):
    """Prints what a step takes at full size, or says what does not fit."""
    data = make_dataset(12, points=110_000, shape_points=1000, extent_m=6.0)
    config = change(PRESETS["paper"], steps=6, precision=precision, log_steps=1, checkpoint_steps=100)
    world = World(0, 1, torch.device("cuda"))
    gc.collect()
    torch.cuda.empty_cache()  # what an earlier test left in torch's cache is not free for the estimate
    free = memory.available(world.device)
    while (needed := estimate(config, data, precision, world)).device > free:
        config = change(config, accumulate={1: 2, 2: 3, 3: 4, 4: 6, 6: 12}[config.run.accumulate])
    torch.cuda.reset_peak_memory_stats()
    with contextlib.closing(pretrain(config, data, tmp_path, world)) as records:
        timing = [record.timing for record in records][2:]
    seconds = np.median([t["seconds"] for t in timing])
    with capsys.disabled():
        print(
            f"\npaper preset, {precision}, accumulate {config.run.accumulate}, {torch.cuda.get_device_name()}: "
            f"{seconds:.2f} s a step, peak {timing[-1]['memory_gb']:.1f} GB (estimated {needed.device / 1e9:.1f}), "
            f"waits {np.median([t['wait_share'] for t in timing]):.1%}, {needed.voxels_3d} voxels a frame index"
        )
    assert np.isfinite(seconds)


if __name__ == "__main__":
    import tempfile

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        losses = {p: golden_losses(p, pathlib.Path(folder) / p) for p in ("float32", "float64")}
        losses["methods"] = {name: golden_steps(name, pathlib.Path(folder) / name) for name in BASELINES}
    GOLDEN.write_text(json.dumps(losses, indent=1) + "\n")
