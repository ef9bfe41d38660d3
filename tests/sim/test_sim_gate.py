"""Who may do what in the control plane of the simulated AWS: our roles' documents, as they stand, are enforced."""

import itertools

import boto3
import pytest
from botocore.exceptions import ClientError
from people import ACCOUNT, Role, allow, client, deny, document

_serial = itertools.count(1)
EC2_DENIED, DENIED = "UnauthorizedOperation", "AccessDeniedException"


@pytest.fixture(autouse=True)
def nothing_fails_afterwards(aws):
    yield
    aws.clear()


def code_of(call, **parameters):
    with pytest.raises(ClientError) as raised:
        call(**parameters)
    return raised.value.response["Error"]["Code"]


def arn(service, rest):
    return f"arn:aws:{service}:us-east-1:{ACCOUNT}:{rest}"


@pytest.mark.parametrize(
    ("service", "operation", "unknown", "mismatch", "expired"),
    [
        (
            "ecs",
            "list_clusters",
            "UnrecognizedClientException",
            "InvalidSignatureException",
            "ExpiredTokenException",
        ),
        (
            "logs",
            "describe_log_groups",
            "UnrecognizedClientException",
            "InvalidSignatureException",
            "ExpiredTokenException",
        ),
        ("iam", "list_roles", "InvalidClientTokenId", "SignatureDoesNotMatch", "ExpiredToken"),
        ("sts", "get_caller_identity", "InvalidClientTokenId", "SignatureDoesNotMatch", "ExpiredToken"),
        (
            "autoscaling",
            "describe_auto_scaling_groups",
            "InvalidClientTokenId",
            "SignatureDoesNotMatch",
            "ExpiredToken",
        ),
        ("ec2", "describe_vpcs", "AuthFailure", "AuthFailure", "RequestExpired"),
        (
            "scheduler",
            "list_schedules",
            "UnrecognizedClientException",
            "InvalidSignatureException",
            "ExpiredTokenException",
        ),
    ],
)
def test_credentials_are_checked_in_each_services_words(aws, service, operation, unknown, mismatch, expired):
    getattr(client(aws, service), operation)()
    assert code_of(getattr(client(aws, service, key="AKIASTRANGER"), operation)) == unknown
    assert code_of(getattr(client(aws, service, secret="wrong"), operation)) == mismatch
    aws.fail(f"{service}:*", "expired", times=1)
    assert code_of(getattr(client(aws, service), operation)) == expired
    getattr(client(aws, service), operation)()


