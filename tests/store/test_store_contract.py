"""The one contract, on every store that starburst has."""

import pytest

from starburst.store import open_store
from starburst.testing import FaultyStore
from starburst.testing.contracts import StoreContract


class TestMemory(StoreContract):
    @pytest.fixture
    def store(self):
        return open_store("memory://")


class TestFolder(StoreContract):
    @pytest.fixture
    def store(self, folder_url):
        return open_store(folder_url)


class TestS3(StoreContract):
    empty_folders_vanish = False  # SeaweedFS cleans up after a while

    @pytest.fixture
    def store(self, s3_url):
        return open_store(s3_url)


class TestFaultyWithoutFaults(StoreContract):
    @pytest.fixture
    def store(self):
        return FaultyStore(open_store("memory://"))
