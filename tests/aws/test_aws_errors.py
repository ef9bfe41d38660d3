"""Every error of AWS becomes one of ours, with what to do next."""

import botocore.exceptions as theirs
import pytest

from starburst import errors
from starburst.aws.errors import mapped, to_cloud_error


def client_error(code, message="no", operation="RunTask", status=400):
    answer = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return theirs.ClientError(answer, operation)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("ExpiredTokenException", errors.CredentialsError),
        ("ExpiredToken", errors.CredentialsError),
        ("InvalidClientTokenId", errors.CredentialsError),
        ("UnrecognizedClientException", errors.CredentialsError),
        ("SignatureDoesNotMatch", errors.CredentialsError),
        ("AccessDeniedException", errors.PermissionDenied),
        ("UnauthorizedOperation", errors.PermissionDenied),
        ("LimitExceededException", errors.QuotaExceeded),
        ("VcpuLimitExceeded", errors.QuotaExceeded),
        ("ThrottlingException", errors.CloudUnavailable),
        ("RequestLimitExceeded", errors.CloudUnavailable),
        ("ServerException", errors.CloudUnavailable),
        ("ClusterNotFoundException", errors.NotSetUp),
        ("SomethingNewException", errors.CloudError),
    ],
)
def test_codes(code, kind):
    error = to_cloud_error(client_error(code), "ecs", "run_task")
    assert type(error) is kind
    assert (error.code, error.operation) == (code, "ecs:RunTask")
    if kind is not errors.CloudError:
        assert error.hint


@pytest.mark.parametrize(
    ("code", "kind", "what", "do"),
    [
        ("OptInRequired", errors.CloudError, "not activated", "billing/signup"),
        ("SubscriptionRequiredException", errors.CloudError, "not activated", "aws ec2 describe-regions"),
        ("PendingVerification", errors.CloudUnavailable, "still verifying", "another region"),
        ("BlockedException", errors.CloudError, "has blocked this account", "Support Center"),
        ("Blocked", errors.CloudError, "has blocked this account", "aws sts get-caller-identity"),
    ],
)
def test_an_account_that_is_new_or_blocked(code, kind, what, do):
    error = to_cloud_error(client_error(code, "AWS's own words"), "ecs", "run_task")
    assert type(error) is kind
    assert error.message.startswith("ecs:RunTask failed: ")
    assert what in error.message
    assert "AWS's own words" in error.message
    assert do in error.hint


def test_an_unknown_code_with_status_500_may_pass():
    assert type(to_cloud_error(client_error("500", status=500), "ecs", "run_task")) is errors.CloudUnavailable


def test_a_denied_permission_names_action_and_resource():
    message = (
        "User: arn:aws:iam::123456789012:user/ann is not authorized to perform: iam:PassRole on resource: "
        "arn:aws:iam::123456789012:role/starburstECSTaskRole because no identity-based policy allows it"
    )
    error = to_cloud_error(client_error("AccessDeniedException", message), "ecs", "run_task")
    assert "iam:PassRole on arn:aws:iam::123456789012:role/starburstECSTaskRole" in error.hint
    assert "--print-policies" in error.hint


@pytest.mark.parametrize(
    ("error", "kind", "word"),
    [
        (theirs.NoCredentialsError(), errors.CredentialsError, "aws configure"),
        (
            theirs.PartialCredentialsError(provider="env", cred_var="x"),
            errors.CredentialsError,
            "aws configure",
        ),
        (
            theirs.TokenRetrievalError(provider="sso", error_msg="expired"),
            errors.CredentialsError,
            "aws sso login",
        ),
        (theirs.UnauthorizedSSOTokenError(), errors.CredentialsError, "aws sso login"),
        (theirs.SSOTokenLoadError(error_msg="none"), errors.CredentialsError, "aws sso login"),
        (theirs.ProfileNotFound(profile="work"), errors.CredentialsError, "list-profiles"),
        (theirs.NoRegionError(), errors.CredentialsError, "AWS_REGION"),
        (theirs.EndpointConnectionError(endpoint_url="https://x"), errors.CloudUnavailable, "network"),
        (theirs.ConnectTimeoutError(endpoint_url="https://x"), errors.CloudUnavailable, "network"),
        (theirs.ReadTimeoutError(endpoint_url="https://x"), errors.CloudUnavailable, "network"),
    ],
)
def test_no_answer(error, kind, word):
    ours = to_cloud_error(error, "ecs", "run_task")
    assert type(ours) is kind
    assert word in ours.hint


def test_every_exception_of_botocore_is_mapped():
    kinds = [
        kind
        for kind in vars(theirs).values()
        if isinstance(kind, type) and issubclass(kind, (theirs.BotoCoreError, theirs.ClientError))
    ]
    assert len(kinds) > 80
    for kind in kinds:
        error = kind.__new__(kind)
        error.args = ("text",)
        if issubclass(kind, theirs.ClientError):
            error.response = {}
        with pytest.raises(errors.CloudError), mapped("ecs", "run_task"):
            raise error


def test_other_exceptions_pass():
    with pytest.raises(ZeroDivisionError), mapped("ecs", "run_task"):
        raise ZeroDivisionError
