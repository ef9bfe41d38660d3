"""docs/protocol.md says what the code does: its examples decode, its keys are ours, no field is left out."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import pytest

from starburst.protocol import pack, payload, records
from starburst.protocol.keys import ChunkId, DoneMark, Keys
from starburst.supervisor.leader import LeaderBeat

TEXT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
EXAMPLES = re.findall(r"^```json (\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
TYPES: dict[str, Any] = {**vars(records), "LeaderBeat": LeaderBeat}
DOCUMENTED = [
    kind
    for kind in vars(records).values()
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and not kind.__name__.startswith("_")
]


@pytest.mark.parametrize(("name", "text"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_examples_decode_and_show_every_field(name: str, text: str) -> None:
    kind = TYPES[name]
    record = msgspec.json.decode(text, type=kind)
    assert json.loads(msgspec.json.encode(record)) == json.loads(text), (
        "an unknown field, or one that is left out"
    )


def test_every_record_has_an_example() -> None:
    parts = {"Record", "Environment", "Segment"}  # shown within others
    assert {kind.__name__ for kind in DOCUMENTED} - parts <= {name for name, _ in EXAMPLES}


@pytest.mark.parametrize("kind", DOCUMENTED, ids=lambda kind: kind.__name__)
def test_every_field_is_explained(kind: type[msgspec.Struct]) -> None:
    if kind is not records.Segment:
        missing = [
            f for f in kind.__struct_fields__ if f"`{f}`" not in TEXT and f not in ("host", "pid", "at")
        ]
        assert not missing


def test_the_example_of_a_share_covers_what_it_gives_away() -> None:
    claim = msgspec.json.decode(dict(EXAMPLES)["Claim"], type=records.Claim)
    assert claim.parts[0][1] == claim.parts[1][0]
    batch = msgspec.json.decode(dict(EXAMPLES)["BatchHeader"], type=records.BatchHeader)
    assert sum(batch.counts) == batch.n_tasks
    result = msgspec.json.decode(dict(EXAMPLES)["ResultHeader"], type=records.ResultHeader)
    assert sum(segment.count for segment in result.segments) == result.count


def test_the_keys_are_ours() -> None:
    (block,) = re.findall(r"^```text keys\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    keys, chunk, sha = Keys("s"), ChunkId(1, 42), "<sha256>"
    assert [line.split("  ")[0] for line in block.splitlines()] == [
        keys.manifest,
        keys.function(sha),
        keys.object(sha),
        keys.code(sha),
        keys.batch(1),
        keys.claim(chunk, 1),
        keys.result(chunk, 50),
        keys.done(DoneMark(chunk, 17, 1)),
        keys.worker("w-1"),
        keys.wanted_by("w-1"),
        keys.event(3),
        keys.leader(1),
        keys.leader_beat(1),
    ]


def test_numbers_in_the_text_are_those_of_the_code() -> None:
    assert f"{payload.LARGE_BYTES:,} bytes" in TEXT
    assert f"{payload.OUT_OF_BAND_BYTES // 1024} KiB" in TEXT
    assert (pack.PREFIX.size, pack.FRAME.size, pack.ALIGN, pack.LAYOUT) == (64, 40, 64, 1)
    assert pack.MAGIC == b"STBP"


def test_kinds_and_states_are_all_named() -> None:
    for kind, name in (
        (records.Claim, "kind"),
        (records.Failure, "kind"),
        (records.Heartbeat, "state"),
        (records.Manifest, "kind"),
        (records.BatchHeader, "layout"),
    ):
        for value in get_args(get_type_hints(kind)[name]):
            assert f"`{value}`" in TEXT, f"{kind.__name__}.{name}: {value}"


def test_the_name_of_an_object_is_the_hash_that_the_text_says() -> None:
    large = payload.LargeObjects()
    name = large.add(bytearray(b"x" * 100_000))
    digest = hashlib.sha256()
    for buffer in large.found[name][0]:
        digest.update(memoryview(buffer).nbytes.to_bytes(8, "little") + bytes(buffer))
    assert name == digest.hexdigest()
