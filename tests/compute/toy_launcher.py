"""A real program that uses the provider: FOLDER SESSION, then one command a line; answers in JSON lines."""

import asyncio
import json
import os
import resource
import signal
import sys
from pathlib import Path

import psutil
from toys import toy_provider

from starburst.compute.base import LaunchSpec
from starburst.errors import ProviderError


def main() -> None:
    folder, session_id, *commands = sys.argv[1:]
    provider = toy_provider(Path(folder))
    for line in commands or sys.stdin:
        word, *args = line.split()
        try:
            answer = getattr(Commands, word.replace("-", "_"))(provider, session_id, *args)
        except ProviderError as error:
            answer = {"error": str(error)}
        say(json.dumps(answer))


def say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def launch_within(provider, session_id, resource_kind, spare):
    async def launch():
        soft, hard = resource.getrlimit(resource_kind)
        used = 0
        if resource_kind == resource.RLIMIT_NOFILE:
            used = os.open(os.devnull, os.O_RDONLY)
            os.close(used)
        resource.setrlimit(resource_kind, (used + spare, hard))
        try:
            await provider.launch(
                LaunchSpec(session_url="memory://x", session_id=session_id, workers=("w-1",))
            )
        finally:
            resource.setrlimit(resource_kind, (soft, hard))

    return asyncio.run(launch())


class Commands:
    @staticmethod
    def launch(provider, session_id, *workers):
        spec = LaunchSpec(session_url="memory://x", session_id=session_id, workers=workers)
        return [status.pid for status in asyncio.run(provider.launch(spec)).workers]

    @staticmethod
    def describe(provider, session_id):
        return {
            s.worker: [s.state, s.exit_code, s.reason] for s in asyncio.run(provider.describe(session_id))
        }

    @staticmethod
    def stop(provider, session_id):
        asyncio.run(provider.stop(session_id))

    @staticmethod
    def reap(provider, session_id, pid):
        return os.waitstatus_to_exitcode(os.waitpid(int(pid), 0)[1])

    @staticmethod
    def children(provider, session_id):
        return [child.pid for child in psutil.Process().children(recursive=True)]

    @staticmethod
    def launch_without_space(provider, session_id):
        """Files can be created but not filled: a process starts and its record cannot be written."""
        return launch_within(provider, session_id, resource.RLIMIT_FSIZE, 0)

    @staticmethod
    def launch_without_descriptors(provider, session_id):
        """Room for the log, but not for the pipe that starting a process needs."""
        return launch_within(provider, session_id, resource.RLIMIT_NOFILE, 2)

    @staticmethod
    def late_worker_at_sigterm(provider, session_id):
        """As a supervisor that replaces a lost worker while it is told to end."""

        async def serve():
            told_to_end = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told_to_end.set)
            say("ready")
            await told_to_end.wait()
            await provider.launch(
                LaunchSpec(session_url="memory://x", session_id=session_id, workers=("late",))
            )

        asyncio.run(serve())


main()
