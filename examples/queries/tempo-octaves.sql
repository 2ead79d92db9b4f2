-- Are tempo errors octave errors? Shares of answers within 4% of the tempo, of its half, double, third or triple, and
-- elsewhere. Needs a `probe` stage with a task on tempo (here probes).
--   loev sql runs/quickstart -f examples/queries/tempo-octaves.sql
with answers as (
  select subspace, try_cast(prediction as double) as said, try_cast(truth as double) as bpm
  from probes_predictions
  where task = 'tempo' and probe = 'linear'
)
select subspace,
       avg(tempo_acc1(said, bpm)) as right,
       avg(tempo_acc1(said, bpm / 2)) as half,
       avg(tempo_acc1(said, bpm * 2)) as double,
       avg(tempo_acc1(said, bpm / 3) + tempo_acc1(said, bpm * 3)) as third_or_triple,
       avg(1 - tempo_acc2(said, bpm)) as elsewhere,
       count(*) as answers
from answers
group by subspace
order by subspace