def test_a_role_of_a_session_is_who_it_is(aws):
    role = Role(aws)
    who = role.client("sts").get_caller_identity()
    assert who["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/{role.name}/test"
    stale = client(aws, "sts", **role.keys() | {"token": "stale"})
    assert code_of(stale.get_caller_identity) == "InvalidClientTokenId"


def test_only_whom_a_role_trusts_may_take_it_on(aws):
    sts = client(aws, "sts")
    missing = f"arn:aws:iam::{ACCOUNT}:role/missing"
    assert code_of(sts.assume_role, RoleArn=missing, RoleSessionName="test") == "AccessDenied"
    for_tasks = {
        "Effect": "Allow",
        "Principal": {"Service": "ecs-tasks.amazonaws.com"},
        "Action": "sts:AssumeRole",
    }
    tasks_only = Role(aws, trust=for_tasks)
    assert code_of(sts.assume_role, RoleArn=tasks_only.arn, RoleSessionName="test") == "AccessDenied"
    target = Role(aws)
    caller = Role(aws, allow("sts:AssumeRole", target.arn))
    caller.client("sts").assume_role(RoleArn=target.arn, RoleSessionName="test")
    other = Role(aws).client("sts")
    assert code_of(other.assume_role, RoleArn=target.arn, RoleSessionName="test") == "AccessDenied"


def test_a_profile_that_takes_on_a_role(aws, tmp_path, monkeypatch):
    bucket = f"gate-{next(_serial)}"
    client(aws, "s3").create_bucket(Bucket=bucket)
    role = Role(aws, allow("s3:PutObject", f"arn:aws:s3:::{bucket}/mine/*"), allow("ecs:ListClusters"))
    config = tmp_path / "config"
    config.write_text(f"[profile worker]\nrole_arn = {role.arn}\ncredential_source = Environment\n")
    for name, value in (aws.environment | {"AWS_CONFIG_FILE": str(config)}).items():
        monkeypatch.setenv(name, value)
    session = boto3.Session(profile_name="worker")
    session.client("ecs").list_clusters()
    assert code_of(session.client("ecs").list_task_definitions) == DENIED
    session.client("s3").put_object(Bucket=bucket, Key="mine/a", Body=b"x")
    with pytest.raises(ClientError, match="not authorized to perform: s3:PutObject"):
        session.client("s3").put_object(Bucket=bucket, Key="other", Body=b"x")


def test_documents_of_all_kinds_count(aws):
    iam = client(aws, "iam")
    role = Role(aws)
    ecs = role.client("ecs")
    assert code_of(ecs.list_clusters) == DENIED
    policy = iam.create_policy(
        PolicyName=f"policy-{next(_serial)}", PolicyDocument=document(allow("ecs:List*"))
    )
    iam.attach_role_policy(RoleName=role.name, PolicyArn=policy["Policy"]["Arn"])
    ecs.list_clusters()
    role.may(deny("ecs:ListClusters"))
    assert code_of(ecs.list_clusters) == DENIED
    role.may()
    narrower = Role(aws, allow("ecs:*"), Policy=document(allow("ecs:ListClusters"))).client("ecs")
    narrower.list_clusters()
    assert code_of(narrower.list_task_definitions) == DENIED
    iam.put_role_permissions_boundary(RoleName=role.name, PermissionsBoundary=policy["Policy"]["Arn"])
    role.may(allow("*"))
    ecs.list_clusters()
    assert code_of(role.client("ec2").describe_vpcs) == EC2_DENIED


def test_users_with_keys(aws):
    iam = client(aws, "iam")
    name = f"user-{next(_serial)}"
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=document(allow("ecs:ListClusters")))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    keys = {"key": key["AccessKeyId"], "secret": key["SecretAccessKey"]}
    client(aws, "ecs", **keys).list_clusters()
    assert code_of(client(aws, "ecs", **keys).list_task_definitions) == DENIED
    assert client(aws, "sts", **keys).get_caller_identity()["Arn"].endswith(f":user/{name}")
    assert code_of(client(aws, "s3", **keys).list_buckets) == "AccessDenied"
    iam.update_access_key(UserName=name, AccessKeyId=keys["key"], Status="Inactive")
    assert code_of(client(aws, "ecs", **keys).list_clusters) == "UnrecognizedClientException"


