"""Options of the cloud on this machine: a program that was written for one runs on the other."""

import logging

import client_tasks as tasks
import pytest

import starburst


@pytest.mark.this_machine
def test_what_has_no_effect_here_is_said_once(warm, caplog):
    for _ in range(2):
        results = starburst.map(
            tasks.square,
            range(3),
            gpus=1,
            spot=False,
            instance_type="g5.xlarge",
            memory="1GB",
            progress=False,
        )
        assert results == [0, 1, 4]
    said = [record for record in caplog.records if record.name == "starburst.client.plan"]
    assert [record.getMessage() for record in said] == [
        "without effect with launch_type LOCAL: gpus, spot, instance_type"
    ]
    assert said[0].levelno == logging.WARNING


@pytest.mark.this_machine
def test_settings_and_defaults_are_not_said(warm, caplog, monkeypatch):
    """Settings are for all programs, also those that run in the cloud."""
    monkeypatch.setenv("STARBURST_CPU", "2")
    assert starburst.map(tasks.square, [3], spot=True, gpus=0, progress=False) == [9]
    assert "without effect" not in caplog.text


@pytest.mark.this_machine
def test_a_plan_is_said_too(warm, caplog):
    with starburst.plan(on_demand_base=2):
        starburst.map(tasks.square, [3], progress=False)
    assert "without effect with launch_type LOCAL: on_demand_base" in caplog.text
