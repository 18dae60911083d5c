"""Customers and their client tokens, as an operator sees and changes them."""

from collections.abc import Callable, Mapping
from typing import Any

from weir.aws.client_tokens import ClientTokens
from weir.aws.customers import Changed
from weir.aws.customers import Customers as Stored
from weir.aws.operator.projects import Projects
from weir.aws.operator.records import Document
from weir.aws.table import Stale
from weir.customers import customer as customers
from weir.customers.customer import Customer
from weir.customers.lists import token_view
from weir.customers.names import parse_reference
from weir.operator.audit import differing
from weir.projects.project import Project


class Customers(Projects):
    def customers(
        self, pid: str, limit: int, after: str | None
    ) -> tuple[list[Customer], str | None]:
        """Return them, the newest first, and after which one the next page begins."""
        self._project(pid)
        return self._stored().page(pid, limit, after)

    def customer(self, pid: str, ref: str) -> Customer:
        """`ref` is its id, or `ext:` and its external id. Raises NotFound."""
        self._project(pid)
        return self._stored().find(pid, parse_reference(ref))

    def create_customer(self, pid: str, told: Mapping[str, Any]) -> Customer:
        """Raises ExternalIdTaken. A project without a budget for all of them may have customers
        that an operator makes, who knows how many there are.
        """
        project = Project.from_document(pid, self._project(pid).document)
        stored, now = self._stored(), self._now()
        made = customers.created(told, stored.new_id(now * 1000), now, project.customer_limits)
        entry = self._entry("customer.create", f"{pid}/{made.id}", None, made.document())
        stored.create(pid, made, now, project.new_customers_per_hour, self._table.audited(entry))
        return made

    def change_customer(self, pid: str, ref: str, told: Mapping[str, Any]) -> Customer:
        """What is not named stays. Counts on the next request."""
        project = Project.from_document(pid, self._project(pid).document)

        def change(stored: Stored, before: Customer) -> Customer:
            after = customers.changed(before, told, self._now(), project.customer_limits)
            entry = self._entry(
                "customer.change",
                f"{pid}/{before.id}",
                *differing(before.document(), after.document()),
            )
            return stored.change(pid, before, after, self._table.audited(entry))

        return self._with_customer(pid, ref, change)

    def delete_customer(self, pid: str, ref: str) -> Customer:
        """Its tokens are refused on their next request."""

        def delete(stored: Stored, before: Customer) -> Customer:
            entry = self._entry("customer.delete", f"{pid}/{before.id}", before.document(), None)
            stored.delete(pid, before, self._now(), self._table.audited(entry))
            return before

        return self._with_customer(pid, ref, delete)

    def client_tokens(
        self, pid: str, ref: str, limit: int, after: str | None
    ) -> tuple[list[Document], str | None]:
        """Return the records of a customer's tokens, without the tokens themselves."""
        found, stored = self.customer(pid, ref), self._stored()
        valid_from = stored.issued_after(pid, found.id, 0)
        records, more = self._tokens().page(pid, found.id, limit, after)
        return [token_view(each, found, self._now(), valid_from) for each in records], more

    def revoke_client_token(self, pid: str, token_id: str) -> None:
        """Raises NotFound."""
        self._project(pid)
        entry = self._entry("client-token.revoke", f"{pid}/{token_id}", None, None)
        self._tokens().revoke(pid, token_id, self._now(), self._table.audited(entry))

    def revoke_client_tokens(self, pid: str, ref: str) -> Customer:
        """Refuse all tokens of a customer that were made until now."""
        found, now = self.customer(pid, ref), self._now()
        entry = self._entry("customer.sign-out", f"{pid}/{found.id}", None, {"at": now})
        self._stored().sign_out(pid, found.id, now, self._table.audited(entry))
        return found

    def _with_customer(
        self, pid: str, ref: str, change: Callable[[Stored, Customer], Customer]
    ) -> Customer:
        self._project(pid)
        stored = self._stored()

        def once() -> Customer:
            try:
                return change(stored, stored.find(pid, parse_reference(ref)))
            except Changed as error:
                raise Stale from error

        return self._until_current(once)

    def _stored(self) -> Stored:
        return Stored(self._table.client, self._table.name, self._clock)

    def _tokens(self) -> ClientTokens:
        return ClientTokens(self._table.client, self._table.name)
