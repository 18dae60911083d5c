"""What an operator does to a deployment: the verbs behind the admin API and the `weir` command.

    records      reading and writing, in one way for all of them: below
    projects     projects, their origins, tiers and API keys
    issuers      other issuers whose tokens a project exchanges
    customers    customers with limits of their own, and their client tokens
    webhooks     where a project's server is told of events
    models       the catalogue: models, upstreams, providers' keys
    signing      keys that sign tokens: tenants' own, and the ring
    switches     what is switched off: the deployment, a project, a model, a user
    revocations  tokens that are refused
    transfer     export and import
    recounts     usage rows that the sums lack

Each verb reads what is there, checks the change against it, and writes it in one transaction
together with its entry in the audit trail. If somebody else has changed the same record meanwhile,
it is done again from what is there then.
"""

from weir.aws.operator.customers import Customers
from weir.aws.operator.issuers import Issuers
from weir.aws.operator.models import Models
from weir.aws.operator.recounts import Recounts
from weir.aws.operator.revocations import Revocations
from weir.aws.operator.signing import Signing
from weir.aws.operator.switches import Switches
from weir.aws.operator.transfer import Transfer
from weir.aws.operator.webhooks import Webhooks

__all__ = ["Operator"]


class Operator(
    Issuers, Customers, Webhooks, Models, Signing, Switches, Revocations, Transfer, Recounts
):
    """Everything that one actor may do."""
