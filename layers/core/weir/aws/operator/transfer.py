"""Export and import: the configuration as a file that can be reviewed and kept."""

from collections.abc import Mapping
from typing import Any

from weir.aws import items
from weir.aws.items import NO_RECORD
from weir.aws.operator.models import with_its_key
from weir.aws.operator.records import STATE, Document, Records, Touched, merged_limits, state
from weir.errors import BadRequest
from weir.operator.documents import FILE_FORMAT, ConfigurationFile, check_catalogue, check_project
from weir.operator.mocks import check_no_mock_changes_places

# A transaction of DynamoDB has at most 100 items; a record is one, its audit entry another.
MOST_RECORDS = 45

_DEFAULTS: Document = {
    "status": "active",
    "origins": [],
    "preview_origins": [],
    "limits": {},
    "user_limits": {},
    "customer_limits": {},
    "prompts": {},
    "tiers": {},
    "issuers": {},
}


class Transfer(Records):
    def exported(self) -> Document:
        tenant, catalogue = self._read(items.TENANT), self.catalogue()
        return {
            "format": FILE_FORMAT,
            "tenant": _configured(tenant.document),
            "upstreams": {
                name: {n: v for n, v in told.items() if n != "key_last4"}
                for name, told in sorted(catalogue["upstreams"].items())
            },
            "models": {n: _configured(m) for n, m in sorted(catalogue["models"].items())},
            "projects": {
                pid: _configured(record.document)
                for pid, record in sorted(self._table.projects().items())
            },
        }

    def imported(self, file: ConfigurationFile, *, dry_run: bool) -> list[Document]:
        """Makes what the file names equal to the file, all of it or nothing; what it does not name
        stays. Returns what changes, as {"action", "target", "before", "after"}.
        """

        def change() -> list[Document]:
            had_key = [n for n, u in self.catalogue()["upstreams"].items() if "key_last4" in u]
            touched = self._touched_by(file)
            if not dry_run:
                self._commit(touched)
                self._forget_keys(*(name for name in had_key if name in file.upstreams))
            return [_told(each) for each in touched]

        return self._until_current(change)

    def _touched_by(self, file: ConfigurationFile) -> list[Touched]:
        now = self._now()
        tenant, catalogue = self._table.records([items.TENANT, items.CATALOGUE])
        projects = self._table.projects()
        after = {**catalogue.document}
        if file.upstreams or file.models:
            after = _merged(catalogue.document, file, now)
            check_catalogue(after)
            check_no_mock_changes_places(catalogue.document, after)
        touched = [Touched(items.CATALOGUE, catalogue, after, "catalogue.import", "catalogue")]
        if "tenant" in file.model_fields_set:
            told = file.tenant.stored()
            document = {**told, "limits": merged_limits({}, told, "limits", None)}
            document = {n: v for n, v in document.items() if v != {}} | state(tenant.document)
            touched.append(Touched(items.TENANT, tenant, document, "tenant.import", "tenant"))
        documents = {pid: record.document for pid, record in projects.items()}
        for pid, project in file.projects.items():
            before = projects.get(pid, NO_RECORD)
            told = {**project.stored(), **state(before.document or {"created_at": now})}
            # A default that somebody has set by name is none that a file can change.
            same = before.version > 0 and _configured(told) == _configured(before.document)
            documents[pid] = before.document if same else told
            touched.append(
                Touched(items.project(pid), before, documents[pid], "project.import", pid)
            )
        for document in documents.values():
            check_project(document, after)
        touched = [each for each in touched if each.changes]
        if len(touched) > MOST_RECORDS:
            raise BadRequest(
                f"The file changes {len(touched)} records; at most {MOST_RECORDS} fit into "
                "one import. Import its projects in parts.",
                param="projects",
            )
        return touched


def _merged(catalogue: Document, file: ConfigurationFile, now: int) -> Document:
    upstreams, models = dict(catalogue.get("upstreams", {})), dict(catalogue.get("models", {}))
    for name, upstream in file.upstreams.items():
        upstreams[name] = with_its_key(upstream, upstreams.get(name))
    for name, model in file.models.items():
        models[name] = {**model.stored(), **state(models.get(name) or {"created_at": now})}
    return {"upstreams": upstreams, "models": models}


def _told(each: Touched) -> Document:
    before, after = each.differing()
    return {"action": each.action, "target": each.target, "before": before, "after": after}


def _configured(document: Mapping[str, Any]) -> Document:
    """Without what is its default anyway."""
    return {n: v for n, v in document.items() if n not in STATE and v != _DEFAULTS.get(n, ...)}
