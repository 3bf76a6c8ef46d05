{# The condition that keeps a date column within the days of this invocation. #}
{% macro in_days(column) -%}
    {{ column }} between date '{{ var("first_day") }}' and date '{{ var("last_day") }}'
{%- endmacro %}


{#
    What a test looks at. dbt's own macro, but that `__first_day__` and `__last_day__` in a test's `where` stand for the
    days of this invocation: a variable in a YAML file has the value that it had when the project was parsed.
#}
{% macro get_where_subquery(relation) -%}
    {%- set where = (config.get("where") or "")
        | replace("__first_day__", "date '" ~ var("first_day") ~ "'")
        | replace("__last_day__", "date '" ~ var("last_day") ~ "'") -%}
    {%- do return("(select * from " ~ relation ~ " where " ~ where ~ ") dbt_subquery" if where else relation) -%}
{%- endmacro %}


{#
    The incremental strategy `replace_days`: the table's rows of first_day..last_day give way to the new ones.

    The range comes from the variables and not from the new rows, so a day that is now empty is emptied. Both
    statements run in the model's transaction, after its query: an error at any point leaves the old rows.
#}
{% macro get_incremental_replace_days_sql(arg_dict) %}
    {%- set table = arg_dict["target_relation"] -%}
    {# A dbt whose run was killed may still be at it. DuckDB lets in one process; here the second must wait, or it would
       not see the rows that the first adds and leave them beside its own. #}
    {%- if target.type == "postgres" %}
    lock table {{ table }} in share row exclusive mode;
    {%- endif %}
    delete from {{ table }} where {{ in_days(model.config.meta.partition_expr) }};
    {{ get_insert_into_sql(table, arg_dict["temp_relation"], arg_dict["dest_columns"]) }}
{% endmacro %}
