-- Does a recording stand in more than one part of the data, under several names? Audio files by address and, where
-- there are columns for them, artists are worth the same question. Needs clips with a column `split`.
--   loev sql runs/quickstart -f examples/queries/shared-recordings.sql
select uri, count(*) as clips, count(distinct split) as parts, min(clip_id) as first, max(clip_id) as last
from split
group by uri
having count(distinct split) > 1
order by parts desc, uri
