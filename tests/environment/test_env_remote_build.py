"""Base images that CodeBuild builds: on the simulated AWS, whose builds really run, with podman."""

import asyncio
import shlex

import boto3
import pytest
from environment_parts import run

import starburst
from cloud import Cloud
from engine_parts import HERE, OTHER, PATH, push_base
from helpers import eventually
from oci_registry import OciRegistry
from podman import own_podman
from starburst.aws.clients import Aws
from starburst.aws.deployment import load_deployments
from starburst.aws.names import REPOSITORY
from starburst.environment.dockerfile import Recipe, dockerfile_recipe, generated_dockerfile
from starburst.environment.registry import Registry
from starburst.environment.remote_build import build_remotely
from starburst.environment.steps import Steps
from starburst.errors import CloudError, EnvironmentBuildError, NotSetUp


@pytest.fixture(scope="module")
def oci(tmp_path_factory):
    server = OciRegistry(tmp_path_factory.mktemp("oci") / "server")
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture(scope="module")
def base(oci):
    return push_base(oci, REPOSITORY, "base")


@pytest.fixture(scope="module")
def cloud(tmp_path_factory, oci):
    with own_podman() as command:
        account = Cloud(tmp_path_factory.mktemp("cloud"), podman=shlex.join(command), registry=oci.address)
        try:
            yield account.start(fargate_only=True, remote_build=True)
        finally:
            account.aws.stop()


@pytest.fixture
def place(cloud, monkeypatch, data_dir):
    cloud.use(monkeypatch)
    yield cloud
    cloud.aws.clear()


@pytest.fixture
def registry(oci):
    with Registry(oci.address) as client:
        yield client


@pytest.fixture
def aws(place):
    client = Aws("us-east-1")
    yield client
    client.close()


def recipe(base, *packages, platform=HERE):
    """As of a base that is mirrored in the account's repository."""
    [deployment] = load_deployments()
    text = generated_dockerfile(f"{deployment.repository}@{base.digest}", packages, platform)
    return Recipe(text=text, platform=platform, source_name="system_packages", base_digest=base.digest)


async def build(what, aws, registry, steps=None, **options):
    [deployment] = load_deployments()
    return await build_remotely(
        what, aws, deployment, registry, REPOSITORY, steps=steps or Steps(), **options
    )


def builds(cloud):
    return cloud.aws.calls().get("codebuild.StartBuild", 0)


def sources(cloud):
    found = boto3.client("s3").list_objects_v2(Bucket=cloud.bucket, Prefix="builds/")
    return [each["Key"] for each in found.get("Contents", ())]


def test_aws_builds_it_once(place, aws, registry, base):
    what, steps = recipe(base, "libfoo1"), Steps()
    built = run(build(what, aws, registry, steps))
    assert [layer.digest for layer in built.layers] != [layer.digest for layer in base.layers]
    assert built.reference.tag == what.tag()
    assert any("Setting up libfoo1 ..." in line for line in steps.log)
    assert any(f"starburst-check: Python {HERE.python}" in line for line in steps.log)
    assert [(step.state, step.detail) for step in steps.steps] == [("done", "built by AWS")]
    assert sources(place) == []
    before, again = builds(place), Steps()
    assert run(build(what, aws, registry, again)) == built
    assert [step.state for step in again.steps] == ["cached"]
    assert builds(place) == before


def test_a_dockerfile_with_its_context(place, aws, registry, base, tmp_path):
    [deployment] = load_deployments()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "run.sh").write_text("#!/bin/sh\necho it runs\n")
    (tmp_path / "data" / "run.sh").chmod(0o755)
    (tmp_path / "data" / "link").symlink_to("run.sh")
    (tmp_path / ".env").write_text("SECRET=1")
    (tmp_path / "Dockerfile").write_text(
        f"FROM {deployment.repository}@{base.digest}\nCOPY . /data\nRUN /data/data/link && ! cat /data/.env\n"
    )
    steps = Steps()
    built = run(build(dockerfile_recipe(tmp_path / "Dockerfile", HERE), aws, registry, steps))
    assert f"PATH={PATH}" in built.config["config"]["Env"]
    assert "it runs" in steps.log


