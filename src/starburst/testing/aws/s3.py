"""S3 in the simulator's process: starts the endpoint, and answers what it asks about the account."""

from __future__ import annotations

import fnmatch
import json
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING, Any

import msgspec

from starburst.errors import ProviderError
from starburst.testing.aws.control import Reply, Request
from starburst.testing.aws.identities import Identities
from starburst.testing.aws.s3_facts import Changes
from starburst.testing.aws.s3_front import COUNTS, KINDS, Configuration
from starburst.testing.aws.scripts import Script, Scripts

if TYPE_CHECKING:
    from starburst.testing.aws.front import Answer, Call
    from starburst.testing.aws.world import World

__all__ = ["FOREIGN_ACCOUNT", "S3"]

FOREIGN_ACCOUNT = "999999999999"
"""Whose buckets are made by the verb ``foreign-bucket``."""

_READING = ("Get", "List", "Describe", "Head", "Simulate", "Decode")


class S3:
    """The endpoint as a child, and its questions.

    Attributes:
        denials: Who was refused what: (role or user, action, resource); of S3 and of the control plane.
    """

    def __init__(self, world: World, identities: Identities) -> None:
        self.denials: list[tuple[str, str, str]] = []
        self._world = world
        self._identities = identities
        self._changes = Changes(world.folder / "s3-changes")
        self._scripts = world.scripts = _WatchedScripts(self._changes)
        self._process = self._start()
        world.at_exit.append(self._stop)
        world.front.filters.append(self._watch)
        world.control.route("/s3/facts", self._facts)
        world.control.route("/s3/script", self._script)
        world.control.route("/s3/denied", self._denied)
        world.control.route("/verbs/s3-calls", lambda _request: Reply(self.calls()))
        world.control.route("/verbs/foreign-bucket", self._foreign_bucket)

    def calls(self) -> dict[str, int]:
        """How many requests about objects there were, by ``s3.Operation``."""
        with urllib.request.urlopen(self._world.s3_endpoint + COUNTS) as reply:  # noqa: S310 - loopback
            counts: dict[str, int] = json.loads(reply.read())
        return {f"s3.{operation}": count for operation, count in counts.items()}

    def _start(self) -> subprocess.Popen[bytes]:
        world = self._world
        host, _, port = world.control.endpoint.removeprefix("http://").rpartition(":")
        configuration = Configuration(
            account=world.options.account,
            partition=self._identities.partition,
            control_host=host,
            control_port=int(port),
            changes=str(world.folder / "s3-changes"),
        )
        command = [sys.executable, "-m", "starburst.testing.aws.s3_front"]
        process = subprocess.Popen(
            [*command, msgspec.json.encode(configuration).decode()],
            stdin=subprocess.PIPE,  # it ends when this is closed, as it is if we are killed
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            process.wait()
            raise ProviderError("The endpoint of the simulated S3 did not start; its log says why.")
        world.s3_endpoint = f"http://127.0.0.1:{int(line)}"
        return process

    def _stop(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _watch(self, call: Call) -> Answer | None:
        """Before anything about roles, keys or buckets changes, what the endpoint remembers becomes void.

        It asks again under the lock, so it gets to know how things are after this request.
        """
        if call.service in {"iam", "sts", "s3"} and not call.operation.startswith(_READING):
            self._changes.bump()
        return None

    def _facts(self, request: Request) -> Reply:
        asked = request.json()
        with self._world.lock:
            identity = self._identities.find(asked["key"])
            caller = identity and {
                "secret": identity.secret,
                "token": identity.token,
                "arn": identity.arn,
                "name": identity.name,
                "documents": self._identities.documents(identity),
            }
            return Reply(
                {
                    "changes": self._changes.count(),
                    "store": self._world.seaweed_endpoint,
                    "configuration": self._world.endpoint,
                    "scripted": self._scripts.concern("s3"),
                    "caller": caller,
                    "bucket": self._bucket(asked["bucket"]),
                }
            )

    def _bucket(self, name: str) -> dict[str, Any] | None:
        from moto.s3.models import s3_backends

        partition, account = s3_backends.bucket_accounts.get(name, ("", ""))
        if not account:
            return None
        bucket = s3_backends[account][partition].buckets[name]
        policy = bucket.policy.decode() if bucket.policy else None
        return {"account": account, "region": bucket.region_name, "policy": policy}

    def _script(self, request: Request) -> Reply:
        asked = request.json()
        facts = {"caller": asked["caller"], "bucket": asked["bucket"], "key": asked["key"]}
        with self._world.lock:
            for kind in KINDS:
                if self._scripts.take(f"s3:{asked['operation']}", kind, **facts):
                    return Reply({"kind": kind})
        return Reply({"kind": ""})

    def _denied(self, request: Request) -> Reply:
        said = request.json()
        with self._world.lock:
            self.denials.append((said["caller"], said["action"], said["resource"]))
        return Reply({})

    def _foreign_bucket(self, request: Request) -> Reply:
        """Another account has a bucket of this name."""
        from moto.s3.models import s3_backends

        with self._world.lock:
            backend = s3_backends[FOREIGN_ACCOUNT][self._identities.partition]
            backend.create_bucket(request.json()["name"], self._world.options.region)
            self._changes.bump()
        return Reply({})


class _WatchedScripts(Scripts):
    """Tells the endpoint when failures are asked for, or are so no more."""

    def __init__(self, changes: Changes) -> None:
        super().__init__()
        self._changes = changes

    def add(self, operation: str, kind: str, *, times: int | None, where: dict[str, Any]) -> int:
        self._changes.bump()
        return super().add(operation, kind, times=times, where=where)

    def clear(self, script_id: int | None = None) -> None:
        self._changes.bump()
        super().clear(script_id)

    def take(self, operation: str, kind: str, **facts: Any) -> Script | None:
        script = super().take(operation, kind, **facts)
        if script is not None and script.left == 0:
            self._changes.bump()
        return script

    def concern(self, service: str) -> bool:
        """Whether a failure is asked for that this service could show."""
        return any(
            script.left != 0 and fnmatch.fnmatchcase(service, script.operation.partition(":")[0])
            for script in self._scripts.values()
        )
