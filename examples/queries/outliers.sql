-- Which clips are unlike all others? Mean cosine distance to every other clip, per subspace: broken audio, silence and
-- mislabelled music come first. Needs an `embed` stage (here embeddings).
--   loev sql runs/quickstart -f examples/queries/outliers.sql
with distances as (
  select a.subspace, a.clip_id, avg(cosine_distance(a.embedding, b.embedding)) as distance
  from embeddings_labelled a
  join embeddings_labelled b on a.subspace = b.subspace and a.clip_id <> b.clip_id
  group by a.subspace, a.clip_id
), ranked as (
  select *, row_number() over (partition by subspace order by distance desc, clip_id) as rank from distances
)
select subspace, rank, clip_id, distance, key, bpm, style
from ranked
join split using (clip_id)
where rank <= 3
order by subspace, rank
