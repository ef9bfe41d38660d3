"""Images that a session may still run stay; others go; what a project's workers get is told before anything starts."""

import asyncio
import hashlib
import json
import os
import shutil
import time
from pathlib import Path

import boto3
import pytest

import starburst
from starburst.aws.names import REPOSITORY
from starburst.aws.repository import KEPT_IMAGES
from starburst.cli.main import main
from starburst.client.engine import engine
from starburst.clock import SystemClock
from starburst.errors import OptionError
from starburst.ops.environments import Project, open_deployment
from starburst.ops.image_prune import Images, environments_in_use, prune_caches
from starburst.protocol.keys import Keys
from starburst.protocol.records import Environment, Manifest
from starburst.protocol.sessions import append_event, create_session
from starburst.store import open_store
from starburst.testing.aws import SimulatedAws

OURS = "py3.11-amd64-{:032x}"


class Later(SystemClock):
    """A clock that is so many days ahead."""

    def __init__(self, days):
        self.days = days

    def time(self):
        return super().time() + self.days * 86400


class Repository:
    """The set-up's repository, filled by hand."""

    def __init__(self, deployment):
        self.deployment = deployment
        self.ecr = boto3.client("ecr")
        self.store = open_store(f"s3://{deployment.bucket}")

    def push(self, *tags):
        """An image under these tags; returns its digest."""
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "size": 1,
                "digest": "sha256:" + hashlib.sha256(repr(tags).encode()).hexdigest(),
            },
            "layers": [],
        }
        text = json.dumps(manifest)
        digest = "sha256:" + hashlib.sha256(text.encode()).hexdigest()
        for tag in tags:
            self.ecr.put_image(
                repositoryName=REPOSITORY,
                imageManifest=text,
                imageManifestMediaType=manifest["mediaType"],
                imageDigest=digest,
                imageTag=tag,
            )
        return digest

    def session(self, session_id, digest, *, kind="session", ended=False):
        manifest = Manifest(
            session_id=session_id,
            kind=kind,
            created_at=time.time(),
            owner="me",
            host="here",
            launch_type="FARGATE",
            workers=1,
            slots=1,
            max_attempts=3,
            lease_s=15,
            idle_timeout_s=60,
            session_timeout_s=60,
            absolute_timeout_s=1e9,
            environment=Environment(),
            deployment={"image": f"{self.deployment.repository}@{digest}"},
        )
        asyncio.run(create_session(self.store, manifest))
        if ended:
            closed = append_event(
                self.store, Keys(session_id), SystemClock(), "terminated", data={"reason": "closed"}
            )
            asyncio.run(closed)

    @property
    def digests(self):
        found = self.ecr.describe_images(repositoryName=REPOSITORY)["imageDetails"]
        return {image["imageDigest"] for image in found}

    def prune(self, *, days, later):
        aws, deployment = engine.run(open_deployment(None))
        images = Images(aws, deployment, Later(later))
        return engine.run(images.apply(engine.run(images.plan(days))))


@pytest.fixture(scope="module")
def simulator():
    with SimulatedAws() as running:
        yield running


@pytest.fixture
def repository(simulator, data_dir, monkeypatch):
    for name, value in simulator.environment.items():
        monkeypatch.setenv(name, value)
    yield Repository(starburst.setup(fargate_only=True).deployment)
    starburst.teardown(yes=True)


def test_an_image_that_a_session_may_run_stays(repository):
    used, unused, closed, again = (repository.push(OURS.format(number)) for number in range(4))
    mine = repository.push("my-own")
    repository.session("session-20261124-000000-000001", used)
    repository.session("session-20261124-000000-000002", closed, ended=True)
    repository.session("resume-square-0123456789abcdef", again, kind="resume", ended=True)
    assert repository.prune(days=30, later=29).images == ()
    done = repository.prune(days=30, later=31)
    assert {image.digest for image in done.images} == {unused, closed}
    assert repository.digests == {used, again, mine}


def test_a_base_stays_as_long_as_images_are_built_upon_it(repository):
    base = repository.push(f"base-{OURS.format(1)}")
    other = repository.push(f"base-{OURS.format(2)}".replace("amd64", "arm64"))
    used = repository.push(OURS.format(3))
    repository.session("session-20261124-000000-000003", used)
    repository.prune(days=1, later=2)
    assert repository.digests == {base, used}
    assert other not in repository.digests


def test_nothing_goes_while_a_session_cannot_be_read(repository):
    digest = repository.push(OURS.format(1))
    key = Keys("session-20261124-000000-000004").manifest
    asyncio.run(repository.store.create(key, b"no manifest"))
    done = repository.prune(days=1, later=2)
    assert done.images == ()
    assert "session-20261124-000000-000004" in done.unsure[0]
    assert repository.digests == {digest}


def test_no_rule_of_the_repository_goes_by_age_or_tag(repository):
    text = repository.ecr.get_lifecycle_policy(repositoryName=REPOSITORY)["lifecyclePolicyText"]
    [rule] = json.loads(text)["rules"]
    assert rule["selection"] == {
        "tagStatus": "any",
        "countType": "imageCountMoreThan",
        "countNumber": KEPT_IMAGES,
    }


