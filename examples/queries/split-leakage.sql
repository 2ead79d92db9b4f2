-- Is music of the test clips among the training clips? Pairs of clips of two parts with almost the same embedding: the
-- same recording twice, or a copy. Use a subspace that ignores what you may have changed; here invariant.
-- Needs an `embed` stage (here embeddings) over clips with a column `split`.
--   loev sql runs/quickstart -f examples/queries/split-leakage.sql
select a.split, a.clip_id, b.split as other_split, b.clip_id as other, cosine_similarity(a.embedding, b.embedding) as similarity
from embeddings_labelled a
join embeddings_labelled b on a.subspace = b.subspace and a.split = 'test' and b.split = 'train'
where a.subspace = 'invariant' and cosine_similarity(a.embedding, b.embedding) > 0.9999
order by similarity desc, a.clip_id, other
limit 20
