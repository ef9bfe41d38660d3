# ruff: noqa: D102 - tests: their names say what they show
"""What every compute provider must do, as a pytest class: a provider of another package can run it too.

    from starburst.testing.provider_contract import ProviderContract

    class TestMyProvider(ProviderContract):
        def make_provider(self, folder):
            return MyProvider(...)

The workers that the provider starts here need not be real ones. Each must print ``ready <name>`` on a line of its
own, run until it is told to end, and end on SIGTERM; a supervisor likewise.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from starburst.compute.base import LaunchSpec, Provider, ProviderStatus
from starburst.errors import ProviderError

__all__ = ["ProviderContract", "eventually"]


async def eventually(check: Callable[[], Awaitable[bool]], *, timeout_s: float, what: str) -> None:
    """Return once ``check`` holds; fail the test, saying ``what`` was awaited, if it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not await check():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout_s:g} s: {what}")
        await asyncio.sleep(0.02)


class ProviderContract:
    """Subclass it, implement :meth:`make_provider`, and name the class ``Test…``.

    Attributes:
        timeout_s: How long the provider may take for what it does in the background.
    """

    timeout_s: float = 20.0

    def make_provider(self, folder: Path) -> Provider:
        """A new provider; with the same ``folder`` it is to see what an earlier one launched."""
        raise NotImplementedError

    def make_spec(self, session_id: str, workers: tuple[str, ...]) -> LaunchSpec:
        """What to launch."""
        return LaunchSpec(session_url=f"memory://{session_id}", session_id=session_id, workers=workers)

    def crash(self, status: ProviderStatus) -> None:
        """End a worker without its provider's knowledge; override it where workers have no pid here."""
        assert status.pid is not None
        os.kill(status.pid, signal.SIGKILL)

    @pytest.fixture
    def provider(self, tmp_path: Path) -> Provider:
        """The provider under test."""
        return self.make_provider(tmp_path)

    @pytest.fixture
    def sessions(self, provider: Provider) -> Iterator[tuple[str, str]]:
        """Two sessions, both stopped in the end."""
        pair = (f"session-{uuid.uuid4().hex[:12]}", f"session-{uuid.uuid4().hex[:12]}")
        yield pair
        for session_id in pair:
            asyncio.run(provider.stop(session_id, grace_s=0))

    def launch(self, provider: Provider, session_id: str, *workers: str) -> list[ProviderStatus]:
        """Launch workers and wait until each has said that it is ready."""

        async def go() -> list[ProviderStatus]:
            launched = await provider.launch(self.make_spec(session_id, workers))
            for worker in workers:
                await self._until_ready(provider, session_id, worker)
            assert not launched.shortfall
            return list(launched.workers)

        return asyncio.run(go())

    async def _until_ready(self, provider: Provider, session_id: str, worker: str) -> None:
        async def ready() -> bool:
            return f"ready {worker}".encode() in (await provider.logs(session_id, worker)).splitlines()

        await eventually(ready, timeout_s=self.timeout_s, what=f"'ready {worker}' in the log")

    def states(self, provider: Provider, session_id: str) -> dict[str, str]:
        """The state of each worker that is described."""
        return {status.worker: status.state for status in asyncio.run(provider.describe(session_id))}

    def test_is_a_provider_with_a_name(self, provider: Provider) -> None:
        assert isinstance(provider, Provider)
        assert provider.name == provider.name.upper() != ""

    def test_launches_all_and_tells_them_in_the_order_asked_for(
        self, provider: Provider, sessions: tuple[str, str]
    ) -> None:
        launched = self.launch(provider, sessions[0], "w-2", "w-1", "w-3")
        assert [status.worker for status in launched] == ["w-2", "w-1", "w-3"]
        assert all(status.alive for status in launched)
        assert self.states(provider, sessions[0]) == dict.fromkeys(("w-1", "w-2", "w-3"), "running")

    def test_launching_nobody_is_fine(self, provider: Provider, sessions: tuple[str, str]) -> None:
        assert self.launch(provider, sessions[0]) == []
        assert self.states(provider, sessions[0]) == {}

    def test_describes_sorted_by_name(self, provider: Provider, sessions: tuple[str, str]) -> None:
        self.launch(provider, sessions[0], "w-2", "w-10", "w-1")
        assert list(self.states(provider, sessions[0])) == ["w-1", "w-10", "w-2"]

    def test_a_new_instance_sees_and_stops_them(
        self, provider: Provider, sessions: tuple[str, str], tmp_path: Path
    ) -> None:
        self.launch(provider, sessions[0], "w-1")
        other = self.make_provider(tmp_path)
        assert self.states(other, sessions[0]) == {"w-1": "running"}
        asyncio.run(other.stop(sessions[0]))
        assert self.states(provider, sessions[0]) == {"w-1": "exited"}

    def test_a_name_is_used_once(self, provider: Provider, sessions: tuple[str, str]) -> None:
        self.launch(provider, sessions[0], "w-1")
        with pytest.raises(ProviderError, match="w-1"):
            asyncio.run(provider.launch(self.make_spec(sessions[0], ("w-2", "w-1"))))
        assert self.states(provider, sessions[0]) == {"w-1": "running"}

    def test_a_failed_launch_leaves_nothing(self, provider: Provider, sessions: tuple[str, str]) -> None:
        with pytest.raises(ProviderError):
            asyncio.run(provider.launch(self.make_spec(sessions[0], ("w-1", "w-2", "w-1"))))
        assert self.states(provider, sessions[0]) == {}
        with pytest.raises(ProviderError):
            asyncio.run(provider.logs(sessions[0], "w-1"))

    def test_stops_those_named_and_no_others(self, provider: Provider, sessions: tuple[str, str]) -> None:
        self.launch(provider, sessions[0], "w-1", "w-2", "w-3")
        asyncio.run(provider.stop(sessions[0], ["w-1", "w-3"]))
        assert self.states(provider, sessions[0]) == {"w-1": "exited", "w-2": "running", "w-3": "exited"}

    def test_stops_all(self, provider: Provider, sessions: tuple[str, str]) -> None:
        self.launch(provider, sessions[0], "w-1", "w-2")
        asyncio.run(provider.stop(sessions[0]))
        assert self.states(provider, sessions[0]) == {"w-1": "exited", "w-2": "exited"}

    def test_stopping_what_is_gone_or_never_was_is_fine(
        self, provider: Provider, sessions: tuple[str, str]
    ) -> None:
        self.launch(provider, sessions[0], "w-1")
        for workers in (["w-1"], ["w-1"], ["w-9"], [], None):
            asyncio.run(provider.stop(sessions[0], workers))
        asyncio.run(provider.stop(sessions[1]))
        assert self.states(provider, sessions[0]) == {"w-1": "exited"}

    def test_stopping_an_empty_list_stops_nobody(self, provider: Provider, sessions: tuple[str, str]) -> None:
        self.launch(provider, sessions[0], "w-1")
        asyncio.run(provider.stop(sessions[0], []))
        assert self.states(provider, sessions[0]) == {"w-1": "running"}

    def test_a_crash_is_seen_and_explained(self, provider: Provider, sessions: tuple[str, str]) -> None:
        self.launch(provider, sessions[0], "w-1", "w-2")

        async def crashed() -> bool:
            return (await provider.describe(sessions[0]))[0].state == "exited"

        async def go() -> ProviderStatus:
            self.crash((await provider.describe(sessions[0]))[0])
            await eventually(crashed, timeout_s=self.timeout_s, what="the crashed worker is exited")
            return (await provider.describe(sessions[0]))[0]

        assert asyncio.run(go()).reason
        assert self.states(provider, sessions[0])["w-2"] == "running"

    def test_tending_leaves_workers_alone(self, provider: Provider, sessions: tuple[str, str]) -> None:
        for _ in range(2):  # without any, too
            asyncio.run(provider.tend(sessions[0]))
        self.launch(provider, sessions[0], "w-1")
        self.states(provider, sessions[0])
        for _ in range(2):
            asyncio.run(provider.tend(sessions[0]))
        assert self.states(provider, sessions[0]) == {"w-1": "running"}

    def test_sessions_do_not_mix(self, provider: Provider, sessions: tuple[str, str]) -> None:
        for session_id in sessions:
            self.launch(provider, session_id, "w-1")
        asyncio.run(provider.stop(sessions[0]))
        asyncio.run(provider.forget(sessions[0]))
        assert self.states(provider, sessions[0]) == {}
        assert self.states(provider, sessions[1]) == {"w-1": "running"}
        assert b"ready w-1" in asyncio.run(provider.logs(sessions[1], "w-1"))

    def test_a_log_can_be_read_from_an_offset(self, provider: Provider, sessions: tuple[str, str]) -> None:
        self.launch(provider, sessions[0], "w-1")
        asyncio.run(provider.stop(sessions[0]))
        whole = asyncio.run(provider.logs(sessions[0], "w-1"))
        for offset_bytes in (3, len(whole), len(whole) + 5, -4, -len(whole) - 5):
            part = asyncio.run(provider.logs(sessions[0], "w-1", offset_bytes=offset_bytes))
            assert part == whole[offset_bytes:]

    def test_a_log_that_is_not_there_is_an_error(self, provider: Provider, sessions: tuple[str, str]) -> None:
        with pytest.raises(ProviderError, match="w-9") as caught:
            asyncio.run(provider.logs(sessions[0], "w-9"))
        assert caught.value.hint

    def test_forgets_those_that_are_gone_only(self, provider: Provider, sessions: tuple[str, str]) -> None:
        self.launch(provider, sessions[0], "w-1", "w-2")
        asyncio.run(provider.stop(sessions[0], ["w-1"]))
        asyncio.run(provider.forget(sessions[0]))
        assert self.states(provider, sessions[0]) == {"w-2": "running"}
        with pytest.raises(ProviderError):
            asyncio.run(provider.logs(sessions[0], "w-1"))
        asyncio.run(provider.stop(sessions[0]))
        for _ in range(2):
            asyncio.run(provider.forget(sessions[0]))
        assert self.states(provider, sessions[0]) == {}

    def test_supervisors_are_listed_and_stopped_with_the_rest(
        self, provider: Provider, sessions: tuple[str, str]
    ) -> None:
        self.launch(provider, sessions[0], "w-1")
        url = self.make_spec(sessions[0], ()).session_url
        first, second = (asyncio.run(provider.launch_supervisor(url, sessions[0])) for _ in range(2))
        assert first.alive
        assert first.worker.startswith("supervisor-")
        assert second.worker.startswith("supervisor-")
        assert set(self.states(provider, sessions[0])) == {first.worker, second.worker, "w-1"}
        assert first.worker != second.worker
        asyncio.run(provider.stop(sessions[0]))
        assert set(self.states(provider, sessions[0]).values()) == {"exited"}
