{{ config(
    tags=["daily"],
    meta={
        "dagster": {"ref": {"name": "departures"}},
        "description": "Every day has exactly its scheduled departures.",
    },
) }}
-- The join with the weather must neither drop nor repeat a departure.
with scheduled as (

    select flight_date, count(*) as departures
    from {{ ref("stg_flights") }} where {{ in_days("flight_date") }}
    group by flight_date

),

built as (

    select flight_date, count(*) as departures
    from {{ ref("departures") }} where {{ in_days("flight_date") }}
    group by flight_date

)

select flight_date, scheduled.departures as scheduled, built.departures as built
from scheduled
full join built using (flight_date)
where scheduled.departures is distinct from built.departures
