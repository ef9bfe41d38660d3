"""Policy evaluation of the simulated AWS: the cases that decide whether our documents are right."""

import pytest

from starburst.testing.aws.iam import Access, Decision, Policy, PolicyError, decide

ALLOWED, DENIED, UNMENTIONED = Decision.ALLOWED, Decision.DENIED, Decision.UNMENTIONED
CLUSTER = "arn:aws:ecs:us-east-1:123456789012:cluster/starburst"
ROLE_SESSION = "arn:aws:sts::123456789012:assumed-role/worker/task-1"


def policy(*statements):
    return Policy.parse({"Version": "2012-10-17", "Statement": list(statements)})


def allow(action, resource="*", **conditions):
    return {"Effect": "Allow", "Action": action, "Resource": resource, "Condition": conditions}


def deny(action, resource="*", **conditions):
    return allow(action, resource, **conditions) | {"Effect": "Deny"}


def says(statements, action, resource="*", **context):
    context = {key.replace("__", ":").replace("_", "-"): value for key, value in context.items()}
    return decide([policy(*statements)], Access(action, resource, context))


@pytest.mark.parametrize(
    ("pattern", "action", "expected"),
    [
        ("ecs:RunTask", "ecs:RunTask", ALLOWED),
        ("ecs:runtask", "ecs:RunTask", ALLOWED),
        ("ecs:Run*", "ecs:RunTask", ALLOWED),
        ("ecs:RunTas?", "ecs:RunTask", ALLOWED),
        ("*", "ecs:RunTask", ALLOWED),
        (["s3:*", "ecs:List*"], "ecs:ListTasks", ALLOWED),
        ("ecs:Run", "ecs:RunTask", UNMENTIONED),
        ("s3:*", "ecs:RunTask", UNMENTIONED),
        ([], "ecs:RunTask", UNMENTIONED),
    ],
)
def test_actions_match_without_regard_to_case_and_with_wildcards(pattern, action, expected):
    assert says([allow(pattern)], action) is expected


@pytest.mark.parametrize(
    ("pattern", "resource", "expected"),
    [
        ("arn:aws:s3:::b/sessions/*", "arn:aws:s3:::b/sessions/a/b", ALLOWED),
        ("arn:aws:s3:::b/sessions/*", "arn:aws:s3:::b/sessions", UNMENTIONED),
        ("arn:aws:s3:::b/sessions/*", "arn:aws:s3:::b/other/a", UNMENTIONED),
        ("arn:aws:s3:::b", "arn:aws:s3:::B", UNMENTIONED),
        ("arn:aws:s3:::b.c", "arn:aws:s3:::bxc", UNMENTIONED),
        # What has no resource is allowed by a star only.
        ("arn:aws:s3:::*", "*", UNMENTIONED),
        ("*", "*", ALLOWED),
    ],
)
def test_resources_match_with_regard_to_case(pattern, resource, expected):
    assert says([allow("s3:GetObject", pattern)], "s3:GetObject", resource) is expected


def test_one_deny_outweighs_every_allow():
    assert says([deny("s3:*"), allow("*")], "s3:GetObject") is DENIED
    assert says([allow("*"), deny("s3:*")], "s3:GetObject") is DENIED
    assert says([allow("*"), deny("s3:*")], "ecs:RunTask") is ALLOWED
    both = [policy(allow("*")), policy(deny("s3:*"))]
    assert decide(both, Access("s3:GetObject", "*")) is DENIED
    assert decide([], Access("s3:GetObject", "*")) is UNMENTIONED


def test_exclusions():
    everything_but_iam = [{"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"}]
    assert says(everything_but_iam, "ecs:RunTask") is ALLOWED
    assert says(everything_but_iam, "iam:PassRole") is UNMENTIONED
    nothing_but_ours = [allow("*"), {"Effect": "Deny", "Action": "s3:*", "NotResource": "arn:aws:s3:::b/*"}]
    assert says(nothing_but_ours, "s3:GetObject", "arn:aws:s3:::b/a") is ALLOWED
    assert says(nothing_but_ours, "s3:GetObject", "arn:aws:s3:::c/a") is DENIED


