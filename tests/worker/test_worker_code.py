"""Code layers on a worker: unpacked once and safely, imported before what is installed, never two in one process."""

import asyncio
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from msgspec import structs
from worker_parts import KEYS, SESSION, real_runner

from starburst.client.packing import pack_map
from starburst.environment.code import archive, collect
from starburst.environment.code_roots import Root
from starburst.errors import CorruptObject, ObjectNotFound, StoreFull
from starburst.protocol.keys import session_url
from starburst.protocol.pack import encode_pack
from starburst.protocol.records import CodeHeader, Environment, FunctionHeader, Manifest
from starburst.protocol.results import decode_result
from starburst.protocol.sessions import create_session, publish_batch
from starburst.store import open_store
from starburst.store.memory import MemoryStore
from starburst.worker.code_layer import CodeLayers, unpack


def tar_of(*members):
    """An archive of (name, what it is or holds)."""
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as tar:
        for name, what in members:
            info = tarfile.TarInfo(name)
            if isinstance(what, bytes):
                info.size = len(what)
                tar.addfile(info, io.BytesIO(what))
            else:
                info.type, info.linkname = what
                tar.addfile(info)
    return body.getvalue()


async def put(store, data, roots=("0",), name=None):
    sha256 = name or hashlib.sha256(data).hexdigest()
    header = CodeHeader(nonce=sha256[:16], roots=roots)
    await store.create(KEYS.code(sha256), b"".join(map(bytes, encode_pack(header, [data], compress=True))))
    return sha256


async def put_folder(store, folder):
    made = archive(collect([Root(str(folder))]))
    return await put(store, made.data, made.roots)


# ---- unpacking ----


def test_a_layer_is_fetched_and_unpacked_once(tmp_path):
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").write_text("x = 1\n")
    (tmp_path / "pkg" / "run.sh").write_text("#!/bin/sh\n")
    (tmp_path / "pkg" / "run.sh").chmod(0o755)

    store = MemoryStore()
    layers = CodeLayers(store, KEYS)

    async def main():
        name = await put_folder(store, tmp_path)
        before = store.counts.total
        found = await asyncio.gather(*(layers.folders(name) for _ in range(5)))
        assert store.counts.total == before + 1
        return set(found)

    [[root]] = asyncio.run(main())
    package = Path(root) / "pkg"
    assert (package / "__init__.py").read_text() == "x = 1\n"
    assert os.access(package / "run.sh", os.X_OK)
    assert not os.access(package / "__init__.py", os.X_OK)
    layers.close()
    assert not package.exists()


@pytest.mark.parametrize(
    "member",
    [
        ("../evil.py", b"x"),
        ("0/../../evil.py", b"x"),
        ("/tmp/evil.py", b"x"),
        ("0/link.py", (tarfile.SYMTYPE, "/etc/passwd")),
        ("0/hard.py", (tarfile.LNKTYPE, "0/good.py")),
        ("0/pipe", (tarfile.FIFOTYPE, "")),
        ("0/disk", (tarfile.BLKTYPE, "")),
        ("0/folder", (tarfile.DIRTYPE, "")),
        ("0/good.py", b"again"),
        ("0/good.py/below.py", b"x"),
    ],
)
def test_anything_but_plain_files_within_it_is_refused(tmp_path, member):
    place = tmp_path / "place"
    with pytest.raises(CorruptObject, match="the code layer the-key is damaged"):
        unpack(tar_of(("0/good.py", b"x"), member), place, key="the-key")
    assert {path.name for path in tmp_path.rglob("*")} <= {"place", "0", "good.py"}


def test_what_is_cut_off_or_not_what_its_name_says_is_refused(tmp_path):
    whole = tar_of(("0/good.py", b"x" * 3000))
    with pytest.raises(CorruptObject):
        unpack(whole[:2000], tmp_path / "place", key="the-key")

    async def main():
        store = MemoryStore()
        layers, name = CodeLayers(store, KEYS), await put(store, whole, name="0" * 64)
        with pytest.raises(CorruptObject, match="its content is not that of its name"):
            await layers.folders(name)
        with pytest.raises(ObjectNotFound):
            await layers.folders("1" * 64)
        layers.close()

    asyncio.run(main())


def test_a_disk_without_room_is_told(tmp_path, monkeypatch):
    async def main():
        store = MemoryStore()
        name = await put(store, tar_of((f"0/{'n' * 300}.py", b"x")))  # a name that no file can have
        layers = CodeLayers(store, KEYS)
        with pytest.raises(StoreFull, match=r"cannot be unpacked to .*: File name too long"):
            await layers.folders(name)
        layers.close()

    asyncio.run(main())


# ---- in a runner ----


