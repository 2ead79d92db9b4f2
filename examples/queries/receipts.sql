-- How fast each stage made its files, and its slowest one:
--   loev sql runs/quickstart -f examples/queries/receipts.sql
-- Rejects by reason: select stage, reason, count(*) as clips from rejects group by 1, 2 order by 3 desc
select
  stage,
  count(*) as shards,
  sum(rows) as rows,
  sum(rejects) as rejects,
  count(*) / nullif(max(finished_s) - min(finished_s - seconds), 0) as shards_per_s,
  max(seconds) as slowest_s,
  first_value(file order by seconds desc) as slowest
from receipts
group by stage
order by min(finished_s - seconds)
