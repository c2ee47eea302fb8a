"""`together`: any command in several processes of this machine's CPU."""

import sys

import click


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    short_help="Run a command in several processes on a CPU.",
)
@click.argument("processes", type=click.IntRange(min=1))
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def together(processes, command) -> None:
    """Train in several processes on this machine's CPU: spconv takes one core each.

    They share every batch; norms see all of it where run.shared_norms is set. On GPUs, and on several machines, use
    torchrun.

    \b
    gen4d-train together 2 pretrain --data data/sequences --preset small
    """
    from train.run.together import run_together

    outcome = run_together(processes, list(command))
    if outcome.said:
        click.echo(outcome.said, err=True)
    sys.exit(outcome.code)