class Tasks:
    """Two clusters and a task definition whose task role may be handed on."""

    def __init__(self, aws):
        self.aws = aws
        self.ecs = client(aws, "ecs")
        number = next(_serial)
        self.mine, self.other = f"gate-{number}", f"gate-other-{number}"
        for name in (self.mine, self.other):
            self.ecs.create_cluster(clusterName=name, capacityProviders=["FARGATE"])
        self.family = f"gate-worker-{number}"
        self.role = Role(aws)
        self.subnet = client(aws, "ec2").describe_subnets()["Subnets"][0]["SubnetId"]
        self.definition = self.register(self.ecs)

    def register(self, ecs, **more):
        about = {"name": "main", "image": "image", "command": ["python", "-c", "import time; time.sleep(60)"]}
        settings = {
            "family": self.family,
            "requiresCompatibilities": ["FARGATE"],
            "networkMode": "awsvpc",
            "cpu": "256",
            "memory": "512",
            "taskRoleArn": self.role.arn,
            "containerDefinitions": [about],
            **more,
        }
        return ecs.register_task_definition(**settings)["taskDefinition"]["taskDefinitionArn"]

    def request(self, **more):
        return {
            "cluster": self.mine,
            "taskDefinition": self.family,
            "launchType": "FARGATE",
            "networkConfiguration": {"awsvpcConfiguration": {"subnets": [self.subnet]}},
            **more,
        }

    def statements(self):
        in_mine = {"ArnEquals": {"ecs:cluster": arn("ecs", f"cluster/{self.mine}")}}
        definitions, tasks = (
            arn("ecs", f"task-definition/{self.family}*:*"),
            arn("ecs", f"task/{self.mine}/*"),
        )
        created = {"StringEquals": {"ecs:CreateAction": ["RunTask"]}}
        passed = {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}}
        return {
            "run": allow("ecs:RunTask", definitions, **in_mine),
            "see": allow(["ecs:StopTask", "ecs:DescribeTasks"], tasks, **in_mine),
            "list": allow("ecs:ListTasks", "*", **in_mine),
            "register": allow("ecs:RegisterTaskDefinition", definitions),
            "tag": allow("ecs:TagResource", tasks, **created),
            "pass": allow("iam:PassRole", self.role.arn, **passed),
        }

    def end(self):
        for cluster in (self.mine, self.other):
            for task in self.aws.tasks(cluster=cluster):
                self.aws.kill(task.task_id)


@pytest.fixture
def tasks(aws):
    found = Tasks(aws)
    yield found
    found.end()


def test_tasks_of_one_cluster_and_one_definition(aws, tasks):
    role = Role(aws, *tasks.statements().values())
    ecs = role.client("ecs")
    started = ecs.run_task(**tasks.request(tags=[{"key": "a", "value": "b"}]))["tasks"][0]["taskArn"]
    ecs.run_task(**tasks.request(taskDefinition=tasks.definition))
    assert len(ecs.list_tasks(cluster=tasks.mine)["taskArns"]) == 2
    assert ecs.describe_tasks(cluster=tasks.mine, tasks=[started])["tasks"]
    ecs.stop_task(cluster=tasks.mine, task=started)

    before = len(aws.denials())
    elsewhere = tasks.ecs.run_task(**tasks.request(cluster=tasks.other))["tasks"][0]["taskArn"]
    assert code_of(ecs.run_task, **tasks.request(cluster=tasks.other)) == DENIED
    assert code_of(ecs.list_tasks, cluster=tasks.other) == DENIED
    assert code_of(ecs.stop_task, cluster=tasks.other, task=elsewhere) == DENIED
    assert code_of(ecs.describe_tasks, cluster=tasks.other, tasks=[elsewhere]) == DENIED
    assert code_of(ecs.run_task, **tasks.request(taskDefinition="another-family")) == DENIED
    assert code_of(ecs.tag_resource, resourceArn=started, tags=[{"key": "x", "value": "y"}]) == DENIED
    assert code_of(ecs.delete_cluster, cluster=tasks.mine) == DENIED
    assert aws.denials()[before:][:2] == [
        (role.name, "ecs:RunTask", tasks.definition),
        (role.name, "ecs:ListTasks", arn("ecs", f"container-instance/{tasks.other}/*")),
    ]
    assert tasks.aws.tasks(cluster=tasks.other, desired_status="RUNNING")


@pytest.mark.parametrize("missing", ["run", "pass", "tag"])
def test_running_tasks_needs_more_than_one_right(aws, tasks, missing):
    statements = tasks.statements()
    del statements[missing]
    role = Role(aws, *statements.values())
    tags = [{"key": "a", "value": "b"}]
    assert code_of(role.client("ecs").run_task, **tasks.request(tags=tags)) == DENIED
    lacking = {"run": "ecs:RunTask", "pass": "iam:PassRole", "tag": "ecs:TagResource"}[missing]
    assert aws.denials()[-1][:2] == (role.name, lacking)
    assert not aws.tasks(cluster=tasks.mine)


