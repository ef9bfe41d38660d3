"""The image repository: scanned on push; no rule of it removes an image that a session may still run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from starburst.aws.clients import Aws
from starburst.aws.names import REPOSITORY
from starburst.aws.policies import repository_arn
from starburst.aws.resource import MISSING, Scope, State, ask, is_ours, make_sure_ours, same_json

__all__ = ["KEPT_IMAGES", "Repository"]

KEPT_IMAGES = 5_000
"""A rule of ECR cannot know what a session runs, so none goes by age or by tag: `starburst env prune` does, which looks
at the sessions first. This one only keeps a repository that nobody ever prunes below ECR's quota of images."""
_RULES = {
    "rules": [
        {
            "rulePriority": 1,
            "description": f"all but the newest {KEPT_IMAGES}",
            "selection": {
                "tagStatus": "any",
                "countType": "imageCountMoreThan",
                "countNumber": KEPT_IMAGES,
            },
            "action": {"type": "expire"},
        },
    ]
}
_GONE = ("RepositoryNotFoundException",)
_NO_RULES = "no rules for old images"
_NO_SCAN = "images are not scanned on push"


@dataclass(frozen=True, slots=True)
class Repository:
    """Our repository.

    Attributes:
        aws: Whose account.
        scope: Its region.
    """

    aws: Aws
    scope: Scope
    kind = "image repository"

    @property
    def name(self) -> str:
        """The repository's name."""
        return REPOSITORY

    @property
    def uri(self) -> str:
        """What images are pushed to and pulled from."""
        domain = "amazonaws.com.cn" if self.scope.partition == "aws-cn" else "amazonaws.com"
        return f"{self.scope.account}.dkr.ecr.{self.scope.region}.{domain}/{REPOSITORY}"

    @property
    def way_out(self) -> str:
        """Its name is fixed."""
        return (
            "rename it, or hand it over (`starburst teardown` then removes it): aws ecr tag-resource "
            f"--resource-arn {repository_arn(self.scope)} --tags Key=starburst:managed,Value=true"
        )

    async def state(self) -> State:
        """As :meth:`starburst.aws.resource.Resource.state`."""
        answer = await ask(self.aws, _GONE, "ecr", "describe_repositories", repositoryNames=[REPOSITORY])
        if answer is None:
            return MISSING
        found = answer["repositories"][0]
        arn = found["repositoryArn"]
        tags = await self.aws.call("ecr", "list_tags_for_resource", resourceArn=arn)
        if not is_ours(tags["tags"]):
            return State("foreign")
        differences = []
        if not found.get("imageScanningConfiguration", {}).get("scanOnPush"):
            differences.append(_NO_SCAN)
        if not await self._has_rules():
            differences.append(_NO_RULES)
        return State.of(differences)

    async def ensure(self) -> None:
        """As :meth:`starburst.aws.resource.Resource.ensure`."""
        state = await self.state()
        make_sure_ours(self, state)
        missing = state.condition == "missing"
        if missing:
            await self._call(
                "create_repository",
                tags=self.scope.tag_list(),
                imageScanningConfiguration={"scanOnPush": True},
                encryptionConfiguration={"encryptionType": "AES256"},
            )
        if _NO_SCAN in state.details:
            await self._call(
                "put_image_scanning_configuration", imageScanningConfiguration={"scanOnPush": True}
            )
        if missing or _NO_RULES in state.details:
            await self._call("put_lifecycle_policy", lifecyclePolicyText=json.dumps(_RULES))

    async def remove(self) -> bool:
        """As :meth:`starburst.aws.resource.Removable.remove`; with all images."""
        if not (await self.state()).is_ours:
            return False
        await self._call("delete_repository", force=True)
        return True

    async def _has_rules(self) -> bool:
        answer = await ask(
            self.aws,
            ("LifecyclePolicyNotFoundException",),
            "ecr",
            "get_lifecycle_policy",
            repositoryName=REPOSITORY,
        )
        return answer is not None and same_json(answer["lifecyclePolicyText"], _RULES)

    async def _call(self, operation: str, **parameters: Any) -> Any:
        return await self.aws.call("ecr", operation, repositoryName=REPOSITORY, **parameters)
