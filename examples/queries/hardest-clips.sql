-- Which test clips does no subspace get right? Mean score over subspaces and seeds, worst first: look for wrong labels.
-- Needs a `probe` stage (here probes).
--   loev sql runs/quickstart -f examples/queries/hardest-clips.sql
select clip_id, task, avg(score) as score, max(truth) as truth, count(distinct prediction) as answers,
       first_value(prediction order by confidence desc, prediction) as surest_answer, max(style) as style
from probes_labelled
where task in ('key', 'tempo')
group by clip_id, task
order by score, clip_id, task
limit 10
