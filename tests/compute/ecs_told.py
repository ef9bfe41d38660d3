"""An ECS that a test tells what to answer, for providers under a clock that jumps."""

import datetime as dt

from starburst.aws.clients import Aws
from starburst.errors import CloudUnavailable

ARN = "arn:aws:ecs:us-east-1:123456789012:task/starburst-cluster"
DEPLOYMENT = {
    "launch_type": "FARGATE",
    "region": "us-east-1",
    "account": "123456789012",
    "cluster": "starburst-cluster",
    "subnets": ["subnet-1"],
    "security_groups": [],
    "assign_public_ip": True,
    "execution_role_arn": "",
    "task_role_arn": "",
    "supervisor_role_arn": "",
    "log_group": "",
    "image": "",
    "cpu_units": 256,
    "memory_mib": 512,
    "architecture": "X86_64",
    "definition": "starburst-worker-1:1",
}


class Ecs(Aws):
    """Takes all tasks; what becomes of them the test says."""

    def __init__(self, clock):
        super().__init__("us-east-1")
        self.clock = clock
        self.tasks = {}
        self.tried = 0
        self.silent_s = None
        self.hosts = 0
        self.tags = {"starburst:managed": "true"}
        self.actions = set()
        self.min_size = 0

    def now(self):
        return dt.datetime.fromtimestamp(self.clock.time(), dt.UTC)

    async def call(self, service, operation, /, **asked):
        return await getattr(self, operation)(**asked)

    async def pages(self, service, operation, key, /, **asked):
        if operation == "describe_scheduled_actions":
            return [{"ScheduledActionName": name} for name in self.actions]
        return [
            arn
            for arn, task in self.tasks.items()
            if has_ended(task) == (asked["desiredStatus"] == "STOPPED")
        ]

    async def run_task(self, **asked):
        self.tried += 1
        if self.silent_s is not None:
            await self.clock.sleep(self.silent_s)
            raise CloudUnavailable("ECS does not answer")
        made = [
            {
                "taskArn": f"{ARN}/{len(self.tasks) + i:032x}",
                "taskDefinitionArn": f"task-definition/{asked['taskDefinition']}",
                "lastStatus": "PROVISIONING",
                "capacityProviderName": asked["capacityProviderStrategy"][0]["capacityProvider"],
                "createdAt": self.now(),
            }
            for i in range(asked["count"])
        ]
        self.tasks.update({task["taskArn"]: task for task in made})
        return {"tasks": made, "failures": []}

    async def describe_tasks(self, *, tasks, **asked):
        return {"tasks": [dict(self.tasks[arn]) for arn in tasks], "failures": []}

    async def describe_auto_scaling_groups(self, **asked):
        [name] = asked["AutoScalingGroupNames"]
        group = {
            "AutoScalingGroupName": name,
            "AutoScalingGroupARN": name,
            "MinSize": self.min_size,
            "MaxSize": 500,
            "Instances": [{"InstanceId": f"i-{i}", "InstanceType": "c7g.xlarge"} for i in range(self.hosts)],
            "Tags": [{"Key": key, "Value": value} for key, value in self.tags.items()],
        }
        return {"AutoScalingGroups": [group]}

    async def create_or_update_tags(self, **asked):
        self.tags.update({tag["Key"]: tag["Value"] for tag in asked["Tags"]})

    async def delete_tags(self, **asked):
        for tag in asked["Tags"]:
            self.tags.pop(tag["Key"], None)

    async def update_auto_scaling_group(self, **asked):
        self.min_size = asked["MinSize"]

    async def put_scheduled_update_group_action(self, **asked):
        self.actions.add(asked["ScheduledActionName"])

    async def delete_scheduled_action(self, **asked):
        self.actions.discard(asked["ScheduledActionName"])

    def alive(self):
        return [task for task in self.tasks.values() if not has_ended(task)]

    def end(self, *, ran_s=None, stop_code="SpotInterruption", reason="Your Spot Task was interrupted."):
        for task in self.alive():
            if ran_s is not None:
                task["startedAt"] = self.now() - dt.timedelta(seconds=ran_s)
            task.update(lastStatus="STOPPED", stopCode=stop_code, stoppedReason=reason, stoppingAt=self.now())


def has_ended(task):
    return task["lastStatus"] == "STOPPED"
