"""What tests of registries share."""

import os
from contextlib import ExitStack, contextmanager

from breaking_proxy import Proxy

from starburst.environment.registry import Registry
from starburst.environment.registry_upload import Blob


@contextmanager
def behind_proxy(oci, *, piece_bytes=1 << 20, username=None, password=None, **options):
    """A proxy before a registry, and a client of it that does not wait between tries; it notes what it would wait."""
    with ExitStack() as stack:
        proxy = stack.enter_context(Proxy(oci.address, **options))
        waits = []
        client = Registry(
            proxy.address, username=username, password=password, sleep=waits.append, piece_bytes=piece_bytes
        )
        proxy.waits = waits
        yield proxy, stack.enter_context(client)


def noise(size):
    """A blob that no registry has."""
    return Blob.of_bytes(os.urandom(size))