def test_layers_stand_behind_the_standard_library_and_before_what_is_installed(tmp_path):
    for name in ("yaml", "msgspec_like", "fractions"):
        (tmp_path / f"{name}.py").write_text(f"where = {name!r}\n")

    async def main():
        async with real_runner() as jobs:
            await jobs.runner.use_code([str(tmp_path)])

            def look(_):
                import fractions
                import sys

                import msgspec_like
                import yaml

                mine = yaml.where, msgspec_like.where, hasattr(fractions, "Fraction")
                return mine, sys.path

            await jobs.run(look, [1])
            assert jobs.outcomes[0].failure is None, jobs.outcomes[0].failure
            mine, path = jobs.outcomes[0].value
            assert mine == ("yaml", "msgspec_like", True)
            assert len(path) == len(set(path))

    asyncio.run(main())


@pytest.mark.parametrize(
    ("kind", "image", "fix"),
    [(ImportError, True, 'system_packages=["libgl1"]'), (OSError, False, "apt install libgl1")],
)
def test_a_missing_library_of_the_system_is_named_with_its_package(kind, image, fix, monkeypatch):
    if image:
        monkeypatch.setenv("ECS_CONTAINER_METADATA_URI_V4", "http://127.0.0.1:9/v4/x")

    async def main():
        async with real_runner() as jobs:

            def draw(_):
                raise kind("libGL.so.1: cannot open shared object file: No such file or directory")

            await jobs.run(draw, [1])
            failure = jobs.outcomes[0].failure
            assert fix in failure.hint
            assert failure.message.startswith(f"{kind.__name__}: libGL.so.1")

            def other(_):
                raise kind("anything else")

            await jobs.run(other, [1])
            assert jobs.outcomes[1].failure.hint == ""

    asyncio.run(main())


# ---- a whole worker ----


