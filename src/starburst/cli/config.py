"""Config: the stored settings."""

from typing import Annotated

import typer

from starburst.cli.common import command
from starburst.cli.output import Output

__all__ = ["add_to"]


def _names() -> list[str]:
    from starburst.config import Settings

    return list(Settings.names())


Name = Annotated[str, typer.Argument(metavar="NAME", help="The setting.", autocompletion=_names)]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    group = typer.Typer(
        help="Settings that hold for every call: read, change, find.",
        rich_markup_mode=None,
        invoke_without_command=True,
        callback=_help,
    )
    command(group, "get", short_help="Print one setting.", examples="starburst config get workers")(get)
    command(group, "set", short_help="Store one setting.", examples=_SET_EXAMPLES)(set_)
    command(group, "unset", short_help="Go back to the default.", examples="starburst config unset store")(
        unset
    )
    command(
        group,
        "show",
        short_help="Print all, and their origins.",
        examples="starburst config show --json",
    )(show)
    command(
        group, "path", short_help="Print where the file is.", examples='$EDITOR "$(starburst config path)"'
    )(path)
    app.add_typer(group, name="config", short_help="Read and change stored settings.")


def _help(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


def get(out: Output, *, name: Name) -> None:
    """Print one setting as it holds now; an empty line if it has no value."""
    from starburst.config import get_value

    value = get_value(name)
    if out.json:
        out.data({"name": name, "value": value})
    else:
        print("" if value is None else value)


_SET_EXAMPLES = """\
starburst config set store s3://my-bucket
starburst config set workers 20"""


def set_(
    out: Output, *, name: Name, value: Annotated[str, typer.Argument(metavar="VALUE", help="Its value.")]
) -> None:
    """Store one setting in the user's file.

    The environment variable STARBURST_NAME, where there is one, still goes first, and the arguments of a
    call go before both.
    """
    from starburst.config import load, set_value

    path = set_value(name, value)
    loaded = load()
    now = getattr(loaded.settings, name)
    if out.json:
        out.data({"name": name, "value": now, "origin": loaded.origins[name], "file": str(path)})
        return
    print(f"{name} = {now}")
    if loaded.origins[name] != str(path):
        out.note(f"The {loaded.origins[name]} goes before {path}.")


def unset(out: Output, *, name: Name) -> None:
    """Take one setting out of the user's file, so that the default holds again."""
    from starburst.config import get_value, unset_value

    path = unset_value(name)
    if out.json:
        out.data({"name": name, "value": get_value(name), "file": str(path)})
    else:
        print(f"{name} = {get_value(name)}")


def show(out: Output) -> None:
    """Print all settings as they hold now, and where each comes from."""
    from starburst.config import Settings, config_path, default_store_url, load

    loaded = load()
    rows = {
        name: {"value": loaded.settings.in_force(name), "origin": loaded.origins[name]}
        for name in Settings.names()
    }
    if out.json:
        out.data(
            {
                "file": str(config_path()),
                "settings": rows,
                "store_url": loaded.settings.store or default_store_url(),
            }
        )
        return
    from starburst.ui.tables import columns

    table = columns("SETTING", "VALUE", "FROM")
    for name, row in rows.items():
        value = default_store_url() if name == "store" and row["value"] is None else row["value"]
        table.add_row(name, "-" if value is None else str(value), str(row["origin"]))
    out.result(None, table)


def path(out: Output) -> None:
    """Print where the user's file is, or would be."""
    from starburst.config import config_path

    if out.json:
        out.data({"path": str(config_path()), "exists": config_path().exists()})
    else:
        print(config_path())
