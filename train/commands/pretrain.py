"""`pretrain`: a data set in, a run folder out."""

import contextlib

import click

from train.commands import frame
from train.commands.progress import CollapseWatch


@click.command()
@click.option("--data", required=True, help="Folder that gen4d build wrote, or its URL.")
@click.option("--preset", default="paper", show_default=True, help="paper, or small: minutes on a CPU.")
@frame.run_option("runs/pretrain")
@frame.assignments
@frame.settings_file
@frame.device
@frame.dry_run
@frame.no_memory_check
def pretrain(data, preset, run, assignments, settings_file, device, dry_run, no_memory_check) -> None:
    """Pre-train on a data set. The same command goes on where it was stopped.

    \b
    python -m train pretrain --data data/sequences --preset small
    python -m train pretrain --data data/sequences --set method=moving-3d --set optim.lr=0.1
    """
    with frame.one_line_errors():
        from train.config import resolve
        from train.methods.config import PRESETS
        from train.run.world import join_world

        config = resolve(preset, assignments, PRESETS, settings_file)
        with join_world(device) as world:
            _pretrain(data, config, run, world, dry_run, no_memory_check)


def _pretrain(data, config, run, world, dry_run, no_memory_check) -> None:
    from gen4d.shards import open_dataset
    from train.methods.pretrain import make
    from train.run import memory

    dataset = open_dataset(data)
    prepared = make(config, dataset, world)
    needed = memory.estimate(prepared.stream, prepared.model, prepared.plan.precision)
    say = click.echo if world.leads else lambda text: None
    if dry_run:
        for line in _describe(config, prepared, dataset, world, needed):
            say(line)
        return
    if not no_memory_check:
        memory.check(needed, prepared.stream.share, world.device)
    frame.check_machine(world, prepared.plan.precision)
    kind = f"{world.size} x {world.device.type}, {prepared.plan.precision}"
    say(f"{config.method} on {len(dataset)} sequences, {kind}, into {run}")
    say(f"needs about {needed.device / 1e9:.1f} GB on {world.device}; loader: {needed.host / 1e9:.1f} GB")
    _follow(prepared, config.run.steps, run, world, say)
    say(f"done: {config.run.steps} steps in {run}")


def _follow(prepared, steps, run, world, say) -> None:
    """Prints what training does."""
    from train.methods.pretrain import pretrain_prepared
    from train.run.loop import Stopped

    watch = CollapseWatch()
    try:
        with contextlib.closing(pretrain_prepared(prepared, run, world)) as records:
            for record in records:
                say(record.line(steps))
                watch.see(record, say)
    except Stopped as stopped:
        say(str(stopped))
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
