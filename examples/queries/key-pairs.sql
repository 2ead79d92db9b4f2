-- The most frequent confusions of two keys, over all subspaces. Needs a `probe` stage with a task on keys (here probes).
--   loev sql runs/quickstart -f examples/queries/key-pairs.sql
select truth, prediction, count(*) as answers, count(distinct clip_id) as clips
from probes_predictions
where task = 'key' and prediction <> truth
group by truth, prediction
order by answers desc, truth, prediction
limit 10
