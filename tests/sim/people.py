"""Callers of the simulated account: roles and users with documents of their own, and clients with their keys."""

import itertools
import json

from simulated import client_of

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
    """A client with somebody's keys, which is refused at once."""
    return client_of(aws.environment, service, region=region, keys=(key, secret, token), retries=1)


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