class Work:
    """A session in a folder for a worker of another machine; its program's modules are in ``code``."""

    def __init__(self, tmp_path, **options):
        self.code = tmp_path / "code"
        self.code.mkdir()
        root = (tmp_path / "store").as_uri()
        self.url, self.store = session_url(root, SESSION), open_store(root)
        self.batches = 0
        values = {"launch_type": "LOCAL", "environment": Environment(), "slots": 1, **options}
        manifest = Manifest(
            session_id=SESSION,
            kind="session",
            created_at=time.time(),
            owner="somebody",
            host="another machine",
            workers=1,
            max_attempts=2,
            lease_s=1.0,
            idle_timeout_s=0.3,
            session_timeout_s=60.0,
            absolute_timeout_s=60.0,
            **values,
        )
        assert asyncio.run(create_session(self.store, manifest))

    def layer(self, text, name="helper"):
        """Write the module, and a layer of what there is now."""
        (self.code / f"{name}.py").write_text(text)
        return asyncio.run(put_folder(self.store, self.code))

    def submit(self, fn, items, **header):
        packed = pack_map(fn, [items], lanes=1, chunksize=len(items))
        asyncio.run(self._submit(packed, header))
        self.batches += 1

    async def _submit(self, packed, more):
        header = structs.replace(packed.header(lanes=1, timeout_s=None, retries=0, at=0.0), **more)
        body = encode_pack(FunctionHeader(nonce=packed.function_sha256[:16]), [packed.function])
        await self.store.create(KEYS.function(packed.function_sha256), body)
        await publish_batch(self.store, KEYS, lambda _: encode_pack(header, packed.frames))

    def run(self):
        """Run a worker to its end; the outcomes of each submission."""
        command = [sys.executable, "-m", "starburst.worker", self.url, "--worker", "w-test"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return [self.outcomes(batch) for batch in range(1, self.batches + 1)]

    def outcomes(self, batch):
        found = []
        for info in asyncio.run(self.store.list(KEYS.results(batch))):
            found += decode_result(asyncio.run(self.store.get(info.key)), info.key)[1]
        return found


def value_and_pids(_):
    import os

    import helper

    return helper.VALUE, os.getpid(), os.getppid()


def by_value(fn):
    """The function as a script's: workers do not have this module."""
    import types

    return types.FunctionType(fn.__code__, {"__name__": "__main__", "__builtins__": __builtins__})


def test_each_submission_runs_with_its_own_code(tmp_path):
    work = Work(tmp_path)
    one, two = work.layer("VALUE = 1\n"), work.layer("VALUE = 2\n")
    fn = by_value(value_and_pids)
    for layer in (one, one, two, one):
        work.submit(fn, [0, 0], layer=layer)
    seen = [[outcome.value for outcome in outcomes] for outcomes in work.run()]
    assert [[value for value, _, _ in values] for values in seen] == [[1, 1], [1, 1], [2, 2], [1, 1]]
    pids = [{pid for _, pid, _ in values} for values in seen]
    assert all(len(each) == 1 for each in pids)
    assert pids[0] == pids[1], "the same code needs no new process"
    assert len(pids[0] | pids[2] | pids[3]) == 3, "other code does"
    assert len({parent for values in seen for _, _, parent in values}) == 1, "the worker stays"


def test_an_edition_makes_a_new_process_too(tmp_path):
    work = Work(tmp_path)
    for edition in ("", "", "a", "a", "b"):
        work.submit(by_value(lambda _: __import__("os").getpid()), [0], edition=edition)
    a, b, c, d, e = [outcomes[0].value for outcomes in work.run()]
    assert a == b != c == d != e != b


def test_a_process_that_is_started_after_a_crash_has_the_layer(tmp_path):
    work = Work(tmp_path)
    layer = work.layer("VALUE = 1\n")
    mark = tmp_path / "mark"

    def crash_once(_, mark=str(mark)):
        import os
        from pathlib import Path

        import helper

        if not Path(mark).exists():
            Path(mark).touch()
            os._exit(9)
        return helper.VALUE

    work.submit(crash_once, [0, 0], layer=layer)
    [outcomes] = work.run()
    assert [outcome.value for outcome in outcomes] == [1, 1]


def test_a_layer_that_is_damaged_or_gone_fails_its_tasks_only(tmp_path):
    work = Work(tmp_path)
    good = work.layer("VALUE = 1\n")
    bad = asyncio.run(put(work.store, tar_of(("../evil.py", b"x"))))
    fn = by_value(value_and_pids)
    work.submit(fn, [0, 0], layer=bad)
    work.submit(fn, [0], layer="f" * 64)
    work.submit(fn, [0], layer=good)
    damaged, gone, fine = work.run()
    assert [outcome.failure.kind for outcome in (*damaged, *gone)] == ["load"] * 3
    assert f"the code layer {KEYS.code(bad)} is damaged: it holds '../evil.py'" in damaged[0].failure.message
    assert KEYS.code("f" * 64) in gone[0].failure.message
    assert fine[0].value[0] == 1


def test_the_folders_of_the_program_are_not_those_of_workers_in_the_cloud(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "only_there.py").write_text("")
    environment = Environment(sys_path=(str(tmp_path / "elsewhere"),), cwd=str(tmp_path))
    work = Work(tmp_path, launch_type="FARGATE", environment=environment)

    def look(_):
        import importlib.util

        return importlib.util.find_spec("only_there") is not None

    work.submit(look, [0])
    assert work.run()[0][0].value is False


# ---- fitting ----


@pytest.mark.parametrize(
    ("environment", "variables", "said"),
    [
        (
            {"cloudpickle": "2.0.0"},
            {},
            "this worker has cloudpickle .*, the session was made with cloudpickle 2.0.0",
        ),
        ({"architecture": "S390X"}, {}, "the session's packages were built for S390X"),
        (
            {"lock": "a" * 64},
            {},
            "from no list that is known, the session needs those of the list aaaaaaaaaaaa;",
        ),
        ({"lock": "a" * 64}, {"STARBURST_LOCK": "b" * 64}, r"another list \(bbbbbbbbbbbb\)"),
        ({"lock": "a" * 64}, {"STARBURST_LOCK": "a" * 64}, None),
        ({"cloudpickle": "", "architecture": "", "lock": ""}, {"STARBURST_LOCK": "b" * 64}, None),
    ],
)
def test_what_a_worker_must_have(environment, variables, said):
    import re

    from starburst.worker.fit import misfit

    text = json.dumps({"environment": environment})
    found = misfit(_manifest_with(json.loads(text)["environment"]), variables)
    assert found is None if said is None else re.search(said, found)


def test_the_same_series_of_cloudpickle_will_do():
    import cloudpickle

    from starburst.worker.fit import misfit

    series = ".".join(cloudpickle.__version__.split(".")[:2])
    assert misfit(_manifest_with({"cloudpickle": f"{series}.99"}), {}) is None


def test_a_worker_that_lacks_the_packages_says_so_before_it_claims(tmp_path):
    work = Work(tmp_path, environment=Environment(lock="a" * 64))
    work.submit(abs, [1])
    command = [sys.executable, "-m", "starburst.worker", work.url, "--worker", "w-test"]
    assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 3
    beat = json.loads(bytes(asyncio.run(work.store.get(KEYS.worker("w-test")))))
    assert beat["state"] == "refused"
    assert "start it from the image, or the environment, that was built for the session" in beat["reason"]
    assert asyncio.run(work.store.list(KEYS.claims(1))) == []


def _manifest_with(environment):
    return Manifest(
        session_id=SESSION,
        kind="session",
        created_at=0.0,
        owner="",
        host="",
        launch_type="LOCAL",
        workers=1,
        slots=1,
        max_attempts=1,
        lease_s=1.0,
        idle_timeout_s=1.0,
        session_timeout_s=1.0,
        absolute_timeout_s=1.0,
        environment=Environment(**environment),
    )
