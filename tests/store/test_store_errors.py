"""Each foreign exception has its place in our tree."""

import inspect
import warnings

import botocore.exceptions
import obstore.exceptions
import pytest

from starburst.errors import StoreError
from starburst.store.errors import BY_CLASS, mapped, store_error


def foreign_classes(module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # obstore warns of its own deprecated name
        found = [getattr(module, name) for name in dir(module)]
    return [kind for kind in found if inspect.isclass(kind) and issubclass(kind, Exception)]


OBSTORE = foreign_classes(obstore.exceptions)
BOTOCORE = foreign_classes(botocore.exceptions)


@pytest.mark.parametrize("kind", OBSTORE, ids=lambda kind: kind.__name__)
def test_every_obstore_exception_stands_in_the_table(kind):
    assert kind.__name__ in BY_CLASS
    with pytest.raises(StoreError, match="'k' in s3://bucket") as caught, mapped("get", "k", "s3://bucket"):
        raise kind("something")
    assert isinstance(caught.value.__cause__, kind)


@pytest.mark.parametrize("kind", BOTOCORE, ids=lambda kind: kind.__name__)
def test_every_botocore_exception_is_mapped(kind):
    error = kind.__new__(kind)
    assert isinstance(store_error(error, verb="get", key="k", url="s3://bucket"), StoreError)


@pytest.mark.parametrize(
    "error", [TimeoutError(), ValueError("bad"), RuntimeError("odd"), OSError(), KeyError("k")]
)
def test_anything_else_is_mapped_too(error):
    ours = store_error(error, verb="create", key="k", url="s3://bucket")
    assert ours.message.startswith("could not create 'k' in s3://bucket: ")
    assert len(ours.message) > len("could not create 'k' in s3://bucket: ")


def test_our_own_pass_unchanged():
    error = StoreError("ours")
    with pytest.raises(StoreError) as caught, mapped("get", "k", "s3://bucket"):
        raise error
    assert caught.value is error
