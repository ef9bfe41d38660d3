"""Logs of real processes, read as they grow."""

from __future__ import annotations

import asyncio

import pytest

from helpers import eventually
from starburst.cli import exit_codes
from starburst.cli.logs import LogLine, LogReader
from starburst.cli.output import CommandError
from starburst.compute.base import LaunchSpec
from starburst.compute.local import LocalProvider


@pytest.fixture
def provider(tmp_path, data_dir):
    """A provider with two processes that print what they find in a file and go on until it is removed."""
    program = tmp_path / "python"
    program.write_text(
        "#!/bin/sh\nprintf 'hello from %s\\n[000001-00000002] of task two\\n' $5\n"
        f"while [ -e {tmp_path}/stay ]; do sleep 0.02; done\nprintf 'last \\377 words'\n"
    )
    program.chmod(0o755)
    (tmp_path / "stay").touch()
    provider = LocalProvider()
    spec = LaunchSpec(
        session_url="file:///nowhere", session_id="session-1", workers=("w-1", "w-2"), python=str(program)
    )
    asyncio.run(provider.launch(spec))
    yield provider
    asyncio.run(provider.stop("session-1", grace_s=0))


def read(reader, **options):
    return asyncio.run(reader.news(**options))


def test_all_workers_then_only_what_is_new(provider, tmp_path):
    reader = LogReader(provider, "session-1")
    found = []
    eventually(lambda: found.extend(read(reader, last=False)) or len(found) == 4, what="four lines")
    assert sorted(found, key=lambda line: (line.worker, line.task or "")) == [
        LogLine("w-1", None, "hello from w-1"),
        LogLine("w-1", "000001-00000002", "of task two"),
        LogLine("w-2", None, "hello from w-2"),
        LogLine("w-2", "000001-00000002", "of task two"),
    ]
    (tmp_path / "stay").unlink()
    eventually(lambda: not any(each.alive for each in asyncio.run(provider.describe("session-1"))))
    assert read(reader, last=False) == [], "a line that is not finished waits"
    assert read(reader) == [LogLine(f"w-{n}", None, "last \ufffd words") for n in (1, 2)]
    assert read(reader) == []


def test_one_worker_or_one_task(provider):
    one = LogReader(provider, "session-1", worker="w-2", task="000001-00000002")
    assert eventually(lambda: read(one)) == [LogLine("w-2", "000001-00000002", "of task two")]
    assert read(LogReader(provider, "session-1", task="000001-0000000")) == []


def test_an_unknown_worker_is_named_with_those_there_are(provider):
    with pytest.raises(CommandError, match="no worker w-9") as caught:
        read(LogReader(provider, "session-1", worker="w-9"))
    assert caught.value.exit_code == exit_codes.NOT_FOUND
    assert "w-1, w-2" in caught.value.hint
