-- Which clips are near duplicates? Pairs with almost the same mean embedding in some subspace, among the ten nearest of
-- each clip, those of most subspaces first. Needs an `embed` stage (here embeddings).
--   loev sql runs/quickstart -f examples/queries/duplicates.sql
with means as (
  select clip_id, subspace, embedding from embeddings_labelled
)
select clip_id, neighbour_clip_id as other, count(*) as subspaces, min(1 - distance) as least_similarity
from knn_join(means, means, 10, exclude => clip_id, within => subspace)
where clip_id < neighbour_clip_id and distance < 0.0001
group by clip_id, neighbour_clip_id
order by subspaces desc, least_similarity desc, clip_id, other
limit 20
