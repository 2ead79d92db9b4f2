-- Are some clips neighbours of everything? How often each clip is found; hubs spoil search in high dimensions.
-- Needs a `retrieve` stage (here loevpp_nearest).
--   loev sql runs/claims-1 -f examples/queries/hubs.sql
with found as (
  select subspace, neighbour, count(*) as times from loevpp_nearest_neighbours where rank <= 2 group by subspace, neighbour
)
select subspace, max(times) as most, first_value(neighbour order by times desc, neighbour) as hub,
       avg(times) as mean, count(*) as found
from found
group by subspace
order by subspace
