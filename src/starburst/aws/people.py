"""The permissions that people need: one document for whoever sets up, one for whoever runs jobs, two for builds.

``starburst setup --print-policies`` prints them, for the administrator who attaches them to users or roles. A
customer managed policy may have 6,144 characters; all stay below that.
"""

from __future__ import annotations

from typing import Any

from starburst.aws.names import (
    BUILD_ROLE,
    BUILDS_PREFIX,
    CLUSTER,
    EXECUTION_ROLE,
    INSTANCE_ROLE,
    MANAGED_TAG,
    SUPERVISOR_ROLE,
    TASK_ROLE,
)
from starburst.aws.policies import (
    PREFIX,
    PUSH,
    allow,
    bucket_arn,
    build_project_arn,
    document,
    families,
    log_group_arn,
    objects_statements,
    pass_roles,
    read_logs,
    repository_arn,
    scaling_group_arn,
    tasks_statements,
)
from starburst.aws.resource import Scope

__all__ = ["job_builds_policy", "job_policy", "setup_builds_policy", "setup_policy"]

Document = dict[str, Any]

_TASK_ROLES = [EXECUTION_ROLE, TASK_ROLE, SUPERVISOR_ROLE]
_LAUNCH = ["ec2:CreateLaunchTemplate*", "ec2:CreateTags", "ec2:RunInstances"]
_NETWORK = [
    "ec2:AssociateRouteTable",
    "ec2:AttachInternetGateway",
    "ec2:AuthorizeSecurityGroupEgress",
    "ec2:CreateInternetGateway",
    "ec2:CreateRoute",
    "ec2:CreateRouteTable",
    "ec2:CreateSecurityGroup",
    "ec2:CreateSubnet",
    "ec2:CreateVpc",
    "ec2:CreateVpcEndpoint",
    "ec2:DeleteLaunchTemplate",
    "ec2:DisassociateRouteTable",
    "ec2:ModifySubnetAttribute",
    "ec2:ModifyVpcAttribute",
    "ec2:RevokeSecurityGroupIngress",
]
_LINKED = ["ecs.amazonaws.com", "autoscaling.amazonaws.com", "spot.amazonaws.com"]


def setup_policy(scope: Scope) -> Document:
    """For whoever runs ``starburst setup``, ``teardown`` and ``sweep``."""
    bucket = bucket_arn(scope)
    names = f"arn:{scope.partition}:iam::{scope.account}:"
    return document(
        allow(
            [
                "s3:CreateBucket",
                "s3:DeleteBucket",
                "s3:Get*",
                "s3:ListBucket*",
                "s3:PutBucket*",
                "s3:PutEncryptionConfiguration",
                "s3:PutLifecycleConfiguration",
                "s3:TagResource",
            ],
            bucket,
        ),
        allow(
            ["s3:GetObject", "s3:DeleteObject", "s3:DeleteObjectVersion", "s3:AbortMultipartUpload"],
            f"{bucket}/*",
        ),
        allow("s3:PutObject", f"{bucket}/{PREFIX}*"),  # sweep closes sessions that nobody looks after
        allow(
            [
                "iam:*InstanceProfile",
                "iam:CreateRole",
                "iam:DeleteRole*",
                "iam:DetachRolePolicy",
                "iam:GetRole*",
                "iam:ListAttachedRolePolicies",
                "iam:ListRolePolicies",
                "iam:PutRole*",
                "iam:TagRole",
                "iam:UpdateAssumeRolePolicy",
            ],
            [f"{names}role/starburst*", f"{names}instance-profile/starburst*"],
        ),
        allow("iam:ListRoles", "*"),
        allow(
            "iam:CreateServiceLinkedRole",
            f"{names}role/aws-service-role/*",
            StringEquals={"iam:AWSServiceName": _LINKED},
        ),
        pass_roles(scope, _TASK_ROLES, "ecs-tasks"),
        pass_roles(scope, [INSTANCE_ROLE], "ec2"),
        allow("ecr:*", repository_arn(scope)),
        allow("logs:*", [log_group_arn(scope), f"{log_group_arn(scope)}:*"]),
        allow("logs:DescribeLogGroups", "*"),
        *_capacity_statements(scope),
        allow(
            ["ecs:CreateCluster", "ecs:DeleteCluster"],
            scope.arn("ecs", f"cluster/{CLUSTER}"),
        ),
        allow("ecs:TagResource", "*", StringEquals={"ecs:CreateAction": ["CreateCluster"]}),
        allow("ecs:DeleteTaskDefinitions", families(scope)),
        *tasks_statements(scope)[1:],
        # AWS checks these on no resource.
        allow(
            [
                "ecr:GetAuthorizationToken",
                "ecs:DeregisterTaskDefinition",
                "ecs:DescribeTaskDefinition",
                "ecs:ListServices",
                "ecs:ListTaskDefinition*",
            ],
            "*",
        ),
        allow([*_NETWORK, *_LAUNCH], "*", StringEquals={"aws:RequestedRegion": scope.region}),
        allow(
            ["ec2:Delete*", "ec2:DetachInternetGateway"],
            "*",
            StringEquals={f"aws:ResourceTag/{MANAGED_TAG}": "true"},
        ),
    )


