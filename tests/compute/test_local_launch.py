import asyncio
import gc
import json
import subprocess
import sys
import threading

import pytest
from toys import ask, lives, toy_provider, toy_worker_command

from starburst.compute.base import LaunchSpec, supervisor_command, worker_command
from starburst.compute.local import LocalProvider
from starburst.errors import ProviderError


def test_a_worker_gets_its_number_slots_folder_and_variables(bench, tmp_path):
    bench.launch("w-a", "w-b", first_ordinal=7, slots=3, cwd=str(tmp_path), env={"TOY_EXTRA": "yes"})
    assert f"args 7 3 cwd {tmp_path} extra yes" in bench.log("w-a")
    assert f"args 8 3 cwd {tmp_path} extra yes" in bench.log("w-b")


def test_a_worker_has_a_session_of_its_own_so_that_ctrl_c_passes_it_by(bench):
    status = bench.launch("w-1")["w-1"]
    assert f"sid {status.pid}\n" in bench.log("w-1")


def test_the_record_says_what_was_started(bench):
    status = bench.launch("w-1")["w-1"]
    record = bench.record("w-1")
    assert record["pid"] == status.pid
    assert record["command"] == toy_worker_command(bench.spec("w-1"), "w-1", 0)
    assert record["log"] == status.log == str(bench.folder / "w-1.log")
    assert record["create_time"] > 0
    assert record["started_at"] > 1.7e9
    assert sorted(path.name for path in bench.folder.iterdir()) == ["w-1.json", "w-1.log"]


def test_ten_workers_are_launched_before_any_is_ready(bench, tmp_path):
    names = [f"w-{number:02}" for number in range(10)]
    gate = tmp_path / "gate"
    launched = bench.launch(*names, mode="gated", env={"TOY_GATE": str(gate)}, ready=False)
    assert {status.state for status in launched.values()} == {"starting"}
    assert all(bench.log(name) == "" for name in names)
    gate.touch()
    for name in names:
        bench.until(lambda name=name: f"ready {name}" in bench.log(name), f"{name} is ready")


def test_the_callers_loop_goes_on_while_many_are_launched(bench):
    async def go():
        launch = asyncio.create_task(bench.provider.launch(bench.spec("w-1", "w-2", "w-3")))
        turns = 0
        while not launch.done():
            turns += 1
            await asyncio.sleep(0)
        return turns

    assert asyncio.run(go()) >= 3


def test_dropping_the_provider_neither_warns_nor_ends_workers(bench):
    provider = toy_provider(bench.data_dir)
    (status,) = asyncio.run(provider.launch(bench.spec("w-1"))).workers
    del provider
    gc.collect()
    assert lives(status.pid)


@pytest.mark.parametrize("how", ["exits", "is killed"])
def test_workers_survive_their_launcher(bench, how):
    program = bench.program(stdin=True)
    pids = ask(program, "launch w-1 w-2")
    if how == "exits":
        program.stdin.close()
        assert program.wait(timeout=60) == 0
    else:
        program.kill()
        program.wait(timeout=60)
    assert all(lives(pid) for pid in pids)
    assert {name: status.state for name, status in bench.describe().items()} == {
        "w-1": "running",
        "w-2": "running",
    }
    bench.stop()
    assert not any(lives(pid) for pid in pids)
    assert {status.state for status in bench.describe().values()} == {"exited"}


def test_a_missing_interpreter_leaves_nothing(bench):
    with pytest.raises(
        ProviderError, match=r"w-1 cannot be started: /no/such/python cannot be run"
    ) as caught:
        bench.launch("w-1", python="/no/such/python")
    assert caught.value.hint
    assert bench.describe() == {}
    assert not bench.folder.exists()


def test_a_missing_folder_leaves_nothing(bench, tmp_path):
    with pytest.raises(ProviderError, match=r"folder .*gone does not exist"):
        bench.launch("w-1", cwd=str(tmp_path / "gone"))
    assert not bench.folder.exists()


def test_a_supervisor_that_cannot_start_leaves_nothing(bench):
    with pytest.raises(ProviderError, match="supervisor-1 cannot be started"):
        asyncio.run(bench.provider.launch_supervisor("memory://x", "session-1", python="/no/such/python"))
    assert not bench.folder.exists()


