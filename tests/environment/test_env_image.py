"""Images put together and pushed without an engine, into a real registry; podman pulls and runs them."""

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from breaking_proxy import Fault
from image_parts import add_distribution, small_environment
from registries import behind_proxy, noise

from oci_registry import OciRegistry
from podman import own_podman, run_options
from starburst.environment.base_images import Reference, find_base, stock_image
from starburst.environment.image import assemble, push, tag_of
from starburst.environment.layers import pack
from starburst.environment.platforms import Platform
from starburst.environment.registry import Registry
from starburst.environment.steps import Steps
from starburst.errors import EnvironmentBuildError
from worker_image import architecture, image_config, python_layer

BASE, TAG = "mirror/python", "slim"
ARCHITECTURES = {"amd64": "X86_64", "arm64": "ARM64"}
HERE = Platform(f"{sys.version_info.major}.{sys.version_info.minor}", ARCHITECTURES[architecture()])
OTHER = Platform(HERE.python, {"X86_64": "ARM64", "ARM64": "X86_64"}[HERE.architecture])
UPLOADS = "/blobs/uploads/"
MB = 1 << 20


@pytest.fixture(scope="module")
def oci(tmp_path_factory):
    """A registry with a base image, under an index as public ones have it; its layers only weigh something."""
    server = OciRegistry(tmp_path_factory.mktemp("oci") / "server")
    try:
        server.start()
        config = {**image_config(), "Labels": {"from": "base"}, "Entrypoint": ["/bin/surprise"]}
        layers = [noise(2 * MB).open().read(), b"\0" * 1024]
        server.push_image(BASE, layers, config, architecture=architecture(), tag="one")
        server.push_index(BASE, {architecture(): "one"}, tag=TAG)
        yield server
    finally:
        server.stop()


@pytest.fixture
def target(tmp_path):
    """An empty registry."""
    server = OciRegistry(tmp_path / "target")
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture
def registry(oci):
    with Registry(oci.address) as client:
        yield client


def reference(oci, what=f":{TAG}"):
    return Reference.parse(f"{oci.address}/{BASE}{what}")


@pytest.fixture
def base(oci, registry):
    return find_base(registry, reference(oci), HERE)


@pytest.fixture(scope="module")
def python(oci):
    """A base with this machine's Python."""
    oci.push_image("python", [python_layer()], image_config(), architecture=architecture(), tag="slim")
    with Registry(oci.address) as client:
        return find_base(client, Reference.parse(f"{oci.address}/python:slim"), HERE)


@pytest.fixture
def image(base, tmp_path):
    folder = small_environment(tmp_path / "environment")
    (folder / "noise.bin").write_bytes(noise(3 * MB).open().read())
    return assemble(base, pack(folder, tmp_path / "layers"), HERE)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("python", "registry-1.docker.io/library/python:latest"),
        ("python:3.11-slim", "registry-1.docker.io/library/python:3.11-slim"),
        ("someone/python:3", "registry-1.docker.io/someone/python:3"),
        ("docker.io/python", "registry-1.docker.io/library/python:latest"),
        ("localhost/a/b:c", "localhost/a/b:c"),
        ("127.0.0.1:5000/a:b", "127.0.0.1:5000/a:b"),
        ("registry.example.org/team/base_image.x", "registry.example.org/team/base_image.x:latest"),
        (f"a.b/c:d@sha256:{'0' * 64}", f"a.b/c@sha256:{'0' * 64}"),
    ],
)
def test_references(text, where):
    assert str(Reference.parse(text)) == where


@pytest.mark.parametrize("text", ["", "Upper/case", "a b", "a:b:c", "a@sha256:123", "https://a.b/c"])
def test_bad_references(text):
    with pytest.raises(EnvironmentBuildError, match="is not the name of an image"):
        Reference.parse(text)


def test_find_base(oci, registry, base, tmp_path):
    assert base.digest == oci.manifest(BASE, "one").digest
    assert [layer.media_type for layer in base.layers] == ["application/vnd.oci.image.layer.v1.tar"] * 2
    assert find_base(registry, reference(oci, f"@{base.digest}"), HERE).layers == base.layers
    assert find_base(registry, reference(oci, ":one"), HERE).layers == base.layers
    has = f"only for linux/{architecture()}"
    with pytest.raises(EnvironmentBuildError, match=has):
        find_base(registry, reference(oci), OTHER)
    with pytest.raises(EnvironmentBuildError, match=has):
        find_base(registry, reference(oci, ":one"), OTHER)
    with pytest.raises(EnvironmentBuildError, match="is not there") as caught:
        find_base(registry, reference(oci, ":nope"), HERE)
    assert "base_image" in caught.value.hint


