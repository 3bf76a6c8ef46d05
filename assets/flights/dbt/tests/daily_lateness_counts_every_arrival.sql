{{ config(
    tags=["daily"],
    meta={
        "dagster": {"ref": {"name": "daily_lateness"}},
        "description": "Each dimension counts exactly the day's arrivals, late arrivals and minutes.",
    },
) }}
-- A departure without a tail number is in no row of that dimension, so it is left out here.
with expected as (

    select
        flight_date,
        count(*) as arrivals,
        count(*) filter (where late) as late_arrivals,
        sum(arrival_delay_minutes) as minutes
    from {{ ref("departures") }}
    where {{ in_days("flight_date") }} and late is not null
    group by flight_date

),

dimensions as (

    select distinct dimension
    from {{ ref("daily_lateness") }}
    where {{ in_days("flight_date") }} and dimension <> 'tail_number'

),

counted as (

    select
        flight_date,
        dimension,
        sum(arrivals) as arrivals,
        sum(late_arrivals) as late_arrivals,
        sum(arrival_delay_minutes_sum) as minutes
    from {{ ref("daily_lateness") }}
    where {{ in_days("flight_date") }} and dimension <> 'tail_number'
    group by flight_date, dimension

)

select flight_date, dimension
from expected
cross join dimensions
full join counted using (flight_date, dimension)
where expected.arrivals is distinct from counted.arrivals
    or expected.late_arrivals is distinct from counted.late_arrivals
    or expected.minutes is distinct from counted.minutes
