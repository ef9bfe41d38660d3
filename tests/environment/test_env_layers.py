"""Folders become layers: the same bytes for the same files, packed once, with little memory."""

import hashlib
import os
import py_compile
import shutil
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from image_parts import add_distribution, members, small_environment, unpacked

from starburst.environment.grouping import group, scan
from starburst.environment.layers import pack, prune
from starburst.errors import EnvironmentBuildError

MB = 1 << 20
ROOT = "opt/starburst/packages"


@pytest.fixture
def environment(tmp_path):
    return small_environment(tmp_path / "environment")


def big_environment(folder):
    """Three big distributions, and small ones; zeros, which are packed quickly."""
    for name in ("one", "two", "three"):
        add_distribution(folder, name, "1.0", {f"{name}/data.bin": name.encode() + bytes(17 * MB)})
    for name in ("small", "tiny"):
        add_distribution(folder, name, "1.0", {f"{name}.py": b"pass\n"})
    return folder


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_what_is_in_a_layer(environment, tmp_path, compression):
    (environment / "bin").mkdir()
    (environment / "bin" / "tool").write_bytes(b"#!/bin/sh\n")
    (environment / "bin" / "tool").chmod(0o700)
    (environment / "beta.py").chmod(0o600)
    (environment / "empty").mkdir()
    (layer,) = pack(environment, tmp_path / "layers", compression=compression)
    archive = unpacked(layer)
    assert layer.diff_id == f"sha256:{hashlib.sha256(archive).hexdigest()}"
    assert layer.digest == f"sha256:{hashlib.sha256(layer.path.read_bytes()).hexdigest()}"
    assert layer.size_bytes == layer.path.stat().st_size
    assert layer.media_type == f"application/vnd.oci.image.layer.v1.tar+{compression}"
    found = members(layer)
    assert list(found)[:4] == ["opt", "opt/starburst", ROOT, f"{ROOT}/alpha-1.0.dist-info"]
    assert {(i.uid, i.gid, i.uname, i.gname, i.mtime) for i, _ in found.values()} == {
        (0, 0, "", "", 315532800)
    }
    assert {name: info.mode for name, (info, _) in found.items() if name.startswith(f"{ROOT}/b")} == {
        f"{ROOT}/beta-2.0.dist-info": 0o755,
        f"{ROOT}/beta-2.0.dist-info/METADATA": 0o644,
        f"{ROOT}/beta-2.0.dist-info/RECORD": 0o644,
        f"{ROOT}/beta.py": 0o644,
        f"{ROOT}/bin": 0o755,
        f"{ROOT}/bin/tool": 0o755,
    }
    assert found[f"{ROOT}/alpha/data.txt"][1] == b"x" * 999


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_same_files_same_bytes(environment, tmp_path, compression):
    (first,) = pack(environment, tmp_path / "one", compression=compression)
    other = tmp_path / "elsewhere"
    other.mkdir()
    for path in sorted(environment.rglob("*"), reverse=True):  # made in another order, at another time
        if path.is_file():
            target = other / path.relative_to(environment)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            os.utime(target, (1e9, 1e9))
    os.link(other / "beta.py", tmp_path / "another-name")
    (second,) = pack(other, tmp_path / "two", compression=compression)
    assert (first.digest, first.diff_id) == (second.digest, second.diff_id)
    assert not second.cached
    (third,) = pack(other, tmp_path / "one", compression=compression)
    assert third.cached
    assert third.digest == first.digest


def test_nothing_is_packed_twice_and_every_change_is_seen(environment, tmp_path):
    into = tmp_path / "layers"
    (first,) = pack(environment, into)
    written = first.path.stat().st_ino
    (again,) = pack(environment, into)
    assert again.cached
    assert again.path.stat().st_ino == written
    (elsewhere,) = pack(environment, into, prefix="/opt/other")
    (environment / "beta.py").write_bytes(b"import alpha\nVALUE = alpha.VALUE + 1\n")
    (changed,) = pack(environment, into)
    (environment / "new.py").write_bytes(b"")
    (added,) = pack(environment, into)
    (environment / "new.py").chmod(0o755)
    (runnable,) = pack(environment, into)
    assert len({layer.digest for layer in (first, elsewhere, changed, added, runnable)}) == 5
    assert not any(layer.cached for layer in (elsewhere, changed, added, runnable))


