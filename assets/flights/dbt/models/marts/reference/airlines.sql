select * from {{ ref("stg_airlines") }}
