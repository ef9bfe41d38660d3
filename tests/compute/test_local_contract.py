from toys import toy_provider

from starburst.testing.provider_contract import ProviderContract


class TestLocalProvider(ProviderContract):
    def make_provider(self, folder):
        return toy_provider(folder)
