"""What the workers run in these tests."""

import ctypes
import signal
import time


def slow_square(i, seconds):
    time.sleep(seconds)
    return i * i


def sleep_in_c(i, seconds):
    """Task 0 sleeps where no signal and no Python code reaches it; the others are innocent."""
    if i == 0:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        libc = ctypes.PyDLL(None)  # keeps the interpreter's lock: no thread of Python's runs any more
        while True:
            libc.sleep(3600)
    time.sleep(seconds)
    return i * i


def may(call):
    """Make a call with the worker's own credentials; returns the error's code, or nothing if it went well."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import ClientError

    service, operation, parameters = call
    client = boto3.client(service, config=Config(retries={"total_max_attempts": 1}))
    try:
        getattr(client, operation)(**parameters)
    except ClientError as error:
        return error.response["Error"]["Code"]
    return ""
