"""`finetune`: labelled scans and weights in, a run folder and a table out."""

import contextlib
import json

import click

from train.commands import frame
from train.commands.progress import Progress, draw_curves

# Of the tasks.
TITLES = {
    "segment": "segmentation",
    "blocks": "segmentation by blocks",
    "instances": "instance segmentation",
    "detect": "detection",
}


@click.command(short_help="Fine-tune to segments, instances or boxes.")
@click.option("--data", type=frame.PATH, required=True, help="Folder of labelled scans: ScanNet, Pointcept's, samples.")
@frame.manifest
@click.option("--task", type=click.Choice(list(TITLES)), default="segment", show_default=True, help="What is learned.")
@click.option("--weights", required=True, help="Run folder, checkpoint or exported weights; none: from scratch.")
@click.option(
    "--preset",
    default="paper",
    show_default=True,
    help="paper or small (minutes on a CPU); efficient, of segment and instances; sunrgbd, of detect.",
)
@frame.run_option("runs/finetune")
@frame.percent
@frame.split
@frame.val_split
@frame.points
@frame.boxes
@frame.assignments
@frame.settings_file
@frame.device
@frame.dry_run
@frame.no_memory_check
@frame.as_json
def finetune(
    task, weights, preset, run, percent, assignments, settings_file, device, dry_run, no_memory_check, as_json, **places
) -> None:
    """Fine-tune a backbone to a task: semantic segmentation, of whole scans by sparse nets or of blocks by nets on
    points, instances, or boxes. The same command continues where it stopped.

    \b
    gen4d-train finetune --data scannet --weights runs/pretrain
    gen4d-train finetune --task instances --data scannet --weights runs/pretrain --run runs/instances
    gen4d-train finetune --task blocks --data s3dis --split Area_1 --val-split Area_6 --weights none --run runs/area1
    gen4d-train finetune --data scannet --weights none --preset efficient --percent 10 --run runs/scratch10
    """
    with frame.one_line_errors():
        from train.config import ConfigError, resolve
        from train.inputs.labelled import Places
        from train.run.world import join_world
        from train.tasks.config import PRESETS_OF

        config = resolve(preset, frame.with_share(percent, assignments), PRESETS_OF[task], settings_file)
        if config.task != task:
            raise ConfigError(f"--task {task}: the settings are those of {config.task}: --task {config.task}")
        if places["boxes"] and task != "detect":
            raise ConfigError(f"--boxes {places['boxes']}: boxes are for --task detect, this is {task}: leave it out")
        if places["points"] and task == "detect":
            raise ConfigError(f"--points {places['points']}: boxes are around all points, this is detect: give --boxes")
        if places["points"] and task == "instances" and config.instances.soft:
            raise ConfigError("--points: soft takes the sizes of objects from labels of all points: --set soft=false")
        with join_world(device) as world:
            flags = dry_run, no_memory_check, as_json
            _finetune(Places(**places), frame.weights_path(weights), config, run, world, *flags)


def _finetune(places, path, config, run, world, dry_run, no_memory_check, as_json) -> None:
    from train.config import to_plain
    from train.inputs.labelled import read_labelled
    from train.inputs.subsets import warn_of_seen
    from train.run import memory
    from train.tasks.backbone import read_weights
    from train.tasks.finetune import make

    say = frame.speaker(as_json, world.leads)
    data = read_labelled(places, config.labels, config.run.workers, say, config.backbone.inputs)
    weights = read_weights(path, config.backbone)
    if weights and world.leads:
        warn_of_seen([scan.name for scan in data.val], weights.scans, "pre-trained on")
    task, prepared = make(config, data, weights, world)
    needed = memory.estimate(task.stream, task.model, prepared.plan.precision)
    if dry_run:
        for line in _describe(config, data, needed, task.stream, world):
            say(line)
        if world.leads:
            frame.give(as_json, {"settings": to_plain(config), "needs": needed._asdict()})
        return
    if not no_memory_check:
        memory.check(needed, task.stream.share, world.device)
    frame.check_machine(world, prepared.plan.precision)
    origin = f"weights of {path}" if path else "scratch"
    kind = f"{world.size} x {world.device.type}, {prepared.plan.precision}"
    say(f"{TITLES[config.task]} from {origin}, {kind}, into {run}")
    _follow(task, prepared, data, config, run, world, as_json)
    say(f"done: {config.run.steps} steps in {run}")
    if world.leads:
        frame.give(as_json, json.loads((run / "results.json").read_bytes()))


def _follow(task, prepared, data, config, run, world, as_json) -> None:
    """Says what fine-tuning does, and the report of the last validation."""
    from train.run.log import Record
    from train.run.loop import Stopped
    from train.run.machine import machine
    from train.tasks.finetune import conclude, finetune_prepared

    items = "blocks" if config.task == "blocks" else "scans"
    progress, last = Progress(config.run, items, frame.out_of(as_json)), None
    try:
        steps = finetune_prepared(task, prepared, data, config.validate_steps, run, world)
        with contextlib.closing(steps) as items:
            for item in items:
                if not world.leads:
                    continue
                if isinstance(item, Record):
                    progress.see(item)
                    draw_curves(run, item.step, config.run)
                    continue
                last, note = item, " (best so far)" if item.best else ""
                progress.say(f"validation at step {item.step}{note}: {item.findings.headline}")
    except Stopped as stopped:
        if world.leads:
            progress.say(str(stopped))
        raise SystemExit(128 + stopped.number) from None
    if last:  # None where another process makes them
        progress.say("\n".join(conclude(task, run, last, {"machine": machine(world.device)})))


def _describe(config, data, needed, stream, world) -> list[str]:
    """Lines of a dry run."""
    epochs = config.run.steps * config.run.batch / stream.order.length
    blocks = f" in {stream.order.length} blocks" if config.task == "blocks" else ""
    return [
        *frame.describe_settings(config),
        f"classes: {', '.join(data.table.names)}",
        f"data: {len(data.train)} training scans{blocks}, seen {epochs:.1f} times",
        f"voxels of one forward: {needed.voxels_3d}, {needed.parameters} parameters",
        *frame.describe_memory(needed, stream.share, world.device),
    ]
