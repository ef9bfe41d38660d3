"""Base images with system packages: built by the engines of this machine, pushed into a real registry, and run."""

import gzip
import hashlib
import io
import json
import os
import stat
import tarfile

import pytest
import zstandard
from breaking_proxy import PASSWORD, USER, Proxy
from environment_parts import run
from image_parts import members, small_environment

from engine_parts import HERE, OTHER, own_engines, push_base, run_python
from oci_registry import OciRegistry
from starburst.environment.docker_archive import read_archive
from starburst.environment.docker_context import context_files, ignore_lines
from starburst.environment.dockerfile import (
    Recipe,
    dockerfile_recipe,
    generated_dockerfile,
    system_packages_recipe,
)
from starburst.environment.engine_build import build_with_engine
from starburst.environment.engines import Engine, Login, find_engine
from starburst.environment.image import assemble, push
from starburst.environment.image_errors import build_failed
from starburst.environment.layers import pack
from starburst.environment.registry import Registry
from starburst.environment.registry_auth import Credentials
from starburst.environment.steps import Steps
from starburst.errors import EnvironmentBuildError

REPOSITORY = "starburst-worker"


@pytest.fixture(scope="module")
def oci(tmp_path_factory):
    server = OciRegistry(tmp_path_factory.mktemp("oci") / "server")
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture(scope="module")
def base(oci):
    return push_base(oci)


@pytest.fixture(scope="module")
def engines():
    with own_engines() as found:
        yield found


@pytest.fixture
def registry(oci):
    with Registry(oci.address) as client:
        yield client


@pytest.fixture
def project(tmp_path, oci, base):
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "data.txt").write_text("42")
    (folder / "secret.txt").write_text("never")
    (folder / ".dockerignore").write_text("# mine\nsecret.txt\n!.env\n")
    (folder / ".env").write_text("PASSWORD=1")
    (folder / "Dockerfile").write_text(
        f"FROM {oci.address}/python:slim\nCOPY . /opt/data\nENV WHO=me\nUSER 1000\n"
    )
    return folder


def build(recipe, engine, registry, steps=None, **options):
    return run(build_with_engine(recipe, engine, registry, REPOSITORY, steps=steps or Steps(), **options))


def test_the_text_is_the_same_for_the_same_packages():
    text = generated_dockerfile("python:3.11-slim", ["libgdal32", "g++", "libgdal32"], HERE)
    assert text == generated_dockerfile("python:3.11-slim", ["g++", "libgdal32"], HERE)
    assert text.startswith("FROM python:3.11-slim\nUSER 0\nRUN apt-get update")
    assert "      g++ \\\n      libgdal32 \\\n && rm -rf /var/lib/apt/lists/* /var/cache/apt/*\nRUN [" in text
    assert "--no-install-recommends" in text


@pytest.mark.parametrize(
    "name",
    ["", "a", "lib;rm -rf /", "$(id)", "a b", "-y", "lib\n", "LibA", "libfoo-", "a&&b", "../a", "lib=1 2", 7],
)
def test_a_name_is_not_a_piece_of_shell(name):
    with pytest.raises(EnvironmentBuildError, match="is not the name of a Debian package") as caught:
        generated_dockerfile("python", ["libgdal32", name], HERE)
    assert "Dockerfile" in caught.value.hint


@pytest.mark.parametrize("names", ["libgdal32", []])
def test_a_list_of_names_is_wanted(names):
    with pytest.raises(EnvironmentBuildError, match="not a list"):
        generated_dockerfile("python", names, HERE)


def test_versions_and_architectures_of_packages():
    assert "libgdal32:amd64=3.6.2+dfsg-1+b2 " in generated_dockerfile(
        "python", ["libgdal32:amd64=3.6.2+dfsg-1+b2"], HERE
    )


