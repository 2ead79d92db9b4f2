-- How much is luck? Share of test clips about which the seeds of a probe disagree. Needs a `probe` stage (here probes).
--   loev sql runs/quickstart -f examples/queries/seeds.sql
with clips as (
  select task, subspace, probe, clip_id, count(distinct prediction) as answers, stddev_pop(score) as spread
  from probes_labelled
  group by task, subspace, probe, clip_id
)
select task, subspace, probe, avg(case when answers > 1 then 1.0 else 0.0 end) as disagree, avg(spread) as spread, count(*) as clips
from clips
where task <> 'tempo'
group by task, subspace, probe
order by task, subspace, probe
