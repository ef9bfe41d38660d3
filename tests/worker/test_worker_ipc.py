"""Messages between agent and runner: whole, in order, whatever their size, and the end of the other side."""

from __future__ import annotations

import asyncio
import os
import socket
import threading

import pytest

from starburst.protocol.records import Segment
from starburst.worker import ipc


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def send_in_thread(sock, *messages):
    """Send what does not fit into the socket's buffer."""

    def send():
        for message, frames in messages:
            ipc.send(sock, message, frames)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


MESSAGES = [
    ipc.Setup(sys_path=("a", "ä")),
    ipc.FunctionReady(sha256="0" * 64),
    ipc.ObjectReady(sha256="1" * 64, path="somewhere"),
    ipc.ObjectReady(sha256="1" * 64, error="it is not there"),
    ipc.Job(job=1, batch=2, first=3, count=4, start=5, end=6, function="2" * 64, layout="stream", retries=7),
    ipc.Trim(job=1, end=2),
    ipc.Ready(pid=123),
    ipc.Need(sha256="3" * 64),
    ipc.Trimmed(job=1, end=-1),
    ipc.Progress(job=1, segments=(Segment("values", 3, 1),), ok=3, final=True, spooled=(0,)),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_every_message_comes_as_it_went(pair, message):
    ours, theirs = pair
    ipc.send(ours, message)
    assert ipc.receive(theirs) == (message, [])


def test_frames_come_as_they_went_whatever_their_size(pair):
    ours, theirs = pair
    frames = [b"", b"x", os.urandom(5_000_000), bytearray(b"abc"), memoryview(b"0123456789")[2:5], b""]
    thread = send_in_thread(ours, (ipc.Need(sha256="a"), frames))
    message, received = ipc.receive(theirs)
    thread.join()
    assert message == ipc.Need(sha256="a")
    assert [bytes(frame) for frame in received] == [bytes(frame) for frame in frames]


def test_more_frames_than_one_system_call_takes(pair):
    ours, theirs = pair
    frames = [str(i).encode() for i in range(5_000)]
    thread = send_in_thread(ours, (ipc.Ready(pid=1), frames))
    assert [bytes(frame) for frame in ipc.receive(theirs)[1]] == frames
    thread.join()


def test_frames_of_wide_items_are_sent_by_bytes(pair):
    import numpy as np

    ours, theirs = pair
    array = np.arange(10_000, dtype=np.float64)
    thread = send_in_thread(ours, (ipc.Ready(pid=1), [memoryview(array)]))
    (frame,) = ipc.receive(theirs)[1]
    thread.join()
    assert np.array_equal(np.frombuffer(frame, dtype=np.float64), array)


def test_what_is_received_can_be_written_to(pair):
    ours, theirs = pair
    ipc.send(ours, ipc.Ready(pid=1), [b"abc"])
    (frame,) = ipc.receive(theirs)[1]
    frame[0] = 0
    assert bytes(frame) == b"\0bc"


def test_messages_stay_in_order_and_apart(pair):
    ours, theirs = pair
    thread = send_in_thread(ours, *((ipc.Trim(job=n, end=n), [b"x" * n]) for n in range(300)))
    for n in range(300):
        message, (frame,) = ipc.receive(theirs)
        assert (message.job, len(frame)) == (n, n)
    thread.join()


def test_the_coroutine_receives_the_same(pair):
    ours, theirs = pair
    frames = [os.urandom(3_000_000), b"", b"end"]

    async def receive_two():
        theirs.setblocking(False)
        return [await ipc.areceive(theirs) for _ in range(2)]

    thread = send_in_thread(ours, (ipc.Ready(pid=1), frames), (ipc.Trim(job=1, end=2), []))
    (first, received), second = asyncio.run(receive_two())
    thread.join()
    assert first == ipc.Ready(pid=1)
    assert [bytes(frame) for frame in received] == frames
    assert second == (ipc.Trim(job=1, end=2), [])


@pytest.mark.parametrize("cut", [0, 3, 9, -1])
def test_the_end_of_the_other_side_is_an_eof_wherever_it_comes(pair, cut):
    ours, theirs = pair
    whole = b"".join(ipc.encode(ipc.Ready(pid=1), [b"0123456789"]))
    ours.sendall(whole[:cut])
    ours.close()
    with pytest.raises(EOFError):
        ipc.receive(theirs)


def test_the_coroutine_sees_the_end_too(pair):
    ours, theirs = pair
    theirs.setblocking(False)
    ours.sendall(b"".join(ipc.encode(ipc.Ready(pid=1)))[:6])
    ours.close()

    async def receive():
        await ipc.areceive(theirs)

    with pytest.raises(EOFError):
        asyncio.run(receive())


def test_large_frames_pass_as_files_and_small_ones_do_not():
    ours, theirs = socket.socketpair(type=socket.SOCK_DGRAM)
    large, small = os.urandom(ipc.SPOOL_BYTES), os.urandom(ipc.SPOOL_BYTES - 1)
    sender, receiver = ipc.Spool(ours), ipc.Spool(theirs)
    frames = [small, large, b"", large[::-1]]
    spooled = sender.put(frames)
    assert spooled == (1, 3)
    assert frames[1] == frames[3] == b""
    receiver.take(frames, spooled)
    assert [bytes(frame) for frame in frames] == [small, large, b"", large[::-1]]
    sender.close()
    receiver.close()
