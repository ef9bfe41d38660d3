"""Ctrl-C, SIGTERM, deadlines, and several clients at once: ends that are meant, and what is left after them."""

import json
import os
import pickle
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from crew import Crew, join_by_hand, run_script, start_script
from fault_tasks import sign_and_sleep, sleep_for_ever, slow_square

import starburst
from helpers import eventually
from starburst.errors import SessionEnded

BIN = Path(sys.executable).parent


# ---- Ctrl-C ----


@pytest.mark.parametrize("where", ["default", "folder", "s3"])
def test_ctrl_c_in_a_script(where, request, tmp_path, data_dir):
    """Workers stop, results are kept, and the two lines that are printed do what they say, as they stand."""
    url = (data_dir / "store").as_uri() if where == "default" else request.getfixturevalue(f"{where}_url")
    n_tasks = 400
    client = start_script(
        "client_interrupted.py", where if where == "default" else url, n_tasks, stderr=subprocess.PIPE
    )
    crew = Crew.of_only_session(url)
    eventually(lambda: len(crew.flushed()) >= 2, what="the first results")
    client.send_signal(signal.SIGINT)
    _, said = client.communicate(timeout=30)
    assert client.returncode in (-signal.SIGINT, 130)
    assert "KeyboardInterrupt" in said
    assert crew.alive() == []
    done = sum(header.count for header, _ in crew.links().values())
    assert 0 < done < n_tasks
    kept = int(re.search(r"(\d+) of 400 results are kept", said)[1])
    assert kept <= done  # what was under way when the client looked last is kept too

    take = re.search(r"take what is there: +(starburst .*)", said)[1]
    shell = {"cwd": tmp_path, "env": {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}}
    subprocess.run(shlex.split(take), check=True, capture_output=True, timeout=60, **shell)
    taken = pickle.loads((tmp_path / "results.pickle").read_bytes())
    assert len(taken) == done
    assert all(value == round(value**0.5) ** 2 for value in taken)
    assert crew.alive() == []  # looking starts nothing

    finish = re.search(r"finish it: +(starburst\..*)", said)[1]
    program = f"import starburst\nassert {finish} == [i * i for i in range({n_tasks})]"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, **shell)
    crew.assert_each_exactly_once()
    starburst.attach(crew.session_id, store=url).cleanup(force=True)


def test_ctrl_c_while_a_task_ignores_everything(folder_url):
    client = start_script("client_interrupted.py", folder_url, 100_000, stderr=subprocess.PIPE)
    crew = Crew.of_only_session(folder_url)
    eventually(crew.flushed, what="the first results")
    for _ in range(5):  # an impatient person
        client.send_signal(signal.SIGINT)
    client.communicate(timeout=30)
    assert client.returncode in (-signal.SIGINT, 130)
    # Whatever of the client's own goodbye was cut short, nobody works on for ever.
    session = starburst.attach(crew.session_id, store=folder_url)
    session.cleanup(force=True)
    assert crew.alive() == []


# ---- SIGTERM ----


def test_a_worker_drains_on_sigterm(store_url, tmp_path):
    """It ends the task that runs, writes what is finished, gives the rest back at once, and others do that."""
    n_tasks = 12
    session = starburst.session(store=store_url, workers=1, lease=60, idle_timeout=30)
    other = None
    try:
        crew = Crew(store_url, session.session_id)
        columns = [str(tmp_path)] * n_tasks, [0.3] * n_tasks
        session.map(sign_and_sleep, range(n_tasks), *columns, chunksize=n_tasks)
        eventually((tmp_path / "begun-2").exists, what="the third task runs")
        [worker] = crew.alive("w-")
        other = join_by_hand(crew, tmp_path / "other.log")
        eventually(lambda: len(crew.list(crew.keys.workers)) == 2, what="another worker beats")
        os.kill(worker.pid, signal.SIGTERM)
        eventually(lambda: worker.worker not in {status.worker for status in crew.alive()}, what="it left")
        begun = {path.name.split("-")[1] for path in tmp_path.glob("begun-*")}
        assert session.collect(timeout=30) == [i * i for i in range(n_tasks)]  # long before its lease is over
        crew.assert_each_exactly_once()
        assert {path.name.split("-")[1] for path in tmp_path.glob("ended-*")} >= begun  # no task was cut off
        assert crew.happened().count("worker-lost") == 0
        records = [json.loads(crew.get(key)) for key in crew.list(crew.keys.claims(1))]
        assert worker.worker in {record["worker"] for record in records if record["kind"] != "claim"}
        view = {view.worker: view for view in session.status().worker_list}[worker.worker]
        assert (view.state, view.reason) == ("stopped", "asked to stop (SIGTERM)")
        other.send_signal(signal.SIGTERM)
        assert other.wait(timeout=30) == 0
    finally:
        if other is not None:
            other.kill()
            other.wait()
        session.cleanup(force=True)


