-- LOEV and the reference on the same test clips: the mean difference of their answers (right is 1, wrong is 0) and its
-- 95% interval, over clips and runs.
--   loev sql runs/claims-1 runs/claims-2 runs/claims-3 -f examples/queries/paired.sql
with answers as (
  select a.run, a.clip_id, a.task,
         avg(case when a.task = 'key' then case when a.prediction = a.truth then 1.0 else 0.0 end
                  else tempo_acc1(cast(a.prediction as double), cast(a.truth as double)) end
           - case when a.task = 'key' then case when b.prediction = b.truth then 1.0 else 0.0 end
                  else tempo_acc1(cast(b.prediction as double), cast(b.truth as double)) end) as gain
  from loev_probes_predictions a
  join reference_probes_predictions b
    on a.run = b.run and a.clip_id = b.clip_id and a.task = b.task and a.seed = b.seed and a.subspace = b.subspace
  where (a.task = 'key' and a.subspace = 'pitch_shift') or (a.task = 'tempo' and a.subspace = 'time_stretch')
  group by a.run, a.clip_id, a.task
)
select task, round(avg(gain), 3) as gain,
       round(avg(gain) - 1.96 * stddev(gain) / sqrt(count(*)), 3) as lo,
       round(avg(gain) + 1.96 * stddev(gain) / sqrt(count(*)), 3) as hi,
       count(*) as answers, count(distinct run) as runs
from answers
group by task
order by task
