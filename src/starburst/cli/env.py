"""Env: the packages that workers get, and the images that hold them."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from starburst.cli import exit_codes
from starburst.cli.cloud import DryRun, Profile, Region, Yes, ask_first
from starburst.cli.common import command
from starburst.cli.output import Output

if TYPE_CHECKING:
    from starburst.environment.steps import Steps
    from starburst.ops.environments import EnvironmentView

__all__ = ["add_to"]

Folder = Annotated[
    Path | None,
    typer.Argument(metavar="FOLDER", help="The folder of the script.  [default: the current one]"),
]
Scripts = Annotated[
    list[Path] | None,
    typer.Argument(metavar="SCRIPT", help="Scripts, or one folder.  [default: those in the current folder]"),
]
Architecture = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="X86_64 or ARM64.  [default: as set, or X86_64]"),
]
Environment = Annotated[
    str | None,
    typer.Option(metavar="FILE", help='A lock file, or "installed".  [default: as set, or what is found]'),
]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    group = typer.Typer(
        help="Packages of workers: build, show, check; their images: list, prune.",
        rich_markup_mode=None,
        invoke_without_command=True,
        callback=_help,
    )
    command(group, "build", short_help="Have the image ready.", examples="starburst env build")(build)
    command(
        group,
        "rebuild",
        short_help="Build the image again.",
        examples="starburst env rebuild --architecture ARM64",
    )(rebuild)
    command(group, "show", short_help="Show what workers get.", examples="starburst env show --json")(show)
    command(
        group,
        "check",
        short_help="Find imports that workers would lack.",
        examples="starburst env check train.py",
    )(check)
    command(group, "list", short_help="List the images.", examples="starburst env list")(list_)
    command(group, "prune", short_help="Remove old images and caches.", examples=_PRUNE_EXAMPLES)(prune)
    app.add_typer(group, name="env", short_help="The packages and images of workers.")


_PRUNE_EXAMPLES = """\
starburst env prune --dry-run
starburst env prune --days 7 --yes"""


def _help(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


def build(
    out: Output,
    *,
    folder: Folder = None,
    architecture: Architecture = None,
    environment: Environment = None,
    region: Region = None,
    profile: Profile = None,
) -> int:
    """Build and push the image that the first map of a script in FOLDER would build; nothing if it is there."""
    return _build(out, folder, architecture, environment, region=region, profile=profile, anew=False)


def rebuild(
    out: Output,
    *,
    folder: Folder = None,
    architecture: Architecture = None,
    environment: Environment = None,
    region: Region = None,
    profile: Profile = None,
) -> int:
    """Resolve, build and push the image though it is there.

    Open sessions keep the image that they have, until they end.
    """
    return _build(out, folder, architecture, environment, region=region, profile=profile, anew=True)


def _build(
    out: Output,
    folder: Path | None,
    architecture: str | None,
    environment: str | None,
    *,
    region: str | None,
    profile: str | None,
    anew: bool,
) -> int:
    from starburst.client.engine import engine
    from starburst.ops.environments import Project, build_environment, open_deployment

    project = Project.of(folder, architecture=architecture, environment=environment)

    async def work() -> "EnvironmentView":
        aws, deployment = await open_deployment(region, profile)
        with _steps(everything=True) as steps:
            return await build_environment(project, aws, deployment, steps, anew=anew)

    view = engine.run(work())
    if out.json:
        out.data(view)
    else:
        print(view.reference)
    _note_named(out, view)
    return exit_codes.OK


def show(
    out: Output,
    *,
    folder: Folder = None,
    architecture: Architecture = None,
    environment: Environment = None,
    region: Region = None,
    profile: Profile = None,
) -> int:
    """Show the packages that workers get, where the list comes from, and whether the image is in the registry."""
    from starburst.client.engine import engine
    from starburst.errors import CredentialsError, NotSetUp
    from starburst.ops.environments import Project, open_deployment, view_of

    project = Project.of(folder, architecture=architecture, environment=environment)
    why = ""

    async def work() -> "EnvironmentView":
        nonlocal why
        with _steps() as steps:
            try:
                aws, deployment = await open_deployment(region, profile)
            except (NotSetUp, CredentialsError) as error:
                why = error.message
                return await view_of(project, steps)
            return await view_of(project, steps, aws=aws, deployment=deployment)

    view = engine.run(work())
    if out.json:
        out.data(view)
    else:
        from starburst.ui.environments import environment_view

        out.result(None, environment_view(view))
    if why:
        out.note(f"the registry was not asked: {why}")
    _note_named(out, view)
    return exit_codes.OK


def check(
    out: Output,
    *,
    scripts: Scripts = None,
    architecture: Architecture = None,
    environment: Environment = None,
) -> int:
    """Look for imports of functions and local modules that workers would not find, before anything is launched.

    Nothing is run, and no account is needed. The exit code is 1 if something is missing.
    """
    from starburst.client.engine import engine
    from starburst.environment.preflight import Missing
    from starburst.ops.environments import Project, check_environment
    from starburst.ui import text

    given = list(scripts or ())
    files = [each.resolve() for each in given if not each.is_dir()]
    project = Project.of(given[0] if given else None, architecture=architecture, environment=environment)

    async def work() -> list[Missing]:
        with _steps() as steps:
            return await check_environment(project, files, steps)

    found = engine.run(work())
    if out.json:
        out.data([{"module": m.module, "package": m.distribution, "fix": m.fix} for m in found])
    elif found:
        from starburst.ui.environments import missing_table

        out.result(None, missing_table(found))
    else:
        print("workers find all modules that are needed")
    if found:
        out.note(f"starburst: workers would not find {text.plural(len(found), 'module')}")
    return exit_codes.FAILED if found else exit_codes.OK


def list_(out: Output, *, region: Region = None, profile: Profile = None) -> int:
    """List the images in the account's repository, the newest first, and which open sessions use them."""
    from starburst.client.engine import engine
    from starburst.clock import SystemClock
    from starburst.ops.environments import open_deployment
    from starburst.ops.image_prune import Images, ImageView

    async def work() -> tuple[list[ImageView], list[str]]:
        return await Images(*await open_deployment(region, profile)).all()

    images, unsure = engine.run(work())
    if out.json:
        out.data(images)
    else:
        from starburst.ui.environments import images_table

        out.result(None, images_table(images, now=SystemClock().time()))
    for line in unsure:
        out.note(line)
    return exit_codes.OK


