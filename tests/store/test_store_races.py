"""Processes that race for the same keys: exactly one wins each."""

import asyncio
import json
import subprocess
import sys

from starburst.store import open_store

PROCESSES = 8
KEYS = 40

RACER = """
import asyncio, json, sys
from starburst.store import open_store

async def main(url, me, keys):
    store = open_store(url)
    await store.create(f"ready/{me}", b"")
    print("ready", flush=True)
    sys.stdin.readline()
    body = me.encode() * 1000
    won = [key for key in keys if await store.create(key, body)]
    print(json.dumps(won), flush=True)

asyncio.run(main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))
"""


def test_one_winner_for_each_key(store_url, store):
    keys = [f"claims/{number:03d}/1" for number in range(KEYS)]
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, store_url, f"p{number}", json.dumps(keys)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    try:
        for racer in racers:
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            racer.stdin.write("go\n")
            racer.stdin.flush()
        answers = [racer.communicate(timeout=90)[0] for racer in racers]
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()
    won = {f"p{number}": json.loads(answer) for number, answer in enumerate(answers)}
    assert sorted(key for mine in won.values() for key in mine) == keys
    for name, mine in won.items():
        for key in mine:
            assert bytes(asyncio.run(store.get(key))) == name.encode() * 1000


def test_deleting_and_creating_in_one_folder(folder_url):
    """A folder that a deleter removes because it is empty must not fail the creator who needs it."""
    store = open_store(folder_url)

    async def flip(name):
        other = open_store(folder_url)
        for number in range(200):
            assert await other.create(f"a/b/{name}", b"%d" % number)
            assert await other.get(f"a/b/{name}") == b"%d" % number
            await other.delete([f"a/b/{name}"])

    async def both():
        await asyncio.gather(*(asyncio.to_thread(asyncio.run, flip(f"n{number}")) for number in range(4)))

    asyncio.run(both())
    assert asyncio.run(store.list("")) == []