def test_the_tag_names_what_goes_in(project, base):
    recipe = dockerfile_recipe(project / "Dockerfile", HERE)
    first = recipe.tag()
    assert first.startswith(f"base-py{HERE.python}-")
    (project / ".env").write_text("PASSWORD=2")
    (project / "secret.txt").write_text("else")
    os.utime(project / "data.txt", (1, 1))
    assert recipe.tag() == first
    (project / "data.txt").write_text("43")
    assert (
        len({first, recipe.tag(), dockerfile_recipe(project / "Dockerfile", HERE, base_digest="x").tag()})
        == 3
    )
    assert dockerfile_recipe(project / "Dockerfile", OTHER).tag() != recipe.tag()
    packages = system_packages_recipe(base, ["libfoo1"], HERE)
    assert packages.tag() != system_packages_recipe(base, ["libfoo2"], HERE).tag()


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        ("", {"Dockerfile", "a/b.txt", "a/c/d.txt", "a/e.log", "b.txt"}),
        ("b.txt", {"Dockerfile", "a/b.txt", "a/c/d.txt", "a/e.log"}),
        ("a", {"Dockerfile", "b.txt"}),
        ("a/\n!a/c/d.txt", {"Dockerfile", "b.txt", "a/c/d.txt"}),
        ("**/*.txt", {"Dockerfile", "a/e.log"}),
        ("*\n!/a/*.log", {"a/e.log"}),
        ("!x.pem\n!.git", {"Dockerfile", "a/b.txt", "a/c/d.txt", "a/e.log", "b.txt"}),
    ],
)
def test_what_dockerignore_leaves(tmp_path, lines, kept):
    for name in ("Dockerfile", "a/b.txt", "a/c/d.txt", "a/e.log", "b.txt", "x.pem", ".git/config", "a/.env"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / ".dockerignore").write_text(lines)
    assert set(context_files(tmp_path, ignore_lines(tmp_path))) - {".dockerignore"} == kept


def test_a_huge_context_lists_the_largest(tmp_path):
    with (tmp_path / "data.bin").open("wb") as file:
        file.truncate(600_000_000)
    with pytest.raises(
        EnvironmentBuildError, match=r"has 600 MB; the largest: data.bin \(600 MB\)"
    ) as caught:
        context_files(tmp_path, ())
    assert ".dockerignore" in caught.value.hint


def test_dockerfiles_that_are_none(tmp_path):
    with pytest.raises(EnvironmentBuildError, match="cannot be read: No such file"):
        dockerfile_recipe(tmp_path / "Dockerfile", HERE)
    (tmp_path / "Dockerfile").write_text("# nothing\n")
    with pytest.raises(EnvironmentBuildError, match="has no FROM line"):
        dockerfile_recipe(tmp_path / "Dockerfile", HERE)


@pytest.mark.parametrize("name", ["podman", "buildah"])
def test_system_packages_below_the_workers_packages(name, engines, registry, base, oci, tmp_path):
    recipe, steps = system_packages_recipe(base, [f"libfoo-{name}"], HERE), Steps()
    built = build(recipe, engines[name], registry, steps, base=base)
    assert built.layers[: len(base.layers)] == base.layers  # taken over, not packed again
    assert any(f"Setting up libfoo-{name} ..." in line for line in steps.log)
    assert [step.name for step in steps.steps] == ["system", "push"]
    again = Steps()
    assert build(recipe, engines[name], registry, again, base=base) == built
    assert [step.state for step in again.steps] == ["cached"]
    # The packages go on top, as for every base: nothing below is sent again.
    packed = pack(small_environment(tmp_path / "environment"), tmp_path / "layers")
    pushed = push(assemble(built, packed, HERE), registry, REPOSITORY, f"worker-{name}", steps=Steps())
    assert pushed.blobs_sent <= len(packed) + 1
    code = "import beta, os; print(beta.VALUE, os.getuid(), *os.listdir('/usr/lib/debian'))"
    said = run_python(engines["podman"], f"{oci.address}/{REPOSITORY}:worker-{name}", code)
    assert said == f"42 65532 libfoo-{name}"


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_a_dockerfile_of_the_users(compression, engines, registry, project, base):
    (project / "Dockerfile").write_text((project / "Dockerfile").read_text() + f"ENV HOW={compression} \\\n")
    recipe = dockerfile_recipe(project / "Dockerfile", HERE)
    steps = Steps()
    built = build(recipe, engines["buildah"], registry, steps, base=base, compression=compression)
    assert {"WHO=me", f"HOW={compression}"} <= set(built.config["config"]["Env"])
    assert {layer.media_type.partition("+")[2] for layer in built.layers[len(base.layers) :]} == {compression}
    assert any(f"starburst-check: Python {HERE.python}" in line for line in steps.log)
    code = "from pathlib import Path; print(*sorted(p.name for p in Path('/opt/data').iterdir()))"
    image = assemble(built, [], HERE)
    push(image, registry, REPOSITORY, f"mine-{compression}", steps=Steps())
    said = run_python(engines["podman"], f"{registry.host}/{REPOSITORY}:mine-{compression}", code)
    assert said == ".dockerignore Dockerfile data.txt"