def job_policy(scope: Scope) -> Document:
    """For whoever runs jobs: ``map``, ``Executor``, sessions, logs; EC2 capacity of other types on first use."""
    definitions = families(scope)
    return document(
        *objects_statements(scope),
        *tasks_statements(scope),
        allow("ecs:RegisterTaskDefinition", definitions),
        allow("ecs:TagResource", definitions, StringEquals={"ecs:CreateAction": ["RegisterTaskDefinition"]}),
        allow(["ecr:GetAuthorizationToken", "ecs:DescribeTaskDefinition", "logs:DescribeLogGroups"], "*"),
        pass_roles(scope, _TASK_ROLES, "ecs-tasks"),
        pass_roles(scope, [INSTANCE_ROLE], "ec2"),
        allow(list(PUSH), repository_arn(scope)),
        allow("ecr:GetAuthorizationToken", "*"),
        read_logs(scope),
        *_capacity_statements(scope),
        # Whoever makes an Auto Scaling group from a launch template must be allowed what the template does.
        allow(_LAUNCH, "*", StringEquals={"aws:RequestedRegion": scope.region}),
    )


def setup_builds_policy(scope: Scope) -> Document:
    """For whoever runs ``starburst setup --remote-build``, beside the other one."""
    actions = ["codebuild:BatchGetProjects", "codebuild:*Project"]
    return document(allow(actions, build_project_arn(scope)), pass_roles(scope, [BUILD_ROLE], "codebuild"))


def job_builds_policy(scope: Scope) -> Document:
    """For whoever has AWS build images, beside the other one; what is to be built goes through the bucket."""
    actions = ["codebuild:BatchGetBuilds", "codebuild:StartBuild", "codebuild:StopBuild"]
    return document(
        allow(actions, build_project_arn(scope)),
        allow(["s3:PutObject", "s3:DeleteObject"], f"{bucket_arn(scope)}/{BUILDS_PREFIX}*"),
    )


def _capacity_statements(scope: Scope) -> list[Document]:
    """EC2 capacity: launch template, Auto Scaling group, capacity provider, all named ``starburst-…``."""
    provider = scope.arn("ecs", "capacity-provider/starburst-*")
    return [
        allow(["ecs:*CapacityProvider", "ecs:DescribeCapacityProviders"], provider),
        allow(
            ["ecs:PutClusterCapacityProviders", "ecs:DescribeClusters"],
            scope.arn("ecs", f"cluster/{CLUSTER}"),
        ),
        allow("ecs:TagResource", provider, StringEquals={"ecs:CreateAction": ["CreateCapacityProvider"]}),
        allow(
            [
                "autoscaling:CreateAutoScalingGroup",
                "autoscaling:CreateOrUpdateTags",
                "autoscaling:Delete*",
                "autoscaling:PutScheduledUpdateGroupAction",
                "autoscaling:SetInstanceProtection",
                "autoscaling:UpdateAutoScalingGroup",
            ],
            scaling_group_arn(scope),
        ),
        allow(["autoscaling:Describe*", "ec2:Describe*"], "*"),
        allow(
            "ssm:GetParameter*",
            f"arn:{scope.partition}:ssm:{scope.region}::parameter/aws/service/ecs/optimized-ami/*",
        ),
    ]
