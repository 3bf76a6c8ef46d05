{# Schemas as they are written in dbt_project.yml; dbt's default would make main_staging of staging. #}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ (custom_schema_name or target.schema) | trim }}
{%- endmacro %}
