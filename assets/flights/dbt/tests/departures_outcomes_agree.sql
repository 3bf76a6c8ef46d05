{{ config(
    tags=["daily"],
    meta={"description": "A departure arrived (late or not), was cancelled, or was diverted: exactly one."},
) }}
select departure_id, arrival_delay_minutes, cancelled, diverted, late
from {{ ref("departures") }}
where {{ in_days("flight_date") }}
    and (
        late is distinct from (arrival_delay_minutes >= 15)
        or (late is null) <> (cancelled or diverted)
        or (cancelled and diverted)
        or (departure_delay_minutes is null) <> cancelled
    )
