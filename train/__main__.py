"""The trainer's command line, `gen4d-train COMMAND` or `python -m train COMMAND`."""

import threading
import warnings

import click

from gen4d import compiled
from train.commands.classify import classify
from train.commands.compare import compare
from train.commands.doctor import doctor
from train.commands.evaluate import evaluate
from train.commands.features import features
from train.commands.finetune import finetune
from train.commands.predict import predict
from train.commands.prepare import prepare
from train.commands.pretrain import pretrain
from train.commands.probe import probe
from train.commands.report import report
from train.commands.study import study
from train.commands.together import together
from train.commands.weights import export_weights


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Pre-train nets on gen4d data sets, and use what they learned.

    On several GPUs: torchrun --nproc_per_node 8 -m train pretrain --data DIR --run-dir DIR
    """
    warnings.filterwarnings("always", module=r"train\b")
    warnings.showwarning = lambda message, *rest: click.echo(f"warning: {message}", err=True)
    threading.excepthook = _thread_failed
    if compiled.NOTE:
        click.echo(f"note: {compiled.NOTE}", err=True)


def _thread_failed(args) -> None:
    """TensorBoard writes in a thread, and what it cannot write is raised again when it is given more."""
    if not isinstance(args.exc_value, OSError):
        threading.__excepthook__(args)


TRAINING = (pretrain, finetune, classify, together)
for command in (prepare, *TRAINING, evaluate, predict, probe, study, compare, report, features, export_weights, doctor):
    main.add_command(command)


if __name__ == "__main__":
    main(prog_name="python -m train")