@pytest.mark.parametrize(
    ("package", "says", "hint"),
    [
        ("libnope1", "Debian has no package libnope1", "packages.debian.org"),
        ("liboffline1", "the builder has no network", "proxy"),
        ("libbig1", "no space left", "prune"),
        ("libarm1", f"cannot run programs for {HERE.machine}", "qemu-user-static"),
    ],
)
def test_what_apt_says(package, says, hint, engines, registry, base):
    steps = Steps()
    with pytest.raises(EnvironmentBuildError, match=says) as caught:
        build(system_packages_recipe(base, [package], HERE), engines["podman"], registry, steps, base=base)
    assert hint in caught.value.hint
    assert (
        "podman could not build the image of system_packages, at the step RUN apt-get" in caught.value.message
    )
    assert "\n  | " in caught.value.message
    assert steps.steps[-1].state == "failed"
    assert any("apt-get" in line for line in steps.log)


@pytest.mark.parametrize(
    ("platform", "line", "says"),
    [
        (
            HERE,
            'RUN ["python", "-c", "import os; os.remove(\'/usr/local/bin/python\')"]',
            "no program named python",
        ),
        (type(HERE)("3.99", HERE.architecture), "", f"its python is {HERE.python}, and workers need 3.99"),
        (type(HERE)(HERE.python, HERE.architecture, "2.99"), "", "glibc 2.99 or newer"),
        (HERE, "RUN cat /etc/nothing", "at the step RUN cat /etc/nothing: a step failed"),
    ],
)
def test_an_image_that_is_of_no_use(platform, line, says, engines, registry, project):
    text = (project / "Dockerfile").read_text().replace("USER 1000", "")
    (project / "Dockerfile").write_text(f"{text}{line}\n")
    with pytest.raises(EnvironmentBuildError, match=says):
        build(dockerfile_recipe(project / "Dockerfile", platform), engines["buildah"], registry)


def test_an_image_for_another_processor(engines, registry, base):
    """podman only warns, and then says of the image what it was told to say."""
    with pytest.raises(EnvironmentBuildError, match=f"it is for {HERE.machine}, not for {OTHER.machine}"):
        build(system_packages_recipe(base, ["libfoo1"], OTHER), engines["podman"], registry)


