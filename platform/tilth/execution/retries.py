"""Retry policies by cause, given to an asset: `@dg.asset(retry_policy=retries.io)`.

A policy tries the whole step again, whatever failed in it: for an error that would come again, raise
`dg.Failure(..., allow_retries=False)`. What a step had stored before it failed is replaced, as in any re-run.
"""

import dagster as dg

io = dg.RetryPolicy(max_retries=4, delay=1, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.FULL)
"""For assets that talk to something that is briefly not there or too busy: an API, an object store, a database.

Four more attempts, each a random wait of at most 1, 3, 7 and 15 s after the one before, so that many steps that failed
together do not come back together. Half a minute in all: a service that is down for longer is a failure that a person
should see. Not for heavy computation, which would be done five times.
"""

spot = dg.RetryPolicy(max_retries=3, delay=30, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
"""For steps in pods of their own on machines that may be taken away: spot and preemptible nodes.

Three more attempts, after about 30, 90 and 210 s (30 s more or less): a cluster needs a minute or more to find a new
node, and a retry before that only waits. It counts the deaths of the process as failures like any other, so it also
tries again what died for lack of memory. A run whose own process died is Dagster's `run_retries`, not this.
"""