def test_a_base_is_looked_up_once_a_day(oci, base, tmp_path):
    with behind_proxy(oci) as (proxy, client):
        where = Reference.parse(f"{proxy.address}/{BASE}:{TAG}")
        cache = tmp_path / "cache"
        first = find_base(client, where, HERE, cache=cache)
        assert len(proxy.requests) == 3
        assert find_base(client, where, HERE, cache=cache) == first
        assert len(proxy.requests) == 3
        later = (cache / next(cache.iterdir()).name).stat().st_mtime + 90_000
        assert find_base(client, where, HERE, cache=cache, now=lambda: later) == first
        assert len(proxy.requests) == 6
        next(cache.iterdir()).write_text('{"digest":')
        assert find_base(client, where, HERE, cache=cache) == first
        assert len(proxy.requests) == 9


def test_an_image_is_the_same_each_time(base, image, tmp_path):
    folder = tmp_path / "environment"
    again = assemble(base, pack(folder, tmp_path / "other"), HERE)
    assert again.digest == image.digest
    assert again.config == image.config
    assert assemble(base, image.layers, HERE, labels={"lock": "1"}).digest != image.digest
    config = json.loads(image.config)
    assert config["created"] == "1980-01-01T00:00:00Z"
    assert config["config"] == {
        "Cmd": ["python"],
        "Env": [
            "PATH=/usr/local/bin:/opt/starburst/packages/bin",
            "PYTHONPATH=/opt/starburst/packages",
            "LANG=C.UTF-8",
            "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt",
            "PYTHONUNBUFFERED=1",
            "HOME=/tmp",
        ],
        "Labels": {"from": "base"},
        "User": "65532:65532",
        "WorkingDir": "/tmp",
    }
    assert len(config["rootfs"]["diff_ids"]) == len(config["history"]) == 3
    changed = assemble(base, image.layers, HERE, environment={"LANG": "C"}, python_path=("/a", "/b"))
    variables = json.loads(changed.config)["config"]["Env"]
    assert "LANG=C" in variables
    assert "PYTHONPATH=/a:/b" in variables


def test_tags():
    tag = tag_of("a" * 64, "sha256:b", HERE, "0.1")
    assert tag.startswith(f"py{HERE.python}-{architecture()}-")
    assert len(tag) < 128
    others = [("b" * 64, "sha256:b", HERE, "0.1"), ("a" * 64, "sha256:c", HERE, "0.1")]
    others += [("a" * 64, "sha256:b", OTHER, "0.1"), ("a" * 64, "sha256:b", HERE, "0.2")]
    assert len({tag, *(tag_of(*other) for other in others)}) == 5
    assert tag == tag_of("a" * 64, "sha256:b", HERE, "0.1")
    assert stock_image(Platform("3.12", "ARM64")) == "python:3.12-slim-bookworm"


def test_nothing_is_sent_twice(oci, image, tmp_path):
    with behind_proxy(oci) as (proxy, client):
        steps = Steps()
        first = push(image, client, "twice", "v1", steps=steps)
        assert first.digest == image.digest
        # The base's layers are taken over within the registry.
        own = image.layers[0].size_bytes + len(image.config)
        assert (first.blobs_sent, first.blobs_present, first.bytes_sent) == (2, 2, own)
        assert (steps.steps[0].name, steps.steps[0].state) == ("push", "done")
        assert "2 of 4 layers sent" in steps.steps[0].detail
        proxy.requests.clear()
        assert push(image, client, "twice", "v1", steps=steps).blobs_present == 4
        assert [method for method, _, _ in proxy.requests] == ["HEAD"]
        assert steps.steps[1].state == "cached"
        again = push(image, client, "twice", "v2", steps=steps)
        assert (again.blobs_sent, again.bytes_sent, again.blobs_present) == (0, 0, 4)
        folder = tmp_path / "environment"
        (folder / "beta.py").write_text("VALUE = 43\n")
        changed = assemble(image.base, [*image.layers, *pack(folder, tmp_path / "layers")], HERE)
        third = push(changed, client, "twice", "v3", steps=steps)
        assert (third.blobs_sent, third.blobs_present) == (2, 3)


def test_layers_of_a_base_in_the_same_registry_are_taken_over(registry, image):
    done = push(image, registry, "mounted", "v1", steps=Steps())
    assert (done.blobs_sent, done.blobs_present) == (2, 2)
    assert done.bytes_sent == image.layers[0].size_bytes + len(image.config)


