"""A session that does not need you: submit it, go away, come back from anywhere.

    python examples/detached_session.py submit            # prints the session's id and ends
    python examples/detached_session.py collect ID        # in another process, another day

The command line does the same: starburst status ID, starburst collect ID -o results.pkl, and in the end
starburst cleanup ID --force.
"""

import sys
import time

import starburst


def slow_square(number: int) -> int:
    time.sleep(0.05)
    return number * number


def submit(tasks: int = 100) -> None:
    session = starburst.session(workers=2, absolute_timeout="1h")
    session.map(slow_square, range(tasks))
    print(session.session_id)


def collect(session_id: str) -> None:
    session = starburst.attach(session_id)
    results = session.collect(wait=True, timeout=300)
    print(f"{len(results)} results, their sum is {sum(results):,}")
    session.cleanup(force=True)  # only now is anything removed


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["submit", *count]:
            submit(*map(int, count))
        case ["collect", session_id]:
            collect(session_id)
        case _:
            sys.exit(__doc__)
