-- What are the columns of a table? Works on every run; `\d TABLE` at the prompt says the same.
--   loev sql runs/quickstart -f examples/queries/columns.sql
select column_name, data_type, comment
from columns
where table_schema = 'public' and table_name = 'probes'
order by position
