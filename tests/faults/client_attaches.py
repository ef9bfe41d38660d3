"""Attaches to a session, waits for all results and prints them as JSON: URL SESSION."""

import json
import sys

import starburst

url, session_id = sys.argv[1:]

if __name__ == "__main__":
    sys.stdout.write(f"{json.dumps(starburst.attach(session_id, store=url).collect(timeout=60))}\n")
