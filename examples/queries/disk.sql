-- Where do the bytes go? Size of each table, and what a row costs. Works on every run.
--   loev sql runs/quickstart -f examples/queries/disk.sql
select "table", count(*) as files, sum(rows) as rows, sum(bytes) / 1e6 as megabytes,
       sum(bytes) / nullif(cast(sum(rows) as double), 0) as bytes_a_row
from receipts
group by "table"
order by megabytes desc
