-- Is a probe as right as it is sure? Answers in ten steps of confidence. Needs a `probe` stage (here probes).
--   loev sql runs/quickstart -f examples/queries/calibration.sql
select task, least(floor(confidence * 10), 9) / 10 as confidence_from, avg(confidence) as confidence, avg(score) as score,
       count(*) as answers
from probes_labelled
where task <> 'tags' and probe = 'linear'
group by task, 2
order by task, 2
