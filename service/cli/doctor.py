"""`openclaw doctor`: check everything that a gateway needs here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from service.cli.shared.common import json_option, pass_locations, print_json, printable
from service.config.source import Locations

if TYPE_CHECKING:
    from service.cli.shared.machine_diagnosis import Finding

_COLOURS = {"ok": "green", "warning": "yellow", "error": "red"}
_EXIT = {"ok": 0, "warning": 1, "error": 2}


@click.command()
@click.option("--no-calls", is_flag=True, help="Ask no model: a call to each provider may cost a few tokens.")
@json_option
@pass_locations
def doctor(locations: Locations, *, no_calls: bool, as_json: bool) -> None:
    """Check the configuration, the database, each provider and MCP server, the sandbox and the machine.

    Nothing is changed. The status is 0 if all is well, 1 with warnings and 2 with errors.
    """
    from service.server.monkey_patch import make_cooperative

    make_cooperative()
    from service.cli.shared.diagnosis import diagnose
    from service.core.logs import configure_logging

    configure_logging(console=False)  # the findings have what it would say
    findings = []
    for finding in diagnose(locations, calls=not no_calls):
        findings.append(finding)
        if not as_json:
            _print(finding)
    worst = max((finding.status for finding in findings), key=lambda status: _EXIT[status])
    if as_json:
        rows = [
            {"subject": one.subject, "status": one.status, "text": one.text, "remedy": one.remedy} for one in findings
        ]
        print_json({"status": worst, "findings": rows})
    raise click.exceptions.Exit(_EXIT[worst])


def _print(finding: Finding) -> None:
    status = click.style(finding.status.ljust(7), fg=_COLOURS[finding.status], bold=finding.status != "ok")
    click.echo(f"{status}  {click.style(printable(finding.subject), bold=True)}: {printable(finding.text)}")
    if finding.remedy is not None:
        click.echo(f"{'':7}  {printable(finding.remedy)}")
