"""`doctor`: whether this machine can train."""

import click

from train.commands import frame


@click.command(short_help="Check this machine for training.")
@frame.as_json
def doctor(as_json) -> None:
    """Check this machine for training: packages, GPUs, and whether sparse convolutions compute right numbers.

    \b
    gen4d-train doctor
    """
    from train.doctor import examine

    findings = examine()
    for finding in findings:
        frame.speaker(as_json)(f"{finding.level:8} {finding.text}")
    frame.give(as_json, [finding._asdict() for finding in findings])
    if any(finding.level == "bad" for finding in findings):
        raise SystemExit(1)
