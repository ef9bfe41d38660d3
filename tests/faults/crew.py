"""A session seen from outside, as a saboteur and an auditor see it: its processes and its objects."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from helpers import eventually
from starburst.client.engine import engine
from starburst.client.packing import columns_of, pack_map
from starburst.compute.local import LocalProvider
from starburst.protocol.keys import Keys, session_url
from starburst.protocol.records import BatchHeader
from starburst.protocol.results import decode_result, read_index
from starburst.protocol.sessions import EventLog, list_session_ids, read_done
from starburst.store import open_store

HERE = Path(__file__).parent


class Crew:
    """The processes and objects of one session."""

    def __init__(self, url, session_id):
        self.url = url
        self.session_id = session_id
        self.session_url = session_url(url, session_id)
        self.store = open_store(url)
        self.keys = Keys(session_id)
        self.provider = LocalProvider()

    @classmethod
    def of_only_session(cls, url):
        """The crew of the one session that there is, or is about to be, in a store."""
        store = open_store(url)
        [session_id] = eventually(lambda: asyncio.run(list_session_ids(store)), what="a session")
        return cls(url, session_id)

    # ---- processes ----

    def alive(self, kind=""):
        """Live processes whose name begins so: ``w-`` for workers, ``supervisor-``."""
        listed = asyncio.run(self.provider.describe(self.session_id))
        return [status for status in listed if status.alive and status.worker.startswith(kind)]

    def kill(self, kind=""):
        """SIGKILL to each; returns how many there were."""
        victims = [status for status in self.alive(kind) if status.pid is not None]
        for status in victims:
            kill(status.pid)
        eventually(lambda: not self._running(victims), what="the killed are gone")
        return len(victims)

    def log(self, worker):
        """What a worker printed."""
        return asyncio.run(self.provider.logs(self.session_id, worker)).decode(errors="replace")

    def logs(self):
        """What all printed."""
        listed = asyncio.run(self.provider.describe(self.session_id))
        return "\n".join(f"--- {status.worker}\n{self.log(status.worker)}" for status in listed)

    def _running(self, victims):
        now = {status.worker for status in self.alive()}
        return [status for status in victims if status.worker in now]

    # ---- objects ----

    def run(self, work):
        """Run a coroutine."""
        return asyncio.run(work)

    def get(self, key):
        return bytes(asyncio.run(self.store.get(key)))

    def infos(self, prefix):
        return asyncio.run(self.store.list(prefix))

    def list(self, prefix):
        return [info.key for info in self.infos(prefix)]

    def overwrite(self, key, body):
        asyncio.run(self.store.overwrite(key, body))

    def events(self):
        return asyncio.run(EventLog(self.store, self.keys).news())

    def happened(self):
        return [event.what for event in self.events()]

    def done(self):
        """Tasks of finished chunks."""
        return sum(mark.ok + mark.failed for mark in asyncio.run(read_done(self.store, self.keys)))

    def claimed(self):
        """Chunks that have a claim."""
        return len({key.rsplit(".", 1)[0] for key in self.list(f"{self.keys.prefix}claims/")})

    def flushed(self):
        """Result objects."""
        return self.list(f"{self.keys.prefix}results/")

    def batches(self):
        """The header of each submission, shares left out, by number."""
        headers = {}
        for key in self.list(self.keys.batches):
            header = asyncio.run(read_index(self.store, key)).record(BatchHeader)
            if header.source is None:
                headers[int(key.rsplit("/", 1)[1])] = header
        return headers

    def links(self):
        """Header and outcomes of each result object, by key."""
        found = {}
        for key in self.flushed():
            header, outcomes = decode_result(self.get(key), key)
            found[key] = (header, list(outcomes))
        return found

    def assert_each_exactly_once(self):
        """One result for every task that was submitted, and markers that say the same."""
        expected = Counter(
            (seq, task) for seq, header in self.batches().items() for task in range(header.n_tasks)
        )
        found = Counter()
        for key, (header, outcomes) in self.links().items():
            chunk, first = self.keys.parse_result(key)
            assert header.first == first
            assert len(outcomes) == header.count
            found.update((chunk.batch, task) for task in range(first, first + header.count))
        assert found == expected
        # Results come before markers: the last holder, or whoever mends after it, is a little behind.
        eventually(lambda: self.done() == expected.total(), what="all chunks are marked")


def kill(pid, number=signal.SIGKILL):
    """Signal a process that may be gone already."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def run_script(name, *arguments, timeout_s=60, check=True, **options):
    """Run a script of this folder to its end."""
    command = [sys.executable, str(HERE / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=check, **options)


def start_script(name, *arguments, **options):
    """Start a script of this folder; its standard output is a pipe."""
    command = [sys.executable, str(HERE / name), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)


def join_by_hand(crew, log, *, env=None):
    """A worker that joins as a user would start it, unknown to the session's provider."""
    command = [sys.executable, "-m", "starburst.worker", crew.session_url]
    with Path(log).open("wb") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, **(env or {})})


def submit_only(session, fn, *iterables, chunksize):
    """Write a submission and start nobody, as a client that dies at this moment."""
    packed = pack_map(fn, columns_of(iterables), lanes=2, chunksize=chunksize)
    header = packed.header(lanes=2, timeout_s=None, retries=0, at=time.time())
    return engine.run(session._connection.submit(packed, header))
