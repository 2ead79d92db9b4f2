-- What could not be used, and why? Works on every run.
--   loev sql runs/quickstart -f examples/queries/rejects.sql
select stage, reason, count(*) as clips, count(*) filter (where whole) as whole, min(clip_id) as first, min(message) as example
from rejects
group by stage, reason
order by clips desc, stage, reason
