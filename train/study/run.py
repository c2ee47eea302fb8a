"""A study, stage by stage, going on where it was stopped; on built-in rooms or on the user's own.

<out>/plan.json       what is compared and how, the tests and their number, the rooms' digests: written before anything
<out>/cells/*         what cells found, see `cells.py`
<out>/chosen.json     what validation rooms chose
<out>/results.md, results.png

Work may be spread over processes and over machines that share the folder: part I of N takes every N-th piece of a
stage's work, and leaves when it can do nothing more without the others. A call without a part finishes what is left.
"""

import contextlib
import functools
import json
import multiprocessing
import os
import pathlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from gen4d import files, workers
from gen4d.config import difference
from gen4d.samples import GENERATOR_VERSION
from gen4d.shards import open_dataset
from train.config import flatten, to_plain
from train.run.loop import Stopped
from train.study import cells
from train.study.arms import ARMS, pretrained_as
from train.study.cells import Work
from train.study.plan import BEST, STAGES, Cell, Chosen, Study, cells_of
from train.study.rooms import Given, Rooms, StudyError, make_rooms

Say = Callable[[str], None]


class Part(NamedTuple):
    """A share of a study: part `number`, from 1, of `of`."""

    number: int = 1
    of: int = 1


class Machine(NamedTuple):
    """What does the work. processes 0: this one alone."""

    processes: int
    device: str
    part: Part = Part()


def run_study(study: Study, given: Given, out: pathlib.Path, machine: Machine, say: Say) -> list[dict]:
    """Make the whole study, or a part of it; returns what cells found so far.

    Raises StudyError where the folder holds another study, and what its steps raise.
    """
    files.make_folder(out)
    with _claimed(out, machine.part):
        with files.locked(out, "plan.lock", wait=True):
            rooms = make_rooms(study, given, out, machine.processes, say)
            write_plan(study, given, rooms, out)
        work = Work(out, study, rooms, Cell("", "", 0, "", 0, 0, "", 0), machine.device, manifest=given.manifest)
        told: set[str] = set()
        for stage in STAGES:
            chosen = choose(study, read_cells(out))
            wanted = cells_of(study, chosen, stage)
            _make(work._replace(best=chosen.best), wanted, machine, say, told)
            if left := [cell for cell in wanted if not is_done(out, cell)]:
                say(f"{stage}: {len(left)} of {len(wanted)} cells are left to other parts; then run this again")
                break
            files.write(out / "chosen.json", json.dumps(_plain(choose(study, read_cells(out))), indent=1).encode())
    return read_cells(out)


@contextlib.contextmanager
def _claimed(out: pathlib.Path, part: Part) -> Iterator[None]:
    """The folder, for this call alone or for parts that differ. Raises BusyError."""
    if part.of == 1:
        with files.locked(out, what="a study, "):
            yield
        return
    with files.shared(out, f"one of {part.of} parts"), files.locked(out, f"part-{part.number}.lock", "a study, "):
        yield


def write_plan(study: Study, given: Given, rooms: dict[str, Rooms], out: pathlib.Path) -> dict:
    """The plan of a folder, written unless it is there. Raises StudyError where it is another one."""
    known = [arm for arm in dict.fromkeys((*study.arms, *study.probed)) if arm != BEST]
    plan = to_plain(study) | {"ways": {arm: to_plain(ARMS[arm]) for arm in known}}
    plan["planned"] = [[measure, percent, *test] for measure, percent, test in study.planned]
    plan["number_of_tests"] = len(study.planned)
    plan["rooms"] = {
        side: {
            "digest": one.digest,
            "sequences": open_dataset(one.sequences).digest,
            "learned": one.learned.read_text().split(),
            "judged": one.judged.read_text().split(),
        }
        for side, one in rooms.items()
    }
    plan |= {"own": given.scans is not None, "generator_version": GENERATOR_VERSION}
    plan = json.loads(json.dumps(plan))
    path = out / "plan.json"
    if path.exists():
        changed = "; ".join(difference(flatten(json.loads(path.read_text())), flatten(plan)))
        if changed:
            raise StudyError(f"{out}: holds another study ({changed}): use another --out")
        return plan
    files.write(path, json.dumps(plan, indent=1).encode() + b"\n")
    return plan


# Stages --------------------------------------------------------------------------------------------------------------


def choose(study: Study, lines: Sequence[dict]) -> Chosen:
    """What the cells that there are have chosen; what cannot be chosen yet is left out."""
    steps, recipe = {}, {}
    for measure in study.measures:
        for percent in study.percents:
            found = _means(lines, "steps", stage="length", measure=measure, percent=percent)
            if set(study.lengths) <= set(found) or len(study.lengths) == 1:
                steps[measure, percent] = _long_enough(study, found)
            for arm in study.arms:
                tried = _means(lines, "recipe", stage="tries", measure=measure, percent=percent, arm=arm)
                if set(study.recipes) <= set(tried) or len(study.recipes) == 1:
                    recipe[measure, percent, arm] = max(study.recipes, key=lambda text: tried.get(text, 0.0))
    probed = _means(lines, "arm", "linear", stage="screen")
    done = set(study.candidates) <= set(probed)
    best = max(study.candidates, key=probed.__getitem__, default="") if done else ""
    return Chosen(best, steps, recipe)


