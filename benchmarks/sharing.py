"""How many small runs share one GPU: steps a second of all of them together.

    python -m benchmarks sharing                     one run, 4, 8 and 14 in processes of their own, and 4 in one
    python -m benchmarks sharing 14 14:mps 4:threads which are named
    python -m benchmarks sharing 1 2 --device cpu --size small

N: N processes. N:mps: N processes under NVIDIA's Multi-Process Service, which this starts, with folders of its own, and
ends. N:threads: N runs in one process, a thread and a CUDA stream each. The runs are cells of a study of --size on few
rooms: fine-tuning from scratch, or pre-training by --pretrain ARM. All begin to count when the last has warmed up.
"""

import argparse
import contextlib
import functools
import json
import multiprocessing
import os
import pathlib
import queue
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

DEFAULT = ["1", "4", "8", "14", "4:threads"]


def read_arguments(arguments: list[str]) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks sharing", description=__doc__.partition("\n")[0])
    parser.add_argument("ways", nargs="*", default=DEFAULT, help="N, N:mps or N:threads")
    parser.add_argument("--size", default="full", help="study whose runs these are")
    parser.add_argument("--set", dest="assignments", action="append", default=[], help="setting of the study")
    parser.add_argument("--pretrain", metavar="ARM", help="steps of an arm's pre-training instead")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rooms", type=int, default=6)
    parser.add_argument("--warm", type=int, default=20, help="steps before a run is ready")
    parser.add_argument("--seconds", type=float, default=15.0, help="that count, a way")
    parser.add_argument("--out", type=pathlib.Path, help="file to which a line of JSON a way is appended")
    asked = parser.parse_args(arguments)
    for way in asked.ways:
        count, _, kind = way.partition(":")
        if not count.isdecimal() or int(count) < 1 or kind not in ("", "mps", "threads"):
            parser.error(f"{way!r} is not N, N:mps or N:threads")
    return asked


def main(arguments: list[str]) -> None:
    """Measure ways one after another; one that fails says why, and the others go on."""
    asked = read_arguments(arguments)
    from train.config import resolve
    from train.study.plan import STUDIES
    from train.study.rooms import Given, make_few

    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        study = resolve(asked.size, [*asked.assignments, f"rooms={asked.rooms}"], STUDIES)
        rooms = make_few(study, Given(), folder, min(8, os.cpu_count() or 1), lambda text: None).rooms
        print(f"{asked.size}, {asked.pretrain or 'fine-tuning'}, {os.cpu_count()} cores, {asked.device}", flush=True)
        for number, way in enumerate(asked.ways):
            try:
                found = measure(way, asked, study, rooms, folder / str(number))
            except Exception as error:  # of whatever kind: the rest is still worth measuring
                found = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
            print(line(way, found), flush=True)
            if asked.out:
                with open(asked.out, "a", encoding="utf-8") as file:
                    file.write(json.dumps({"way": way, "of": asked.pretrain or "fine-tuning"} | found) + "\n")


def measure(way: str, asked: argparse.Namespace, study, rooms, folder: pathlib.Path) -> dict:
    """Steps a second of all runs, the slowest and the fastest of them, and how many seconds they took to be ready."""
    text, _, kind = way.partition(":")
    count, context = int(text), multiprocessing.get_context("spawn")
    processes, threads = (1, count) if kind == "threads" else (count, 1)
    ready, results = context.Barrier(processes), context.Queue()
    given = (asked.pretrain, asked.device, asked.warm, asked.seconds, study, rooms)
    start = time.perf_counter()
    with under_mps(folder / "mps") if kind == "mps" else contextlib.nullcontext():
        runs = [
            context.Process(target=work, args=(given, folder / str(number), threads, ready, results))
            for number in range(processes)
        ]
        for run in runs:
            run.start()
        try:
            found = collect(runs, results, 300 + asked.seconds)
        finally:
            for run in runs:
                run.join(10)
                run.kill()
    if failed := [one for one in found if isinstance(one, str)]:
        raise RuntimeError(min(failed, key=lambda text: "BrokenBarrier" in text))  # which others' failures cause
    rates = [one.steps / one.seconds for one in found]
    return {
        "steps_per_s": sum(rates),
        "least": min(rates),
        "most": max(rates),
        "waits": sum(one.waited / one.seconds for one in found) / len(found),
        "before_s": max(one.began for one in found) - start,
    }


