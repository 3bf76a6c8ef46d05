"""The example domain: will this flight arrive late?"""

import warnings

import dagster as dg

# Backfill policies and multi-dimensional partition mappings are marked beta in Dagster 1.13 and are used here on
# purpose; docs/upgrading.md is where to look after an upgrade. The warning would show on every command.
warnings.filterwarnings("ignore", category=dg.BetaWarning)
