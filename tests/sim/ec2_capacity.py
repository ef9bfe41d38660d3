"""A cluster with EC2 capacity in a simulated account, made by plain API calls as a user's own code would."""

import base64
import itertools
import json

import pytest
from botocore.exceptions import ClientError

from helpers import eventually
from simulated import client_of

ARM_IMAGE = "resolve:ssm:/aws/service/ecs/optimized-ami/amazon-linux-2023/arm64/recommended/image_id"
X86_IMAGE = "resolve:ssm:/aws/service/ecs/optimized-ami/amazon-linux-2023/recommended/image_id"
GPU_IMAGE = "resolve:ssm:/aws/service/ecs/optimized-ami/amazon-linux-2023/gpu/recommended/image_id"
SLEEP = ["python3", "-c", "import time; time.sleep(1000)"]


_serial = itertools.count(1)


class Capacity:
    """One cluster with one group and its capacity provider, all of the same name."""

    def __init__(self, aws, region="us-east-1"):
        self.aws, self.name, self.region = aws, f"capacity-{next(_serial)}", region
        self.ec2, self.asg, self.ecs, self.scheduler = (
            self.client(each) for each in ("ec2", "autoscaling", "ecs", "scheduler")
        )

    def client(self, service):
        return client_of(self.aws.environment, service, region=self.region)

    def make(
        self,
        types=("c7g.xlarge",),
        *,
        spot=None,
        image=ARM_IMAGE,
        sizes=(0, 0, 10),
        managed=True,
        protect=True,
        draining="ENABLED",
        base=0,
        extra="",
    ):
        """``spot`` is the percentage on Spot, None for no mixed policy at all; ``sizes``: min, desired, max."""
        name = self.name
        self.ecs.create_cluster(clusterName=name)
        script = f"#!/bin/bash\necho ECS_CLUSTER={name} >> /etc/ecs/ecs.config\n{extra}\n"
        self.ec2.create_launch_template(
            LaunchTemplateName=name,
            LaunchTemplateData={
                "ImageId": image,
                "InstanceType": types[0],
                "UserData": base64.b64encode(script.encode()).decode(),
                "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 2},
            },
        )
        template = {"LaunchTemplateName": name, "Version": "$Latest"}
        if spot is None:
            how = {"LaunchTemplate": template}
        else:
            overrides = [{"InstanceType": each} for each in types]
            distribution = {
                "OnDemandBaseCapacity": base,
                "OnDemandPercentageAboveBaseCapacity": 100 - spot,
                "SpotAllocationStrategy": "capacity-optimized-prioritized",
            }
            how = {
                "MixedInstancesPolicy": {
                    "LaunchTemplate": {"LaunchTemplateSpecification": template, "Overrides": overrides},
                    "InstancesDistribution": distribution,
                }
            }
        subnets = sorted(self.ec2.describe_subnets()["Subnets"], key=lambda each: each["AvailabilityZone"])
        self.asg.create_auto_scaling_group(
            AutoScalingGroupName=name,
            MinSize=sizes[0],
            DesiredCapacity=sizes[1],
            MaxSize=sizes[2],
            VPCZoneIdentifier=",".join(each["SubnetId"] for each in subnets[:2]),
            NewInstancesProtectedFromScaleIn=protect,
            **how,
        )
        self.ecs.create_capacity_provider(
            name=name,
            autoScalingGroupProvider={
                "autoScalingGroupArn": self.group()["AutoScalingGroupARN"],
                "managedScaling": {"status": "ENABLED" if managed else "DISABLED"},
                "managedTerminationProtection": "ENABLED" if protect and managed else "DISABLED",
                "managedDraining": draining,
            },
        )
        self.ecs.put_cluster_capacity_providers(
            cluster=name, capacityProviders=[name], defaultCapacityProviderStrategy=[]
        )
        return self

    def define(
        self, *, cpu=1024, memory=1500, architecture="ARM64", gpus=0, command=SLEEP, logs=None, **more
    ):
        container = {"name": "worker", "image": "x", "cpu": cpu, "memory": memory, "command": command}
        if logs:
            container["logConfiguration"] = {"logDriver": "awslogs", "options": logs}
        if gpus:
            container["resourceRequirements"] = [{"type": "GPU", "value": str(gpus)}]
        if architecture:
            more["runtimePlatform"] = {"cpuArchitecture": architecture, "operatingSystemFamily": "LINUX"}
        self.ecs.register_task_definition(
            family=self.name,
            networkMode=more.pop("network", "bridge"),
            requiresCompatibilities=["EC2"],
            containerDefinitions=[container],
            **more,
        )
        return self

    def run(self, count=1, *, provider=True, **more):
        if provider:
            more["capacityProviderStrategy"] = [{"capacityProvider": self.name, "weight": 1}]
        else:
            more["launchType"] = "EC2"
        return self.ecs.run_task(cluster=self.name, taskDefinition=self.name, count=count, **more)

    def group(self):
        found = self.asg.describe_auto_scaling_groups(AutoScalingGroupNames=[self.name])
        return found["AutoScalingGroups"][0]

    def activities(self, status=None):
        found = self.asg.describe_scaling_activities(AutoScalingGroupName=self.name)["Activities"]
        return [each for each in found if status in (None, each["StatusCode"])]

    def tasks(self, **filters):
        return self.aws.tasks(cluster=self.name, **filters)

    def hosts(self, state=None):
        """Those of this group that have not ended, or those in ``state``."""
        mine = {each["InstanceId"] for each in self.instances()}
        found = [each for each in self.aws.hosts() if each.instance_id in mine]
        if state is None:
            return [each for each in found if each.state != "terminated"]
        return [each for each in found if each.state == state]

    def instances(self):
        filters = [{"Name": "tag:aws:autoscaling:groupName", "Values": [self.name]}]
        pages = self.ec2.describe_instances(Filters=filters)["Reservations"]
        return [instance for page in pages for instance in page["Instances"]]

    def running(self, count):
        eventually(lambda: len(self.tasks(last_status="RUNNING")) == count, what=f"{count} tasks that run")
        return self.tasks(last_status="RUNNING")

    def joined(self, count):
        eventually(lambda: len(self.hosts("running")) == count, what=f"{count} hosts in the cluster")
        return self.hosts("running")

    def stop_all(self):
        for task in self.tasks(desired_status="RUNNING"):
            self.ecs.stop_task(cluster=self.name, task=task.task_arn)
        eventually(lambda: all(each.last_status == "STOPPED" for each in self.tasks()))

    def clean(self):
        """End everything, so that the account's next test has its vCPUs and no processes are left."""
        self.aws.clear()
        groups = self.asg.describe_auto_scaling_groups(AutoScalingGroupNames=[self.name])["AutoScalingGroups"]
        if groups:
            self.asg.delete_auto_scaling_group(AutoScalingGroupName=self.name, ForceDelete=True)
        for task in self.tasks():
            if task.last_status != "STOPPED":
                self.aws.kill(task.task_id)
        eventually(lambda: all(each.last_status == "STOPPED" for each in self.tasks()))

    def role(self, *actions):
        """A role for the scheduler that may do this and nothing else; returns its ARN."""
        iam = self.client("iam")
        trust = {
            "Effect": "Allow",
            "Principal": {"Service": "scheduler.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
        made = iam.create_role(RoleName=self.name, AssumeRolePolicyDocument=document(trust))
        if actions:
            allow = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
            iam.put_role_policy(RoleName=self.name, PolicyName="may", PolicyDocument=document(allow))
        return made["Role"]["Arn"]

    def schedule(self, name, at, action, given, *, role="arn:aws:iam::123456789012:role/none", **more):
        """A one-time schedule of EventBridge Scheduler."""
        self.scheduler.create_schedule(
            Name=name,
            ScheduleExpression=f"at({at})",
            FlexibleTimeWindow={"Mode": "OFF"},
            Target={
                "Arn": f"arn:aws:scheduler:::aws-sdk:{action}",
                "RoleArn": role,
                "Input": json.dumps(given),
            },
            **{"ActionAfterCompletion": "DELETE", **more},
        )


def document(statement):
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def refused(call, **given):
    """Code and message of the refusal of a call."""
    with pytest.raises(ClientError) as error:
        call(**given)
    return error.value.response["Error"]["Code"], error.value.response["Error"]["Message"]


@pytest.fixture
def capacity(aws):
    """Not made yet: the test says what it shall be."""
    made = Capacity(aws)
    yield made
    made.clean()
