-- How sure is a probe's figure? The mean score of test clips with a 95% bootstrap interval over clips, per task and
-- subspace; the seeds of a probe are averaged first, as they answer about the same clips. Needs a `probe` stage (here
-- probes).
--   loev sql runs/quickstart -f examples/queries/score-intervals.sql
with clips as (
  select task, subspace, probe, clip_id, avg(score) as score
  from probes_labelled
  group by task, subspace, probe, clip_id
), scores as (
  select task, subspace, probe, bootstrap_ci(score, 1) as score, count(*) as clips
  from clips
  group by task, subspace, probe
)
select task, subspace, probe, score['mean'] as score, score['lo'] as lo, score['hi'] as hi, clips
from scores
order by task, subspace, probe
