"""ECR in the simulator: logins are good for the registry that stands for it, at that registry's own address."""

from __future__ import annotations

from typing import Any

from starburst.testing.aws.hooks import replace
from starburst.testing.aws.world import World

__all__ = ["install"]


def install(world: World) -> None:
    """Where a registry is given, say its address where ECR says its own."""
    registry = world.options.registry
    if not registry:
        return
    from moto.ecr.responses import ECRResponse

    token = ECRResponse.get_authorization_token

    def get_authorization_token(self: ECRResponse) -> Any:
        answer = token(self)
        result: Any = answer.result
        for each in result["authorizationData"]:
            each["proxyEndpoint"] = f"http://{registry}"
        return answer

    replace(ECRResponse, get_authorization_token=get_authorization_token)