@pytest.mark.parametrize(
    ("config", "layers", "data", "says"),
    [
        (
            {"architecture": OTHER.oci_architecture},
            ["a.tar"],
            b"x",
            f"linux/{OTHER.oci_architecture}, and workers",
        ),
        ({"os": "windows"}, ["a.tar"], b"x", "is for windows/"),
        ({}, ["a.tar", "b.tar"], b"x", "it has 2 layers, of which 1 are described"),
        ({}, ["a.tar"], b"y", "is not what its digest names"),
        ({}, ["gone.tar"], b"x", "cannot be read: .*gone.tar"),
        ({"rootfs": None}, ["a.tar"], b"x", "cannot be read"),
        ({}, ["a.tar"], b"x", ""),
        ({}, ["a.tar"], gzip.compress(b"x", mtime=0), ""),
        ({}, ["a.tar"], zstandard.compress(b"x"), ""),
    ],
)
def test_archives(config, layers, data, says, tmp_path):
    diff_id = f"sha256:{hashlib.sha256(b'x').hexdigest()}"
    about = {
        "os": "linux",
        "architecture": HERE.oci_architecture,
        "rootfs": {"diff_ids": [diff_id]},
        **config,
    }
    files = {
        "c.json": json.dumps(about).encode(),
        "a.tar": data,
        "manifest.json": json.dumps([{"Config": "c.json", "Layers": layers}]).encode(),
    }
    with tarfile.open(tmp_path / "image.tar", "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    if not says:
        [layer] = read_archive(tmp_path / "image.tar", tmp_path / "into", HERE).layers
        assert zstandard.decompress(layer.path.read_bytes(), max_output_size=9) == b"x"
        assert layer.diff_id == diff_id
        return
    with pytest.raises(EnvironmentBuildError, match=says):
        read_archive(tmp_path / "image.tar", tmp_path / "into", HERE)


def test_an_archive_that_is_none(tmp_path):
    (tmp_path / "image.tar").write_bytes(b"no archive")
    with pytest.raises(EnvironmentBuildError, match="handed out cannot be read"):
        read_archive(tmp_path / "image.tar", tmp_path / "into", HERE)


def test_a_base_image_that_is_not_there(engines, registry, project, oci):
    (project / "Dockerfile").write_text(f"FROM {oci.address}/nothing:slim\n")
    with pytest.raises(EnvironmentBuildError, match="the base image is not there"):
        build(dockerfile_recipe(project / "Dockerfile", HERE), engines["buildah"], registry)


@pytest.mark.parametrize("name", ["podman", "buildah"])
def test_the_password_is_in_no_command_and_in_no_settings(name, engines, oci, tmp_path, monkeypatch):
    base = push_base(oci, f"private-{name}", ONLY=name)  # not one that the engine has already
    settings = tmp_path / "auth.json"
    settings.write_text(json.dumps({"auths": {"registry.example.org": {"auth": "bWU6c2VjcmV0"}}}))
    before = settings.read_bytes()
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(settings))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    seen = []
    with (
        Proxy(oci.address, auth="basic") as proxy,
        Registry(proxy.address, username=USER, password=PASSWORD) as client,
    ):
        text = generated_dockerfile(
            f"{proxy.address}/private-{name}@{base.digest}", [f"libsecret-{name}"], HERE
        )
        recipe = Recipe(text=text, platform=HERE, source_name="system_packages")

        def look(_steps):
            seen.extend((path.stat().st_mode, path.read_text()) for path in scratch.rglob("auth.json"))

        steps = Steps(show=look)
        with pytest.raises(EnvironmentBuildError, match="refuses to give out the base image"):
            build(recipe, engines[name], client)
        original = Engine.build

        async def watched(self, *arguments, **options):
            look(None)
            return await original(self, *arguments, **options)

        monkeypatch.setattr(Engine, "build", watched)
        login = Login(proxy.address, Credentials(USER, PASSWORD))
        assert build(recipe, engines[name], client, steps, login=login).layers
        wrong = Login(proxy.address, Credentials(USER, "wrong"))
        other = Recipe(text=text, platform=HERE, source_name="system_packages", base_digest="other")
        with pytest.raises(EnvironmentBuildError, match=f"{name} cannot log in to {proxy.address}"):
            build(other, engines[name], client, login=wrong)
    assert settings.read_bytes() == before
    assert seen
    assert {stat.S_IMODE(mode) for mode, _ in seen} == {0o600}
    assert all("registry.example.org" in text for _, text in seen)
    assert list(scratch.iterdir()) == []
    assert not any(PASSWORD in line for line in steps.log)


