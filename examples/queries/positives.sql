-- How many positives has a view in each subspace? Groups are listed in the order of the heads: invariant first, then
-- the factors. Needs a `views` stage with two factors (here views).
--   loev sql runs/quickstart -f examples/queries/positives.sql
with groups as (
  select epoch, 'invariant' as head, groups[1] as "group" from views
  union all select epoch, 'pitch_shift', groups[2] from views
  union all select epoch, 'time_stretch', groups[3] from views
), sizes as (
  select head, epoch, "group", count(*) as views from groups group by head, epoch, "group"
)
select head, min(views) - 1 as fewest_positives, max(views) - 1 as most_positives, count(*) as groups
from sizes
group by head
order by head
