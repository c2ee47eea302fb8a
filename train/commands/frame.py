"""What commands have around them: options that several share, errors as one line, and a machine that was checked."""

import contextlib
import errno
import json
import pathlib
import sys

import click

from gen4d import files
from train.errors import LEFT_ALONE, Refused

PATH = click.Path(path_type=pathlib.Path)
TRAINING = {
    "torch",
    "spconv",
    "cumm",
    "safetensors",
    "tensorboard",
    "sklearn",
}  # packages of the extras cpu, cu126, cu120
INSTALL = "from a clone of gen4d, pip install '.[cpu]', or with an NVIDIA GPU '.[cu126]', into this Python"

device = click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Default: cuda if there is a GPU, else cpu.")
assignments = click.option(
    "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Change a setting; --dry-run lists all."
)
settings_file = click.option(
    "--config", "settings_file", type=PATH, help="File of settings, JSON or TOML, such as a run's config.json."
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, everything else to stderr.")
dry_run = click.option("--dry-run", is_flag=True, help="Print all settings and the memory needed, and stop.")
no_memory_check = click.option(
    "--no-memory-check", is_flag=True, help="Start even if the estimate exceeds the free memory."
)
percent = click.option("--percent", type=float, help="Use the labels of this share of the training scans, by room.")
split = click.option("--split", type=PATH, help="File with the names of the training scans, or a part's name: Area_1.")
val_split = click.option("--val-split", type=PATH, help="The same for the scans to validate on.")


def _add_manifest(context, parameter, path):
    if path is None:
        return None
    from gen4d import sources

    context.call_on_close(sources.forget_manifests)
    try:
        sources.add_manifest(path)
    except sources.SourceError as error:
        raise click.ClickException(str(error)) from None
    return path


def manifest_option(**given):
    """--manifest, which this process knows from then on."""
    text = "Manifest of your own data sets and label spaces, in the form of datasets_manifest.yaml."
    return click.option("--manifest", type=PATH, callback=_add_manifest, help=text, **given)


manifest = manifest_option(expose_value=False)
points = click.option(
    "--points", type=PATH, help="The benchmark's file of limited points: only they keep their labels."
)
boxes = click.option(
    "--boxes", type=PATH, help="The benchmark's file of limited boxes, for --task detect: only they are learned."
)


views = click.option(
    "--tta", "views", type=click.IntRange(1, 64), default=1, show_default=True,
    help="Test-time augmentation: the mean over this many views, rotated about z and mirrored.",
)  # fmt: skip
window_voxels = click.option(
    "--window-voxels", type=click.IntRange(1000),
    help="Larger scans are seen by overlapping windows of this many voxels.  [default: what the run says]",
)  # fmt: skip


def run_option(default: str):
    """The run folder. torchrun takes --run for an option of its own, so there it is --run-dir."""
    return click.option(
        "--run", "--run-dir", "run", type=PATH, default=default, show_default=True, help="Folder of the run."
    )


def weights_path(text: str) -> pathlib.Path | None:
    """What --weights names; `none` is none."""
    return None if text == "none" else pathlib.Path(text)


def with_share(percent: float | None, assignments: tuple[str, ...]) -> tuple[str, ...]:
    """Assignments, with --percent as the first."""
    return assignments if percent is None else (f"labels.percent={percent}", *assignments)


def out_of(as_json: bool):
    """Where lines for eyes go: to standard output, or beside it where that is for JSON."""
    return sys.stderr if as_json else sys.stdout


def speaker(as_json: bool, leads: bool = True):
    """The function that prints a line for eyes; in processes that do not lead it is silent."""
    return (lambda text: click.echo(text, err=as_json)) if leads else (lambda text: None)


def give(as_json: bool, result) -> None:
    """Print a result as one line of JSON, where that was asked for."""
    if as_json:
        click.echo(json.dumps(result))


@contextlib.contextmanager
def one_line_errors():
    """What a user can mend becomes one line; everything else is a defect and keeps its traceback."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in TRAINING:
            raise
        raise click.ClickException(f"{missing} is not installed: {INSTALL}") from None
    except Exception as error:
        if _is_left_alone(error):
            click.echo("Error: another process of the run has ended, which says why", err=True)
            raise SystemExit(LEFT_ALONE) from None
        if not _can_be_mended(error):
            raise
        text = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, OSError) and error.strerror:
            text = f"{error.filename or 'a file'}: {error.strerror}"
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                text = f"{text}: free some space; what is there is whole, and the same command goes on"
            elif remedy := files.remedy(error):
                text = f"{text}: {remedy}"
        if type(error).__name__ == "OutOfMemoryError":
            remedy = "set a larger accumulate (a divisor of batch), a smaller window_voxels, or larger voxels"
            text = f"{text.partition('.')[0]}: {remedy}"
        raise click.ClickException(text) from None


def _is_left_alone(error: Exception) -> bool:
    """Whether what failed is the connection to another process, which has ended."""
    torch = sys.modules.get("torch")
    together = torch and torch.distributed.is_available() and torch.distributed.is_initialized()
    lost = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")
    return bool(together) and isinstance(error, RuntimeError) and any(text in str(error) for text in lost)


def _can_be_mended(error: Exception) -> bool:
    """Whether an error is for the user, not a bug: ours, the system's, gen4d's own kinds of ValueError, memory."""
    torch = sys.modules.get("torch")
    memory = (torch.OutOfMemoryError,) if torch else ()
    below = isinstance(error, ValueError) and type(error).__module__.startswith("gen4d.")
    return below or isinstance(error, (OSError, Refused, *memory))


def check_machine(world, precision: str = "float32") -> None:
    """Before anything is computed: threads, and whether sparse convolutions are right here. Raises SparseError."""
    import torch

    from train.nets import sparse
    from train.run.precision import CHECKED

    if world.device.type == "cpu":
        # spconv's share of a step is held to one thread; a second for the rest spins against the loader's, and the
        # numbers would depend on the machine's cores.
        torch.set_num_threads(1)
    sparse.self_check(world.device, CHECKED[precision])


def describe_settings(config) -> list[str]:
    """A line for every setting."""
    from train.config import flatten, to_plain

    return [f"{path} = {value}" for path, value in flatten(to_plain(config)).items()]


def describe_memory(needed, share, device) -> list[str]:
    """What a run needs and what is there, and whether it would be refused."""
    from train.run import memory

    free, refused = memory.available(device), memory.problem(needed, share, device)
    lines = [
        f"memory on the device: about {needed.device / 1e9:.2f} GB, free {free / 1e9:.2f} GB",
        f"largest tensor of a convolution: about {needed.widest / 1e9:.3f} GB",
        f"memory for batches made ahead: about {needed.host / 1e9:.2f} GB",
    ]
    return [*lines, f"would be refused: {refused}"] if refused else lines
