-- Does the nearest neighbour of a clip share its tempo, or its key? One answer per subspace.
-- Needs an `embed` stage (here embeddings) over clips with `key` and `bpm`.
--   loev sql runs/quickstart -f examples/queries/neighbours.sql
with means as (
  select clip_id, subspace, embedding from embeddings where segment is null
)
select subspace,
       avg(tempo_acc1(n.bpm, c.bpm)) as same_tempo,
       avg(case when n.key = c.key then 1.0 else 0.0 end) as same_key,
       count(*) as clips
from knn_join(means, means, 1, exclude => clip_id, within => subspace) as nearest
join clips c on c.clip_id = nearest.clip_id
join clips n on n.clip_id = nearest.neighbour_clip_id
group by subspace
order by subspace