def test_a_build_that_fails_tells_why(place, aws, registry, base):
    steps = Steps()
    with pytest.raises(EnvironmentBuildError, match="Debian has no package libnope1") as caught:
        run(build(recipe(base, "libnope1"), aws, registry, steps))
    assert caught.value.message.startswith(
        "CodeBuild could not build the image of system_packages, at the step RUN"
    )
    assert any("E: Unable to locate package libnope1" in line for line in steps.log)
    assert steps.steps[0].state == "failed"
    assert sources(place) == []


def test_trouble_of_aws(place, aws, registry, base):
    place.aws.fail("codebuild:StartBuild", "fault", times=1)
    with pytest.raises(
        EnvironmentBuildError, match="CodeBuild itself had trouble, in the phase PROVISIONING: INT"
    ):
        run(build(recipe(base, "libfault1"), aws, registry))


def test_no_machine_for_that_processor(place, aws, registry, base):
    """The simulator has only this machine's; that the other one is asked for can be seen all the same."""
    with pytest.raises(EnvironmentBuildError, match="has no machine for"):
        run(build(recipe(base, "libfoo1", platform=OTHER), aws, registry))


@pytest.mark.parametrize("how", ["cancelled", "too long"])
def test_a_build_is_stopped(how, place, aws, registry, base, tmp_path):
    [deployment] = load_deployments()
    text = f'FROM {deployment.repository}@{base.digest}\nRUN ["python", "-c", "import time; time.sleep(600)"] # {how}\n'
    what = Recipe(text=text, platform=HERE, source_name="Dockerfile")
    stopped = place.aws.calls().get("codebuild.StopBuild", 0)
    steps = Steps()

    async def cancelled():
        task = asyncio.ensure_future(build(what, aws, registry, steps))
        for _ in range(600):
            if any("Entering phase BUILD" in line for line in steps.log) or task.done():
                break
            await asyncio.sleep(0.05)
        task.cancel()
        await task

    if how == "cancelled":
        with pytest.raises(asyncio.CancelledError):
            run(cancelled())
    else:
        with pytest.raises(EnvironmentBuildError, match="did not end in 1 seconds, and was stopped"):
            run(build(what, aws, registry, steps, timeout_s=1))
    assert place.aws.calls()["codebuild.StopBuild"] == stopped + 1
    assert any("was stopped" in line for line in steps.log)
    eventually(lambda: sources(place) == [], what="the end of the source")


def test_what_is_not_set_up(place, aws, registry, base):
    """Also: what differs is put right, and the role sees its sources only."""
    codebuild = boto3.client("codebuild")
    codebuild.update_project(name="starburst-build", timeoutInMinutes=5)
    plan = starburst.setup(dry_run=True)
    assert [(step.name, step.details) for step in plan.to_do] == [
        ("starburst-build", ("its timeoutInMinutes differs",))
    ]
    starburst.setup()
    assert starburst.setup(dry_run=True).to_do == []
    iam, role = boto3.client("iam"), "starburstCodeBuildRole"
    iam.delete_role_policy(RoleName=role, PolicyName=f"starburst-{place.bucket}")
    with pytest.raises(EnvironmentBuildError, match="it failed, in the phase DOWNLOAD_SOURCE: CLIENT_ERROR"):
        run(build(recipe(base, "libdenied1"), aws, registry))
    assert (role, "s3:GetObject") in {denial[:2] for denial in place.aws.denials()}
    codebuild.delete_project(name="starburst-build")
    with pytest.raises(
        NotSetUp, match="there is no CodeBuild project starburst-build in us-east-1"
    ) as caught:
        run(build(recipe(base, "libnone1"), aws, registry))
    assert caught.value.hint == "starburst setup --remote-build --region us-east-1"
    assert sources(place) == []
    starburst.setup()
    assert isinstance(caught.value, CloudError)
