"""An account of moto's server with what ``starburst setup`` makes for EC2, and clients that stop in the middle."""

import asyncio

import boto3
import botocore.session
import msgspec
from botocore.loaders import create_loader

from starburst.aws import clients
from starburst.aws.deployment import Deployment
from starburst.aws.names import CLUSTER
from starburst.clock import SystemClock
from starburst.compute.ec2_capacity import ensure_capacity
from starburst.errors import CloudError

REGION = "us-east-1"
LOADER = create_loader()
TAG = [{"Key": "starburst:managed", "Value": "true"}]


class Hurried(SystemClock):
    """Does not keep the pace that AWS wants: moto does not mind."""

    async def sleep(self, seconds):
        await asyncio.sleep(0)


def session():
    """A session of boto3; what it knows of the services is read once for all."""
    found = botocore.session.Session()
    found.register_component("data_loader", LOADER)
    return boto3.Session(botocore_session=found)


class Aws(clients.Aws):
    """A client of the account."""

    def __init__(self):
        super().__init__(REGION, clock=Hurried())
        self._session = session()


class StoppedError(Exception):
    """The client was killed here."""


class StoppingAws(Aws):
    """Is killed at the n-th change (from 0) that it makes: before AWS has it, or after."""

    def __init__(self, at, *, after):
        super().__init__()
        self.at, self.after = at, after
        self.changes = 0

    async def call(self, service, operation, /, **parameters):
        if operation.startswith(("describe", "get", "list")):
            return await super().call(service, operation, **parameters)
        stop = self.changes == self.at
        self.changes += 1
        if stop and not self.after:
            raise StoppedError(operation)
        answer = await super().call(service, operation, **parameters)
        if stop:
            raise StoppedError(operation)
        return answer


class CountingAws(Aws):
    """Keeps the names of the calls that it makes."""

    def __init__(self):
        super().__init__()
        self.calls = []

    async def call(self, service, operation, /, **parameters):
        self.calls.append(operation)
        return await super().call(service, operation, **parameters)


class RefusingAws(Aws):
    """Is refused the first calls of one operation with an error of AWS."""

    def __init__(self, operation, code, message="try later", *, times=1):
        super().__init__()
        self.refused, self.code, self.message, self.left = operation, code, message, times

    async def call(self, service, operation, /, **parameters):
        if operation == self.refused and self.left:
            self.left -= 1
            raise CloudError(self.message, code=self.code, operation=operation)
        return await super().call(service, operation, **parameters)


class Account:
    """The account as seen from outside."""

    def __init__(self):
        user = session()
        self.ec2 = user.client("ec2", region_name=REGION)
        self.ecs = user.client("ecs", region_name=REGION)
        self.autoscaling = user.client("autoscaling", region_name=REGION)
        self.ecs.create_cluster(clusterName=CLUSTER, capacityProviders=["FARGATE", "FARGATE_SPOT"])
        subnets = self.ec2.describe_subnets()["Subnets"]
        group = self.ec2.create_security_group(
            GroupName="starburst-worker", Description="workers", VpcId=subnets[0]["VpcId"]
        )
        self.deployment = Deployment(
            account="123456789012",
            region=REGION,
            bucket="starburst-123456789012-us-east-1",
            cluster=CLUSTER,
            repository="123456789012.dkr.ecr.us-east-1.amazonaws.com/starburst-worker",
            execution_role_arn="arn:aws:iam::123456789012:role/starburstECSExecutionRole",
            task_role_arn="arn:aws:iam::123456789012:role/starburstECSTaskRole",
            supervisor_role_arn="arn:aws:iam::123456789012:role/starburstSupervisorRole",
            instance_profile_arn="arn:aws:iam::123456789012:instance-profile/starburstECSInstanceProfile",
            log_group="/aws/ecs/starburst-worker",
            subnets=tuple(sorted(subnet["SubnetId"] for subnet in subnets)),
            security_groups=(group["GroupId"],),
        )

    def close(self):
        for client in (self.ec2, self.ecs, self.autoscaling):
            client.close()

    def template(self, name):
        """The data of the latest version, and how many versions there are."""
        versions = self.ec2.describe_launch_template_versions(LaunchTemplateName=name)[
            "LaunchTemplateVersions"
        ]
        latest = max(versions, key=lambda version: version["VersionNumber"])
        return latest["LaunchTemplateData"], len(versions)

    def group(self, name):
        found = self.autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])
        return found["AutoScalingGroups"][0] if found["AutoScalingGroups"] else None

    def provider(self, name):
        found = self.ecs.describe_capacity_providers(capacityProviders=[name], include=["TAGS"])
        return found["capacityProviders"][0] if found["capacityProviders"] else None

    def attached(self):
        return self.ecs.describe_clusters(clusters=[CLUSTER])["clusters"][0]["capacityProviders"]

    def actions(self, name):
        """The scheduled actions: name → (moment, what it sets)."""
        found = self.autoscaling.describe_scheduled_actions(AutoScalingGroupName=name)
        sizes = ("MinSize", "MaxSize", "DesiredCapacity")
        return {
            one["ScheduledActionName"]: (
                one["StartTime"].timestamp() if "StartTime" in one else None,
                {size: one[size] for size in sizes if size in one},
            )
            for one in found["ScheduledUpdateGroupActions"]
        }

    def holds(self, name):
        """The tags of the group besides those that it was made with."""
        made_with = ("starburst:managed", "AmazonECSManaged")
        return {tag["Key"]: tag["Value"] for tag in self.group(name)["Tags"] if tag["Key"] not in made_with}

    def names(self):
        """Everything of EC2 capacity that there is."""
        templates = self.ec2.describe_launch_templates()["LaunchTemplates"]
        groups = self.autoscaling.describe_auto_scaling_groups()["AutoScalingGroups"]
        return {
            "templates": {one["LaunchTemplateName"] for one in templates},
            "groups": {one["AutoScalingGroupName"] for one in groups},
            "attached": set(self.attached()),
        }


def run(coroutine):
    return asyncio.run(coroutine)


NAME = "starburst-c7g-xlarge-spot"
TYPES = ("c7g.xlarge",)


def ensure(aws, account, types=TYPES, *, spot=True, **more):
    return run(ensure_capacity(aws, account.deployment, types, spot=spot, **more))


def replaced(deployment, **changes):
    return msgspec.structs.replace(deployment, **changes)


def make_foreign(account, kind):
    tags = [{"Key": "starburst:managed", "Value": "no"}]
    if kind == "template":
        account.ec2.create_launch_template(
            LaunchTemplateName=NAME, LaunchTemplateData={"InstanceType": "t3.nano"}
        )
        return
    template = "mine"
    account.ec2.create_launch_template(
        LaunchTemplateName=template, LaunchTemplateData={"InstanceType": "t3.nano"}
    )
    name = NAME if kind == "group" else "mine"
    account.autoscaling.create_auto_scaling_group(
        AutoScalingGroupName=name,
        LaunchTemplate={"LaunchTemplateName": template},
        MinSize=0,
        MaxSize=1,
        VPCZoneIdentifier=account.deployment.subnets[0],
        Tags=tags,
    )
    if kind == "provider":
        arn = account.group("mine")["AutoScalingGroupARN"]
        account.ecs.create_capacity_provider(name=NAME, autoScalingGroupProvider={"autoScalingGroupArn": arn})
