-- Which clips sound alike to the model and are not? The most similar pairs with different keys, in the subspace that
-- should know the key. Needs an `embed` stage (here embeddings) over clips with a column `key`.
--   loev sql runs/quickstart -f examples/queries/hard-negatives.sql
select a.clip_id, a.key, b.clip_id as other, b.key as other_key, cosine_similarity(a.embedding, b.embedding) as similarity
from embeddings_labelled a
join embeddings_labelled b on a.subspace = b.subspace and a.clip_id < b.clip_id and a.key <> b.key
where a.subspace = 'pitch_shift'
order by similarity desc, a.clip_id, other
limit 10