@pytest.mark.parametrize("damage", ["truncated", "description lost", "description torn"])
def test_a_damaged_cache_is_made_anew(environment, tmp_path, damage):
    (first,) = pack(environment, tmp_path / "layers")
    if damage == "truncated":
        first.path.write_bytes(first.path.read_bytes()[:-10])
    elif damage == "description lost":
        first.path.with_suffix(".json").unlink()
    else:
        first.path.with_suffix(".json").write_text('{"digest": ')
    (again,) = pack(environment, tmp_path / "layers")
    assert not again.cached
    assert again.digest == f"sha256:{hashlib.sha256(again.path.read_bytes()).hexdigest()}" == first.digest


def test_a_change_of_one_package_changes_one_layer(tmp_path):
    folder, into = big_environment(tmp_path / "environment"), tmp_path / "layers"
    before = {layer.name: layer for layer in pack(folder, into)}
    assert sorted(before) == ["one", "packages-1of1", "three", "two"]
    shutil.rmtree(folder / "two")
    shutil.rmtree(folder / "two-1.0.dist-info")
    add_distribution(folder, "two", "1.1", {"two/data.bin": b"new" + bytes(17 * MB)})
    after = {layer.name: layer for layer in pack(folder, into)}
    assert [name for name in after if after[name].digest != before[name].digest] == ["two"]
    assert [name for name in after if not after[name].cached] == ["two"]
    names = [name for layer in after.values() for name, (info, _) in members(layer).items() if info.isreg()]
    assert sorted(names) == sorted(
        f"{ROOT}/{path.relative_to(folder)}" for path in folder.rglob("*") if path.is_file()
    )


def test_small_distributions_keep_their_layer(tmp_path):
    folder = tmp_path / "environment"
    for number in range(40):
        add_distribution(folder, f"small{number}", "1.0", {f"small{number}.bin": bytes([number]) * (2 * MB)})
    before = group(scan(folder))
    assert list(before) == ["packages-1of4", "packages-2of4", "packages-3of4", "packages-4of4"]
    add_distribution(folder, "another", "1.0", {"another.py": b"pass\n"})
    after = group(scan(folder))
    assert len([name for name in after if after[name] != before[name]]) == 1


def test_compiled_files_still_fit_their_sources(environment, tmp_path):
    fits = Path(py_compile.compile(str(environment / "beta.py")))
    stale = Path(py_compile.compile(str(environment / "alpha" / "__init__.py")))
    os.utime(environment / "alpha" / "__init__.py", (1e9, 1e9))
    hashed = Path(
        py_compile.compile(
            str(environment / "beta.py"),
            cfile=str(fits.with_name("beta.other.pyc")),
            invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH,
        )
    )
    (layer,) = pack(environment, tmp_path / "layers")
    found = {name.removeprefix(f"{ROOT}/"): data for name, (_, data) in members(layer).items()}
    packed = found[fits.relative_to(environment).as_posix()]
    assert struct.unpack_from("<III", packed, 4) == (0, 315532800, (environment / "beta.py").stat().st_size)
    assert packed[16:] == fits.read_bytes()[16:]
    assert found[stale.relative_to(environment).as_posix()] == stale.read_bytes()
    assert found[hashed.relative_to(environment).as_posix()] == hashed.read_bytes()
    owners = {entry.name: entry.owner for entry in scan(environment)}
    assert owners[fits.relative_to(environment).as_posix()] == "beta-2.0"
    assert owners[stale.relative_to(environment).as_posix()] == "alpha-1.0"


def test_links(environment, tmp_path):
    outside = tmp_path / "cached.py"
    outside.write_bytes(b"FROM = 'a cache'\n")
    (environment / "taken.py").symlink_to(outside)
    (environment / "alpha" / "near.py").symlink_to("../beta.py")
    (environment / "folder").symlink_to("alpha")
    (layer,) = pack(environment, tmp_path / "layers")
    found = members(layer)
    assert found[f"{ROOT}/taken.py"][1] == b"FROM = 'a cache'\n"
    assert found[f"{ROOT}/alpha/near.py"][0].linkname == "../beta.py"
    assert found[f"{ROOT}/folder"][0].issym()


@pytest.mark.parametrize("bad", ["loop", "dangling", "folder outside", "pipe"])
def test_what_cannot_be_packed_is_named(environment, tmp_path, bad):
    path = environment / "alpha" / "bad"
    if bad == "loop":
        path.symlink_to("bad2")
        (environment / "alpha" / "bad2").symlink_to("bad")
    elif bad == "dangling":
        path.symlink_to("nowhere")
    elif bad == "folder outside":
        path.symlink_to(tmp_path)
    else:
        os.mkfifo(path)
    with pytest.raises(EnvironmentBuildError, match=r"alpha/bad") as caught:
        pack(environment, tmp_path / "layers")
    assert caught.value.hint
    assert not list((tmp_path / "layers").glob("*"))


