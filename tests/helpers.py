"""What tests share."""

import time


def eventually(predicate, timeout_s=60.0, *, every_s=0.02, what="the condition"):
    """Wait until ``predicate()`` is true and return its value; fail after ``timeout_s``.

    The only place where tests sleep.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"{what} did not come true in {timeout_s:g} s (last value: {value!r})")
        time.sleep(every_s)
