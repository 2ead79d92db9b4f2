-- Which subspace is best for each task, and how far is it from chance and from mel statistics?
-- Needs a `probe` stage (here probes).
--   loev sql runs/quickstart -f examples/queries/best-subspace.sql
with ranked as (
  select *, row_number() over (partition by task, metric, probe order by value desc, subspace) as rank
  from probes
  where subspace <> 'mel_baseline'
)
select task, metric, probe, subspace, value, lo, hi, value - chance as over_chance, value - baseline as over_baseline
from ranked
where rank = 1
order by task, metric, probe
