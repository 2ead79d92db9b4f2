-- Which tags are found? Precision and recall of each tag. Needs a `probe` stage with a task on tags (here probes).
--   loev sql runs/quickstart -f examples/queries/tags-by-tag.sql
with answers as (
  select subspace, string_to_array(truth, ',') as truth, string_to_array(prediction, ',') as prediction
  from probes_predictions
  where task = 'tags' and probe = 'linear'
), tags as (
  select distinct unnest(truth) as tag from answers
), counts as (
  select subspace, tag,
         count(*) filter (where array_has(truth, tag)) as there,
         count(*) filter (where array_has(prediction, tag)) as said,
         count(*) filter (where array_has(truth, tag) and array_has(prediction, tag)) as both
  from answers cross join tags
  group by subspace, tag
)
select subspace, tag, there, both / nullif(cast(said as double), 0) as precision, both / cast(there as double) as recall
from counts
order by subspace, tag
