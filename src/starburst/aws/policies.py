"""Permission documents, made of names only: what our roles may do, and what the people who use them need.

Every document is the least that works. In all of them: ``PassRole`` names its roles and the service they are for,
and nothing about IAM or other people's resources is left open. Facts: Amazon's Service Authorization Reference.
"""

from __future__ import annotations

from typing import Any

from starburst.aws.names import (
    BUILD_PROJECT,
    BUILD_STREAM,
    BUILDS_PREFIX,
    CLUSTER,
    EXECUTION_ROLE,
    LOG_GROUP,
    MANAGED_TAG,
    REPOSITORY,
    SUPERVISOR_FAMILY,
    TASK_ROLE,
    WORKER_FAMILY,
)
from starburst.aws.resource import Scope

__all__ = [
    "PREFIX",
    "PUSH",
    "allow",
    "bucket_arn",
    "bucket_statement",
    "build_policy",
    "build_project_arn",
    "build_sources_policy",
    "document",
    "execution_policy",
    "families",
    "instance_policy",
    "log_group_arn",
    "objects_statements",
    "pass_roles",
    "read_logs",
    "repository_arn",
    "scaling_group_arn",
    "supervisor_policy",
    "task_policy",
    "tasks_statements",
    "trust_policy",
]

Document = dict[str, Any]

PREFIX = "sessions/"
"""All that workers and supervisors see of the bucket."""

PUSH = (
    "ecr:BatchCheckLayerAvailability",
    "ecr:BatchGetImage",
    "ecr:CompleteLayerUpload",
    "ecr:DescribeImages",
    "ecr:GetDownloadUrlForLayer",
    "ecr:InitiateLayerUpload",
    "ecr:PutImage",
    "ecr:UploadLayerPart",
)
"""What it takes to put an image into a repository, and to build upon those in it."""


def document(*statements: Document) -> Document:
    """Statements as a policy."""
    return {"Version": "2012-10-17", "Statement": list(statements)}


def allow(actions: str | list[str], resources: str | list[str], **conditions: Any) -> Document:
    """One statement that permits something; conditions by operator."""
    statement: Document = {"Effect": "Allow", "Action": actions, "Resource": resources}
    return statement | ({"Condition": conditions} if conditions else {})


def trust_policy(service: str, scope: Scope) -> Document:
    """Who may take a role on: one service of AWS, and only on behalf of this account.

    Without the condition any customer of that service could have it use our role (the "confused deputy").

    Args:
        service: ``ecs-tasks``, ``codebuild`` or ``ec2``; EC2 sends no source, its instance profiles
            are bound to the account.
        scope: Where we are set up.
    """
    domain = "amazonaws.com.cn" if service == "ec2" and scope.partition == "aws-cn" else "amazonaws.com"
    statement: Document = {
        "Effect": "Allow",
        "Principal": {"Service": f"{service}.{domain}"},
        "Action": "sts:AssumeRole",
    }
    sources = {"ecs-tasks": "ecs:*:{}:*", "codebuild": f"codebuild:*:{{}}:project/{BUILD_PROJECT}"}
    if service in sources:
        source = sources[service].format(scope.account)
        statement["Condition"] = {
            "StringEquals": {"aws:SourceAccount": scope.account},
            "ArnLike": {"aws:SourceArn": f"arn:{scope.partition}:{source}"},
        }
    return document(statement)


