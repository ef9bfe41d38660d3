"""Version: what is installed here."""

import platform

import typer

from starburst._version import __version__
from starburst.cli.common import command
from starburst.cli.output import Output

__all__ = ["add_to"]

PARTS = ("cloudpickle", "msgspec", "obstore", "zstandard", "boto3", "numpy")
"""Packages whose version matters when two machines do not understand each other."""


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    command(app, "version", short_help="Print versions.", examples="starburst version --json")(version)


def version(out: Output) -> None:
    """Print the versions of starburst, of Python, and of what they talk through."""
    from importlib import metadata

    def of(name: str) -> str | None:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return None

    found = {
        "starburst": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: of(name) for name in PARTS},
    }
    if out.json:
        out.data(found)
        return
    print(f"starburst {found['starburst']} on Python {found['python']}, {found['platform']}")
    print(", ".join(f"{name} {of(name) or '-'}" for name in PARTS))
