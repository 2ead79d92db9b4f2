-- Has a subspace collapsed? If all clips lie in one direction, the mean similarity of two clips is near 1 and its spread
-- near 0; lengths tell whether vectors have shrunk. Needs an `embed` stage (here embeddings, with its baseline).
--   loev sql runs/quickstart -f examples/queries/collapse.sql
with vectors as (
  select clip_id, subspace, embedding from embeddings_labelled
), pairs as (
  select a.subspace, cosine_similarity(a.embedding, b.embedding) as similarity
  from vectors a join vectors b on a.subspace = b.subspace and a.clip_id < b.clip_id
), lengths as (
  select subspace, min(vector_norm(embedding)) as shortest, max(vector_norm(embedding)) as longest
  from vectors group by subspace
)
select subspace, avg(similarity) as similarity, stddev(similarity) as spread, min(similarity) as least,
       min(shortest) as shortest, min(longest) as longest, count(*) as pairs
from pairs join lengths using (subspace)
group by subspace
order by subspace
