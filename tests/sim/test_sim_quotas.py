"""Service Quotas of the simulated account."""

import pytest
from ec2_capacity import Capacity, refused

from starburst.testing.aws.quotas import ec2_quota


@pytest.fixture(scope="module")
def quotas(aws):
    return Capacity(aws).client("service-quotas")


@pytest.fixture(autouse=True)
def as_before(aws):
    yield
    for code in ("L-36FBB829", "L-417A185B"):
        aws.set_quota("fargate" if code == "L-36FBB829" else "ec2", code, 4000)


@pytest.mark.parametrize(
    ("instance_type", "spot", "code"),
    [
        ("c7g.xlarge", False, "L-1216C47A"),
        ("c7g.xlarge", True, "L-34B43A08"),
        ("im4gn.large", False, "L-1216C47A"),
        ("g5.xlarge", False, "L-DB2E81BA"),
        ("gr6.4xlarge", True, "L-3819A6DF"),
        ("p5.48xlarge", True, "L-7212CCBC"),
        ("x2gd.medium", False, "L-7295265B"),
        ("inf2.xlarge", False, None),
        ("hpc7g.4xlarge", False, None),
    ],
)
def test_which_quota_counts(instance_type, spot, code):
    assert ec2_quota(instance_type, spot=spot) == code


def test_the_accounts_value_and_awss_default_differ(aws, quotas):
    aws.set_quota("fargate", "L-36FBB829", 10)
    asked = {"ServiceCode": "fargate", "QuotaCode": "L-36FBB829"}
    assert quotas.get_service_quota(**asked)["Quota"]["Value"] == 10.0
    quota = quotas.get_aws_default_service_quota(**asked)["Quota"]
    assert (quota["Value"], quota["QuotaName"]) == (6.0, "Fargate Spot vCPU resource count")


def test_all_quotas_of_a_service_in_pages(quotas):
    codes = [
        quota["QuotaCode"]
        for page in quotas.get_paginator("list_service_quotas").paginate(
            ServiceCode="ec2", PaginationConfig={"PageSize": 3}
        )
        for quota in page["Quotas"]
    ]
    assert len(codes) == len(set(codes)) == 8
    defaults = quotas.list_aws_default_service_quotas(ServiceCode="ec2")["Quotas"]
    assert {each["QuotaCode"]: each["Value"] for each in defaults}["L-1216C47A"] == 5.0


def test_what_is_not_there(quotas):
    assert (
        refused(quotas.get_service_quota, ServiceCode="nope", QuotaCode="L-0")[0] == "NoSuchResourceException"
    )
    assert (
        refused(quotas.get_service_quota, ServiceCode="ec2", QuotaCode="L-0")[0] == "NoSuchResourceException"
    )


def test_a_request_to_raise_a_quota_stays_pending(aws, quotas):
    aws.set_quota("ec2", "L-417A185B", 8)
    asked = {"ServiceCode": "ec2", "QuotaCode": "L-417A185B"}
    assert (
        refused(quotas.request_service_quota_increase, **asked, DesiredValue=8)[0]
        == "IllegalArgumentException"
    )
    made = quotas.request_service_quota_increase(**asked, DesiredValue=64)["RequestedQuota"]
    assert made["Status"] == "PENDING"
    again = refused(quotas.request_service_quota_increase, **asked, DesiredValue=96)[0]
    assert again == "ResourceAlreadyExistsException"
    history = quotas.list_requested_service_quota_change_history_by_quota(**asked)["RequestedQuotas"]
    assert [each["DesiredValue"] for each in history] == [64.0]
    assert quotas.get_requested_service_quota_change(RequestId=made["Id"])["RequestedQuota"] == made
    assert quotas.get_service_quota(**asked)["Quota"]["Value"] == 8.0


def test_quotas_that_only_moto_knows(quotas):
    assert quotas.get_service_quota(ServiceCode="vpc", QuotaCode="L-F678F1CE")["Quota"]["Value"] == 5.0
