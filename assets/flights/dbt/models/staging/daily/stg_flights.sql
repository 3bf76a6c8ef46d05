select
    -- Readable and stable: the raw table's key, as 2013-01-31/UA/1545/EWR/0515
    cast(flight_date as text) || '/' || carrier || '/' || cast(flight as text) || '/' || origin
        || '/' || lpad(cast(sched_dep_time as text), 4, '0') as departure_id,
    flight_date,
    time_hour as scheduled_hour_at,
    time_hour + minute * interval '1 minute' as scheduled_departure_at,
    hour as scheduled_hour,
    carrier,
    flight as flight_number,
    tailnum as tail_number,
    origin,
    dest as destination,
    distance as distance_miles,
    dep_delay as departure_delay_minutes,
    arr_delay as arrival_delay_minutes,
    air_time as air_time_minutes,
    dep_time is null as cancelled,
    dep_time is not null and arr_delay is null as diverted,
    arr_delay >= 15 as late
from {{ source("raw", "flights") }}
