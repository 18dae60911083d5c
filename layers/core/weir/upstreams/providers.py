"""Requests to upstreams of every kind: their credentials, and the connections a process keeps.

What differs between the kinds is in the table `weir.projects.upstream_kinds`. Here is where a
credential comes from: an operator's key out of the vault, which goes to no other host than the one
it was given for (docs/decisions/0010), or a bearer made from the function's role. The mock
provider needs neither, nor a connection.
"""

import time
from collections.abc import Callable, Mapping

from weir.aws import provider_keys
from weir.aws.vault import Vault
from weir.chat import relay
from weir.errors import NotReady
from weir.projects.catalogue import Upstream
from weir.projects.model_kinds import CHAT
from weir.projects.upstream_kinds import KINDS
from weir.upstreams import bedrock
from weir.upstreams.openai_compatible import Provider


class Providers:
    """`secret_id` names the secret of all keys. `region` and `role`, an environment with
    AWS_ACCESS_KEY_ID and its like, are the function's own. `clock` is in Unix seconds.
    """

    def __init__(
        self,
        vault: Vault,
        secret_id: str,
        *,
        region: str,
        role: Mapping[str, str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._vault = vault
        self._secret_id = secret_id
        self._region = region
        self._role = role
        self._clock = clock
        self._connected: dict[str, Provider] = {}  # by base URL
        self._prepared: Provider | None = None
        self._role_bearers: dict[str, bedrock.RoleBearer] = {}  # by region

    def open(
        self,
        upstream: Upstream,
        model: str,
        body: bytes,
        *,
        stream: bool,
        kind_of_model: str = CHAT,
    ) -> relay.Upstream:
        """Start a request for `model`, which is the upstream's own name, and return at once.

        Raises NotReady (`upstream_not_configured`) if there is no key for the upstream's host, or
        this release does not know the upstream's kind, or how it serves such a model.
        """
        kind = KINDS.get(upstream.kind)
        if kind is None:
            raise _not_configured(
                f"This release of the gateway knows no upstream of kind {upstream.kind!r}, which "
                f"{upstream.name!r} is."
            )
        if not kind.serves(kind_of_model):
            raise _not_configured(
                f"An upstream of kind {kind.name!r}, which {upstream.name!r} is, serves no "
                f"{kind_of_model} models."
            )
        if kind.in_process:
            from weir.upstreams import mock  # few deployments have one

            return mock.MockCall(model, body)
        now = int(self._clock())
        if kind.has_key:
            secret = self._key(upstream.name, upstream.settings["base_url"], now)
        else:
            secret = self._role_bearer(self._region_of(upstream), now)
        to = kind.destination(model, upstream.settings, secret, kind_of_model)
        provider = self._provider(upstream)
        if self._prepared is not provider:
            self.forgo()
        self._prepared = None
        return provider.open(to, body, stream=stream)

    def prepare(self, upstream: Upstream) -> None:
        """Begin to dial `upstream`, which is likely to be opened, and return at once. Ask it for
        nothing. Then `open` or `forgo` follows.
        """
        kind = KINDS.get(upstream.kind)
        if kind is not None and not kind.in_process:
            self._prepared = self._provider(upstream)
            self._prepared.prepare()

    def forgo(self) -> None:
        """End what `prepare` began, unless it has been opened. A connection that is ready stays."""
        prepared, self._prepared = self._prepared, None
        if prepared is not None:
            prepared.forgo()

    def _provider(self, upstream: Upstream) -> Provider:
        if KINDS[upstream.kind].has_key:
            base_url = upstream.settings["base_url"]
        else:
            base_url = bedrock.base_url(self._region_of(upstream))
        if base_url not in self._connected:
            self._connected[base_url] = Provider(base_url)
        return self._connected[base_url]

    def _region_of(self, upstream: Upstream) -> str:
        return upstream.settings.get("region", self._region)

    def forget_keys(self) -> None:
        """Read the keys anew for the next request: one of them was refused, or was missing."""
        self._vault.forget(self._secret_id)

    def close(self) -> None:
        """Close all connections."""
        for provider in self._connected.values():
            provider.close()

    def _key(self, upstream: str, base_url: str, now: int) -> str:
        key = provider_keys.key_for(self._vault.read(self._secret_id, now), upstream, base_url)
        if key is None:
            self.forget_keys()  # once it is set, it counts at once
            raise _not_configured(
                f"This gateway has no key for {upstream!r}. The operator sets it: "
                f"weir upstreams set-key {upstream}."
            )
        return key

    def _role_bearer(self, region: str, now: int) -> str:
        if region not in self._role_bearers:
            self._role_bearers[region] = bedrock.RoleBearer(self._role, region)
        return self._role_bearers[region].at(now)


def _not_configured(message: str) -> NotReady:
    return NotReady(message, code="upstream_not_configured", retryable=False)
