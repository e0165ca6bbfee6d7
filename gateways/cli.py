"""The command line, `tallylight …`: one function a command, each importing only what it needs when it runs.

Called by people and by containers. It holds no logic of its own beyond arguments, output and exit codes.
"""

import sys
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Final

import typer

_OPTIONS: Final[dict[str, Any]] = {"no_args_is_help": True, "add_completion": False, "pretty_exceptions_enable": False}
app = typer.Typer(help="Live streaming whose every fact is an event.", **_OPTIONS)
events_app = typer.Typer(help="The log of every fact.", **_OPTIONS)
projections_app = typer.Typer(help="The read models.", **_OPTIONS)
admin_app = typer.Typer(help="Administrators, and who else has a role.", **_OPTIONS)
ledger_app = typer.Typer(help="The books.", **_OPTIONS)
for _name, _part in (
    ("admin", admin_app),
    ("events", events_app),
    ("projections", projections_app),
    ("ledger", ledger_app),
):
    app.add_typer(_part, name=_name)

Personal = Annotated[bool, typer.Option("--personal", help="Show personal fields: names, addresses, messages.")]
Machine = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


@app.command()
def up() -> None:
    """Serve everything on this machine: engines, roles and the front, in one folder."""
    from gateways.settings import UpSettings
    from gateways.supervisor import up as run

    raise typer.Exit(run(UpSettings.load()))


@app.command()
def demo() -> None:
    """Put a test picture with a clock on air: on the stack that runs here, or else on one started for it."""
    from gateways.folder import DataFolder
    from gateways.settings import UpSettings

    settings = UpSettings.load()
    running = DataFolder(settings.data_dir).running()
    if running is None or not running.lives():
        from gateways.supervisor import up as run

        raise typer.Exit(run(settings, demo=True))
    from gateways.demo import DemoFailed, broadcast

    try:
        broadcast(running.public_url, running.rtmp_url, settings.data_dir, typer.echo)
    except DemoFailed as failed:
        typer.echo(str(failed), err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


@app.command()
def role(
    name: Annotated[str, typer.Argument(help="api, chat, edge, front, media, projector, relay or sandbox")],
) -> None:
    """Run one role in this process: what a container does."""
    from gateways.roles import ROLES, run

    if name == "front":
        from gateways.front import become
        from gateways.settings import FrontSettings

        become(FrontSettings.load())
    if name not in ROLES:
        raise typer.BadParameter(f"there is no role {name!r}; there are {', '.join([*ROLES, 'front'])}")
    raise typer.Exit(run(name))


@app.command()
def doctor() -> None:
    """Can this machine run Tallylight? Exit code 1 and what helps, where not."""
    from gateways.doctor import examine
    from gateways.settings import UpSettings

    well = True
    for finding in examine(UpSettings.load()):
        well = well and finding.well
        mark = typer.style("ok  ", fg="green") if finding.well else typer.style("FAIL", fg="red")
        typer.echo(f"{mark}  {finding.name}: {finding.detail}")
    raise typer.Exit(0 if well else 1)


@admin_app.callback()
def admin() -> None:
    """What only the machine's owner may do."""


@admin_app.command("create")
def admin_create(
    username: Annotated[str, typer.Argument(help="Registered if there is no such account.")],
    password_from_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
) -> None:
    """Make an administrator; asks for the password of an account it must register first."""
    from gateways.admin_cli import create

    password = sys.stdin.readline().rstrip("\n") if password_from_stdin else None
    _finish(lambda: create(username, password))


RoleHeld = Annotated[str, typer.Argument(help="finance or admin")]


@admin_app.command("grant")
def admin_grant(username: str, role: RoleHeld) -> None:
    """Give an account a role: finance reads the books, admin may everything."""
    from gateways.admin_cli import grant

    _finish(lambda: grant(username, role))


@admin_app.command("revoke")
def admin_revoke(username: str, role: RoleHeld) -> None:
    """Take a role from an account. The last administrator stays."""
    from gateways.admin_cli import revoke

    _finish(lambda: revoke(username, role))


@events_app.command("tail")
def events_tail(
    last: Annotated[int, typer.Option("--last", "-n", min=0, max=10_000, help="So many of the newest first.")] = 20,
    follow: Annotated[bool, typer.Option(help="Go on as events come, until Ctrl-C.")] = True,
    category: Annotated[str | None, typer.Option(help="Only lifecycle, chat, media or money.")] = None,
    personal: Personal = False,
    machine: Machine = False,
) -> None:
    """Print the log as it grows: time, shard:position, stream@version, topic, fields."""
    from domain.event import Category
    from gateways.events_cli import run_tail

    if category is not None and category not in list(Category):
        raise typer.BadParameter(f"there is no category {category!r}; there are {', '.join(Category)}")
    raise typer.Exit(
        run_tail(last=last, follow=follow, category=category, personal=personal, machine=machine),
    )


@events_app.command("show")
def events_show(
    stream: Annotated[str, typer.Argument(help="A stream, such as channel-…")],
    after: Annotated[int, typer.Option(min=0, help="Only versions after this one.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000)] = 1000,
    personal: Personal = False,
    machine: Machine = False,
) -> None:
    """Print one stream from its beginning. Exit code 1 when it has no events."""
    from gateways.events_cli import show

    _finish(lambda: show(stream, after=after, limit=limit, personal=personal, machine=machine))


@projections_app.command("status")
def projections_status(machine: Machine = False) -> None:
    """Where each read model stands and how far it is behind. Exit code 1 when one is not live."""
    from gateways.projections_cli import show_status

    _finish(lambda: show_status(machine=machine))


@projections_app.command("rebuild")
def projections_rebuild(name: Annotated[str, typer.Argument(help="As `projections status` shows it.")]) -> None:
    """Build a read model anew from the log beside the live one, then swap them: no downtime."""
    from gateways.projections_cli import run_rebuild

    _finish(lambda: run_rebuild(name))


@ledger_app.command("verify")
def ledger_verify() -> None:
    """Recompute every posting from the log and compare. Exit code 1 when anything differs or does not balance."""
    from gateways.ledger_cli import show_verified

    _finish(show_verified)


@ledger_app.command("trial-balance")
def ledger_trial_balance(
    as_of: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="The end of this day, UTC.")] = None,
    machine: Machine = False,
) -> None:
    """Debits and credits of every account. Exit code 1 when they do not sum up."""
    from gateways.ledger_cli import show_trial_balance

    _finish(lambda: show_trial_balance(as_of=as_of.date() if as_of else None, machine=machine))


def _finish(work: Callable[[], Any]) -> None:
    import asyncio

    raise typer.Exit(asyncio.run(work()))


def main() -> None:
    """The entry point: what a person can put right is one message, not a traceback."""
    try:
        app(prog_name="tallylight")
    except Exception as fault:
        message = _for_people(fault)
        if message is None:
            raise
        print(message, file=sys.stderr)
        raise SystemExit(2) from None


def _for_people(fault: Exception) -> str | None:
    """The sentence for faults that are no bugs; None for those that are."""
    from gateways.settings import SettingsInvalid

    if isinstance(fault, SettingsInvalid):
        return str(fault)
    if "gateways.beside" not in sys.modules:
        return None
    from eventstore.errors import StoreUnavailable
    from gateways.beside import NothingRuns

    return str(fault) if isinstance(fault, NothingRuns | StoreUnavailable) else None


if __name__ == "__main__":
    main()
