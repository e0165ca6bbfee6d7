"""The command line, `tallylight …`: one function a command, each importing only what it needs when it runs.

Called by people and by containers. It holds no logic of its own beyond arguments, output and exit codes.
"""

import sys
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Live streaming whose every fact is an event.",
)


@app.command()
def up() -> None:
    """Serve everything on this machine: engines, roles and the front, in one folder."""
    from gateways.settings import UpSettings
    from gateways.supervisor import up as run

    raise typer.Exit(run(UpSettings.load()))


@app.command()
def role(name: Annotated[str, typer.Argument(help="api, chat, media, relay, projector, sandbox or front")]) -> None:
    """Run one role in this process: what a container does."""
    from gateways.roles import ROLES, run

    if name == "front":
        from gateways.front import become
        from gateways.settings import FrontSettings

        become(FrontSettings.load())
    if name not in ROLES:
        raise typer.BadParameter(f"there is no role {name!r}; there are {', '.join([*ROLES, 'front'])}")
    raise typer.Exit(run(name))


def main() -> None:
    """The entry point: what a person can put right is one message, not a traceback."""
    from gateways.settings import SettingsInvalid

    try:
        app(prog_name="tallylight")
    except SettingsInvalid as invalid:
        print(invalid, file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