def _long_enough(study: Study, found: dict[int, float]) -> int:
    """The shortest length whose next one gains less than `gain` points; the longest where each gains more."""
    for steps, longer in zip(study.lengths, study.lengths[1:], strict=False):
        if 100 * (found[longer] - found[steps]) < study.gain:
            return steps
    return study.lengths[-1]


def _means(lines: Sequence[dict], key: str, value: str = "score", **same) -> dict:
    """Mean over seeds of a value of the lines with the given fields, by another of their fields."""
    found: dict = {}
    for line in lines:
        if all(line[name] == wanted for name, wanted in same.items()):
            found.setdefault(line[key], []).append(line[value])
    return {name: float(np.mean(values)) for name, values in found.items()}


def _plain(chosen: Chosen) -> dict:
    steps = {f"{measure} {percent:g} %": value for (measure, percent), value in chosen.steps.items()}
    recipe = {f"{measure} {percent:g} % {arm}": value for (measure, percent, arm), value in chosen.recipe.items()}
    return {"best": chosen.best, "steps": steps, "recipe": recipe}


# Work ----------------------------------------------------------------------------------------------------------------


def is_done(out: pathlib.Path, cell: Cell) -> bool:
    """Whether a cell's line is there."""
    return (out / "cells" / f"{cell.name}.json").exists()


def read_cells(out: pathlib.Path) -> list[dict]:
    """What all cells found that are done, by name."""
    return [json.loads(path.read_text()) for path in sorted((out / "cells").glob("*.json"))]


def _make(work: Work, wanted: Sequence[Cell], machine: Machine, say: Say, told: set[str]) -> None:
    """Pre-train and measure what is not done yet and is this part's. told: warnings that were said."""
    todo = [work._replace(cell=cell) for cell in mine(wanted, work.best, machine.part)]
    for one in todo:
        if is_done(work.out, one.cell):
            cells.clear(one)
    todo = [one for one in todo if not is_done(work.out, one.cell)]
    runs = {one.run: one for one in todo if ARMS[one.arm].method}
    before = [one for one in runs.values() if not cells.is_pretrained(one)]
    spread = functools.partial(_spread, processes=machine.processes, say=say, told=told)
    for count, (index, seconds) in enumerate(spread(cells.pretrain_arm, before), start=1):
        say(f"{count}/{len(before)}  pre-trained {before[index].run.name}: {seconds:.0f} s")
    for count, (_, line) in enumerate(spread(cells.measure_cell, todo), start=1):
        found = f"{100 * line['score' if 'score' in line else 'linear']:.2f}"
        say(f"{count}/{len(todo)}  {line['stage']}: {line['arm']} {line['recipe']}, seed {line['seed']}, "
            f"{line['percent']:g} % of {line['measure']}: {found}")  # fmt: skip


def mine(wanted: Sequence[Cell], best: str, part: Part) -> list[Cell]:
    """The cells of a part: those of one pre-trained model stay together."""
    owner: dict[object, int] = {}
    for cell in wanted:
        owner.setdefault(_model(cell, best), len(owner))
    return [cell for cell in wanted if owner[_model(cell, best)] % part.of == part.number - 1]


def _model(cell: Cell, best: str) -> object:
    """What a cell shares with others: its pre-trained model; scratch shares nothing."""
    name = pretrained_as(best if cell.arm == BEST else cell.arm)
    return (name, cell.seed) if name else cell


def _spread(do: Callable, todo: list[Work], processes: int, say: Say, told: set[str]) -> Iterator[tuple[int, Any]]:
    """(index, result) of each piece of work as it is done, by worker processes or, with none, by this one. A warning
    of many pieces is said once."""
    quietly = functools.partial(_quietly, do)
    done = workers.run(quietly, todo, processes, "spawn") if processes else enumerate(map(quietly, todo))
    for index, (result, warned) in done:
        for text in dict.fromkeys(warned):
            if text not in told:
                say(f"warning: {text}")
        told.update(warned)
        yield index, result


def _quietly(do: Callable, work: Work) -> tuple[object, list[str]]:
    """What a piece of work results in, and the trainer's warnings on the way, which go out at once where it fails."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", module=r"train\b")
        try:
            result, failure = do(work), None
        except BaseException as error:
            result, failure = None, error
    if failure is not None:
        for one in caught:
            warnings.showwarning(one.message, one.category, one.filename, one.lineno)
        if isinstance(failure, Stopped) and multiprocessing.parent_process():
            os._exit(128 + failure.number)  # all is saved; else this process would begin its next piece
        raise failure
    return result, [str(one.message) for one in caught]