def test_list_and_prune_on_the_command_line(repository, capsys):
    digest = repository.push(OURS.format(1))
    repository.session("session-20261124-000000-000005", digest)
    assert main(["env", "list", "--json"]) == 0
    [image] = json.loads(capsys.readouterr().out)
    assert (image["digest"], image["used_by"]) == (digest, ["session-20261124-000000-000005"])
    assert main(["env", "list"]) == 0
    assert OURS.format(1) in capsys.readouterr().out
    assert main(["env", "prune", "--days", "0", "--yes"]) == 0
    assert "removed: 0 images" in capsys.readouterr().out
    assert repository.digests == {digest}


def test_old_entries_of_caches_go(tmp_path, monkeypatch):
    monkeypatch.setenv("STARBURST_CACHE_DIR", str(tmp_path))
    now = time.time()
    for name in ("layers/old", "layers/new", "locks/old.txt", "build-killed/part", "environments/used/a.py"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_bytes(b"12345")
        if "new" not in name:
            os.utime(file, (now - 40 * 86400, now - 40 * 86400))
    used = [tmp_path / "environments" / "used"]
    plan = prune_caches(30, now=now, dry_run=True, in_use=used)
    assert (plan.entries, plan.size_bytes) == (3, 15)
    assert (tmp_path / "layers" / "old").exists()
    prune_caches(30, now=now, dry_run=False, in_use=used)
    assert sorted(file.name for file in tmp_path.rglob("*") if file.is_file()) == ["a.py", "new"]
    assert prune_caches(30, now=now, dry_run=False, in_use=None).entries == 0
    assert prune_caches(30, now=now, dry_run=False, in_use=[]).entries == 1


def test_what_somebody_else_removes_meanwhile_does_not_end_pruning(tmp_path, monkeypatch):
    monkeypatch.setenv("STARBURST_CACHE_DIR", str(tmp_path))
    now = time.time()
    for name in ("gone", "old"):
        file = tmp_path / "environments" / name / "a.py"
        file.parent.mkdir(parents=True)
        file.write_bytes(b"12345")
        os.utime(file, (now - 40 * 86400, now - 40 * 86400))

    class Others(list):
        def __contains__(self, entry):  # another command prunes between the list and the look at each
            if entry.name == "gone":
                shutil.rmtree(entry)
            return False

    plan = prune_caches(30, now=now, dry_run=False, in_use=Others())
    assert (plan.entries, plan.size_bytes) == (1, 5)
    assert not list((tmp_path / "environments").iterdir())


def test_unpacked_packages_of_an_open_session_stay(tmp_path):
    store = open_store((tmp_path / "store").as_uri())
    for number, ended in (("1", False), ("2", True)):
        manifest = Manifest(
            session_id=f"session-20261124-000000-00000{number}",
            kind="session",
            created_at=time.time(),
            owner="me",
            host="here",
            launch_type="LOCAL",
            workers=1,
            slots=1,
            max_attempts=3,
            lease_s=15,
            idle_timeout_s=60,
            session_timeout_s=60,
            absolute_timeout_s=1000,
            environment=Environment(),
            deployment={"isolated": {"python": "p", "packages": f"/cache/{number}", "lock": number}},
        )
        asyncio.run(create_session(store, manifest))
        if ended:
            data = {"reason": "closed"}
            asyncio.run(
                append_event(store, Keys(manifest.session_id), SystemClock(), "terminated", data=data)
            )
    assert asyncio.run(environments_in_use([store], time.time())) == {Path("/cache/1")}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A script, a module beside it, and a lock that says what there is."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "helper.py").write_text(
        "import attr\n\ntry:\n    import gpu_tools\nexcept ImportError:\n    pass\n"
    )
    (folder / "main.py").write_text(
        "import matplotlib.pyplot as plt\nimport yaml as y\nimport helper\n\n\n"
        "def task(x):\n    import bs4\n    return y.dump(helper.f(x))\n\n\nplt.show()\n"
    )
    (folder / "pylock.toml").write_text(
        'lock-version = "1.0"\ncreated-by = "test"\n\n[[packages]]\nname = "attrs"\nversion = "24.2.0"\n'
        '[[packages.wheels]]\nname = "attrs-24.2.0-py3-none-any.whl"\n'
        f'url = "https://example.invalid/attrs-24.2.0-py3-none-any.whl"\nhashes = {{ sha256 = "{"0" * 64}" }}\n'
    )
    monkeypatch.chdir(folder)
    return folder


def test_check_finds_what_functions_need_and_workers_lack(project, capsys):
    assert main(["env", "check", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    # What only the script's own lines use (matplotlib) does not count, nor does an import that may fail.
    assert [(each["module"], each["package"].lower()) for each in found] == [
        ("bs4", "beautifulsoup4"),
        ("yaml", "pyyaml"),
    ]
    assert found[0]["fix"] == "add beautifulsoup4 to pylock.toml"
    (project / "main.py").write_text("import helper\n\n\ndef task(x):\n    return helper.f(x)\n")
    assert main(["env", "check", "main.py"]) == 0
    assert "workers find all modules" in capsys.readouterr().out


def test_show_without_an_account(project, capsys):
    assert main(["env", "show", "--json"]) == 0
    said = capsys.readouterr()
    view = json.loads(said.out)
    assert (view["source"], view["tag"]) == ("pylock.toml", None)
    assert ["attrs", "24.2.0"] in [[each["name"], each["version"]] for each in view["packages"]]
    assert "the registry was not asked" in said.err


def test_wrong_folder(tmp_path):
    with pytest.raises(OptionError, match="there is no folder"):
        Project.of(tmp_path / "nowhere")
