"""An AWS account over HTTP: moto's server, with a gate in front that counts, and refuses on request."""

import functools
import logging
import re
import threading
import urllib.request
from io import BytesIO

import boto3
from moto.iam.access_control import PermissionResult
from moto.s3.models import FakeBucket
from moto.s3.responses import S3Response
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from starburst.aws import rates

logging.getLogger("werkzeug").setLevel(logging.ERROR)

READS = ("Describe", "List", "Get", "Head", "Search", "Batch", "Assume")
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


class Gate:
    """Between client and moto: knows each call by its operation."""

    def __init__(self, app):
        self.app = app
        self.calls = []
        self.refuse_write = None
        """Refuse the write of this number, from 1: an interruption between the one before it and this one."""
        self.denied = ()
        """Operations that are never permitted."""
        self.meet_s = 0.0
        """So long a call that makes something waits for a second one of its kind; then both are done, one by one."""
        self.before = {}
        """What happens in the account just before the next call of an operation."""
        self._lock = threading.Lock()
        self._waiting = {}
        self._one_by_one = threading.Lock()

    def clear(self):
        self.calls, self.refuse_write, self.denied, self.meet_s, self.before = [], None, (), 0.0, {}

    @property
    def writes(self):
        return [each for each in self.calls if not each.startswith(READS)]

    def __call__(self, environ, start_response):
        name = self.name_of(environ)
        if not name:
            return self.app(environ, start_response)
        with self._lock:
            self.calls.append(name)
            refused = not name.startswith(READS) and len(self.writes) == self.refuse_write
        if refused or name in self.denied:
            return self.refuse(environ, start_response)
        if name in self.before:
            self.before.pop(name)()
        if self.meet_s and not name.startswith(READS):
            self._meet(name)
            with self._one_by_one:
                return self.app(environ, start_response)
        return self.app(environ, start_response)

    def _meet(self, name):
        with self._lock:
            other = self._waiting.pop(name, None)
            mine = None if other else self._waiting.setdefault(name, threading.Event())
        if other:
            other.set()
        elif not mine.wait(self.meet_s):
            with self._lock:
                if self._waiting.get(name) is mine:
                    del self._waiting[name]

    def name_of(self, environ):
        if environ["PATH_INFO"].startswith("/moto-api"):
            return ""
        if target := environ.get("HTTP_X_AMZ_TARGET"):
            return target.rpartition(".")[2]
        body = b""
        if "urlencoded" in environ.get("CONTENT_TYPE", ""):
            body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            environ["wsgi.input"] = BytesIO(body)
        if action := re.search(rb"(?:^|&)Action=(\w+)", body):
            return action[1].decode()
        query = environ.get("QUERY_STRING", "").split("=")[0].split("&")[0]
        method = environ["REQUEST_METHOD"].title()
        kind = {"Get": "Get", "Head": "Head"}.get(method, method)
        return f"{kind}S3{query.title()}"

    def refuse(self, environ, start_response):
        if environ.get("HTTP_X_AMZ_TARGET"):
            body = b'{"__type": "AccessDeniedException", "message": "not authorized to perform: this"}'
        else:
            body = (
                b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>not authorized to perform: this"
                b"</Message></Error></ErrorResponse>"
            )
            if "Action=" not in environ.get("QUERY_STRING", "") and environ["PATH_INFO"] != "/":
                body = b"<Error><Code>AccessDenied</Code><Message>not authorized</Message></Error>"
        start_response("403 Forbidden", [("Content-Length", str(len(body)))])
        return [body]


