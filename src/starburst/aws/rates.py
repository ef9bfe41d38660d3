"""Pace of control-plane calls: token buckets with the rates that AWS publishes, kept on our side.

Amazon ECS "Request throttling" (API reference): burst and refill a second, by account and region; and how many tasks
Fargate starts a second (Service Quotas, "task launch rate"). Other programs draw on the same buckets, so AWS may still
say "later"; then botocore's adaptive retries wait.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

__all__ = ["TokenBucket", "bucket_of", "launch_bucket"]


@dataclass(slots=True)
class TokenBucket:
    """Calls that may be made at once, and how many more a second.

    Attributes:
        burst: Its size.
        refill_per_s: Tokens that come back every second.
    """

    burst: float
    refill_per_s: float
    _tokens: float = field(init=False)
    _at_s: float = field(init=False, default=float("-inf"))
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._tokens = self.burst

    def reserve(self, now_s: float, tokens: float = 1) -> float:
        """Take tokens; how many seconds to wait before the call may be made."""
        with self._lock:
            if self._at_s > float("-inf"):
                refilled = self._tokens + (now_s - self._at_s) * self.refill_per_s
                self._tokens = min(self.burst, refilled)
            self._at_s = max(now_s, self._at_s)
            self._tokens -= tokens
            return max(0.0, -self._tokens / self.refill_per_s)


_RATES: dict[str, tuple[float, float]] = {
    "tasks": (100, 40),
    "run": (20, 20),
    "reads": (100, 20),
    "definition writes": (20, 1),
    "definition reads": (50, 20),
    "cluster writes": (20, 1),
    "cluster reads": (50, 20),
    "provider writes": (10, 1),
    "tags": (20, 10),
}

_FAMILIES: dict[str, tuple[str, ...]] = {
    "run_task": ("tasks", "run"),  # Fargate's own limit comes on top of the one that StopTask shares
    "stop_task": ("tasks",),
    "describe_tasks": ("reads",),
    "list_tasks": ("reads",),
    "describe_container_instances": ("reads",),
    "list_container_instances": ("reads",),
    "register_task_definition": ("definition writes",),
    "deregister_task_definition": ("definition writes",),
    "delete_task_definitions": ("definition writes",),
    "describe_task_definition": ("definition reads",),
    "list_task_definitions": ("definition reads",),
    "create_cluster": ("cluster writes",),
    "delete_cluster": ("cluster writes",),
    "put_cluster_capacity_providers": ("cluster writes",),
    "describe_clusters": ("cluster reads",),
    "create_capacity_provider": ("provider writes",),
    "update_capacity_provider": ("provider writes",),
    "delete_capacity_provider": ("provider writes",),
    "tag_resource": ("tags",),
}

_LARGE_REGIONS = frozenset({"us-east-1", "us-east-2", "us-west-2", "eu-west-1", "ap-northeast-1"})

_buckets: dict[tuple[str, str], TokenBucket] = {}
_lock = threading.Lock()


def bucket_of(place: str, service: str, operation: str) -> tuple[TokenBucket, ...]:
    """The buckets that a call draws on; none for services that need no pacing.

    Args:
        place: Account (or profile) and region: what the limits are counted by.
        service: A name of boto3, such as ``ecs``.
        operation: A method of its client, such as ``run_task``.
    """
    families = _FAMILIES.get(operation, ()) if service == "ecs" else ()
    with _lock:
        return tuple(
            _buckets.setdefault((place, family), TokenBucket(*_RATES[family])) for family in families
        )


def launch_bucket(place: str, region: str, *, spot: bool) -> TokenBucket:
    """The bucket of tasks that Fargate starts, in which each task of a call counts.

    Args:
        place: As in :func:`bucket_of`.
        region: The region: five large ones allow four times as many.
        spot: Spot and on-demand are counted apart.
    """
    # AWS has 100 or 25 at once; a fifth is left, because calls take their time to get there.
    rates = (80, 20) if region in _LARGE_REGIONS else (20, 5)
    with _lock:
        return _buckets.setdefault(
            (place, f"launches {'spot' if spot else 'on-demand'}"), TokenBucket(*rates)
        )
