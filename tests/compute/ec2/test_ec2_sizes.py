"""Instance types by name, and how many workers a host holds: nothing here asks AWS."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from starburst.aws.instance_types import InstanceType, architecture_of, check_one_architecture, known_types
from starburst.compute.ec2_sizes import WorkerSize, default_size, fits, usable_memory_mib
from starburst.errors import OptionError

KNOWN = {one.name: one for one in known_types()}
C7G = KNOWN["c7g.xlarge"]  # 4 vCPUs, 8 GiB


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("c7g.xlarge", "ARM64"),
        ("m8gd.large", "ARM64"),
        ("c6gn.medium", "ARM64"),
        ("im4gn.large", "ARM64"),
        ("is4gen.large", "ARM64"),
        ("x2gd.large", "ARM64"),
        ("hpc7g.4xlarge", "ARM64"),
        ("t4g.micro", "ARM64"),
        ("g5g.xlarge", "ARM64"),
        ("a1.large", "ARM64"),
        ("i8ge.large", "ARM64"),
        ("c7i.xlarge", "X86_64"),
        ("g4dn.xlarge", "X86_64"),
        ("g5.xlarge", "X86_64"),
        ("g6.xlarge", "X86_64"),
        ("gr6.4xlarge", "X86_64"),
        ("u-6tb1.56xlarge", "X86_64"),
        ("m7i-flex.large", "X86_64"),
        ("c7i.metal-24xl", "X86_64"),
    ],
)
def test_the_name_tells_the_architecture(name, architecture):
    assert architecture_of(name) == architecture


@pytest.mark.parametrize(
    "name", ["", "c7g", "c7g.", ".large", "C7G.xlarge", "c7g xlarge", "c7g.xlarge\n", "c7g.x*"]
)
def test_what_is_no_name_of_a_type(name):
    with pytest.raises(OptionError, match="not an instance type"):
        architecture_of(name)


def test_a_name_with_a_slip_is_answered_with_the_nearest():
    with pytest.raises(OptionError) as caught:
        architecture_of("C7G.xlarge")
    assert "did you mean c7g.xlarge" in str(caught.value)


def test_mixed_architectures_are_grouped():
    assert check_one_architecture(["c7g.xlarge", "m7g.large"]) == "ARM64"
    with pytest.raises(OptionError) as caught:
        check_one_architecture(["c7g.xlarge", "c7i.xlarge", "m7g.large"])
    assert "ARM64: c7g.xlarge, m7g.large; X86_64: c7i.xlarge" in str(caught.value)
    with pytest.raises(OptionError, match="names no type"):
        check_one_architecture([])


def test_the_host_of_the_default_options_holds_one_worker_of_the_default_size():
    size = default_size([C7G], cpu=4, memory_mib=8192)
    assert size == WorkerSize(cpu_units=4096, memory_mib=usable_memory_mib(C7G))
    assert fits(C7G, size.cpu_units, size.memory_mib) == 1


@pytest.mark.parametrize(
    ("cpu", "memory_mib", "workers"),
    [
        (None, None, 1),
        (2, None, 2),
        (1, 1024, 4),
        (1, 3072, 2),
        (0.5, 512, 8),
        (2, 4096, 2),
        (1, 8192, 1),
        (None, 2048, 4),
    ],
)
def test_several_workers_on_one_host(cpu, memory_mib, workers):
    size = default_size([C7G], cpu, memory_mib)
    assert fits(C7G, size.cpu_units, size.memory_mib) == workers
    if cpu is not None:
        assert size.cpu_units == cpu * 1024
    if memory_mib is not None:
        assert memory_mib * 0.85 <= size.memory_mib <= memory_mib


def test_the_smallest_type_of_a_list_decides():
    large = KNOWN["c7g.4xlarge"]
    size = default_size([large, C7G], None, None)
    assert size == default_size([C7G], None, None)
    assert fits(large, size.cpu_units, size.memory_mib) == 4


def test_gpus_are_shared_out_and_not_split():
    four = KNOWN["g5.12xlarge"]
    size = default_size([four], None, None, gpus=1)
    assert size.gpus == 1
    assert fits(four, size.cpu_units, size.memory_mib, 1) == 4
    assert fits(four, 1024, 1024, 3) == 1
    assert fits(C7G, 1024, 1024, 1) == 0


@pytest.mark.parametrize(
    ("cpu", "memory_mib", "gpus"), [(8, 1024, 0), (1, 9000, 0), (1, 1024, 1), (None, 9000, 0), (16, None, 0)]
)
def test_a_worker_that_is_larger_than_the_host(cpu, memory_mib, gpus):
    with pytest.raises(OptionError) as caught:
        default_size([C7G], cpu, memory_mib, gpus)
    message = str(caught.value)
    assert "larger than c7g.xlarge (4 vCPUs, 8,192 MiB" in message
    suggested = [one for one in known_types() if one.name in message.partition("→")[2]]
    assert suggested
    for one in suggested:
        assert fits(one, round((cpu or 0) * 1024), memory_mib or 0, gpus) >= 1
        assert gpus or one.architecture == "ARM64"


def test_the_types_of_a_list_that_are_too_small_are_named():
    with pytest.raises(OptionError, match=r"larger than c7g\.xlarge \(") as caught:
        default_size([KNOWN["c7g.4xlarge"], C7G], 8, None)
    assert "c7g.4xlarge (" not in str(caught.value)


def test_no_type_at_all_would_do():
    with pytest.raises(OptionError, match="ask for a smaller worker"):
        default_size([C7G], 1000, None)


hosts = st.builds(
    InstanceType,
    name=st.just("x1.large"),
    architecture=st.just("X86_64"),
    vcpus=st.integers(1, 192),
    memory_mib=st.integers(512, 1 << 20),
    gpus=st.integers(0, 8),
)


@given(hosts, st.integers(1, 200_000), st.integers(1, 1 << 20), st.integers(0, 8))
def test_what_fits_never_takes_more_than_there_is(host, cpu_units, memory_mib, gpus):
    workers = fits(host, cpu_units, memory_mib, gpus)
    assert workers * cpu_units <= host.vcpus * 1024
    assert workers * memory_mib <= usable_memory_mib(host) < host.memory_mib
    assert workers * gpus <= host.gpus or workers == 0


@example(
    [InstanceType(name="x1.large", architecture="X86_64", vcpus=1, memory_mib=131_200, gpus=0)], None, 128, 0
)
@given(
    st.lists(hosts, min_size=1, max_size=4),
    st.none() | st.floats(0.25, 64),
    st.none() | st.integers(128, 1 << 18),
    st.integers(0, 4),
)
def test_a_size_fits_every_type_or_is_refused(types, cpu, memory_mib, gpus):
    try:
        size = default_size(types, cpu, memory_mib, gpus)
    except OptionError:
        return
    assert all(fits(one, size.cpu_units, size.memory_mib, gpus) >= 1 for one in types)
    assert size.cpu_units > 0
    assert size.memory_mib > 0
    if cpu is not None:
        assert math.isclose(size.cpu_units, cpu * 1024, abs_tol=1)
    if memory_mib is not None:
        assert size.memory_mib <= memory_mib