class CloudServer:
    """One server; each test empties it."""

    def __init__(self):
        _teach_tags()
        FakeBucket.get_permission = lambda *_: PermissionResult.NEUTRAL  # it takes every condition for unmet
        self.gate = Gate(DomainDispatcherApplication(create_backend_app))
        self._server = make_server("127.0.0.1", 0, self.gate, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def reset(self):
        request = urllib.request.Request(f"{self.url}/moto-api/reset", method="POST")
        with urllib.request.urlopen(request, timeout=30):
            self.gate.clear()
        rates._buckets.clear()  # the pace of one account is no business of the next

    def stop(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def environment(self, region="us-east-1"):
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing12345",
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
        }

    @functools.cache  # noqa: B019 - one server a run
    def client(self, service, region="us-east-1"):
        return boto3.client(
            service,
            region_name=region,
            endpoint_url=self.url,
            aws_access_key_id="testing",
            aws_secret_access_key="testing12345",
        )

    def resources(self, region="us-east-1"):
        """Everything that there is in the account and that set-up or a session could have made."""
        ec2, ecs, iam = self.client("ec2", region), self.client("ecs", region), self.client("iam", region)
        scaling, logs = self.client("autoscaling", region), self.client("logs", region)
        roles = [each for each in iam.list_roles()["Roles"] if "/aws-service-role/" not in each["Path"]]
        groups = [
            each
            for each in ec2.describe_security_groups()["SecurityGroups"]
            if each["GroupName"] != "default"
        ]
        clusters = ecs.describe_clusters(clusters=ecs.list_clusters()["clusterArns"])["clusters"]
        found = {
            "buckets": [each["Name"] for each in self.client("s3", region).list_buckets()["Buckets"]],
            "clusters": [each["clusterArn"] for each in clusters if each["status"] == "ACTIVE"],
            "definitions": [
                arn
                for status in ("ACTIVE", "INACTIVE")
                for arn in ecs.list_task_definitions(status=status)["taskDefinitionArns"]
            ],
            "roles": [each["RoleName"] for each in roles],
            "role policies": [
                f"{role['RoleName']}/{name}"
                for role in roles
                for name in iam.list_role_policies(RoleName=role["RoleName"])["PolicyNames"]
            ],
            "profiles": [
                each["InstanceProfileName"] for each in iam.list_instance_profiles()["InstanceProfiles"]
            ],
            "repositories": [
                each["repositoryName"]
                for each in self.client("ecr", region).describe_repositories()["repositories"]
            ],
            "log groups": [each["logGroupName"] for each in logs.describe_log_groups()["logGroups"]],
            "security groups": [each["GroupId"] for each in groups],
            "vpcs": [each["VpcId"] for each in ec2.describe_vpcs()["Vpcs"]],
            "subnets": [each["SubnetId"] for each in ec2.describe_subnets()["Subnets"]],
            "gateways": [
                each["InternetGatewayId"] for each in ec2.describe_internet_gateways()["InternetGateways"]
            ],
            "route tables": [each["RouteTableId"] for each in ec2.describe_route_tables()["RouteTables"]],
            "endpoints": [
                each["VpcEndpointId"]
                for each in ec2.describe_vpc_endpoints()["VpcEndpoints"]
                if each["State"] != "deleted"
            ],
            "templates": [
                each["LaunchTemplateName"] for each in ec2.describe_launch_templates()["LaunchTemplates"]
            ],
            "scaling groups": [
                each["AutoScalingGroupName"]
                for each in scaling.describe_auto_scaling_groups()["AutoScalingGroups"]
            ],
            "instances": [
                instance["InstanceId"]
                for each in ec2.describe_instances()["Reservations"]
                for instance in each["Instances"]
                if instance["State"]["Name"] not in ("terminated", "shutting-down")
            ],
        }
        return {kind: sorted(names) for kind, names in found.items()}


def _teach_tags():
    """moto forgets the tags of CreateBucket (new in 2025); S3 does not."""
    original = S3Response._bucket_response_put

    def put(self, request, bucket_name, querystring):
        answer = original(self, request, bucket_name, querystring)
        tags = re.findall(rb"<Key>(.*?)</Key>\s*<Value>(.*?)</Value>", request.data)
        if tags and not querystring:
            self.backend.put_bucket_tagging(
                bucket_name, {key.decode(): value.decode() for key, value in tags}
            )
        return answer

    S3Response._bucket_response_put = put