def bucket_statement(scope: Scope) -> Document:
    """Of the bucket's own policy: nobody gets in without TLS."""
    bucket = bucket_arn(scope)
    return {
        "Sid": "StarburstTlsOnly",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [bucket, f"{bucket}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }


def execution_policy(scope: Scope) -> Document:
    """What ECS does for a task before it runs: pull our image, write into our log group."""
    return document(
        allow("ecr:GetAuthorizationToken", "*"),
        allow(
            ["ecr:BatchCheckLayerAvailability", "ecr:GetDownloadUrlForLayer", "ecr:BatchGetImage"],
            repository_arn(scope),
        ),
        allow(["logs:CreateLogStream", "logs:PutLogEvents"], f"{log_group_arn(scope)}:log-stream:*"),
    )


def task_policy(scope: Scope) -> Document:
    """What a worker may do: objects below ``sessions/`` of one bucket. Nothing else."""
    return document(*objects_statements(scope))


def supervisor_policy(scope: Scope) -> Document:
    """What a supervisor may do besides a worker's objects: start, look at and stop the workers of our cluster."""
    return document(
        *tasks_statements(scope),
        pass_roles(scope, [EXECUTION_ROLE, TASK_ROLE], "ecs-tasks"),
        read_logs(scope),
        allow(
            [
                "autoscaling:UpdateAutoScalingGroup",
                "autoscaling:PutScheduledUpdateGroupAction",
                "autoscaling:DeleteScheduledAction",
                "autoscaling:CreateOrUpdateTags",
                "autoscaling:DeleteTags",
            ],
            scaling_group_arn(scope),
            StringEquals={f"aws:ResourceTag/{MANAGED_TAG}": "true"},
        ),
        allow(
            [
                "autoscaling:DescribeAutoScalingGroups",
                "autoscaling:DescribeScalingActivities",
                "autoscaling:DescribeScheduledActions",
            ],
            "*",
        ),
    )


def instance_policy(scope: Scope) -> Document:
    """What the ECS agent of an EC2 host may do. No objects: containers can reach this role."""
    cluster = scope.arn("ecs", f"cluster/{CLUSTER}")
    instances = scope.arn("ecs", f"container-instance/{CLUSTER}/*")
    return document(
        allow("ecs:DiscoverPollEndpoint", "*"),
        allow(["ecs:RegisterContainerInstance", "ecs:DeregisterContainerInstance"], cluster),
        allow(["ecs:SubmitContainerStateChange", "ecs:SubmitTaskStateChange"], cluster),
        allow("ecs:SubmitAttachmentStateChanges", cluster),
        allow(
            ["ecs:Poll", "ecs:StartTelemetrySession", "ecs:UpdateContainerInstancesState"],
            instances,
            ArnEquals={"ecs:cluster": cluster},
        ),
        allow("ecs:TagResource", instances, StringEquals={"ecs:CreateAction": ["RegisterContainerInstance"]}),
        allow("ec2:DescribeTags", "*"),
        *execution_policy(scope)["Statement"],
    )


def build_policy(scope: Scope) -> Document:
    """What a remote build may do: put images into our repository, pull those in it, and tell how it goes."""
    return document(
        allow("ecr:GetAuthorizationToken", "*"),
        allow(list(PUSH), repository_arn(scope)),
        allow(
            ["logs:CreateLogStream", "logs:PutLogEvents"],
            f"{log_group_arn(scope)}:log-stream:{BUILD_STREAM}/*",
        ),
    )


def build_sources_policy(scope: Scope) -> Document:
    """What a remote build sees of a bucket: what is to be built."""
    return document(
        allow(["s3:GetObject", "s3:GetObjectVersion"], f"{bucket_arn(scope)}/{BUILDS_PREFIX}*"),
    )


def objects_statements(scope: Scope) -> list[Document]:
    """Read, write, list and delete objects of sessions."""
    bucket = bucket_arn(scope)
    return [
        allow(
            ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"],
            f"{bucket}/{PREFIX}*",
        ),
        allow("s3:ListBucket", bucket, StringLike={"s3:prefix": f"{PREFIX}*"}),
    ]


def families(scope: Scope) -> list[str]:
    """Our task definitions, all revisions."""
    return [scope.arn("ecs", f"task-definition/{family}*:*") for family in (WORKER_FAMILY, SUPERVISOR_FAMILY)]


def bucket_arn(scope: Scope) -> str:
    """The bucket; its address has neither region nor account."""
    return f"arn:{scope.partition}:s3:::{scope.bucket}"


def repository_arn(scope: Scope) -> str:
    """The image repository."""
    return scope.arn("ecr", f"repository/{REPOSITORY}")


def build_project_arn(scope: Scope) -> str:
    """The project of remote builds."""
    return scope.arn("codebuild", f"project/{BUILD_PROJECT}")


def log_group_arn(scope: Scope) -> str:
    """The log group."""
    return scope.arn("logs", f"log-group:{LOG_GROUP}")


def scaling_group_arn(scope: Scope) -> str:
    """The Auto Scaling groups of our capacity."""
    return scope.arn("autoscaling", "autoScalingGroup:*:autoScalingGroupName/starburst-*")


def tasks_statements(scope: Scope) -> list[Document]:
    """Start, list, look at and stop tasks of our cluster that run our task definitions."""
    in_cluster = {"ArnEquals": {"ecs:cluster": scope.arn("ecs", f"cluster/{CLUSTER}")}}
    tasks = scope.arn("ecs", f"task/{CLUSTER}/*")
    return [
        allow("ecs:RunTask", families(scope), **in_cluster),
        allow(["ecs:StopTask", "ecs:DescribeTasks"], tasks, **in_cluster),
        allow("ecs:TagResource", tasks, StringEquals={"ecs:CreateAction": ["RunTask"]}),
        # ListTasks is authorised on container instances, of which Fargate has none: hence "*".
        allow("ecs:ListTasks", "*", **in_cluster),
    ]


def pass_roles(scope: Scope, roles: list[str], service: str) -> Document:
    """Hand exactly these roles to one service; a wildcard here would be a way to more rights than one has."""
    domain = "amazonaws.com.cn" if service == "ec2" and scope.partition == "aws-cn" else "amazonaws.com"
    return allow(
        "iam:PassRole",
        [scope.role_arn(role) for role in roles],
        StringEquals={"iam:PassedToService": f"{service}.{domain}"},
    )


def read_logs(scope: Scope) -> Document:
    """Read our log group."""
    group = log_group_arn(scope)
    return allow(
        ["logs:GetLogEvents", "logs:DescribeLogStreams"],
        [group, f"{group}:*"],
    )
