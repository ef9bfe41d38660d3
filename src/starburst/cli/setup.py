"""Setup: prepare an AWS account for cloud workers."""

from typing import TYPE_CHECKING, Annotated

import typer

from starburst.cli import exit_codes
from starburst.cli.cloud import DryRun, Profile, Region, Yes, ask_first
from starburst.cli.common import command
from starburst.cli.output import Output

if TYPE_CHECKING:
    from starburst.ops.setup import Setup, SetupPlan

__all__ = ["add_to"]

_EXAMPLES = """\
starburst setup --dry-run                     # what would be made
starburst setup --region eu-central-1
starburst setup --check
starburst setup --fargate-only --bucket my-bucket --yes
starburst setup --remote-build                # images are built by AWS, too
starburst setup --print-policies > policies.json"""


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    command(app, "setup", short_help="Prepare an AWS account.", examples=_EXAMPLES)(setup)


def setup(
    out: Output,
    *,
    bucket: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="For sessions.  [default: starburst-ACCOUNT-REGION]"),
    ] = None,
    region: Region = None,
    profile: Profile = None,
    fargate_only: Annotated[bool, typer.Option("--fargate-only", help="No EC2 capacity.")] = False,
    instance_types: Annotated[
        str | None,
        typer.Option(metavar="TYPE,TYPE", help="EC2 types that get capacity now.  [default: c7g.xlarge]"),
    ] = None,
    subnets: Annotated[
        str | None,
        typer.Option(metavar="ID,ID", help="Where workers run.  [default: the default VPC's public ones]"),
    ] = None,
    security_groups: Annotated[
        str | None, typer.Option(metavar="ID,ID", help="Of workers.  [default: one of our own]")
    ] = None,
    new_vpc: Annotated[bool, typer.Option("--new-vpc", help="Make a VPC for workers.")] = False,
    image: Annotated[
        str | None, typer.Option(metavar="REF", help="Container image of workers.  [default: ours]")
    ] = None,
    permissions_boundary: Annotated[
        str | None, typer.Option(metavar="ARN", help="A policy that limits the roles.")
    ] = None,
    log_days: Annotated[
        int | None, typer.Option(metavar="N", help="Days for which logs are kept.  [default: 7]")
    ] = None,
    remote_build: Annotated[
        bool, typer.Option("--remote-build", help="Let AWS CodeBuild build images with system packages.")
    ] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    print_policies: Annotated[
        bool, typer.Option("--print-policies", help="Print the permissions that people and roles need.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Compare what is with what should be; exit code 1 if it differs.")
    ] = False,
) -> int:
    """Prepare an AWS account: print the plan, ask, then make what is missing.

    It can be run again at any time, also after it was interrupted; what is not given stays as it was. What has one of
    our names and is not ours is reported and never touched. Nothing of it costs anything while no worker runs, but
    for what the bucket, the images and the logs hold.
    """
    from starburst.client.engine import engine
    from starburst.ops.blueprint import Blueprint
    from starburst.ops.choices import Choices, names_of, open_aws
    from starburst.ops.setup import Setup, documents_of

    choices = Choices(
        bucket=bucket,
        fargate_only=fargate_only or None,
        instance_types=names_of(instance_types),
        subnets=names_of(subnets),
        security_groups=names_of(security_groups),
        new_vpc=new_vpc,
        image=image,
        permissions_boundary=permissions_boundary,
        log_days=log_days,
        remote_build=remote_build or None,
    )
    if print_policies:
        _print_documents(out, documents_of(engine.run(Blueprint.draw(open_aws(region, profile), choices))))
        return exit_codes.OK
    work = engine.run(Setup.open(choices, region=region, profile=profile))
    plan = engine.run(work.plan())
    if check:
        return _check(out, plan)
    if dry_run:
        _show(out, plan)
        return exit_codes.PROVIDER if plan.foreign else exit_codes.OK
    return _make(out, work, plan, yes=yes)


def _make(out: Output, work: "Setup", plan: "SetupPlan", *, yes: bool) -> int:
    from starburst.client.engine import engine

    if not out.json:
        _show(out, plan)
    work.check_names(plan)
    if plan.to_do and not yes:
        ask_first(out, "Make these changes?", command="starburst setup")
    done = engine.run(work.apply(plan, lambda step: out.note(f"done: {step.kind} {step.name}")))
    if out.json:
        _show(out, done)
    elif plan.to_do:
        print(f'starburst is set up in {plan.region}: launch_type="FARGATE" works now')
    return exit_codes.OK


def _check(out: Output, plan: "SetupPlan") -> int:
    import msgspec

    good = not plan.to_do and not plan.foreign
    again = f"starburst setup --region {plan.region}"
    if out.json:
        out.data({"ok": good, "command": None if good else again, **msgspec.structs.asdict(plan)})
    else:
        print(plan)
        if not good:
            out.note(f"starburst: the set-up in {plan.region} is not as it should be\n  → {again}")
    return exit_codes.OK if good else exit_codes.FAILED


def _show(out: Output, plan: "SetupPlan") -> None:
    if out.json:
        out.data(plan)
    else:
        print(plan)


def _print_documents(out: Output, documents: dict[str, object]) -> None:
    import json

    if out.json:
        out.data(documents)
    else:
        print(json.dumps(documents, indent=2))
