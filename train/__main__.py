"""The trainer's command line: `python -m train COMMAND`. Only this file prints and exits."""

import contextlib
import pathlib
import warnings

import click

_PATH = click.Path(path_type=pathlib.Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Pre-train sparse 3D and 4D U-Nets on gen4d data sets, and use what they learned.

    On several GPUs: torchrun --nproc_per_node 8 -m train pretrain --data DIR --run-dir DIR
    """
    warnings.showwarning = lambda message, *rest: click.echo(f"warning: {message}", err=True)


def _known_errors() -> tuple[type[Exception], ...]:
    """What a user can mend. Imported when something went wrong: the modules are slow to load."""
    import torch

    from gen4d import building, files, samples
    from gen4d.building import workers
    from gen4d.shards import FormatError
    from gen4d.sources import SourceError
    from train import batch, checkpoint, features, loader, loop, memory, metrics, presets, sparse
    from train.tasks import scenes, segment, study

    own = (presets.ConfigError, batch.BatchError, loader.LoaderError, loop.LoopError, checkpoint.CheckpointError)
    own += (memory.NeedsMemory, sparse.SparseError, features.FeatureError, torch.OutOfMemoryError)
    own += (scenes.SceneError, segment.SegmentError, metrics.MetricError, study.StudyError)
    own += (workers.WorkerError, building.BuildError, files.BusyError, samples.SamplesError)
    return (OSError, FormatError, SourceError, *own)


@contextlib.contextmanager
def _one_line_errors():
    """What a user can mend becomes one line; everything else is a defect and keeps its traceback."""
    try:
        yield
    except _known_errors() as error:
        text = " ".join(str(error).split())
        if type(error).__name__ == "OutOfMemoryError":
            text = f"{text.partition('.')[0]}: raise accumulate (a divisor of batch), or use larger voxels"
        raise click.ClickException(text) from None


@main.command()
@click.option("--data", required=True, help="Folder that gen4d build wrote, or its URL.")
@click.option("--preset", default="paper", show_default=True, help="paper, or small: minutes on a CPU.")
# torchrun takes --run for an option of its own, so there it is --run-dir.
@click.option("--run", "--run-dir", "run", type=_PATH, default="runs/pretrain", show_default=True, help="Its folder.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Change a setting; --dry-run lists all.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Default: cuda where there is a GPU.")
@click.option("--dry-run", is_flag=True, help="Print the resolved configuration and the memory needed, and stop.")
@click.option("--no-memory-check", is_flag=True, help="Start even if the estimate exceeds what is free.")
def pretrain(data, preset, run, assignments, device, dry_run, no_memory_check) -> None:
    """Pre-train on a data set. The same command goes on where it was stopped.

    \b
    python -m train pretrain --data data/sequences --preset small
    python -m train pretrain --data data/sequences --set method=moving-3d --set lr=0.1
    """
    with _one_line_errors():
        from train.world import join_world

        with join_world(device) as world:
            _pretrain(data, preset, run, assignments, world, dry_run, no_memory_check)


def _prepare(world, precision="float32") -> None:
    """Before anything is computed: threads, and whether sparse convolutions are right here."""
    import torch

    from train import pretrain, sparse

    if world.device.type == "cpu":
        # spconv's share of a step is held to one thread; a second for the rest spins against the loader's, and the
        # numbers would depend on the machine's cores.
        torch.set_num_threads(1)
    sparse.self_check(world.device, pretrain.SELF_CHECK[precision])


def _pretrain(data, preset, run, assignments, world, dry_run, no_memory_check) -> None:
    from gen4d.shards import open_dataset
    from train import memory, presets, pretrain
    from train.loop import Stopped

    config = presets.resolve(preset, assignments)
    dataset = open_dataset(data)
    precision = pretrain.resolve_precision(config, world.device)
    loader = pretrain.make_loader(config, dataset, world.rank, world.size)
    needed = memory.estimate(loader, pretrain.make_model(config), precision)
    say = click.echo if world.leads else lambda text: None
    if dry_run:
        for line in _describe(config, precision, dataset, world, needed):
            say(line)
        return
    if not no_memory_check:
        memory.check(needed, loader, world.device)
    _prepare(world, precision)
    say(f"{config.method} on {len(dataset)} sequences, {world.size} x {world.device.type}, {precision}, into {run}")
    say(f"needs about {needed.device / 1e9:.1f} GB on {world.device}; loader: {needed.host / 1e9:.1f} GB")
    watch = _CollapseWatch()
    try:
        with contextlib.closing(pretrain.pretrain(config, dataset, run, world)) as records:
            for record in records:
                say(record.line(config.steps))
                watch.see(record, say)
    except Stopped as stopped:
        say(str(stopped))
        raise SystemExit(128 + stopped.number) from None
    say(f"done: {config.steps} steps in {run}")


def _describe(config, precision, dataset, world, needed) -> list[str]:
    """Lines of a dry run."""
    from train import memory, presets

    lines = [f"{key} = {value}" for key, value in presets.to_plain(config).items()]
    epochs = config.steps * config.batch / len(dataset)
    lines += [
        f"data: {len(dataset)} sequences of {len(dataset.scan_names)} scans, seen {epochs:.2f} times",
        f"device: {world.size} x {world.device.type}, {precision}, {needed.parameters} parameters",
        f"voxels of one forward: {needed.voxels_3d} of a frame index, {needed.voxels_4d} in 4D",
        f"memory on the device: about {needed.device / 1e9:.2f} GB, free {memory.available(world.device) / 1e9:.2f} GB",
        f"memory for batches made ahead: about {needed.host / 1e9:.2f} GB",
    ]
    return lines


class _CollapseWatch:
    """Warns of features that become one, at most once in 100 steps."""

    def __init__(self):
        self._quiet_until = 0

    def see(self, record, say) -> None:
        low = [f"{name} {value:.2f}" for name, value in record.spread.items() if value < 0.6]
        if low and record.step >= self._quiet_until:
            self._quiet_until = record.step + 100
            say(
                f"warning: step {record.step}: the spread of features is {', '.join(low)} (1 = even, 0 = collapsed); "
                "below 0.6 they transfer badly: lower lr, and keep stop_gradient=conventional"
            )


@main.command()
@click.argument("weights", type=_PATH)
@click.option("--scan", type=_PATH, help="A points file that gen4d reads (.ply, .pcd).")
@click.option("--data", help="A data set, and with --name one of its scans.")
@click.option("--name", help="Name of the scan in --data; by default its first.")
@click.option("--up", default="z", show_default=True, help="Of --scan: an axis, a vector, or floor.")
@click.option("--units", default="m", show_default=True, help="Of --scan: m, cm, mm, ... or metres per unit.")
@click.option("--out", type=_PATH, default="features.npy", show_default=True, help="A .npy; a .png goes beside it.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Default: cuda where there is a GPU.")
def features(weights, scan, data, name, up, units, out, device) -> None:
    """Write per-point features of a scan as .npy, with a picture of their principal components.

    WEIGHTS is a run folder, a checkpoint folder, or a file of export-weights. One row per point of the file, in its
    order; rows of points that are not finite are NaN.

    \b
    python -m train features runs/pretrain --scan scene0000_00_vh_clean_2.ply --out features.npy
    """
    with _one_line_errors():
        import numpy as np

        from train import features as module
        from train.world import join_world

        if (scan is None) == (data is None):
            raise click.UsageError("give either --scan or --data")
        point, row, rows = module.read_scan(scan, up, units) if scan else module.read_stored_scan(data, name)
        with join_world(device) as world:
            found = module.point_features(module.load_backbone(weights), point, world.device)
        full = np.full((rows, found.shape[1]), np.nan, np.float32)
        full[row] = found
        out.parent.mkdir(parents=True, exist_ok=True)
        with open(out, "wb") as file:
            np.save(file, full)
        module.draw(point, module.principal_colours(found), out.with_suffix(".png"))
    click.echo(f"{out}: {full.shape[0]} points x {full.shape[1]} features; picture in {out.with_suffix('.png')}")


@main.command("export-weights")
@click.argument("run", type=_PATH)
@click.option("--out", type=_PATH, default="backbone.safetensors", show_default=True, help="File to write.")
def export_weights(run, out) -> None:
    """Write a run's 3D backbone as one safetensors file, for fine-tuning here or elsewhere.

    RUN is a run folder or a checkpoint folder. The file's header says how tensors lie, for spconv users elsewhere.

    \b
    python -m train export-weights runs/pretrain --out backbone.safetensors
    """
    with _one_line_errors():
        from train import features as module

        about = module.export_weights(run, out)
    click.echo(f"{out}: 3D backbone {about['net']} after {about['step']} steps of {about['method']}")
    click.echo(about["layout"])


@main.command()
@click.option("--data", type=_PATH, required=True, help="Folder of labelled scans: ScanNet, Pointcept's, or samples.")
@click.option("--weights", required=True, help="Run folder, checkpoint or exported weights; none: from scratch.")
@click.option("--preset", default="paper", show_default=True, help="paper, efficient, or small: minutes on a CPU.")
@click.option("--run", "--run-dir", "run", type=_PATH, default="runs/finetune", show_default=True, help="Its folder.")
@click.option("--percent", type=float, help="Of the training scans whose labels are used, by room.")
@click.option("--split", type=_PATH, help="File with the names of the training scans.")
@click.option("--val-split", type=_PATH, help="File with the names of the scans to validate on.")
@click.option("--points", type=_PATH, help="The benchmark's file of limited points: others lose their labels.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Change a setting; --dry-run lists all.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Default: cuda where there is a GPU.")
@click.option("--dry-run", is_flag=True, help="Print the resolved configuration and the memory needed, and stop.")
@click.option("--no-memory-check", is_flag=True, help="Start even if the estimate exceeds what is free.")
def finetune(weights, preset, run, percent, assignments, device, **given) -> None:
    """Fine-tune a backbone to semantic segmentation. The same command goes on where it was stopped.

    \b
    python -m train finetune --data scannet --weights runs/pretrain
    python -m train finetune --data scannet --weights none --preset efficient --percent 10 --run runs/scratch10
    """
    with _one_line_errors():
        from train import presets
        from train.tasks import presets as own
        from train.tasks.finetune import Inputs
        from train.world import join_world

        config = presets.resolve(preset, (*_share(percent), *assignments), own.PRESETS)
        flags = given.pop("dry_run"), given.pop("no_memory_check")
        inputs = Inputs(weights=_weights(weights), **given)
        with join_world(device) as world:
            _finetune(inputs, config, run, world, *flags)


def _weights(text: str) -> pathlib.Path | None:
    return None if text == "none" else pathlib.Path(text)


def _share(percent: float | None) -> tuple[str, ...]:
    return () if percent is None else (f"percent={percent}",)


def _finetune(inputs, config, run, world, dry_run, no_memory_check) -> None:
    from train import memory, pretrain
    from train.loop import Stopped
    from train.tasks import finetune, outputs, segment

    say = click.echo if world.leads else lambda text: None
    precision = pretrain.resolve_precision(config, world.device)
    job = finetune.read_job(inputs, config, say)
    classes = len(job.table.names)
    loader = segment.make_loader(config, job.train, classes, world)
    needed = finetune.estimate(loader, segment.make_model(config, classes, job.weights), precision)
    if dry_run:
        for line in _describe_finetune(config, job, needed, world):
            say(line)
        return
    if not no_memory_check:
        memory.check(needed, loader, world.device)
    _prepare(world, precision)
    origin = f"weights of {inputs.weights}" if inputs.weights else "scratch"
    say(f"segmentation from {origin}, {world.size} x {world.device.type}, {precision}, into {run}")
    try:
        with contextlib.closing(finetune.finetune(config, job, run, world)) as found:
            last = _follow(found, config.steps, job.table.names, say)
    except Stopped as stopped:
        say(str(stopped))
        raise SystemExit(128 + stopped.number) from None
    if last:
        say("\n".join(finetune.conclude(run, last, {"machine": outputs.machine(world.device)})))
    say(f"done: {config.steps} steps in {run}")


def _follow(found, steps, names, say):
    """Prints what fine-tuning does; returns its last validation, None where another process makes them."""
    from train.log import Record
    from train.tasks import outputs

    last = None
    for item in found:
        if isinstance(item, Record):
            say(item.line(steps, "scans"))
            continue
        last = item
        scored = outputs.headline(outputs.summary(item.evaluation, names))
        say(f"validation at step {item.step}{' (best so far)' if item.best else ''}: {scored}")
    return last


def _describe_finetune(config, job, needed, world) -> list[str]:
    """Lines of a dry run."""
    from train import memory, presets

    return [
        *(f"{key} = {value}" for key, value in presets.to_plain(config).items()),
        f"classes: {', '.join(job.table.names)}",
        f"data: {len(job.train)} training scans, seen {config.steps * config.batch / len(job.train):.1f} times",
        f"voxels of one forward: {needed.voxels_3d}, {needed.parameters} parameters",
        f"memory on the device: about {needed.device / 1e9:.2f} GB, free {memory.available(world.device) / 1e9:.2f} GB",
    ]


@main.command()
@click.argument("run", type=_PATH)
@click.option("--data", type=_PATH, required=True, help="Folder of scans, as for finetune.")
@click.option("--part", default="val", show_default=True, help="Part of the data set: val, train or test.")
@click.option("--split", type=_PATH, help="File with the names of the scans, in place of --part.")
@click.option("--checkpoint", "which", type=click.Choice(["both", "last", "best"]), default="both", show_default=True)
@click.option("--write", "formats", multiple=True, type=click.Choice(["npy", "txt", "ply"]), help="Predictions.")
@click.option("--no-labels", is_flag=True, help="The scans have no labels: write predictions only.")
@click.option("--out", type=_PATH, help="Folder to write to.  [default: RUN/evaluation]")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Default: cuda where there is a GPU.")
def evaluate(run, which, out, device, no_labels, **given) -> None:
    """Evaluate a fine-tuned run: mIoU and mAcc on all points and on 2 cm voxels, confusion, predictions.

    RUN is a run folder of finetune, or one of its checkpoints. --write npy: a class a row of the points file; txt: ids
    as ScanNet's benchmark takes them; ply: points coloured by class.

    \b
    python -m train evaluate runs/finetune --data scannet --write npy
    python -m train evaluate runs/finetune --data scannet --part test --no-labels --write txt --checkpoint last
    """
    with _one_line_errors():
        from train.tasks import finished
        from train.world import join_world

        wanted = finished.Wanted(labels=not no_labels, **given)
        with join_world(device) as world:
            _prepare(world)
            for line in finished.evaluate_run(run, which, wanted, out or run / "evaluation", world.device):
                click.echo(line)


@main.command()
@click.option("--data", type=_PATH, required=True, help="Folder of labelled scans, as for finetune.")
@click.option("--weights", required=True, help="Run folder, checkpoint or exported weights; none: random ones only.")
@click.option("--preset", default="paper", show_default=True, help="paper, or small: minutes on a CPU.")
@click.option("--run", "--run-dir", "run", type=_PATH, default="runs/probe", show_default=True, help="Its folder.")
@click.option("--percent", type=float, help="Of the training scans whose labels are used, by room.")
@click.option("--split", type=_PATH, help="File with the names of the training scans.")
@click.option("--val-split", type=_PATH, help="File with the names of the scans to validate on.")
@click.option("--points", type=_PATH, help="The benchmark's file of limited points: others lose their labels.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Change a setting.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Default: cuda where there is a GPU.")
def probe(weights, preset, run, percent, assignments, device, **given) -> None:
    """Probe frozen features: a linear layer and nearest neighbours, beside a random net of the same shape.

    \b
    python -m train probe --data data/samples/scans --weights runs/pretrain --preset small
    """
    with _one_line_errors():
        from train import presets
        from train.tasks import finetune, outputs
        from train.tasks import presets as own
        from train.tasks import probe as module
        from train.world import join_world

        config = presets.resolve(preset, (*_share(percent), *assignments), own.PROBES)
        with join_world(device) as world:
            _prepare(world)
            job = finetune.read_job(finetune.Inputs(weights=_weights(weights), **given), config, click.echo)
            found = []
            for item in module.probe(config, job, world.device):
                click.echo(f"{item.features} features are probed")
                found.append(item)
            lines = module.write_probes(run, found, job, config, outputs.machine(world.device))
            click.echo("\n".join(lines))


@main.command()
@click.option("--size", default="small", show_default=True, help="small: an hour and a half of two CPU cores; or full.")
@click.option("--out", type=_PATH, default="runs/study", show_default=True, help="Folder of the study.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Change a number of the plan.")
@click.option("--workers", default=2, show_default=True, type=click.IntRange(0), help="Processes; 0: this one.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
def study(size, out, assignments, workers, device) -> None:
    """Compare ways of pre-training with training from scratch, on the built-in rooms. Goes on where it was stopped.

    \b
    python -m train study --size small --workers 2
    """
    with _one_line_errors():
        import json

        import torch

        from gen4d import files
        from train import presets
        from train.tasks import comparison, outputs
        from train.tasks import study as module

        plan = presets.resolve(size, assignments, module.STUDIES)
        lines = module.run_study(plan, out, workers, device, click.echo)
        stored = json.loads((out / "study.json").read_text())
        text = comparison.report(lines, stored, outputs.machine(torch.device(device)))
        files.write(out / "results.md", ("\n".join(text) + "\n").encode())
        comparison.draw(lines, stored, out / "results.png")
        click.echo("\n".join(text))


@main.command()
def doctor() -> None:
    """Check this machine for training: packages, GPUs, and whether sparse convolutions compute right numbers.

    \b
    python -m train doctor
    """
    from train.doctor import examine

    findings = examine()
    for finding in findings:
        click.echo(f"{finding.level:8} {finding.text}")
    if any(finding.level == "bad" for finding in findings):
        raise SystemExit(1)


if __name__ == "__main__":
    main(prog_name="python -m train")