def collect(runs: list, results, seconds: float) -> list:
    """What all processes put, in whatever order. A process that ends without a word is named."""
    found, said, until = [], 0, time.perf_counter() + seconds
    while said < len(runs):
        with contextlib.suppress(queue.Empty):
            found += results.get(timeout=1)
            said += 1
            continue
        ended = [run.exitcode for run in runs if run.exitcode not in (None, 0)]
        if ended or time.perf_counter() > until:
            how = f"a process ended with {ended[0]}" if ended else "time is over"
            return [*found, f"{said} of {len(runs)} processes are done, {how}"]
    return found


class Counted(NamedTuple):
    """What a run did in the time that counts, in steps and seconds, how long it waited for data, and when that time
    began, on the machine's clock."""

    steps: int
    seconds: float
    waited: float
    began: float


def work(given: tuple, folder: pathlib.Path, threads: int, ready, results) -> None:
    """A process with one or more runs; puts what each Counted, or what was wrong."""
    import torch

    torch.set_num_threads(1)
    found, together = [], threading.Barrier(threads, action=functools.partial(ready.wait, 240))

    def one(number: int) -> None:
        stream = torch.cuda.Stream() if threads > 1 and given[1] == "cuda" else None
        try:
            with torch.cuda.stream(stream) if stream else contextlib.nullcontext():
                found.append(steps_of_a_run(given, folder / str(number), number, together))
        except BaseException as error:
            found.append(f"{type(error).__name__}: {error}")
            together.abort()
            ready.abort()

    started = [threading.Thread(target=one, args=(number,)) for number in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    results.put(found)


def steps_of_a_run(given: tuple, folder: pathlib.Path, seed: int, together) -> Counted:
    """Make steps until the time is over."""
    from gen4d.shards import open_dataset
    from train.config import change
    from train.methods.pretrain import make as make_pretraining
    from train.run.loop import train
    from train.study.cells import Work, labels_of, prepare, weights_of
    from train.study.plan import Cell, pretrain_config

    arm, device, warm, seconds, study, rooms = given
    cell = Cell("length", "scratch", seed, study.measures[0], 100.0, 0, "all:1", study.lengths[-1])
    work = Work(folder, study, rooms, cell, device)
    if arm:
        data = open_dataset(rooms["tuning"].sequences)
        prepared = make_pretraining(pretrain_config(study, arm, seed), data, work.world)
    else:
        prepared = prepare(work, labels_of(work), weights_of(work))[1]
    running = change(prepared.plan.running, steps=10**6, log_steps=1, checkpoint_steps=10**6, milestone_steps=10**6)
    prepared = prepared._replace(plan=prepared.plan._replace(running=running))
    with contextlib.closing(train(prepared, folder, work.world)) as records:
        for record in records:
            if record.step >= warm:
                break
        together.wait()
        began = time.perf_counter()
        next(records)  # whose batch was made while others warmed up
        start, steps, waited, spent = time.perf_counter(), 0, 0.0, 0.0
        while spent < seconds:
            timing = next(records).timing
            steps, spent = steps + 1, time.perf_counter() - start
            waited += timing["wait_share"] * timing["seconds"]
    return Counted(steps, spent, waited, began)


@contextlib.contextmanager
def under_mps(folder: pathlib.Path) -> Iterator[None]:
    """Processes that are started meanwhile share the GPU through a server of NVIDIA's, which is ended again."""
    if shutil.which("nvidia-cuda-mps-control") is None:
        raise FileNotFoundError("nvidia-cuda-mps-control is not on this machine")
    folder.mkdir(parents=True)
    names = ("CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY")
    os.environ |= dict.fromkeys(names, str(folder))
    try:
        subprocess.run(["nvidia-cuda-mps-control", "-d"], check=True, timeout=30)
        yield
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(["nvidia-cuda-mps-control"], input=b"quit\n", timeout=30)
        for name in names:
            del os.environ[name]


def line(way: str, found: dict) -> str:
    """A line of the table."""
    if "error" in found:
        return f"  {way:12s} {found['error']}"
    return (
        f"  {way:12s} {found['steps_per_s']:6.2f} steps/s together, {found['least']:.2f} to {found['most']:.2f} each, "
        f"waits {found['waits']:.0%}, {found['before_s']:.0f} s until all were ready"
    )
