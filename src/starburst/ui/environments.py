"""Environments and images as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from starburst.ui import text
from starburst.ui.tables import columns

if TYPE_CHECKING:
    from starburst.environment.preflight import Missing
    from starburst.ops.environments import EnvironmentView
    from starburst.ops.image_prune import ImageView

__all__ = ["environment_view", "images_table", "missing_table"]

_SHORT = 19
"""Of a digest, with ``sha256:``; enough to tell images apart."""


def environment_view(view: EnvironmentView) -> RenderableType:
    """What workers get: a few lines, then the packages."""
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column()
    facts.add_row("project", view.folder)
    facts.add_row("packages", f"{len(view.packages)} from {view.source}")
    facts.add_row("for", f"Python {view.python}, {view.architecture}")
    facts.add_row("lock", view.lock)
    facts.add_row("tag", view.tag or "-")
    facts.add_row("digest", view.digest or ("not in the registry" if view.tag else "-"))
    for folder in view.editables:
        facts.add_row("with the code", folder)
    table = columns("PACKAGE", "VERSION", "FROM")
    for package in view.packages:
        table.add_row(package.name, package.version or "-", package.source or "index")
    return Group(facts, Text(), table)


def images_table(images: Sequence[ImageView], *, now: float) -> RenderableType:
    """One row an image."""
    if not images:
        return Text("No images in the repository.", style="dim")
    table = columns(
        "DIGEST", "SIZE", "PUSHED", "PULLED", "TAG", "USED BY", numbers=("SIZE", "PUSHED", "PULLED")
    )
    for image in images:
        table.add_row(
            image.digest[:_SHORT],
            text.size(image.size_bytes),
            f"{text.ago(now - image.pushed_at)} ago",
            f"{text.ago(now - image.pulled_at)} ago" if image.pulled_at else "-",
            Text(", ".join(image.tags) or "-"),
            Text(", ".join(image.used_by) or "-"),
        )
    return table


def missing_table(found: Sequence[Missing]) -> RenderableType:
    """One row a module that workers would lack."""
    table = columns("MODULE", "PACKAGE", "FIX")
    for each in found:
        table.add_row(each.module, each.distribution, Text(each.fix))
    return table