def test_strange_names(environment, tmp_path):
    deep = environment.joinpath(*["a-folder-with-quite-a-long-name"] * 8)
    deep.mkdir(parents=True)
    (deep / "ünïcode 名.py").write_bytes(b"1")
    Path(os.fsdecode(bytes(environment) + b"/not-utf8-\xff.py")).write_bytes(b"2")
    (layer,) = pack(environment, tmp_path / "layers")
    assert {data for name, (_, data) in members(layer).items() if data in (b"1", b"2")} == {b"1", b"2"}
    assert f"{ROOT}/{deep.relative_to(environment)}/ünïcode 名.py" in members(layer)


def test_nothing_to_pack(tmp_path):
    (tmp_path / "environment" / "empty").mkdir(parents=True)
    assert pack(tmp_path / "environment", tmp_path / "layers") == []
    with pytest.raises(EnvironmentBuildError, match="No such file"):
        pack(tmp_path / "missing", tmp_path / "layers")


def test_several_builds_at_once(tmp_path):
    folder = big_environment(tmp_path / "environment")
    with ThreadPoolExecutor(3) as pool:
        found = [job.result() for job in [pool.submit(pack, folder, tmp_path / "layers") for _ in range(3)]]
    assert len({tuple(layer.digest for layer in layers) for layers in found}) == 1
    for layer in found[0]:
        assert layer.digest == f"sha256:{hashlib.sha256(layer.path.read_bytes()).hexdigest()}"
    assert not list((tmp_path / "layers").glob("*.part"))


THREADS = """
import os, sys
from pathlib import Path
from starburst.environment.layers import pack
os.cpu_count = lambda: int(sys.argv[3])
print(*(layer.digest for layer in pack(Path(sys.argv[1]), Path(sys.argv[2]))))
"""


def test_the_number_of_processors_does_not_show(tmp_path):
    folder = tmp_path / "environment"
    text = "".join(f"{number * 7919 % 104729}\n" for number in range(1_500_000)).encode()
    add_distribution(folder, "numbers", "1.0", {"numbers.txt": text * 2})
    found = set()
    for count in ("1", "2", "4"):
        command = [sys.executable, "-c", THREADS, str(folder), str(tmp_path / count), count]
        found.add(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert len(found) == 1


def test_prune(tmp_path):
    folder, into = big_environment(tmp_path / "environment"), tmp_path / "layers"
    layers = pack(folder, into)
    assert prune(into, keep_bytes=0) == 0  # all were used just now
    for age, layer in enumerate(layers):
        os.utime(layer.path, (1e9 - age, 1e9 - age))
    (into / "base-x").mkdir()
    (into / "base-x" / "layer").write_bytes(b"x")
    for name in ("killed.part", "base-x"):
        (into / name).touch()
        os.utime(into / name, (1e9, 1e9))
    (into / "young.part").touch()
    oldest = layers[-1]
    total = sum(layer.size_bytes for layer in layers)
    assert prune(into, keep_bytes=total - 1) == oldest.size_bytes
    assert sorted(path.suffix for path in into.iterdir()) == [".json"] * 3 + [".layer"] * 3 + [".part"]
    assert [layer.cached for layer in pack(folder, into)] == [True, True, True, False]


DISK_FULL = """
import os, sys
from pathlib import Path
from starburst.environment.layers import pack
from starburst.errors import EnvironmentBuildError
folder, into = Path(sys.argv[1]), Path(sys.argv[2])
(folder / "noise.bin").write_bytes(os.urandom(3 << 20))
try:
    pack(folder, into)
except EnvironmentBuildError as error:
    print(error)
print(sorted(path.name for path in into.iterdir()))
"""


def test_disk_full(environment, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    script = 'mount -t tmpfs -o size=1m tmpfs "$1" && exec "$2" -c "$3" "$4" "$1"'
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", script]
    command += ["sh", str(disk), sys.executable, DISK_FULL, str(environment)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no small disk can be made here: {done.stderr.strip()}")
    assert "no space left" in done.stdout, done.stdout + done.stderr
    assert str(disk) in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


MEMORY = """
import resource, sys
from pathlib import Path
from starburst.environment.layers import pack
import zstandard
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
layers = pack(Path(sys.argv[1]), Path(sys.argv[2]))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, len(layers))
"""


def test_memory(tmp_path):
    folder = tmp_path / "environment"
    noise = os.urandom(MB)
    for name in ("huge", "big", "other"):
        add_distribution(folder, name, "1.0", {f"{name}.bin": (noise + name.encode()) * 100})
    command = [sys.executable, "-c", MEMORY, str(folder), str(tmp_path / "layers")]
    used_mb, count = map(
        int, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    )
    assert count == 3
    assert used_mb < 250
