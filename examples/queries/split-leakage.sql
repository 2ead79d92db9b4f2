-- Is music of the test clips among the training clips? Pairs of clips of two parts with almost the same embedding: the
-- same recording twice, or a copy. Use a subspace that ignores what you may have changed; here invariant.
-- Needs an `embed` stage (here embeddings) over clips with a column `split`.
--   loev sql runs/quickstart -f examples/queries/split-leakage.sql
with means as (
  select split, clip_id, embedding from embeddings_labelled where subspace = 'invariant'
)
select split, clip_id, neighbour_split as other_split, neighbour_clip_id as other, 1 - distance as similarity
from knn_join((select * from means where split = 'test'), (select * from means where split = 'train'), 3)
where distance < 0.0001
order by similarity desc, clip_id, other
limit 20
