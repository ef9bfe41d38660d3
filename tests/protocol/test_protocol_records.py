from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from starburst.errors import CorruptObject, IncompatibleVersion
from starburst.protocol.records import (
    VERSION,
    BatchHeader,
    Claim,
    Environment,
    Event,
    Failure,
    FunctionHeader,
    Heartbeat,
    Leader,
    Manifest,
    ObjectHeader,
    Record,
    ResultHeader,
    Segment,
    decode_json,
    decode_msgpack,
    encode_json,
    encode_msgpack,
)

MANIFEST = Manifest(
    session_id="s",
    kind="session",
    created_at=1.5,
    owner="ann",
    host="laptop",
    launch_type="LOCAL",
    workers=2,
    slots=1,
    max_attempts=3,
    lease_s=15.0,
    idle_timeout_s=60.0,
    session_timeout_s=3600.0,
    absolute_timeout_s=86400.0,
    environment=Environment(sys_path=("/a", "/b"), cwd="/a"),
)
RECORDS: list[Record] = [
    MANIFEST,
    BatchHeader(n_tasks=3, firsts=(0, 2), counts=(2, 1), function="ab", layout="columns", timeout_s=2.5),
    BatchHeader(n_tasks=1, firsts=(7,), counts=(1,), source=4),
    FunctionHeader(name="f"),
    ObjectHeader(type_name="ndarray"),
    Claim(kind="share", worker="w-1", attempt=2, position=5, parts=((7, 9), (9, 10)), at=3.0),
    ResultHeader(
        first=0, count=3, worker="w-1", segments=(Segment("values", 2, 1), Segment("failure", 1, 2))
    ),
    Event(what="scaled", at=1.0, by="ann@laptop", data={"workers": 4, "nested": [1, {"a": None}]}),
    Leader(host="h", pid=7, at=2.0, detached=True),
]
BOTH: list[tuple[Any, Any]] = [(encode_json, decode_json), (encode_msgpack, decode_msgpack)]


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: type(r).__name__)
@pytest.mark.parametrize(("encode", "decode"), BOTH)
def test_records_read_back(record: Record, encode: Any, decode: Any) -> None:
    assert decode(type(record), encode(record), "some/key") == record


@given(
    st.builds(
        Claim,
        kind=st.sampled_from(["claim", "share", "release"]),
        worker=st.text(max_size=30),
        attempt=st.integers(1, 2**31),
        position=st.integers(0, 10**8),
        parts=st.lists(st.tuples(st.integers(0, 10**8), st.integers(0, 10**8)), max_size=4).map(tuple),
        at=st.floats(0, 1e11),
    )
)
def test_claims_read_back_whatever_they_hold(claim: Claim) -> None:
    for encode, decode in BOTH:
        assert decode(Claim, encode(claim), "k") == claim


def test_json_is_laid_out_for_people() -> None:
    text = encode_json(MANIFEST).decode()
    assert text.count("\n") > 10
    assert json.loads(text)["lease_s"] == 15.0


def test_each_record_gets_a_nonce_of_its_own() -> None:
    nonces = {Claim(kind="claim", worker="w").nonce for _ in range(1000)}
    assert len(nonces) == 1000
    assert encode_json(Claim(kind="claim", worker="w")) != encode_json(Claim(kind="claim", worker="w"))


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: type(r).__name__)
def test_fields_of_later_versions_are_ignored(record: Record) -> None:
    fields = msgspec.to_builtins(record) | {"colour": {"deep": [1, 2]}, "zzz": None}
    assert decode_json(type(record), json.dumps(fields).encode(), "k") == record
    assert decode_msgpack(type(record), msgspec.msgpack.encode(fields), "k") == record


def test_a_segment_may_grow_at_its_end() -> None:
    header = msgspec.to_builtins(RECORDS[6])
    header["segments"] = [[*segment, "later", 1] for segment in header["segments"]]
    assert decode_msgpack(ResultHeader, msgspec.msgpack.encode(header), "k") == RECORDS[6]


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: type(r).__name__)
def test_a_newer_major_version_is_refused_even_if_its_fields_are_unknown(record: Record) -> None:
    for fields in (msgspec.to_builtins(record) | {"v": VERSION + 1}, {"v": VERSION + 1, "new": 1}):
        for data, decode in (
            (json.dumps(fields).encode(), decode_json),
            (msgspec.msgpack.encode(fields), decode_msgpack),
        ):
            with pytest.raises(IncompatibleVersion, match=r"sessions/s/that\.key .* version 2") as caught:
                decode(type(record), data, "sessions/s/that.key")
            assert "pip install" in str(caught.value.hint)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\x00\xff\xfe",
        b"null",
        b"[]",
        b"3",
        b'{"v": "one"}',
        b'{"v": 1}',
        b'{"v": 1, "kind": "claim"}',
        b'{"v": 1, "kind": "steal", "worker": "w"}',
        b'{"v": 1, "kind": "claim", "worker": 7}',
    ],
)
def test_damaged_json_names_the_object(data: bytes) -> None:
    with pytest.raises(CorruptObject, match=r"claims/000001-00000000\.0001 does not hold a Claim"):
        decode_json(Claim, data, "claims/000001-00000000.0001")


def test_damaged_msgpack_names_the_object() -> None:
    whole = encode_msgpack(RECORDS[5])
    for end in range(len(whole)):
        with pytest.raises(CorruptObject, match="some/key does not hold a Claim"):
            decode_msgpack(Claim, whole[:end], "some/key")


def test_records_are_frozen() -> None:
    for record in [*RECORDS, Failure(kind="raised", message="m"), Segment("values", 1, 1)]:
        with pytest.raises(AttributeError):
            record.v = 2  # type: ignore[union-attr,misc]


@pytest.mark.parametrize(("lease_s", "heartbeat_s"), [(15.0, 2.0), (10.0, 2.0), (5.0, 1.0), (0.5, 0.1)])
def test_at_least_five_heartbeats_fit_in_a_lease(lease_s: float, heartbeat_s: float) -> None:
    manifest = msgspec.structs.replace(MANIFEST, lease_s=lease_s)
    assert manifest.heartbeat_s == pytest.approx(heartbeat_s)


def test_a_heartbeat_needs_no_nonce_as_it_has_one_owner() -> None:
    beat = Heartbeat(worker="w-1", beat=3, state="idle", started_at=0.0, at=1.0)
    assert "nonce" not in msgspec.to_builtins(beat)
    assert msgspec.json.decode(msgspec.json.encode(beat), type=Heartbeat) == beat
