-- How many dimensions does a subspace use? The effective rank (Roy and Vetterli 2007) of the clips' mean embeddings, at
-- most the number of dimensions; near 1, the subspace has collapsed into one direction. Beside it how far clips lie from
-- their centroid. Needs an `embed` stage (here embeddings, with its baseline).
--   loev sql runs/quickstart -f examples/queries/rank.sql
select subspace, effective_rank(embedding) as effective_rank, participation_ratio(embedding) as participation_ratio,
       covariance_trace(l2_normalize(embedding)) as spread, count(*) as clips
from embeddings_labelled
group by subspace
order by subspace
