{% set dimensions = {
    "carrier": "carrier",
    "destination": "destination",
    "tail_number": "tail_number",
    "origin": "origin",
    "origin_hour": "origin || '/' || lpad(cast(scheduled_hour as text), 2, '0')",
    "flight": "carrier || '/' || cast(flight_number as text) || '/' || origin",
} %}

with arrivals as (

    -- `late` is null where a departure never arrived at its destination.
    select * from {{ ref("departures") }} where {{ in_days("flight_date") }} and late is not null

)

{% for dimension, value in dimensions.items() %}
select
    flight_date,
    '{{ dimension }}' as dimension,
    {{ value }} as value,
    count(*) as arrivals,
    count(*) filter (where late) as late_arrivals,
    cast(sum(arrival_delay_minutes) as bigint) as arrival_delay_minutes_sum
from arrivals
where {{ value }} is not null
group by flight_date, {{ value }}
{% if not loop.last %}union all{% endif %}
{% endfor %}
