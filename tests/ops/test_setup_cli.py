"""The commands `setup`, `teardown` and `sweep`: what they ask, print and return."""

import json

import pytest

import starburst
from starburst.aws.deployment import load_deployments
from starburst.cli import exit_codes
from starburst.cli.main import main

SECRETS = ("testing12345",)
BUCKET = "starburst-123456789012-us-east-1"


@pytest.fixture
def run(account, capsys):
    """Run a command; its exit code, stdout and stderr, none of which may show a key."""

    def run(*arguments):
        code = main([*arguments])
        shown = capsys.readouterr()
        assert not any(secret in shown.out + shown.err for secret in SECRETS)
        return code, shown.out, shown.err

    return run


def test_without_yes_and_without_a_person_nothing_is_made(account, run):
    code, out, err = run("setup")
    assert code == exit_codes.USAGE
    assert "make     bucket" in out
    assert "starburst setup --yes" in err
    assert account.gate.writes == []


def test_a_person_is_asked(account, run, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", lambda question, err: "changes" not in question)
    code, _, err = run("setup", "--fargate-only")
    assert (code, account.gate.writes) == (exit_codes.FAILED, [])
    assert "nothing was changed" in err
    monkeypatch.setattr("typer.confirm", lambda question, err: True)
    code, out, err = run("setup", "--fargate-only")
    assert code == exit_codes.OK
    assert f"done: bucket {BUCKET}" in err
    assert "set up in us-east-1" in out


def test_dry_run_prints_the_plan(account, run):
    code, out, _ = run("setup", "--dry-run", "--instance-types", "c7g.large,c6i.large")
    assert code == exit_codes.OK
    for name in (BUCKET, "starburst-c7g-large-spot", "starburst-c6i-large", "starburstSupervisorRole"):
        assert name in out
    code, out, _ = run("setup", "--dry-run", "--json")
    plan = json.loads(out)
    assert {step["action"] for step in plan["steps"]} == {"make", "use"}
    assert account.gate.writes == []


def test_json_of_a_set_up(account, run):
    code, out, _ = run("setup", "--yes", "--fargate-only", "--json")
    assert code == exit_codes.OK
    assert json.loads(out)["deployment"]["bucket"] == BUCKET
    assert [one.bucket for one in load_deployments()] == [BUCKET]


def test_check_tells_what_is_missing_and_the_command(account, run):
    code, out, err = run("setup", "--check", "--json")
    found = json.loads(out)
    assert (code, found["ok"]) == (exit_codes.FAILED, False)
    assert found["command"] == "starburst setup --region us-east-1"
    account.gate.refuse_write = 6  # half done
    assert run("setup", "--yes", "--fargate-only")[0] == exit_codes.PROVIDER
    account.gate.clear()
    code, out, err = run("setup", "--check", "--fargate-only")
    assert code == exit_codes.FAILED
    assert "keep     service-linked roles" in out
    assert "make     cluster" in out
    assert "starburst setup --region us-east-1" in err
    assert account.gate.writes == []
    assert run("setup", "--yes", "--fargate-only")[0] == exit_codes.OK
    code, out, err = run("setup", "--check")
    assert (code, err) == (exit_codes.OK, "")
    assert "everything is as it should be" in out


def test_a_taken_name_is_an_error_with_its_way_out(account, run):
    account.client("s3").create_bucket(Bucket=BUCKET)
    account.gate.clear()
    for flags in (["--yes"], ["--yes", "--json"], ["--dry-run"]):
        code, out, _ = run("setup", *flags)
        assert code == exit_codes.PROVIDER
        assert account.gate.writes == []
    assert "FOREIGN  bucket" in out
    code, out, _ = run("setup", "--yes", "--json")
    error = json.loads(out)["error"]
    assert (error["type"], error["hint"]) == (
        "NotSetUp",
        "choose another name: starburst setup --bucket NAME",
    )


def test_print_policies_needs_no_permission_but_to_say_who_one_is(account, run):
    code, out, _ = run("setup", "--print-policies", "--bucket", "our-bucket")
    assert code == exit_codes.OK
    assert account.gate.calls == ["GetCallerIdentity"]
    documents = json.loads(out)
    assert set(documents) == {"setup", "jobs", "bucket", "roles"}
    assert "our-bucket" in json.dumps(documents["jobs"])
    assert set(documents["roles"]) == {
        "starburstECSExecutionRole",
        "starburstECSTaskRole",
        "starburstSupervisorRole",
        "starburstECSInstanceRole",
    }
    code, out, _ = run("setup", "--print-policies", "--bucket", "our-bucket", "--json")
    assert json.loads(out) == documents


def test_teardown_lists_first_and_removes_with_yes(account, run):
    before = account.resources()
    starburst.setup(fargate_only=True)
    account.gate.clear()
    code, out, err = run("teardown")
    assert code == exit_codes.USAGE
    assert f"remove  bucket            {BUCKET}" in out
    assert "starburst teardown --yes" in err
    assert run("teardown", "--dry-run", "--json")[0] == exit_codes.OK
    assert account.gate.writes == []
    code, out, _ = run("teardown", "--yes", "--json")
    assert (code, json.loads(out)["done"]) == (exit_codes.OK, True)
    assert account.resources() == before
    assert load_deployments() == []
    code, out, _ = run("teardown", "--yes")
    assert code == exit_codes.OK
    assert "there is nothing of starburst to remove" in out


def test_sweep_of_an_empty_account_finds_nothing(account, run):
    code, out, err = run("sweep")
    assert (code, err) == (exit_codes.OK, "")
    assert "nothing is left over" in out
    assert json.loads(run("sweep", "--yes", "--json")[1])["leftovers"] == []


def test_nothing_secret_is_in_the_settings(account, run, tmp_path):
    run("setup", "--yes", "--fargate-only")
    texts = [path.read_text() for path in (tmp_path / "config").rglob("*.toml")]
    assert texts
    assert not any(secret in text for text in texts for secret in SECRETS)
