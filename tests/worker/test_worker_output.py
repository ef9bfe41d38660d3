"""What tasks print, and the page that tells which task runs."""

from __future__ import annotations

import os
import threading

import pytest

from starburst.worker.output import TAIL_CHARS, TaskOutput, TaskStream
from starburst.worker.page import Page


@pytest.fixture
def log(tmp_path):
    """A worker's log, its descriptor and a way to read it."""
    path = tmp_path / "log"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    yield fd, path.read_text
    os.close(fd)


def test_each_line_carries_its_task(log):
    fd, read = log
    output = TaskOutput(fd)
    stream = TaskStream(output, 1)
    output.begin("000001-00000007")
    assert stream.write("one\ntwo\n") == 8
    output.begin("000001-00000008")
    stream.write("three\n")
    assert read() == "[000001-00000007] one\n[000001-00000007] two\n[000001-00000008] three\n"


def test_a_line_in_pieces_is_logged_whole_and_its_end_is_not_waited_for_longer_than_the_task(log):
    fd, read = log
    output = TaskOutput(fd)
    stream = TaskStream(output, 1)
    output.begin("t")
    for piece in ("a", "b", "c\nd"):
        stream.write(piece)
    assert read() == "[t] abc\n"
    stream.end_task()
    stream.end_task()
    assert read() == "[t] abc\n[t] d\n"


def test_both_streams_of_a_task_share_the_tail_and_keep_their_lines_apart(log):
    fd, read = log
    output = TaskOutput(fd)
    out, err = TaskStream(output, 1), TaskStream(output, 2)
    output.begin("t")
    out.write("half of a li")
    err.write("an error\n")
    out.write("ne\n")
    assert read() == "[t] an error\n[t] half of a line\n"
    assert output.tail() == "half of a lian error\nne\n"


def test_lines_of_several_runners_do_not_mix(log):
    fd, read = log

    def print_many(name):
        output = TaskOutput(fd)
        stream = TaskStream(output, 1)
        output.begin(name)
        for n in range(500):
            stream.write(f"{name}{n}")
            stream.write("\n")

    threads = [threading.Thread(target=print_many, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = read().splitlines()
    assert sorted(lines) == sorted(f"[{name}] {name}{n}" for name in "abc" for n in range(500))


def test_the_tail_is_the_last_that_this_task_printed():
    output = TaskOutput(None)
    stream = TaskStream(output, 1)
    output.begin("first")
    stream.write("not mine\n")
    output.begin("second")
    assert output.tail() == ""
    for n in range(20_000):
        stream.write(f"{n}\n")
    whole = "".join(f"{n}\n" for n in range(20_000))
    assert output.tail() == whole[-TAIL_CHARS:]


def test_what_is_no_utf8_is_logged_all_the_same(log):
    fd, read = log
    output = TaskOutput(fd)
    output.begin("t")
    TaskStream(output, 1).write("\udc80 and ä\n")
    assert read() == "[t] ? and ä\n"


def test_a_stream_answers_what_libraries_ask():
    stream = TaskStream(TaskOutput(None), 2)
    assert (stream.encoding, stream.writable(), stream.isatty(), stream.fileno()) == ("utf-8", True, False, 2)
    print("nobody reads this", file=stream, flush=True)


def test_the_page_outlives_who_wrote_it():
    page = Page()
    child = os.fork()
    if child == 0:
        Page(os.dup(page.fd)).begin(41, 2.5)
        os._exit(0)
    os.waitpid(child, 0)
    assert page.read() == (41, 2.5)
    page.begin(-1, 0.0)
    assert page.read() == (-1, 0.0)
    page.close()


def test_a_new_page_tells_of_no_task():
    page = Page()
    assert page.read() == (-1, 0.0)
    page.close()
