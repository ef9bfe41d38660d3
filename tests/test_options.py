from __future__ import annotations

import math
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starburst.errors import OptionError
from starburst.options import MAX_WORKERS, Options, check_names, parse_duration_s, parse_memory_bytes


def test_the_defaults_are_valid_and_in_seconds() -> None:
    options = Options()
    assert (options.workers, options.slots, options.launch_type) == (os.cpu_count(), 1, "LOCAL")
    assert options.timeout_s is None
    assert options.seconds("absolute_timeout") == 86_400.0
    assert options.seconds("lease") == 15.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (5, 5.0),
        (0.25, 0.25),
        ("90", 90.0),
        ("90s", 90.0),
        ("1.5m", 90.0),
        ("2 min", 120.0),
        (" 12h ", 43_200.0),
        ("12H", 43_200.0),
        ("2d", 172_800.0),
    ],
)
def test_durations(text: Any, seconds: float) -> None:
    assert parse_duration_s("timeout", text) == seconds
    assert Options(timeout=text).timeout_s == seconds


@pytest.mark.parametrize(
    "bad", [0, -1, "0s", "-5m", "", "soon", "5 weeks", "1h30m", True, [1], math.inf, math.nan, "infs", None]
)
def test_what_is_no_duration_is_refused(bad: Any) -> None:
    with pytest.raises(OptionError, match=r"lease=.* is not a length of time above 0") as caught:
        parse_duration_s("lease", bad)
    assert '"90m"' in str(caught.value.hint)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        (8, 8 * 2**30),
        (0.5, 2**29),
        ("8GB", 8 * 2**30),
        ("8 gib", 8 * 2**30),
        ("8g", 8 * 2**30),
        ("8", 8 * 2**30),
        ("512MB", 2**29),
        ("1.5M", 3 * 2**19),
        ("1TB", 2**40),
        (" 0.5 tib", 2**39),
    ],
)
def test_amounts_of_memory(text: Any, size_bytes: int) -> None:
    assert parse_memory_bytes(text) == size_bytes
    Options(memory=text)


@pytest.mark.parametrize("text", ["FARGATE", "fargate", "Fargate ", " fargate\n"])
def test_a_launch_type_is_known_however_it_is_written(text: str) -> None:
    options = Options(launch_type=text)
    assert (options.launch_type, options.workers) == ("FARGATE", 10)


@pytest.mark.parametrize(
    ("launch_type", "without"),
    [
        ("LOCAL", ("cpu", "spot", "instance_type", "gpus", "image")),
        ("FARGATE", ("instance_type",)),
        ("EC2", ()),
        ("SOMEBODYS-OWN", ()),
    ],
)
def test_what_a_launch_type_does_not_look_at(launch_type: str, without: tuple[str, ...]) -> None:
    given: dict[str, Any] = {"cpu": 2, "spot": "no", "instance_type": "g5.xlarge", "gpus": 1, "image": "x"}
    if launch_type == "FARGATE":
        given["gpus"] = 0
    options = Options(launch_type=launch_type, workers=3, memory="2GB", **given)
    assert options.without_effect([*given, "workers", "memory"]) == without


@pytest.mark.parametrize("bad", [0, -1, "0GB", "", "8PB", "eight", "8 GB RAM", True, 1e9, math.nan, [8]])
def test_what_is_no_amount_of_memory_is_refused(bad: Any) -> None:
    with pytest.raises(OptionError, match=r"memory=.* is not an amount of memory"):
        Options(memory=bad)


WHOLE = [
    *({"workers": bad} for bad in (0, -1, 1.5, "4", True)),
    *({"slots": bad} for bad in (0, 257, "2", 2.0)),
    *({"retries": bad} for bad in (-1, 101, None, False)),
    *({"max_attempts": bad} for bad in (0, 101)),
    *({"max_workers": bad} for bad in (0, "many")),
]


@pytest.mark.parametrize("given_", WHOLE, ids=str)
def test_numbers_out_of_range_are_refused_by_name(given_: dict[str, Any]) -> None:
    (name, value), *_ = given_.items()
    with pytest.raises(OptionError, match=rf"{name}=.* is not a whole number") as caught:
        Options(**given_)
    assert repr(value) in caught.value.message
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("bad", [0, -2, "4", True, math.nan, math.inf])
def test_cpu_is_a_number_above_zero(bad: Any) -> None:
    with pytest.raises(OptionError, match=r"cpu=.* is not a number of vCPUs above 0"):
        Options(cpu=bad)
    assert Options(cpu=0.25).cpu == 0.25
    assert Options(cpu=4).cpu == 4


def test_the_guard_rail_says_how_to_raise_it() -> None:
    Options(workers=MAX_WORKERS)
    with pytest.raises(OptionError, match="workers=501 is more than the 500") as caught:
        Options(workers=501)
    assert "max_workers=" in str(caught.value.hint)
    assert "quota" in str(caught.value.hint)
    assert Options(workers=501, max_workers=501).workers == 501
    with pytest.raises(OptionError, match="workers=2 is more than the 1"):
        Options(max_workers=1)


@pytest.mark.parametrize("bad", ["", None])
def test_a_launch_type_has_a_name(bad: Any) -> None:
    with pytest.raises(OptionError, match="launch_type="):
        Options(launch_type=bad)


def test_each_duration_is_checked_when_options_are_made() -> None:
    for name in ("timeout", "idle_timeout", "session_timeout", "absolute_timeout", "lease"):
        with pytest.raises(OptionError, match=f"{name}='never' is not a length of time"):
            Options(**{name: "never"})


def test_changes_go_on_top_and_none_changes_nothing() -> None:
    base = Options(workers=7, timeout="5m")
    changed = base.merged({"workers": None, "slots": 3, "timeout": "1h"})
    assert (changed.workers, changed.slots, changed.timeout_s) == (7, 3, 3600.0)
    assert base.merged({}) is base
    assert base.merged({"slots": None}) is base
    with pytest.raises(OptionError, match="workers=0"):
        base.merged({"workers": 0})


@pytest.mark.parametrize(
    ("wrong", "right"), [("worker", "workers"), ("retry", "retries"), ("time_out", "timeout")]
)
def test_an_unknown_name_gets_its_nearest_and_all_valid_ones(wrong: str, right: str) -> None:
    with pytest.raises(OptionError, match=f"'{wrong}' is not an option of this call") as caught:
        Options().merged({wrong: 1})
    assert f"did you mean '{right}'?" in str(caught.value.hint)
    for name in Options.names():
        assert name in str(caught.value.hint)


def test_a_name_like_no_other_gets_no_guess() -> None:
    with pytest.raises(OptionError) as caught:
        check_names({"qqqq": 1}, ("workers", "slots"))
    assert str(caught.value.hint).startswith("valid names: slots, workers")
    assert "functools.partial" in str(caught.value.hint)
    check_names({"slots": 1}, ("workers", "slots"))


def test_options_are_values() -> None:
    assert Options(workers=3) == Options(workers=3)
    with pytest.raises(AttributeError):
        Options().workers = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        Options(3)  # type: ignore[misc]


@given(st.text(max_size=12))
def test_any_text_is_a_duration_above_zero_or_an_error_of_ours(text: str) -> None:
    for parse in (lambda t: parse_duration_s("timeout", t), parse_memory_bytes):
        try:
            assert parse(text) > 0
        except OptionError as error:
            assert repr(text) in error.message
