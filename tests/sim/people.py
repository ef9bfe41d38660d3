"""Callers of the simulated account: roles and users with documents of their own, and clients with their keys."""

import itertools
import json

import boto3
from botocore.config import Config

ACCOUNT = "123456789012"
_serial = itertools.count(1)
_TRUST = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "sts:AssumeRole"}


def document(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allow(action, resource="*", **condition):
    return {"Effect": "Allow", "Action": action, "Resource": resource, "Condition": condition}


def deny(action, resource="*", **condition):
    return allow(action, resource, **condition) | {"Effect": "Deny"}


def client(aws, service, *, key="testing", secret="testing12345", token=None, region=None):
    environment = aws.environment
    return boto3.client(
        service,
        endpoint_url=environment["AWS_ENDPOINT_URL_S3" if service == "s3" else "AWS_ENDPOINT_URL"],
        region_name=region or environment["AWS_REGION"],
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        aws_session_token=token,
        config=Config(
            retries={"total_max_attempts": 1}, signature_version="s3v4" if service == "s3" else None
        ),
    )


class Role:
    """A role with one inline document, and clients with its credentials."""

    def __init__(self, aws, *statements, trust=_TRUST, **session):
        self.aws = aws
        self.name = f"role-{next(_serial)}"
        self.arn = f"arn:aws:iam::{ACCOUNT}:role/{self.name}"
        self.iam = client(aws, "iam")
        self.iam.create_role(RoleName=self.name, AssumeRolePolicyDocument=document(trust))
        self.may(*statements)
        self.session = session

    def may(self, *statements):
        """Replace its document."""
        self.iam.put_role_policy(
            RoleName=self.name,
            PolicyName="inline",
            PolicyDocument=document(*(statements or [deny("none:*")])),
        )

    def client(self, service, **more):
        return client(self.aws, service, **self.keys(), **more)

    def keys(self):
        sts = client(self.aws, "sts")
        found = sts.assume_role(RoleArn=self.arn, RoleSessionName="test", **self.session)["Credentials"]
        return {
            "key": found["AccessKeyId"],
            "secret": found["SecretAccessKey"],
            "token": found["SessionToken"],
        }
