"""The ledger's items and calls: a request is admitted in one transaction and settled in another.

    LEDGER#…  NOW        a subject's: `open`, the ids of its open requests; `cancelled`, those to be
                         stopped. A pool's: `streams`, how many are open
              MINUTE#…   `requests`, `tokens`
              MONTH#…    `tokens`, `nano_usd`, `nano_usd_reserved` (what of it is held by open
                         requests), and of a day `d21q` requests, `d21t` tokens
              of a pool  `g`, the generation of the configuration by which it was divided into
                         shards. Who knows a later one first divides anew what is used; who knows
                         an earlier one must read the configuration again
    OPEN#…               a reservation: `doc` says what it holds of whom

Every counter is what is used and held together. What is admitted and refused:
`weir/ledger/rules.py`.

    books       what all of them need: keys, reading, one transaction
    settlement  settling, sweeping, cancelling
    admission   admitting, making room in a pool, undoing what nobody knows the outcome of
"""

from weir.aws.ledger.admission import Admissions

__all__ = ["Ledger"]


class Ledger(Admissions):
    """Everything that is done with the counters and reservations of one table."""
