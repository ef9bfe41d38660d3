"""Submits batch after batch to a session, until it is killed: URL SESSION BLOCK_BYTES."""

import sys

import fault_tasks

import starburst

url, session_id, block_bytes = sys.argv[1], sys.argv[2], int(sys.argv[3])

if __name__ == "__main__":
    session = starburst.attach(session_id, store=url)
    for number in range(1000):
        data = [bytes([number % 256]) * block_bytes for _ in range(10)]
        submission = session.map(fault_tasks.length, data, range(10), chunksize=5)
        sys.stdout.write(f"{submission.seq}\n")  # from here on it is durable
        sys.stdout.flush()
