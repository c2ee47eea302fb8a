"""`classify`: labelled shapes and pre-trained encoders in, tables out."""

import json

import click

from train.commands import frame


@click.command(short_help="Classify shapes: frozen features, few labels, floors.")
@click.option("--data", type=frame.PATH, required=True, help="Labelled shapes: ModelNet, ScanObjectNN, .npz, classes.")
@click.option(
    "--weights", "weights", multiple=True, type=frame.PATH, help="Run folder of pretrain; several: one for each seed."
)
@click.option("--preset", default="paper", show_default=True, help="paper, or small: minutes on a CPU.")
@click.option("--folds", type=click.IntRange(2), help="Folds that never share a maker; where there are no parts, 3.")
@frame.run_option("runs/classify")
@frame.assignments
@frame.settings_file
@frame.device
@frame.as_json
def classify(data, weights, preset, folds, run, assignments, settings_file, device, as_json) -> None:
    """Classify shapes by frozen features and by fine-tuning, beside random features and training from scratch.

    A linear SVM with C = 1 and with a C that a part of the training shapes chose; fine-tuning on all labels and on few.
    Several --weights of one net: the tables have the mean and the standard deviation over them. The same command goes
    on where it was stopped.

    \b
    gen4d-train classify --data modelnet40_normal_resampled --weights runs/strl
    gen4d-train classify --data furniture.npz --folds 3 --weights runs/a --weights runs/b --set tuning.percents=
    """
    with frame.one_line_errors():
        from train.config import resolve
        from train.run.loop import Stopped
        from train.run.world import join_world
        from train.tasks.classify.config import PRESETS

        config = resolve(preset, assignments, PRESETS, settings_file)
        with join_world(device) as world:
            try:
                _classify(data, weights, config, folds, run, world, as_json)
            except Stopped as stopped:
                frame.speaker(as_json)(str(stopped))
                raise SystemExit(128 + stopped.number) from None


def _classify(data, weights, config, folds, run, world, as_json) -> None:
    from train.nets.weights import load_trained
    from train.run.machine import machine
    from train.tasks.classify.features import ClassifyError
    from train.tasks.classify.report import draw_features, write_report
    from train.tasks.classify.run import base_of, classify, read_data

    say = frame.speaker(as_json, world.leads)
    if world.size > 1:
        raise ClassifyError("classify runs in one process: start it without torchrun")
    encoders = [(str(path), load_trained(path, config.k)) for path in weights]
    nets = {(trained.net, trained.k) for _, trained in encoders}
    if len(nets) > 1:
        raise ClassifyError(f"--weights are of several nets ({sorted(nets)}): give those of one, in runs of their own")
    frame.check_machine(world)
    shapes = read_data(data, folds, config.seed)
    base = base_of(config, encoders)
    counts = " + ".join(f"{len(train)}/{len(test)}" for train, test in shapes.splits)
    say(f"{base.net}, {len(encoders)} pre-trained; {len(shapes.shapes.classes)} classes, train/test shapes {counts}")
    lines = classify(config, shapes, encoders, run, world, say)
    about = {"data": f"{len(shapes.shapes.classes)} classes, train/test {counts}", "machine": machine(world.device)}
    say("\n".join(write_report(run, lines, about)))
    if config.picture:
        draw_features(config, shapes, encoders, run / "features.png", world)
        say(f"picture of features in {run / 'features.png'}")
    frame.give(as_json, json.loads((run / "results.json").read_bytes()))
