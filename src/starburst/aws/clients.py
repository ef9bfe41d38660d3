"""boto3 clients of one profile and region: timeouts, retries, pace, pagination and errors in one place."""

from __future__ import annotations

import asyncio
import functools
import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from starburst._version import __version__
from starburst.aws.errors import mapped
from starburst.aws.rates import TokenBucket, bucket_of, launch_bucket
from starburst.clock import Clock, SystemClock
from starburst.errors import CloudError

__all__ = ["Aws", "Identity"]

_THREADS = 16
_TRIES = 8


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose credentials are used.

    Attributes:
        account: The account's twelve digits.
        arn: The user's or role's name.
    """

    account: str
    arn: str

    @property
    def partition(self) -> str:
        """``aws``, or another one for China and the US government."""
        return self.arn.split(":")[1]

    @property
    def name(self) -> str:
        """The last part of the name: the user, or the session of a role."""
        return self.arn.rsplit("/", 1)[-1].rsplit(":", 1)[-1]

    @property
    def owner(self) -> str:
        """The same as the value of a tag may be."""
        return re.sub(r"[^\w .:/=+@-]", "-", self.name, flags=re.ASCII)[:200] or self.account


class Aws:
    """Calls AWS with one set of credentials in one region; safe to use from several threads and event loops.

    Args:
        region: None for the environment's or the profile's.
        profile: None for the environment's (``AWS_PROFILE``).
        clock: What the pace is kept by.
    """

    def __init__(
        self, region: str | None = None, profile: str | None = None, *, clock: Clock | None = None
    ) -> None:
        self.profile = profile
        self._wanted_region = region
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._clients: dict[tuple[str, str], Any] = {}
        self._session: Any = None
        self._identity: Identity | None = None
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="starburst-aws")

    @property
    def region(self) -> str:
        """The region.

        Raises:
            CredentialsError: None is set anywhere.
        """
        from botocore.exceptions import NoRegionError  # type: ignore[import-untyped]

        # botocore knows AWS_DEFAULT_REGION only; all other tools know both.
        region = self._wanted_region or os.environ.get("AWS_REGION") or self._boto_session().region_name
        with mapped("sts", "region"):
            if not region:
                raise NoRegionError
        return str(region)

    async def call(
        self, service: str, operation: str, /, *, region: str | None = None, **parameters: Any
    ) -> Any:
        """Call one operation, such as ``call("ecs", "run_task", cluster=…)``; waits for its turn.

        Args:
            service: A name of boto3.
            operation: A method of its client.
            region: Another region than ours, for services that are in one only.
            **parameters: As boto3 takes them.

        Returns:
            The answer, as boto3 gives it.

        Raises:
            CloudError: It failed; the child says in which way.
        """
        place = region or self.region
        for bucket in bucket_of(f"{self.profile} {place}", service, operation):
            await self._take(bucket)
        return await self._in_thread(self._call_now, service, operation, place, parameters)

    async def pages(
        self, service: str, operation: str, key: str, /, *, region: str | None = None, **parameters: Any
    ) -> list[Any]:
        """All items of a listing, whatever the number of its pages; ``key`` names them in the answer.

        Raises:
            CloudError: As :meth:`call`.
        """
        place = region or self.region
        client = await self._in_thread(self._client, service, place)
        with mapped(service, operation):
            paginated = client.can_paginate(operation)
        if not paginated:
            return list((await self.call(service, operation, region=region, **parameters)).get(key, ()))
        config = client.get_paginator(operation)._pagination_cfg  # noqa: SLF001 - the names of its tokens
        token_in, token_out = config["input_token"], config["output_token"]
        items: list[Any] = []
        marker: dict[str, Any] = {}
        while True:
            answer = await self.call(service, operation, region=region, **parameters, **marker)
            items += answer.get(key, ())
            names_in = token_in if isinstance(token_in, list) else [token_in]
            names_out = token_out if isinstance(token_out, list) else [token_out]
            marker = {
                name: answer[out]
                for name, out in zip(names_in, names_out, strict=True)
                if isinstance(out, str) and answer.get(out)
            }
            if not marker:
                return items

    async def identity(self) -> Identity:
        """Whose credentials these are; asked once.

        Raises:
            CredentialsError: There are none, or they are not good.
        """
        if self._identity is None:
            answer = await self.call("sts", "get_caller_identity")
            self._identity = Identity(answer["Account"], answer["Arn"])
        return self._identity

    def close(self) -> None:
        """Close connections; calls that run end first."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def pace_launches(self, tasks: int, *, spot: bool) -> None:
        """Wait until Fargate starts so many more tasks: a limit of its own beside that of calls."""
        place = f"{self.profile} {self.region}"
        await self._take(launch_bucket(place, self.region, spot=spot), tasks)

    async def _take(self, bucket: TokenBucket, tokens: float = 1) -> None:
        wait_s = bucket.reserve(self._clock.monotonic(), tokens)
        if wait_s > 0:
            await self._clock.sleep(wait_s)

    async def _in_thread(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(
            self._pool, functools.partial(function, *arguments)
        )

    def _call_now(self, service: str, operation: str, region: str, parameters: dict[str, Any]) -> Any:
        with mapped(service, operation):
            return getattr(self._client(service, region), operation)(**parameters)

    def _client(self, service: str, region: str) -> Any:
        with self._lock, mapped(service, "client"):
            found = self._clients.get((service, region))
            if found is None:
                from botocore.config import Config  # type: ignore[import-untyped]

                config = Config(
                    connect_timeout=5,
                    read_timeout=20,  # answers take a second or two; a tick that hangs launches nobody
                    retries={"mode": "adaptive", "total_max_attempts": _TRIES},
                    max_pool_connections=_THREADS,
                    user_agent_extra=f"starburst/{__version__}",
                )
                found = self._boto_session().client(service, region_name=region, config=config)
                self._clients[service, region] = found
            return found

    def _boto_session(self) -> Any:
        if self._session is None:
            try:
                import boto3  # type: ignore[import-untyped]  # slow, and an extra
                from botocore.session import get_session  # type: ignore[import-untyped]
            except ImportError as error:
                raise CloudError(
                    "AWS needs boto3, which is not installed", hint="pip install 'starburst-cloud[aws]'"
                ) from error
            with mapped("sts", "session"):
                core = get_session()
                core.register_component("data_loader", _descriptions())
                self._session = boto3.Session(profile_name=self.profile, botocore_session=core)
        return self._session


@functools.cache
def _descriptions() -> Any:
    """AWS's services as botocore describes them: large files, read once a process and not once a session."""
    from botocore.loaders import create_loader  # type: ignore[import-untyped]

    return create_loader()
