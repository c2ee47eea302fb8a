"""`pretrain`: a data set in, a run folder out."""

import contextlib
import pathlib

import click

from train.commands import frame
from train.commands.progress import CollapseWatch, ConstantWatch, Progress, draw_curves


@click.command(short_help="Pre-train on a data set.")
@click.option("--data", required=True, help="Folder that gen4d build wrote, or its URL.")
@click.option(
    "--preset", default="paper", show_default=True, help="paper or strl; small and strl-small take minutes on a CPU."
)
@frame.run_option("runs/pretrain")
@frame.assignments
@frame.settings_file
@frame.device
@frame.dry_run
@frame.no_memory_check
@frame.as_json
def pretrain(data, preset, run, assignments, settings_file, device, dry_run, no_memory_check, as_json) -> None:
    """Pre-train on a data set. The same command continues where it stopped.

    \b
    gen4d-train pretrain --data data/sequences --preset small
    gen4d-train pretrain --data data/sequences --set method=moving-3d --set optim.lr=0.1
    """
    with frame.one_line_errors():
        from train.config import resolve
        from train.methods.config import PRESETS
        from train.run.world import join_world

        config = resolve(preset, assignments, PRESETS, settings_file)
        with join_world(device) as world:
            _pretrain(data, config, run, world, dry_run, no_memory_check, as_json)


def _pretrain(data, config, run, world, dry_run, no_memory_check, as_json) -> None:
    from gen4d.shards import open_dataset
    from train.config import to_plain
    from train.methods.pretrain import make
    from train.run import memory
    from train.run.log import read_lines

    dataset = open_dataset(data)
    prepared = make(config, dataset, world)
    ahead = prepared.plan.running.rulebooks_ahead
    needed = memory.estimate(prepared.stream, prepared.model, prepared.plan.precision, ahead)
    say = frame.speaker(as_json, world.leads)
    if dry_run:
        for line in _describe(config, prepared, dataset, world, needed):
            say(line)
        if world.leads:
            frame.give(as_json, {"settings": to_plain(config), "needs": needed._asdict()})
        return
    if not no_memory_check:
        memory.check(needed, prepared.stream.share, world.device)
    frame.check_machine(world, prepared.plan.precision)
    kind = f"{world.size} x {world.device.type}, {prepared.plan.precision}"
    say(f"{config.method} on {len(dataset)} sequences, {kind}, into {run}")
    say(f"needs about {needed.device / 1e9:.1f} GB on {world.device}; loader: {needed.host / 1e9:.1f} GB")
    _follow(prepared, _looks(config, prepared, dataset, run, world, say), run, world, as_json)
    say(f"done: {config.run.steps} steps in {run}")
    if world.leads:
        frame.give(as_json, {"run": str(run), "last": (read_lines(run / "log.jsonl") or [None])[-1]})


def _looks(config, prepared, dataset, run, world, say):
    """What the run looks at while it goes on, or None where it does not look, or another process leads."""
    if not config.probe_steps or not world.leads or config.method == "strl":  # whose nets see whole clouds, not rooms
        return None
    from train.inputs.labelled import LabelUse, Places, read_labelled
    from train.tasks.watch import SCANS, Looks, Watched

    labelled = None
    if config.probe_data:
        places = Places(pathlib.Path(config.probe_data))
        labelled = read_labelled(places, LabelUse(), config.run.workers, say, first=SCANS)
    backbone = prepared.plan.stored["backbone"]
    net = prepared.model.get_submodule(backbone["prefix"].rstrip("."))
    watched = Watched(backbone["voxel_m"], [dataset[i] for i in range(min(4, len(dataset)))], labelled)
    return Looks(watched, net, config.probe_steps, config.run.steps, run, world.device)


def _follow(prepared, looks, run, world, as_json) -> None:
    """Says what training does."""
    from train.methods.config import advice
    from train.methods.pretrain import pretrain_prepared
    from train.run.loop import Stopped

    progress = Progress(prepared.plan.running, "sequences", frame.out_of(as_json))
    remedies = advice(prepared.plan.stored["backbone"]["method"])
    watches = CollapseWatch(remedies.collapsed), ConstantWatch(remedies.unlearned)
    try:
        with contextlib.closing(pretrain_prepared(prepared, run, world)) as records:
            for record in records:
                if world.leads:
                    progress.see(record)
                    for watch in watches:
                        watch.see(record, progress.say)
                    if looks and (found := looks.at(record.step)):
                        progress.say(f"features at step {record.step}: {found}")
                    draw_curves(run, record.step, prepared.plan.running)
    except Stopped as stopped:
        if world.leads:
            progress.say(str(stopped))
        raise SystemExit(128 + stopped.number) from None


def _describe(config, prepared, dataset, world, needed) -> list[str]:
    """Lines of a dry run."""
    epochs = config.run.steps * config.run.batch / len(dataset)
    return [
        *frame.describe_settings(config),
        f"data: {len(dataset)} sequences of {len(dataset.scan_names)} scans, seen {epochs:.2f} times",
        f"device: {world.size} x {world.device.type}, {prepared.plan.precision}, {needed.parameters} parameters",
        f"voxels of one forward: {needed.voxels_3d} of a frame index, {needed.voxels_4d} in 4D",
        *frame.describe_memory(needed, prepared.stream.share, world.device),
    ]