def test_a_base_is_copied_into_another_registry_once(oci, target, image):
    with Registry(oci.address) as source, behind_proxy(target) as (proxy, client):
        first = push(image, client, "worker", "v1", steps=Steps(), base_registry=source)
        assert (first.blobs_sent, first.blobs_present) == (4, 0)
        other = assemble(image.base, image.layers, HERE, labels={"another": "one"})
        second = push(other, client, "worker", "v2", steps=Steps(), base_registry=source)
        assert (second.blobs_sent, second.blobs_present) == (1, 3)
        assert second.bytes_sent == len(other.config)
        assert proxy.count("POST", "mount") == 0
    found = target.manifest("worker", "v1")
    assert found.digest == image.digest
    assert found.data == image.manifest.data


def test_an_interrupted_push_leaves_no_tag_and_goes_on(target, oci, image):
    with Registry(oci.address) as source, behind_proxy(target) as (proxy, client):
        own = image.layers[0]
        proxy.faults = [Fault("PUT", own.digest.removeprefix("sha256:"), times=1000, cut=10)]
        steps = Steps()
        with pytest.raises(EnvironmentBuildError, match="to send a layer"):
            push(image, client, "worker", "v1", steps=steps, base_registry=source)
        assert steps.steps[0].state == "failed"
        assert client.digest_of("worker", "v1") is None
        assert proxy.count("PUT", "/manifests/") == 0
        there = sum(client.has_blob("worker", layer.digest) for layer in image.base.layers)
        there += client.has_blob(
            "worker", f"sha256:{json.loads(image.manifest.data)['config']['digest'][7:]}"
        )
        proxy.faults.clear()
        done = push(image, client, "worker", "v1", steps=Steps(), base_registry=source)
        assert done.blobs_present == there
        assert client.digest_of("worker", "v1") == image.digest


def test_a_stopped_push_stops(target, oci, image):
    """Ctrl-C, or one layer that is refused: the others do not go on for minutes."""
    with Registry(oci.address) as source, behind_proxy(target) as (proxy, client):
        refused = (403, {}, b'{"errors": [{"code": "DENIED", "message": "not yours"}]}')
        proxy.faults = [Fault("POST", UPLOADS, times=1000, answer=refused)]
        with pytest.raises(EnvironmentBuildError, match="DENIED: not yours"):
            push(image, client, "worker", "v1", steps=Steps(), base_registry=source)
    assert not [one for one in threading.enumerate() if one.name.startswith("push")]


def test_two_pushes_of_one_tag_at_once(target, oci, image):
    images = [image, image, assemble(image.base, image.layers, HERE, labels={"built": "elsewhere"})]
    with Registry(oci.address) as source, behind_proxy(target) as (_, client), ThreadPoolExecutor(3) as pool:
        jobs = [
            pool.submit(push, one, client, "worker", "v1", steps=Steps(), base_registry=source)
            for one in images
        ]
        done = [job.result() for job in jobs]
        assert [one.digest for one in done] == [one.digest for one in images]
        digest = client.digest_of("worker", "v1")
        assert digest in {one.digest for one in images}
        manifest = json.loads(client.get_manifest("worker", digest).data)
        for blob in [manifest["config"], *manifest["layers"]]:
            assert client.has_blob("worker", blob["digest"])


def test_layers_that_were_removed_meanwhile(registry, image):
    image.layers[0].path.unlink()
    with pytest.raises(EnvironmentBuildError, match="removed meanwhile") as caught:
        push(image, registry, "removed", "v1", steps=Steps())
    assert caught.value.hint == "run the command again"


LOOK = """
import alpha, beta, os, sys, tool
print(beta.VALUE, os.getuid(), os.getcwd(), os.environ["HOME"], alpha.__file__)
"""


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_podman_runs_it(oci, registry, python, tmp_path, compression):
    folder = small_environment(tmp_path / "environment")
    tool = b"#!/usr/local/bin/python3\nprint('tool')\n"
    add_distribution(folder, "tool", "1", {"tool/__init__.py": b"", "bin/tool": tool})
    (folder / "bin" / "tool").chmod(0o755)
    image = assemble(python, pack(folder, tmp_path / "layers", compression=compression), HERE)
    push(image, registry, "run", compression, steps=Steps())
    with own_podman() as podman:
        name = f"{oci.address}/run@{image.digest}"
        subprocess.run(
            [*podman, "pull", "--quiet", "--tls-verify=false", name], check=True, capture_output=True
        )
        run = [*podman, "run", "--rm", *run_options(), "--read-only", name]
        done = subprocess.run([*run, "python", "-c", LOOK], check=False, capture_output=True, text=True)
        assert done.stdout.split() == [
            "42",
            "65532",
            "/tmp",
            "/tmp",
            "/opt/starburst/packages/alpha/__init__.py",
        ], done.stderr
        done = subprocess.run([*run, "tool"], check=False, capture_output=True, text=True)
        assert done.stdout == "tool\n", done.stderr
