"""Other issuers that a project trusts: their tokens are exchanged for its own."""

from weir.aws.operator.projects import Projects
from weir.aws.operator.records import Document
from weir.errors import NotFound
from weir.identity.issuers import FindKey
from weir.identity.verdict import Verdict, verdict
from weir.operator.documents import IssuerDocument
from weir.projects.project import Project


class Issuers(Projects):
    def issuers(self, pid: str) -> list[Document]:
        """Return them in order of name."""
        trusted = self._project(pid).document.get("issuers", {})
        return [{"name": name, **told} for name, told in sorted(trusted.items())]

    def put_issuer(self, pid: str, name: str, issuer: IssuerDocument) -> Document:
        """Trust an issuer, or replace what is said of it. Counts within 5 s."""
        told = issuer.stored()

        def change() -> Document:
            before = self._project(pid)
            issuers = {**before.document.get("issuers", {}), name: told}
            self._write_project(pid, before, {**before.document, "issuers": issuers}, "issuer.set")
            return {"name": name, **told}

        return self._until_current(change)

    def remove_issuer(self, pid: str, name: str) -> None:
        """Trust it no longer. Tokens that were made for its users live until they expire."""

        def change() -> None:
            before = self._project(pid)
            issuers = dict(before.document.get("issuers", {}))
            if issuers.pop(name, None) is None:
                raise NotFound(f"The project {pid!r} trusts no issuer {name!r}.")
            document = {**before.document, "issuers": issuers}
            if not issuers:
                del document["issuers"]
            self._write_project(pid, before, document, "issuer.remove")

        self._until_current(change)

    def judge_token(self, pid: str, token: str, find_key: FindKey, *, pool_users: bool) -> Verdict:
        """Say whether a token would be exchanged now, and if not, why. Nothing is written.
        `pool_users`: the users of the stack's user pool are users of this project.
        """
        project = Project.from_document(pid, self._project(pid).document)
        return verdict(token, project, find_key, now=self._now(), pool_users=pool_users)