def test_a_role_cannot_be_handed_on_by_a_detour(aws, tasks):
    """The ways to more rights than one has: overrides of RunTask, a definition of one's own."""
    stronger = Role(aws, allow("*"))
    ecs = Role(aws, *tasks.statements().values()).client("ecs")
    assert code_of(ecs.run_task, **tasks.request(overrides={"taskRoleArn": stronger.arn})) == DENIED
    with pytest.raises(ClientError, match=f"iam:PassRole on resource: {stronger.arn}"):
        tasks.register(ecs, taskRoleArn=stronger.arn)
    tasks.register(ecs)


def test_other_services(aws):
    group, stream = f"/gate/{next(_serial)}", "a/b/c"
    logs = client(aws, "logs")
    logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName=stream)
    repository = f"gate-{next(_serial)}"
    client(aws, "ecr").create_repository(repositoryName=repository)
    in_region = {"StringEquals": {"aws:RequestedRegion": "us-east-1"}}
    ours = {"StringEquals": {"aws:ResourceTag/ours": "true"}}
    schedule = arn("scheduler", "schedule/default/gate-*")
    role = Role(
        aws,
        allow(["logs:GetLogEvents", "logs:FilterLogEvents"], arn("logs", f"log-group:{group}:*")),
        allow("ecr:DescribeImages", arn("ecr", f"repository/{repository}")),
        allow(["ec2:Describe*", "ssm:GetParameters", "ecr:GetAuthorizationToken"], "*"),
        allow("ec2:CreateSecurityGroup", "*", **in_region),
        allow("ec2:DeleteSecurityGroup", "*", **ours),
        allow(["scheduler:CreateSchedule", "scheduler:DeleteSchedule"], schedule),
        allow("iam:GetRole", f"arn:aws:iam::{ACCOUNT}:role/role-*"),
    )
    mine = {name: role.client(name) for name in ("logs", "ecr", "ec2", "ssm", "scheduler", "iam")}

    mine["logs"].get_log_events(logGroupName=group, logStreamName=stream)
    mine["logs"].filter_log_events(logGroupName=group)
    assert code_of(mine["logs"].filter_log_events, logGroupName="/other") == DENIED
    assert code_of(mine["logs"].delete_log_group, logGroupName=group) == DENIED
    mine["ecr"].get_authorization_token()
    mine["ecr"].describe_images(repositoryName=repository)
    assert code_of(mine["ecr"].describe_images, repositoryName="other") == DENIED
    mine["ssm"].get_parameters(
        Names=["/aws/service/ecs/optimized-ami/amazon-linux-2023/recommended/image_id"]
    )
    assert code_of(mine["ssm"].get_parameter, Name="/mine") == DENIED

    ec2 = mine["ec2"]
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    name = f"gate-{next(_serial)}"
    made = ec2.create_security_group(GroupName=name, Description="d", VpcId=vpc)["GroupId"]
    assert code_of(ec2.delete_security_group, GroupId=made) == EC2_DENIED
    client(aws, "ec2").create_tags(Resources=[made], Tags=[{"Key": "ours", "Value": "true"}])
    ec2.delete_security_group(GroupId=made)
    abroad = role.client("ec2", region="eu-west-1")
    assert code_of(abroad.create_security_group, GroupName=name, Description="d") == EC2_DENIED

    target = {
        "Arn": "arn:aws:scheduler:::aws-sdk:ecs:stopTask",
        "RoleArn": f"arn:aws:iam::{ACCOUNT}:role/scheduler",
        "Input": "{}",
    }
    plan = {
        "ScheduleExpression": "at(2099-01-01T00:00:00)",
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "Target": target,
    }
    assert code_of(mine["scheduler"].create_schedule, Name="other", **plan) == DENIED
    with pytest.raises(ClientError, match="iam:PassRole"):
        mine["scheduler"].create_schedule(Name="gate-a", **plan)
    mine["iam"].get_role(RoleName=role.name)
    assert code_of(mine["iam"].list_roles) == "AccessDenied"
    rights = {"PolicyName": "p", "PolicyDocument": document(allow("*"))}
    assert code_of(mine["iam"].put_role_policy, RoleName=role.name, **rights) == "AccessDenied"