def test_a_data_folder_that_cannot_be_written_is_explained(tmp_path):
    (tmp_path / "file").touch()
    provider = toy_provider(tmp_path / "file")
    spec = LaunchSpec(session_url="memory://x", session_id="session-1", workers=("w-1",))
    with pytest.raises(ProviderError, match="cannot be written") as caught:
        asyncio.run(provider.launch(spec))
    assert "STARBURST_DATA_DIR" in caught.value.hint
    with pytest.raises(ProviderError, match="cannot be listed"):
        asyncio.run(provider.describe("session-1"))


def test_a_file_where_the_session_folder_should_be_is_explained(bench):
    bench.folder.parent.mkdir()
    bench.folder.touch()
    with pytest.raises(ProviderError, match="cannot be written"):
        bench.launch("w-1")
    bench.folder.unlink()


def test_when_one_fails_those_before_it_are_stopped(bench):
    def third_fails(spec, worker, ordinal):
        return ["/no/such/python"] if ordinal == 2 else toy_worker_command(spec, worker, ordinal)

    provider = toy_provider(bench.data_dir, worker_command=third_fails)
    with pytest.raises(ProviderError, match="w-3"):
        asyncio.run(provider.launch(bench.spec("w-1", "w-2", "w-3", mode="deaf")))
    assert bench.describe() == {}
    assert not bench.folder.exists()
    assert not bench.children()


def test_a_cancelled_launch_leaves_nothing(bench):
    async def go():
        launch = asyncio.create_task(
            bench.provider.launch(bench.spec(*(f"w-{number}" for number in range(50))))
        )
        while len(list(bench.folder.glob("*.json"))) < 3:  # noqa: ASYNC110 - each turn starts one worker
            await asyncio.sleep(0)
        launch.cancel()
        await asyncio.wait([launch])
        assert launch.cancelled()

    asyncio.run(go())
    assert not bench.folder.exists()
    assert not bench.children()


@pytest.mark.parametrize(
    ("trouble", "why"), [("space", "File too large"), ("descriptors", "Too many open files")]
)
def test_a_launch_that_fails_for_lack_of_something_leaves_nothing(bench, trouble, why):
    program = bench.program(stdin=True)
    assert ask(program, "describe") == {}
    answer = ask(program, f"launch-without-{trouble}")
    assert "w-1 cannot be started" in answer["error"]
    assert why in answer["error"]
    assert ask(program, "describe") == {}
    assert ask(program, "children") == []
    assert not bench.folder.exists()


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a\n", ".hidden", "ü", "x" * 300])
def test_names_that_are_no_file_names_are_refused(bench, name):
    with pytest.raises(ProviderError, match="cannot be a worker name"):
        bench.launch(name)
    with pytest.raises(ProviderError, match="cannot be a session id"):
        asyncio.run(bench.provider.describe(name))
    assert not bench.folder.exists()


def test_supervisors_started_at_the_same_time_get_names_of_their_own(bench):
    names = []

    def start():
        status = asyncio.run(bench.provider.launch_supervisor("memory://x", "session-1"))
        names.append(status.worker)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert sorted(names) == [f"supervisor-{number}" for number in range(1, 9)]
    assert {status.state for status in bench.describe().values()} == {"running"}


def test_the_real_command_lines():
    spec = LaunchSpec(session_url="file:///s", session_id="s", workers=("w-1",), slots=2, python="/py")
    assert worker_command(spec, "w-1", 4) == (
        ["/py", "-m", "starburst.worker", "file:///s", "--worker", "w-1", "--ordinal", "4", "--slots", "2"]
    )
    assert supervisor_command("file:///s") == [sys.executable, "-m", "starburst.supervisor", "file:///s"]


def test_records_go_to_the_users_data_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("STARBURST_DATA_DIR", str(tmp_path))
    provider = LocalProvider(worker_command=lambda *_: ["true"])
    spec = LaunchSpec(session_url="memory://x", session_id="session-1", workers=("w-1",))
    (status,) = asyncio.run(provider.launch(spec)).workers
    assert status.log == str(tmp_path / "local" / "session-1" / "w-1.log")
    asyncio.run(provider.stop("session-1"))


def test_importing_it_is_cheap():
    code = (
        "import json, sys, starburst.compute.local; heavy = ('psutil', 'platformdirs', 'importlib.metadata', "
        "'boto3', 'numpy', 'rich', 'obstore', 'cloudpickle'); "
        "print(json.dumps([name for name in heavy if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == []
