-- Which clips are near duplicates? Pairs with almost the same mean embedding in some subspace, those of most subspaces
-- first. Needs an `embed` stage (here embeddings).
--   loev sql runs/quickstart -f examples/queries/duplicates.sql
select a.clip_id, b.clip_id as other, count(*) as subspaces, min(cosine_similarity(a.embedding, b.embedding)) as least_similarity
from embeddings_labelled a
join embeddings_labelled b on a.subspace = b.subspace and a.clip_id < b.clip_id
where cosine_similarity(a.embedding, b.embedding) > 0.999
group by a.clip_id, b.clip_id
order by subspaces desc, least_similarity desc, a.clip_id, other
limit 20
