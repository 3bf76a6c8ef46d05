-- The tests look carriers and destinations up in these, so they come first; a refresh of them changes no departure.
-- depends_on: {{ ref("airlines") }}
-- depends_on: {{ ref("airports") }}

-- Point in time: up to the weather, a row holds only what was known before its scheduled hour began. Only the
-- outcomes at the end may depend on anything later. One column is taken on trust: the record does not say
-- when an aircraft was assigned, so tail_number may be the result of a late swap.
with flights as (

    select * from {{ ref("stg_flights") }} where {{ in_days("flight_date") }}

)

select
    flights.departure_id,
    flights.flight_date,
    flights.scheduled_departure_at,
    flights.scheduled_hour,
    flights.carrier,
    flights.flight_number,
    flights.tail_number,
    flights.origin,
    flights.destination,
    flights.distance_miles,
    count(*) over (partition by flights.origin, flights.scheduled_hour_at) as departures_scheduled_in_hour,
    weather.temperature_f,
    weather.dew_point_f,
    weather.humidity_percent,
    weather.wind_direction_degrees,
    weather.wind_speed_mph,
    weather.wind_gust_mph,
    weather.precipitation_inches,
    weather.pressure_hpa,
    weather.visibility_miles,

    -- outcomes
    flights.departure_delay_minutes,
    flights.arrival_delay_minutes,
    flights.cancelled,
    flights.diverted,
    flights.late
from flights
left join {{ ref("stg_weather") }} as weather
    on weather.origin = flights.origin
    and weather.observed_at = flights.scheduled_hour_at - interval '1 hour'
