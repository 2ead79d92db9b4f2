-- Which runs are these, how long did they take, and what came of them? One row per run and figure of its probes, best
-- first. Works on every run with a `probe` stage; give several.
--   loev sql runs/claims-1 runs/claims-2 runs/claims-3 -f examples/queries/runs.sql
select r.run, r.seed, r.status, r.seconds, f.stage, f.task, f.metric, f.subspace, f.value, f.lo, f.hi
from runs r
join figures f on f.run = r.run
where f.kind = 'probe' and f.probe = 'linear'
order by f.task, f.metric, f.value desc, r.run, f.stage, f.subspace
limit 20
