"""Launch templates of EC2 hosts: image, profile, disk, network, and how a host finds its cluster."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from starburst.aws.clients import Aws
from starburst.aws.instance_types import Architecture
from starburst.aws.names import MANAGED_TAG, OURS_FILTER
from starburst.aws.ours import check_ours
from starburst.errors import CloudError, OptionError

__all__ = [
    "TemplateSpec",
    "ensure_launch_template",
    "latest_image",
    "list_launch_templates",
    "remove_launch_template",
]

_IMAGES = "/aws/service/ecs/optimized-ami/amazon-linux-2023/"
_ROOT_GIB = 50
_GPU_ROOT_GIB = 100  # images with CUDA are large


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateSpec:
    """What hosts are started from.

    Attributes:
        image_id: The machine image.
        cluster: The ECS cluster that they join.
        security_groups: Of their network interface, which containers share.
        instance_profile_arn: What the ECS agent may do.
        public_address: Whether they get one; without, the subnet needs another way to AWS.
        gpu: Whether containers may use GPUs.
    """

    image_id: str
    cluster: str
    security_groups: tuple[str, ...]
    instance_profile_arn: str
    public_address: bool
    gpu: bool

    @property
    def user_data(self) -> str:
        """The script of the first start."""
        settings = [f"ECS_CLUSTER={self.cluster}"]
        if self.gpu:
            settings.append("ECS_ENABLE_GPU_SUPPORT=true")
        return "\n".join(["#!/bin/bash", "cat >> /etc/ecs/ecs.config <<'END'", *settings, "END", ""])

    @property
    def data(self) -> dict[str, Any]:
        """As EC2 takes it."""
        tags = [{"Key": MANAGED_TAG, "Value": "true"}, {"Key": "Name", "Value": "starburst worker host"}]
        return {
            "ImageId": self.image_id,
            "IamInstanceProfile": {"Arn": self.instance_profile_arn},
            "NetworkInterfaces": [
                {
                    "DeviceIndex": 0,
                    "AssociatePublicIpAddress": self.public_address,
                    "DeleteOnTermination": True,
                    "Groups": list(self.security_groups),
                }
            ],
            "BlockDeviceMappings": [
                {
                    "DeviceName": "/dev/xvda",
                    "Ebs": {
                        "VolumeSize": _GPU_ROOT_GIB if self.gpu else _ROOT_GIB,
                        "VolumeType": "gp3",
                        "Encrypted": True,
                        "DeleteOnTermination": True,
                    },
                }
            ],
            # Two hops: workers in bridge mode must reach the notice of a Spot interruption.
            "MetadataOptions": {
                "HttpEndpoint": "enabled",
                "HttpTokens": "required",
                "HttpPutResponseHopLimit": 2,
            },
            "TagSpecifications": [
                {"ResourceType": "instance", "Tags": tags},
                {"ResourceType": "volume", "Tags": tags},
            ],
            "UserData": base64.b64encode(self.user_data.encode()).decode(),
        }

    @property
    def description(self) -> str:
        """Names the version by what is in it, so that a change is seen without comparing AWS's own form."""
        digest = hashlib.sha256(json.dumps(self.data, sort_keys=True).encode()).hexdigest()
        return f"starburst {digest[:16]}"


async def latest_image(aws: Aws, architecture: Architecture, *, gpu: bool) -> str:
    """The image of Amazon Linux 2023 for ECS that AWS recommends today.

    Raises:
        OptionError: AWS makes none for GPUs of this architecture.
        CloudError: AWS did not answer.
    """
    if gpu and architecture == "ARM64":
        raise OptionError(
            "AWS has no ECS machine image for GPUs on ARM64",
            hint='use a GPU type of X86_64, such as instance_type="g5.xlarge"',
        )
    kind = "gpu/" if gpu else "arm64/" if architecture == "ARM64" else ""
    answer = await aws.call("ssm", "get_parameter", Name=f"{_IMAGES}{kind}recommended/image_id")
    return str(answer["Parameter"]["Value"])


async def ensure_launch_template(aws: Aws, name: str, spec: TemplateSpec) -> bool:
    """Make it, or add a version if its latest one differs; returns whether anything was changed.

    Raises:
        NotSetUp: There is one of that name that is not ours.
        CloudError: AWS did not do it.
    """
    content: dict[str, Any] = {"LaunchTemplateData": spec.data, "VersionDescription": spec.description}
    tags = [{"Key": MANAGED_TAG, "Value": "true"}]
    if not await _describe(aws, name):
        try:
            await aws.call(
                "ec2",
                "create_launch_template",
                LaunchTemplateName=name,
                TagSpecifications=[{"ResourceType": "launch-template", "Tags": tags}],
                **content,
            )
        except CloudError as error:
            if error.code != "InvalidLaunchTemplateName.AlreadyExistsException":
                raise  # else somebody was quicker; perhaps another session
        else:
            return True
        await _describe(aws, name)
    versions = await aws.call(
        "ec2", "describe_launch_template_versions", LaunchTemplateName=name, Versions=["$Latest"]
    )
    if versions["LaunchTemplateVersions"][0].get("VersionDescription") == spec.description:
        return False
    await aws.call("ec2", "create_launch_template_version", LaunchTemplateName=name, **content)
    return True


async def list_launch_templates(aws: Aws) -> list[str]:
    """The names of all that are ours.

    Raises:
        CloudError: AWS did not answer.
    """
    found = await aws.pages("ec2", "describe_launch_templates", "LaunchTemplates", Filters=[OURS_FILTER])
    return [template["LaunchTemplateName"] for template in found]


async def remove_launch_template(aws: Aws, name: str) -> bool:
    """Remove it with all its versions; returns whether it was there.

    Raises:
        NotSetUp: It is not ours.
        CloudError: AWS did not do it.
    """
    if not await _describe(aws, name):
        return False
    await aws.call("ec2", "delete_launch_template", LaunchTemplateName=name)
    return True


async def _describe(aws: Aws, name: str) -> bool:
    """Whether it is there.

    Raises:
        NotSetUp: It is, and not ours.
    """
    filters = [{"Name": "launch-template-name", "Values": [name]}]
    found = await aws.pages("ec2", "describe_launch_templates", "LaunchTemplates", Filters=filters)
    for template in found:
        check_ours("a launch template", name, template.get("Tags", ()), aws.region)
    return bool(found)
