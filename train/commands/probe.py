"""`probe`: what frozen features tell."""

import json

import click

from train.commands import frame


@click.command(short_help="Probe frozen features beside a random net.")
@click.option("--data", type=frame.PATH, required=True, help="Folder of labelled scans, as for finetune.")
@click.option("--weights", required=True, help="Run folder, checkpoint or exported weights; none: random ones only.")
@click.option("--preset", default="paper", show_default=True, help="paper, or small: minutes on a CPU.")
@click.option("--moving", help="Data set of moving shapes, or its URL: also say how well k-NN knows these.")
@frame.run_option("runs/probe")
@frame.percent
@frame.split
@frame.val_split
@frame.points
@frame.assignments
@frame.settings_file
@frame.device
@frame.as_json
def probe(weights, preset, moving, run, percent, assignments, settings_file, device, as_json, **places) -> None:
    """Probe frozen features: a linear layer and nearest neighbours, beside a random net of the same shape.

    \b
    gen4d-train probe --data data/samples/scans --weights runs/pretrain --preset small
    """
    with frame.one_line_errors():
        from gen4d.shards import open_dataset
        from train.config import resolve
        from train.inputs.labelled import Places, read_labelled
        from train.inputs.subsets import warn_of_seen
        from train.run.machine import machine
        from train.run.world import join_world
        from train.tasks import probe as task
        from train.tasks.backbone import BackboneUse, read_weights

        config = resolve(preset, frame.with_share(percent, assignments), task.PRESETS, settings_file)
        say = frame.speaker(as_json)
        sequences = None if moving is None else open_dataset(moving)
        with join_world(device) as world:
            frame.check_machine(world)
            data = read_labelled(Places(**places), config.labels, config.workers, say)
            backbone, found = read_weights(frame.weights_path(weights), BackboneUse(voxel_m=config.voxel_m)), []
            if backbone:
                warn_of_seen([scan.name for scan in data.val], backbone.scans, "pre-trained on")
            for item in task.probe(config, data, backbone, world.device, sequences):
                say(f"{'random' if item.features == 'random' else 'pre-trained'} features have been probed")
                found.append(item)
            lines = task.write_probes(run, found, data, backbone, config, machine(world.device))
            say("\n".join(lines))
            frame.give(as_json, json.loads((run / "probe.json").read_bytes()))
