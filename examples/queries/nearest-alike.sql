-- Is a clip's nearest neighbour like it? From a stored search: per subspace, how often the first neighbour has the key,
-- the tempo or the style of the query. Needs a `retrieve` stage (here loevpp_nearest).
--   loev sql runs/claims-1 -f examples/queries/nearest-alike.sql
select subspace,
       avg(case when query_key = neighbour_key then 1.0 else 0.0 end) as same_key,
       avg(tempo_acc1(neighbour_bpm, query_bpm)) as same_tempo,
       avg(case when query_style = neighbour_style then 1.0 else 0.0 end) as same_style,
       count(*) as queries
from loevpp_nearest_labelled
where rank = 1
group by subspace
order by subspace
