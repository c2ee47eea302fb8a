"""What a step of pre-training takes on a GPU: precisions, backends, memory.

    python -m benchmarks gpu                 spconv in float16: in turn, index pairs ahead, tensors made again
    python -m benchmarks gpu tf32 --tune 3   one variant alone; `--help` lists them

Preset `paper` on built-in rooms, whose clouds lie in Morton order; 50 steps after 20 of warm-up, or what fits into
--most seconds a variant, where a third of it is warm-up. spconv-triton compiles and tunes a kernel for every layer
first, some thirty configurations each; `triton-quick-*` tries two. spconv keeps the kernels that it tuned for a layer,
TF32 or not, for as long as a process lives: name variants of TF32 and of float32 in calls of their own.
"""

import argparse
import contextlib
import gc
import json
import pathlib
import statistics
import tempfile
import time

VARIANTS = {
    "float16": ["precision=float16"],
    "float16-ahead": ["precision=float16", "rulebooks_ahead=true"],
    "float16-recompute": ["precision=float16", "recompute=true"],
    "tf32": ["precision=tf32"],
    "float32": ["precision=float32"],
    "float64": ["precision=float64"],  # for a look at this part on a CPU
    "triton-float16": ["precision=float16", "backend=spconv-triton"],
    "triton-tf32": ["precision=tf32", "backend=spconv-triton"],
    "triton-float32": ["precision=float32", "backend=spconv-triton"],
    "triton-quick-float16": ["precision=float16", "backend=spconv-triton"],
    "triton-quick-tf32": ["precision=tf32", "backend=spconv-triton"],
    "triton-quick-float32": ["precision=float32", "backend=spconv-triton"],
}
DEFAULT = ["float16", "float16-ahead", "float16-recompute"]
# What a kernel of spconv-triton tries in the quick variants: products of 64 and of 32 channels at a time.
KEPT = {"_gather_gemm_kernel": (6, 10), "_dweight_masked_kernel": (0, 5)}


def read_arguments(arguments: list[str]) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu", description=__doc__.partition("\n")[0])
    parser.add_argument("variants", nargs="*", default=DEFAULT, help=", ".join(VARIANTS))
    parser.add_argument("--data", help="data set; built from 12 built-in rooms where not given")
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--set", dest="assignments", action="append", default=[], help="setting of all variants")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--warm", type=int, default=20, help="steps before the first that counts")
    parser.add_argument("--steps", type=int, default=50, help="steps that count")
    parser.add_argument("--tune", type=int, default=0, help="tune kernels in two steps of so many sequences first")
    parser.add_argument("--most", type=float, default=600.0, help="seconds a variant")
    parser.add_argument("--out", type=pathlib.Path, help="file to which a line of JSON a variant is appended")
    asked = parser.parse_args(arguments)
    odd = [name for name in asked.variants if name not in VARIANTS]
    if odd:
        parser.error(f"{odd[0]!r} is no variant: {', '.join(VARIANTS)}")
    return asked


def main(arguments: list[str]) -> None:
    """Measure variants one after another; one that fails says why, and the others go on."""
    asked = read_arguments(arguments)
    import torch

    from train.doctor import machine

    print(machine(torch.device(asked.device)), flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        data = asked.data or str(build(folder, rooms=12))
        for variant in asked.variants:
            try:
                found = measure(variant, data, asked, folder / variant)
            except Exception as error:  # of whatever kind: the rest is still worth measuring
                found = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
            print(line(variant, found), flush=True)
            if asked.out:
                with open(asked.out, "a", encoding="utf-8") as file:
                    file.write(json.dumps({"variant": variant} | found) + "\n")
            gc.collect()
            if asked.device == "cuda":
                torch.cuda.empty_cache()


def build(folder: pathlib.Path, rooms: int) -> pathlib.Path:
    """Sequences of built-in rooms."""
    from gen4d import build_dataset
    from gen4d.samples.write import write_samples

    write_samples(folder / "samples", rooms=rooms)
    build_dataset(folder / "samples" / "scans", folder / "samples" / "shapes", folder / "data", workers=4)
    return folder / "data"


def measure(variant: str, data: str, asked: argparse.Namespace, run: pathlib.Path) -> dict:
    """Steps of one variant, by the trainer's own loop and log."""
    import torch

    from gen4d.shards import open_dataset
    from train.config import change, resolve
    from train.methods.config import PRESETS
    from train.methods.pretrain import make, pretrain_prepared
    from train.nets import sparse
    from train.run import memory
    from train.run.precision import CHECKED
    from train.run.world import World

    own = ["steps=100000", "log_steps=1", "checkpoint_steps=100000", "milestone_steps=100000", "workers=8"]
    config = resolve(asked.preset, [*own, *VARIANTS[variant], *asked.assignments], PRESETS)
    world = World(0, 1, torch.device(asked.device))
    start = time.perf_counter()
    if "quick" in variant:
        keep_few_configurations()
    dataset = open_dataset(data)
    if asked.tune:
        few = make(change(config, batch=asked.tune, accumulate=1, steps=2), dataset, world)
        list(pretrain_prepared(few, run / "tune", world))
    prepared = make(config, dataset, world)
    sparse.self_check(world.device, CHECKED[prepared.plan.precision])
    needed = memory.estimate(prepared.stream, prepared.model, prepared.plan.precision, config.run.rulebooks_ahead)
    if asked.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    taken, last, ready = [], None, time.perf_counter() - start
    with contextlib.closing(pretrain_prepared(prepared, run, world)) as records:
        for record in records:
            spent = time.perf_counter() - start
            last = record
            if not taken and record.step <= asked.warm and spent < ready + (asked.most - ready) / 3:
                continue
            taken.append(record.timing)
            if len(taken) >= asked.steps or spent > asked.most:
                break
    seconds = [timing["seconds"] for timing in taken]
    return {
        "warm": last.step - len(taken),
        "steps": len(taken),
        "seconds": statistics.median(seconds),
        "mean": statistics.mean(seconds),
        "sequences_per_s": config.run.batch / statistics.mean(seconds),
        "memory_gb": taken[-1]["memory_gb"],
        "estimated_gb": needed.device / 1e9,
        "waits": statistics.mean(timing["wait_share"] for timing in taken),
        "voxels": [needed.voxels_3d, needed.voxels_4d],
        "loss": last.loss,
        "skipped": last.skipped,
        "before_s": ready,
        "all_s": time.perf_counter() - start,
    }


def keep_few_configurations() -> None:
    """Of what spconv-triton's kernels try, leave one or two."""
    import importlib

    from triton.runtime.autotuner import Autotuner

    for name in ("gemm", "pair_kernels"):
        module = importlib.import_module(f"spconv_triton.pytorch._impl.{name}")
        for kernel_name, kernel in vars(module).items():
            if isinstance(kernel, Autotuner) and len(kernel.configs) > 2:
                kernel.configs = [kernel.configs[i] for i in KEPT.get(kernel_name, (0,))]


def line(variant: str, found: dict) -> str:
    """A line of the table."""
    if "error" in found:
        return f"  {variant:22s} {found['error']}"
    return (
        f"  {variant:22s} {found['seconds']:.3f} s a step (mean {found['mean']:.3f} of {found['steps']} after "
        f"{found['warm']}), {found['sequences_per_s']:.1f} sequences/s, peak {found['memory_gb']:.1f} GB (estimated "
        f"{found['estimated_gb']:.1f}), waits {found['waits']:.0%}, {found['voxels'][0]} voxels a frame index, "
        f"{found['voxels'][1]} in 4D, loss {found['loss']:.3f}, all of it {found['all_s']:.0f} s"
    )