def test_a_second_look_at_what_a_drained_worker_left(folder_url, tmp_path):
    """All workers are sent away in the middle: the supervisor starts others, and no task runs twice."""
    n_tasks = 40
    session = starburst.session(store=folder_url, workers=2, lease=60, idle_timeout=30)
    try:
        crew = Crew(folder_url, session.session_id)
        session.map(sign_and_sleep, range(n_tasks), [str(tmp_path)] * n_tasks, [0.02] * n_tasks, chunksize=10)
        eventually((tmp_path / "ended-1").exists, what="two tasks are done")
        for status in crew.alive("w-"):
            os.kill(status.pid, signal.SIGTERM)
        assert session.collect(timeout=30) == [i * i for i in range(n_tasks)]
        crew.assert_each_exactly_once()
        assert len(list(tmp_path.glob("ended-*"))) == n_tasks
    finally:
        session.cleanup(force=True)


# ---- deadlines ----


def test_nothing_outlives_the_deadline(store_url):
    session = starburst.session(store=store_url, workers=2, lease=2.0, absolute_timeout=4.0)
    crew = Crew(store_url, session.session_id)
    session.map(sleep_for_ever, range(4), chunksize=1)
    eventually(lambda: len(crew.alive("w-")) == 2 and session.status().running == 2, what="both are at work")
    runners = [
        child for status in crew.alive("w-") for child in psutil.Process(status.pid).children(recursive=True)
    ]
    assert runners
    with pytest.raises(SessionEnded, match="absolute_timeout"):
        session.collect(timeout=40)
    eventually(lambda: crew.alive() == [], what="worker and supervisor processes are gone")
    assert not any(runner.is_running() for runner in runners)
    with pytest.raises(SessionEnded):
        session.map(slow_square, range(3))
    session.cleanup(force=True)


def test_nothing_outlives_the_deadline_without_a_supervisor(folder_url):
    session = starburst.session(store=folder_url, workers=2, lease=2.0, absolute_timeout=4.0)
    crew = Crew(folder_url, session.session_id)
    session.map(sleep_for_ever, range(4), chunksize=1)
    eventually(lambda: len(crew.list(crew.keys.workers)) == 2, what="both workers beat")
    crew.kill("supervisor-")
    eventually(lambda: crew.alive() == [], what="workers are gone")
    session.cleanup(force=True)


def test_nothing_outlives_the_deadline_of_a_map(folder_url):
    with pytest.raises(SessionEnded, match="absolute_timeout"):
        starburst.map(
            sleep_for_ever, range(4), workers=2, store=folder_url, absolute_timeout=3.0, progress=False
        )
    crew = Crew.of_only_session(folder_url)
    eventually(lambda: crew.alive() == [], what="workers are gone")


# ---- several clients ----


def test_several_clients_submit_to_one_session_at_once(store_url):
    session = starburst.session(store=store_url, workers=2, lease=5.0, idle_timeout=30)
    try:
        crew = Crew(store_url, session.session_id)
        clients = {
            name: start_script("client_submits_and_collects.py", store_url, session.session_id, name)
            for name in "abc"
        }
        numbers = []
        for name, client in clients.items():
            said, _ = client.communicate(timeout=90)
            assert client.returncode == 0
            ours, singles, seqs = json.loads(said)
            assert ours == [f"{name}{i}" for i in range(20)] * 10
            assert singles == [f"{name}{-1 - i}" for i in range(30)]
            numbers += seqs
        assert len(set(numbers)) == 30  # no submission took another one's place
        everything = session.collect(timeout=30)
        assert len(everything) == 3 * (200 + 30)
        assert {name: sum(value.startswith(name) for value in everything) for name in "abc"} == dict.fromkeys(
            "abc", 230
        )
        crew.assert_each_exactly_once()
        # Each may have started a supervisor; those that came second see it and leave.
        eventually(lambda: len(crew.alive("supervisor-")) == 1, what="one supervisor is left")
        assert len(crew.alive("w-")) <= 2
        assert run_script("client_attaches.py", store_url, session.session_id).returncode == 0
    finally:
        session.cleanup(force=True)
