"""The Price List API and Spot prices of the simulated account."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import ClientError
from ec2_capacity import Capacity


@pytest.fixture(scope="module")
def clients(aws):
    made = Capacity(aws)
    return made.client("pricing"), made.ec2


def search(pricing, service, **wanted):
    filters = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in wanted.items()]
    pages = pricing.get_paginator("get_products").paginate(ServiceCode=service, Filters=filters)
    return [json.loads(each) for page in pages for each in page["PriceList"]]


def usd(product):
    (term,) = product["terms"]["OnDemand"].values()
    (dimension,) = term["priceDimensions"].values()
    return float(dimension["pricePerUnit"]["USD"])


LINUX = {"operatingSystem": "Linux", "tenancy": "Shared", "capacitystatus": "Used", "preInstalledSw": "NA"}


@pytest.mark.parametrize(
    ("instance_type", "price"),
    [("c7g.xlarge", 0.145), ("c7g.medium", 0.03625), ("c8g.2xlarge", 0.319), ("g5.xlarge", 1.006)],
)
def test_one_price_for_a_precise_question(clients, instance_type, price):
    found = search(clients[0], "AmazonEC2", instanceType=instance_type, regionCode="us-east-1", **LINUX)
    assert [usd(each) for each in found] == [price]
    assert found[0]["product"]["attributes"]["instanceType"] == instance_type
    assert found[0]["terms"]["OnDemand"]


def test_a_careless_question_finds_other_rows_too(clients):
    found = search(clients[0], "AmazonEC2", instanceType="c7g.xlarge", regionCode="us-east-1")
    assert len(found) == 7
    assert 0.0 in [usd(each) for each in found]


@pytest.mark.parametrize(
    ("usage", "price"),
    [
        ("USE1-Fargate-vCPU-Hours:perCPU", 0.04048),
        ("USE1-Fargate-GB-Hours", 0.004445),
        ("USE1-Fargate-ARM-vCPU-Hours:perCPU", 0.03238),
        ("USE1-Fargate-ARM-GB-Hours", 0.00356),
        ("USE1-Fargate-EphemeralStorage-GB-Hours", 0.000111),
    ],
)
def test_fargate(clients, usage, price):
    assert [usd(each) for each in search(clients[0], "AmazonECS", usagetype=usage)] == [price]


def test_other_regions_have_other_prefixes_and_prices(clients):
    found = search(clients[0], "AmazonECS", regionCode="eu-central-1")
    prices = {each["product"]["attributes"]["usagetype"]: usd(each) for each in found}
    assert prices["EUC1-Fargate-vCPU-Hours:perCPU"] > 0.04048


def test_pages_and_operators(clients):
    pricing, _ = clients
    filters = [
        {"Type": "ANY_OF", "Field": "instanceType", "Value": "c7g.xlarge,c8g.xlarge"},
        {"Type": "CONTAINS", "Field": "location", "Value": "us east"},
        {"Type": "NONE_OF", "Field": "operatingSystem", "Value": "Windows,RHEL"},
    ]
    first = pricing.get_products(ServiceCode="AmazonEC2", Filters=filters, MaxResults=3)
    assert len(first["PriceList"]) == 3
    second = pricing.get_products(
        ServiceCode="AmazonEC2", Filters=filters, MaxResults=100, NextToken=first["NextToken"]
    )
    types = {json.loads(each)["product"]["attributes"]["instanceType"] for each in second["PriceList"]}
    assert types == {"c7g.xlarge", "c8g.xlarge"}
    assert "NextToken" not in second


def test_what_there_is_to_ask_for(clients):
    pricing, _ = clients
    services = pricing.describe_services()["Services"]
    assert [each["ServiceCode"] for each in services] == ["AmazonEC2", "AmazonECS"]
    regions = pricing.get_attribute_values(ServiceCode="AmazonECS", AttributeName="regionCode")
    assert {"Value": "eu-west-1"} in regions["AttributeValues"]


def test_what_it_refuses(aws, clients):
    with pytest.raises(ClientError, match="NotFoundException"):
        clients[0].get_products(ServiceCode="AmazonNothing")
    elsewhere = Capacity(aws, region="eu-west-1").client("pricing")
    with pytest.raises(ClientError, match="no endpoint in eu-west-1"):
        elsewhere.get_products(ServiceCode="AmazonEC2")


def test_spot_prices_now(clients):
    now = datetime.now(UTC)
    rows = clients[1].describe_spot_price_history(
        InstanceTypes=["c7g.xlarge", "g5.xlarge"],
        ProductDescriptions=["Linux/UNIX"],
        StartTime=now,
        EndTime=now,
    )["SpotPriceHistory"]
    prices = {(row["InstanceType"], row["AvailabilityZone"]): float(row["SpotPrice"]) for row in rows}
    assert len(prices) == len(rows) == 12
    assert all(0.28 * 0.145 <= prices[key] <= 0.45 * 0.145 for key in prices if key[0] == "c7g.xlarge")
    assert len(set(prices.values())) == 12
    assert all(row["Timestamp"] <= now for row in rows)


def test_spot_prices_of_two_days_in_one_zone(clients):
    now = datetime.now(UTC)
    asked = {
        "InstanceTypes": ["c7g.xlarge"],
        "AvailabilityZone": "us-east-1b",
        "StartTime": now - timedelta(days=2),
        "EndTime": now,
    }
    pages = (
        clients[1]
        .get_paginator("describe_spot_price_history")
        .paginate(**asked, PaginationConfig={"PageSize": 4})
    )
    rows = [row for page in pages for row in page["SpotPriceHistory"]]
    stamps = [row["Timestamp"] for row in rows]
    assert stamps == sorted(stamps, reverse=True)
    assert len(rows) == 9
    assert len({row["SpotPrice"] for row in rows}) > 1