def prune(
    out: Output,
    *,
    days: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Unused for so many days.  [default: ecr_image_ttl_days]"),
    ] = None,
    caches_only: Annotated[
        bool, typer.Option("--caches-only", help="Only this machine's caches; the account is not asked.")
    ] = False,
    region: Region = None,
    profile: Profile = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> int:
    """Remove images that no open session uses and that are older than ecr_image_ttl_days, and old local caches.

    Images under tags of your own stay. What is younger than an hour stays, too.
    """
    from starburst.client.engine import engine
    from starburst.client.places import usual_places
    from starburst.clock import SystemClock
    from starburst.config import load_settings
    from starburst.ops.environments import open_deployment
    from starburst.ops.image_prune import Images, PrunePlan, environments_in_use, prune_caches
    from starburst.ui import text

    limit = load_settings().ecr_image_ttl_days if days is None else days
    plan = PrunePlan(images=())
    if not caches_only:
        images = Images(*engine.run(open_deployment(region, profile)))
        plan = engine.run(images.plan(limit))
        if plan.images and not dry_run:
            if not yes:
                for image in plan.images:
                    out.note(f"  remove  {image.digest}  {', '.join(image.tags)}")
                ask_first(
                    out, f"Remove {text.plural(len(plan.images), 'image')}?", command="starburst env prune"
                )
            plan = engine.run(images.apply(plan))
    now = SystemClock().time()
    local = [place.open() for place in usual_places() if place.url.startswith("file:")]
    in_use = engine.run(environments_in_use(local, now))
    caches = prune_caches(limit, now=now, dry_run=dry_run, in_use=in_use)
    if out.json:
        out.data({"images": plan, "caches": caches})
        return exit_codes.OK
    verb = "would go" if dry_run else "removed"
    for image in plan.images:
        print(f"{verb}: image {image.digest}  {', '.join(image.tags)}")
    print(f"{verb}: {text.plural(len(plan.images), 'image')}")
    print(f"{verb}: {caches.entries} entries, {text.size(caches.size_bytes)}, of {caches.folder}")
    for digest, reason in plan.kept.items():
        out.note(f"ECR keeps {digest}: {reason}")
    for line in plan.unsure:
        out.note(f"no image was removed: {line}")
    return exit_codes.OK


@contextlib.contextmanager
def _steps(*, everything: bool = False) -> "Iterator[Steps]":
    """Steps that are shown on stderr, and whose log is kept."""
    import logging

    from starburst.environment.steps import logged, set_steps_display
    from starburst.ui.steps import open_steps

    set_steps_display(lambda: open_steps(sys.stderr, everything=everything))
    with logged(logging.getLogger("starburst.env")) as steps:
        yield steps


def _note_named(out: Output, view: "EnvironmentView") -> None:
    if view.named:
        out.note(f"workers run the image that is set, not this one: {view.named}")