def test_which_engine(monkeypatch, tmp_path):
    with pytest.raises(EnvironmentBuildError, match="'rocket' in") as caught:
        run(find_engine("rocket", steps=Steps()))
    assert caught.value.hint == "one of docker, podman, buildah"
    assert run(find_engine("buildah", steps=Steps())).name == "buildah"
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentBuildError, match="docker: not installed; podman: not installed") as caught:
        run(find_engine(steps=Steps()))
    assert "starburst setup --remote-build" in caught.value.hint
    docker, podman = tmp_path / "docker", tmp_path / "podman"
    docker.write_text("#!/bin/sh\necho Cannot connect to the Docker daemon >&2; exit 1\n")
    docker.chmod(0o755)
    with pytest.raises(EnvironmentBuildError, match="docker: Cannot connect to the Docker daemon"):
        run(find_engine(steps=Steps()))
    podman.write_text("#!/bin/sh\necho amd64\n")
    podman.chmod(0o755)
    assert run(find_engine(steps=Steps())).name == "podman"
    docker.write_text('#!/bin/sh\n[ "$1" = version ]\n')
    with pytest.raises(EnvironmentBuildError, match="docker: it has no buildx"):
        run(find_engine("docker", steps=Steps()))


def test_a_build_has_an_end(tmp_path, monkeypatch, registry, base):
    slow = tmp_path / "podman"
    slow.write_text("#!/bin/sh\nexec sleep 600\n")
    slow.chmod(0o755)
    recipe = system_packages_recipe(base, ["libslow1"], HERE)
    with pytest.raises(EnvironmentBuildError, match="did not end in 0 seconds"):
        build(recipe, Engine("podman", (str(slow),)), registry, timeout_s=0.2)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('ERROR: failed to solve: process "/bin/sh -c x" did not complete: exec format error', "nothing emulates"),
        ('exec: "python": executable file not found in $PATH', "no program named python"),
        ("ERROR: pull access denied, repository does not exist or may require authorization", "refuses to give out"),
        ("ERROR: toomanyrequests: You have reached your pull rate limit", "no more downloads"),
        ("failed to resolve source metadata for docker.io/library/python:9: docker.io/library/python:9: not found",
         "is not there"),
        ("dial tcp: lookup registry-1.docker.io: no such host", "no network"),
        ("E: Version '1' for 'libfoo' was not found", "no package libfoo"),
        ("starburst-check: Python 3.12 x86_64 no-glibc 0", "python is 3.12"),
    ],
)  # fmt: skip
def test_what_docker_says(text, says):
    recipe = Recipe(text="FROM x\n", platform=HERE, source_name="Dockerfile")
    error = build_failed(["#5 [2/3] RUN make it", text], recipe, "docker")
    assert says in error.message
    assert "docker could not build the image of Dockerfile, at the step RUN make it: " in error.message
    assert text in error.message


def test_layers_of_the_system_are_files_of_an_archive(engines, registry, base, tmp_path, monkeypatch):
    """The lists of apt are gone in the same step that fetched them."""
    seen = []

    def watched(image, *arguments, **options):
        seen.append([members(layer) for layer in image.layers])
        return push(image, *arguments, **options)

    monkeypatch.setattr("starburst.environment.engine_build.push", watched)
    build(system_packages_recipe(base, ["liblists1"], HERE), engines["podman"], registry, base=base)
    names = {name for layers in seen for layer in layers for name in layer}
    assert "usr/lib/debian/liblists1" in names
    assert "var/lib/apt/lists/lock" not in names


def test_what_is_built_anew_takes_no_step_from_before(engines, registry, project, oci):
    stamp = "import time; open('/stamp', 'w').write(str(time.time_ns()))"
    (project / "Dockerfile").write_text(
        f"FROM {oci.address}/python:slim\nRUN {json.dumps(['python', '-c', stamp])}\n"
    )
    recipe = dockerfile_recipe(project / "Dockerfile", HERE)
    first = build(recipe, engines["buildah"], registry)
    assert build(recipe, engines["buildah"], registry).digest == first.digest
    anew = build(recipe, engines["buildah"], registry, anew=True)
    assert anew.digest != first.digest
    assert build(recipe, engines["buildah"], registry).digest == anew.digest
