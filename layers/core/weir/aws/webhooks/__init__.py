"""Webhooks in the table, in KMS and in the queue.

    seal        a secret, encrypted for the one function that signs with it
    endpoints   a project's endpoints: one record, which requests and operators change
    outbox      events that have happened, each once, on their way to the queue
    watch       budgets whose thresholds settled requests have reached
    deliveries  one attempt to deliver; what is known of an endpoint, and what was given up

An event is written to the table (`OUTBOX#…`) on the condition that it is not there yet. The table's
stream brings it to the function that puts one message for each endpoint into the queue. So no crash
between the two loses it, and whoever writes an event needs no right to the queue.
"""
