-- What do two runs say of the same test clips? Mean difference of the scores, with an interval of 1.96 standard errors
-- of the clips' differences. Needs two runs with the same `probe` stage (here probes). `loev compare A B` does the same
-- for all stages with bootstrap intervals, and names the options that differ.
--   loev sql a=runs/one b=runs/other -f examples/queries/compare-runs.sql
with clips as (
  select run, task, subspace, probe, clip_id, avg(score) as score
  from probes_labelled
  group by run, task, subspace, probe, clip_id
), names as (
  select min(run) as a, max(run) as b from runs
), pairs as (
  select a.task, a.subspace, a.probe, a.score as a, b.score as b, b.score - a.score as gain
  from clips a
  join clips b using (task, subspace, probe, clip_id)
  join names on a.run = names.a and b.run = names.b
)
select task, subspace, probe, avg(a) as a, avg(b) as b, avg(gain) as difference,
       avg(gain) - 1.96 * stddev(gain) / sqrt(count(*)) as lo, avg(gain) + 1.96 * stddev(gain) / sqrt(count(*)) as hi,
       count(*) as clips
from pairs
group by task, subspace, probe
order by task, subspace, probe
