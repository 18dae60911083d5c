"""The catalogue: models, the upstreams that serve them, and the providers' keys."""

from weir.aws.operator.records import Document, Records, existing, found, state
from weir.aws.provider_keys import host_of
from weir.errors import BadRequest, Conflict
from weir.operator.documents import ModelDocument, UpstreamDocument
from weir.projects.upstream_kinds import reason_for_no_key


class Models(Records):
    def model(self, name: str) -> Document:
        return found(self.catalogue()["models"], name, "model")

    def put_model(self, name: str, model: ModelDocument) -> Document:
        def unless(before: Document | None) -> None:
            self._refuse_if_used(name, _spellings(before) - {name, *model.aliases})

        def put(before: Document | None) -> Document:
            return {**model.stored(), **state(before or {"created_at": self._now()})}

        return self._change_catalogue("models", name, "model.set", put, unless=unless)

    def remove_model(self, name: str) -> None:
        def unless(before: Document | None) -> None:
            self._refuse_if_used(name, {name} | _spellings(before))

        self._change_catalogue("models", name, "model.remove", None, unless=unless)

    def _refuse_if_used(self, name: str, spelled: set[str]) -> None:
        """If a project names the model in one of these spellings."""
        if not spelled:
            return
        users = [
            pid
            for pid, record in sorted(self._table.projects().items())
            if spelled
            & {record.document.get("default_model"), *(record.document.get("models") or ())}
        ]
        if users:
            raise Conflict(f"The model {name!r} is named by the project {', '.join(users)}.")

    def upstream(self, name: str) -> Document:
        return found(self.catalogue()["upstreams"], name, "upstream")

    def put_upstream(self, name: str, upstream: UpstreamDocument) -> Document:
        had_key = "key_last4" in self.catalogue()["upstreams"].get(name, {})

        def put(before: Document | None) -> Document:
            return with_its_key(upstream, before)

        told = self._change_catalogue("upstreams", name, "upstream.set", put)
        if had_key:
            self._forget_keys(name)
        return told

    def remove_upstream(self, name: str) -> None:
        models = self.catalogue()["models"]
        users = [n for n, m in models.items() if name in (c["upstream"] for c in m["candidates"])]
        if users:
            raise Conflict(f"The upstream {name!r} serves: {', '.join(sorted(users))}.")
        self._change_catalogue("upstreams", name, "upstream.remove", None)
        self._forget_keys(name)

    def set_provider_key(self, name: str, key: str) -> Document:
        """Recorded first: a key that is in use was set by somebody."""
        there = self.upstream(name)
        base_url = there.get("base_url")
        if base_url is None:  # a key belongs to a host
            raise BadRequest(
                f"An upstream of kind {there['kind']} takes no key: "
                f"{reason_for_no_key(there['kind'])}."
            )

        def put(before: Document | None) -> Document:
            if before is None or before.get("base_url") != base_url:
                raise Conflict(f"The upstream {name!r} has been changed meanwhile.")
            return {**before, "key_last4": key[-4:]}

        with self._alone_with_keys():
            told = self._change_catalogue("upstreams", name, "upstream.key.set", put, always=True)
            self._provider_keys.set(name, key, base_url)
        return told

    def remove_provider_key(self, name: str) -> None:
        def put(before: Document | None) -> Document:
            there = existing(before, name, "upstream")
            return {n: v for n, v in there.items() if n != "key_last4"}

        self.upstream(name)
        with self._alone_with_keys():
            self._change_catalogue("upstreams", name, "upstream.key.remove", put)
            self._provider_keys.remove(name)


def _spellings(model: Document | None) -> set[str]:
    return set((model or {}).get("aliases", ()))


def with_its_key(upstream: UpstreamDocument, before: Document | None) -> Document:
    """As it is kept: with the note of its key, as long as that still belongs to its host."""
    told = upstream.stored()
    was, now = (before or {}).get("base_url"), told.get("base_url")
    if before and "key_last4" in before and was and now and host_of(was) == host_of(now):
        told["key_last4"] = before["key_last4"]
    return told
