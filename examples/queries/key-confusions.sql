-- Which keys are taken for which? Wrong answers about the key, by their relation: fifths, relatives and parallels are
-- musicians' mistakes, others are not. Needs a `probe` stage with a task on keys (here probes).
--   loev sql runs/quickstart -f examples/queries/key-confusions.sql
select subspace,
       case mirex_weighted(prediction, truth, 'symmetric')
         when 1.0 then '1 right' when 0.5 then '2 fifth' when 0.3 then '3 relative' when 0.2 then '4 parallel'
         else '5 other' end as answer,
       count(*) as answers,
       count(*) / cast(sum(count(*)) over (partition by subspace) as double) as share
from probes_predictions
where task = 'key' and probe = 'linear'
group by subspace, 2
order by subspace, answer