@pytest.mark.parametrize(
    ("conditions", "context", "holds"),
    [
        ({"StringEquals": {"ecs:CreateAction": ["RunTask", "X"]}}, {"ecs__CreateAction": "RunTask"}, True),
        ({"StringEquals": {"ecs:CREATEaction": "RunTask"}}, {"ecs__CreateAction": "RunTask"}, True),
        ({"StringEquals": {"ecs:CreateAction": "RunTask"}}, {"ecs__CreateAction": "runtask"}, False),
        ({"StringEquals": {"ecs:CreateAction": "RunTask"}}, {}, False),
        ({"StringEqualsIfExists": {"ecs:CreateAction": "RunTask"}}, {}, True),
        ({"StringNotEquals": {"k": "a"}}, {"k": "b"}, True),
        ({"StringNotEquals": {"k": "a"}}, {"k": "a"}, False),
        ({"StringNotEquals": {"k": "a"}}, {}, True),
        ({"StringEqualsIgnoreCase": {"k": "A"}}, {"k": "a"}, True),
        ({"StringLike": {"s3:prefix": "sessions/*"}}, {"s3__prefix": "sessions/a"}, True),
        ({"StringLike": {"s3:prefix": "sessions/*"}}, {"s3__prefix": ""}, False),
        ({"StringNotLike": {"s3:prefix": "sessions/*"}}, {"s3__prefix": "x"}, True),
        ({"ArnEquals": {"ecs:cluster": CLUSTER}}, {"ecs__cluster": CLUSTER}, True),
        ({"ArnEquals": {"ecs:cluster": CLUSTER}}, {"ecs__cluster": CLUSTER + "2"}, False),
        (
            {"ArnLike": {"ecs:cluster": "arn:aws:ecs:*:123456789012:cluster/*"}},
            {"ecs__cluster": CLUSTER},
            True,
        ),
        ({"ArnLike": {"ecs:cluster": "arn:*:cluster/starburst"}}, {"ecs__cluster": CLUSTER}, False),
        ({"ArnNotEquals": {"ecs:cluster": CLUSTER}}, {"ecs__cluster": CLUSTER}, False),
        ({"Bool": {"aws:SecureTransport": "false"}}, {"aws__SecureTransport": "false"}, True),
        ({"Bool": {"aws:SecureTransport": False}}, {"aws__SecureTransport": "true"}, False),
        ({"NumericLessThanEquals": {"ecs:task-cpu": "4096"}}, {"ecs__task_cpu": "4096"}, True),
        ({"NumericLessThan": {"ecs:task-cpu": 4096}}, {"ecs__task_cpu": "4096"}, False),
        ({"NumericGreaterThan": {"ecs:task-cpu": "1"}}, {"ecs__task_cpu": "many"}, False),
        ({"Null": {"aws:RequestTag/a": "true"}}, {}, True),
        ({"Null": {"aws:RequestTag/a": "false"}}, {}, False),
        (
            {"DateLessThan": {"aws:CurrentTime": "2030-01-01T00:00:00Z"}},
            {"aws__CurrentTime": "2026-01-01"},
            True,
        ),
        ({"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}, {"aws__SourceIp": "127.0.0.1"}, True),
        ({"NotIpAddress": {"aws:SourceIp": "127.0.0.0/8"}}, {"aws__SourceIp": "127.0.0.1"}, False),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": ["a", "b"]}}, {"aws__TagKeys": ["a"]}, True),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": ["a", "b"]}}, {"aws__TagKeys": ["a", "c"]}, False),
        ({"ForAnyValue:StringEquals": {"aws:TagKeys": ["a", "b"]}}, {"aws__TagKeys": ["a", "c"]}, True),
        # All operators and all keys of a statement have to hold.
        ({"StringEquals": {"k": "a", "l": "b"}}, {"k": "a", "l": "b"}, True),
        ({"StringEquals": {"k": "a", "l": "b"}}, {"k": "a", "l": "c"}, False),
        ({"StringEquals": {"k": "a"}, "Bool": {"l": "true"}}, {"k": "a", "l": "false"}, False),
    ],
)
def test_conditions(conditions, context, holds):
    expected = ALLOWED if holds else UNMENTIONED
    assert says([allow("*", **conditions)], "ecs:RunTask", **context) is expected


def test_what_is_not_understood_is_an_error_and_no_guess():
    with pytest.raises(PolicyError, match="BinaryEquals"):
        policy(allow("*", BinaryEquals={"k": "v"}))
    for wrong in ("no JSON", "[]", "{}", '{"Statement": [{"Effect": "Perhaps", "Action": "*"}]}'):
        with pytest.raises(PolicyError):
            Policy.parse(wrong)


@pytest.mark.parametrize(
    ("principal", "means_the_role"),
    [
        ("*", True),
        ({"AWS": "*"}, True),
        ({"AWS": "123456789012"}, True),
        ({"AWS": ["arn:aws:iam::123456789012:root"]}, True),
        ({"AWS": "arn:aws:iam::123456789012:role/worker"}, True),
        ({"AWS": ROLE_SESSION}, True),
        ({"AWS": "arn:aws:iam::123456789012:role/other"}, False),
        ({"AWS": "210987654321"}, False),
        ({"Service": "ecs.amazonaws.com"}, False),
    ],
)
def test_documents_of_resources_name_whom_they_mean(principal, means_the_role):
    document = policy(deny("s3:*") | {"Principal": principal})
    decision = decide([document], Access("s3:GetObject", "arn:aws:s3:::b/k"), principal=ROLE_SESSION)
    assert decision is (DENIED if means_the_role else UNMENTIONED)
