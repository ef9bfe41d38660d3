"""Sizes of Fargate."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starburst.compute.fargate_sizes import FARGATE_MEMORY_MIB, fargate_size
from starburst.errors import OptionError

GIB = 2**30


@pytest.mark.parametrize(
    ("cpu", "memory_bytes", "size"),
    [
        (0.25, GIB // 2, (256, 512)),
        (0.25, 2 * GIB, (256, 2048)),
        (1, 2 * GIB, (1024, 2048)),
        (4, 8 * GIB, (4096, 8192)),
        (4, 30 * GIB, (4096, 30720)),
        (16, 120 * GIB, (16384, 122880)),
        (32, 244 * GIB, (32768, 249856)),
    ],
)
def test_sizes_that_exist(cpu, memory_bytes, size):
    assert fargate_size(cpu, memory_bytes) == size


def test_memory_that_does_not_fit_names_the_nearest_choices():
    with pytest.raises(OptionError, match=r'cpu=4 with memory="4GB" .* 8GB to 30GB') as caught:
        fargate_size(4, 4 * GIB)
    assert caught.value.hint == 'cpu=4, memory="8GB" or cpu=2, memory="4GB"'


def test_cpu_that_does_not_exist_names_the_nearest():
    with pytest.raises(
        OptionError, match=r"cpu=3 is not a size of Fargate, which has 0\.25, 0\.5, 1"
    ) as caught:
        fargate_size(3, 8 * GIB)
    assert caught.value.hint in ("cpu=2", "cpu=4")


@given(st.floats(0.01, 64), st.integers(1, 300 * GIB))
def test_every_size_is_one_of_the_table_or_refused(cpu, memory_bytes):
    try:
        units, mib = fargate_size(cpu, memory_bytes)
    except OptionError as error:
        assert error.hint
    else:
        assert mib in FARGATE_MEMORY_MIB[units]
        assert mib * 2**20 >= memory_bytes
