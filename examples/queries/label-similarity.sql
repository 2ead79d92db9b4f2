-- Does a subspace know a label? Mean similarity of clips of one key, against that of clips of different keys; and the
-- same for style. Needs an `embed` stage (here embeddings).
--   loev sql runs/quickstart -f examples/queries/label-similarity.sql
with pairs as (
  select a.subspace, cosine_similarity(a.embedding, b.embedding) as similarity,
         a.key = b.key as same_key, a.style = b.style as same_style
  from embeddings_labelled a
  join embeddings_labelled b on a.subspace = b.subspace and a.clip_id < b.clip_id
)
select subspace,
       avg(similarity) filter (where same_key) as same_key, avg(similarity) filter (where not same_key) as other_key,
       avg(similarity) filter (where same_style) as same_style, avg(similarity) filter (where not same_style) as other_style
from pairs
group by subspace
order by subspace
