"""Whether each term of 4DContrast is learned, with predictors shared by its terms or their own; then probes.

    python -m benchmarks terms --data data/sequences --scans data/samples/scans --out runs/terms

Runs of the preset `small` on voxels of 10 and 20 cm, `predictors` shared and own, seeds 0, 1, 2, all at once; what is
printed comes from their logs. Where a run was stopped, its last step counts.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

SETTINGS = ["net_3d=small", "net_4d=small-4d", "voxel_m=0.1", "voxel_4d_m=0.2", "precision=float32", "workers=1"]
TERMS = ("3d-3d", "3d-4d", "4d-3d", "4d-4d")


def read_arguments(arguments: list[str]) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks terms", description=__doc__.partition("\n")[0])
    parser.add_argument("--data", required=True, help="data set")
    parser.add_argument("--scans", required=True, help="labelled scans for probes")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of the runs")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--parallel", type=int, default=6)
    parser.add_argument("--most", type=float, default=3600.0, help="seconds for a run, and for a probe")
    parser.add_argument("--table", action="store_true", help="train nothing, print what is there")
    parser.add_argument("--set", dest="assignments", action="append", default=[], help="setting of all runs")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Train, probe, print."""
    asked = read_arguments(arguments)
    names = [(predictors, seed) for seed in range(asked.seeds) for predictors in ("shared", "own")]
    if not asked.table:
        with ThreadPoolExecutor(asked.parallel) as pool:
            list(pool.map(lambda name: train_and_probe(*name, asked), names))
    table(names, asked)


def train_and_probe(predictors: str, seed: int, asked: argparse.Namespace) -> None:
    """One run of each; their output lies beside them."""
    run = asked.out / f"{predictors}-{seed}"
    run.mkdir(parents=True, exist_ok=True)
    own = [f"predictors={predictors}", f"seed={seed}", f"steps={asked.steps}", "log_steps=1"]
    own += [f"checkpoint_steps={max(1, asked.steps // 5)}"]
    settings = [part for text in (*SETTINGS, *own, *asked.assignments) for part in ("--set", text)]
    fixed = ["--device", asked.device, "--preset", "small"]
    call(["pretrain", "--data", asked.data, "--run", str(run), *fixed, *settings], run / "pretrain.txt", asked.most)
    if list(run.glob("checkpoint-*")):
        probe = ["probe", "--data", asked.scans, "--weights", str(run), "--run", str(run / "probe"), *fixed]
        call([*probe, "--set", "voxel_m=0.1", "--set", f"seed={seed}"], run / "probe.txt", asked.most)


def call(arguments: list[str], output: pathlib.Path, most: float) -> None:
    """One command of the trainer, its output in a file; after `most` seconds it is asked to save and end."""
    with open(output, "w", encoding="utf-8") as file:
        process = subprocess.Popen([sys.executable, "-m", "train", *arguments], stdout=file, stderr=subprocess.STDOUT)
        try:
            process.wait(most)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()


def table(names: list[tuple[str, int]], asked: argparse.Namespace) -> None:
    """Figures of every term at step 1 (no update made yet), 120 and the last, and what probes say."""
    print("predictors seed step term   cos constant centred top1 spread 3d 4d")
    for predictors, seed in names:
        log = asked.out / f"{predictors}-{seed}" / "log.jsonl"
        lines = {row["step"]: row for row in map(json.loads, log.read_text().splitlines())} if log.exists() else {}
        for step in sorted({1, 121, max(lines, default=1)} & set(lines)):
            for term in TERMS:
                print(f"{predictors:8s} {seed} {step - 1:4d} {term}", figures(lines, step, term))
        found = asked.out / f"{predictors}-{seed}" / "probe" / "probe.json"
        if found.exists():
            for features, kinds in json.loads(found.read_text())["results"].items():
                shares = kinds["linear"]["points"]["miou"], kinds["knn"]["miou"]
                print(f"{predictors:8s} {seed} probe of {features}: linear {shares[0]:.4f} k-NN {shares[1]:.4f}")


def figures(lines: dict[int, dict], step: int, term: str) -> str:
    """Means over the ten steps up to one: a batch alone says little."""
    near = [lines[s] for s in range(max(1, step - 9), step + 1) if s in lines]
    kinds = [[row["fit"][f"{term}/{kind}"] for row in near] for kind in ("cos", "constant", "centred", "top1")]
    spreads = [[row["spread"].get(name, 0.0) for row in near] for name in ("3d", "4d")]
    return " ".join(f"{statistics.mean(values):.3f}" for values in (*kinds, *spreads))
