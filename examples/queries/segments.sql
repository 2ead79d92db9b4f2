-- How much does an embedding change within a clip? Mean distance of the segments from the clip's mean, beside the mean
-- distance of two clips. Needs an `embed` stage (here embeddings).
--   loev sql runs/quickstart -f examples/queries/segments.sql
with within as (
  select m.subspace, avg(cosine_distance(s.embedding, m.embedding)) as within_clips
  from embeddings s
  join embeddings m on m.segment is null and s.segment is not null and m.clip_id = s.clip_id and m.subspace = s.subspace
  group by m.subspace
), between_clips as (
  select a.subspace, avg(cosine_distance(a.embedding, b.embedding)) as between_clips
  from embeddings_labelled a join embeddings_labelled b on a.subspace = b.subspace and a.clip_id < b.clip_id
  group by a.subspace
)
select subspace, within_clips, between_clips, within_clips / between_clips as ratio
from within join between_clips using (subspace)
order by subspace
