"""The promises of the flights domain by the wall clock: how long an asset may go without a new materialization."""

from datetime import timedelta

import dagster as dg

# In production a day's files come every day; two days without any is a failure of the feed or of us.
DAILY = dg.FreshnessPolicy.time_window(warn_window=timedelta(hours=26), fail_window=timedelta(hours=48))

# The reference tables are read every Monday, and whenever they land.
WEEKLY = dg.FreshnessPolicy.time_window(warn_window=timedelta(days=8), fail_window=timedelta(days=15))

# A month's last day, and three days for it to come in late.
MONTHLY = dg.FreshnessPolicy.time_window(warn_window=timedelta(days=32), fail_window=timedelta(days=34))