def test_scaling_groups_by_name_and_by_tag(aws):
    ours = {"StringEquals": {"aws:ResourceTag/ours": "true"}}
    groups = arn("autoscaling", "autoScalingGroup:*:autoScalingGroupName/gate-*")
    change = ["autoscaling:UpdateAutoScalingGroup", "autoscaling:DeleteAutoScalingGroup"]
    role = Role(
        aws,
        allow("autoscaling:CreateAutoScalingGroup", groups),
        allow(change, groups, **ours),
        allow("autoscaling:Describe*"),
    )
    mine = role.client("autoscaling")
    ec2 = client(aws, "ec2")
    template = {"LaunchTemplateName": f"gate-{next(_serial)}"}
    ec2.create_launch_template(
        **template, LaunchTemplateData={"ImageId": "ami-12345678", "InstanceType": "c7g.large"}
    )
    size = {"MinSize": 0, "MaxSize": 0, "VPCZoneIdentifier": ec2.describe_subnets()["Subnets"][0]["SubnetId"]}

    def create(name, flag):
        tag = {"Key": "ours", "Value": flag, "ResourceId": name, "ResourceType": "auto-scaling-group"}
        mine.create_auto_scaling_group(
            AutoScalingGroupName=name,
            LaunchTemplate=template,
            Tags=[{**tag, "PropagateAtLaunch": False}],
            **size,
        )

    with pytest.raises(ClientError, match="ec2:RunInstances"):
        create("gate-mine", "true")
    role.iam.put_role_policy(
        RoleName=role.name, PolicyName="run", PolicyDocument=document(allow("ec2:RunInstances"))
    )
    create("gate-mine", "true")
    create("gate-other", "false")
    with pytest.raises(ClientError, match="autoScalingGroupName/foreign"):
        create("foreign", "true")
    assert (
        len(mine.describe_auto_scaling_groups(AutoScalingGroupNames=["gate-mine"])["AutoScalingGroups"]) == 1
    )
    assert (
        code_of(mine.update_auto_scaling_group, AutoScalingGroupName="gate-other", MaxSize=1)
        == "AccessDenied"
    )
    mine.update_auto_scaling_group(AutoScalingGroupName="gate-mine", MaxSize=1)
    for name in ("gate-mine", "gate-other"):
        client(aws, "autoscaling").delete_auto_scaling_group(AutoScalingGroupName=name, ForceDelete=True)


def test_tasks_get_the_keys_of_their_role(aws, tasks):
    bucket = f"gate-{next(_serial)}"
    client(aws, "s3").create_bucket(Bucket=bucket)
    tasks.role.may(allow("s3:PutObject", f"arn:aws:s3:::{bucket}/mine/*"))
    code = (
        "import boto3, os\n"
        "s3 = boto3.client('s3')\n"
        f"for key in ('mine/a', 'other/b'):\n"
        "    try:\n"
        f"        s3.put_object(Bucket='{bucket}', Key=key, Body=b'x')\n"
        "    except s3.exceptions.ClientError as error:\n"
        "        assert error.response['Error']['Code'] == 'AccessDenied'\n"
        f"s3.put_object(Bucket='{bucket}', Key='mine/done', Body=boto3.client('sts').get_caller_identity()['Arn'])\n"
    )
    about = [{"name": "main", "image": "image", "command": ["python", "-c", code]}]
    tasks.register(tasks.ecs, containerDefinitions=about)
    tasks.ecs.run_task(**tasks.request())
    s3 = client(aws, "s3")
    s3.get_waiter("object_exists").wait(Bucket=bucket, Key="mine/done", WaiterConfig={"Delay": 1})
    assert (
        f"assumed-role/{tasks.role.name}/"
        in s3.get_object(Bucket=bucket, Key="mine/done")["Body"].read().decode()
    )
    assert [each["Key"] for each in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["mine/a", "mine/done"]
