-- How fast did training go, and did it wait for data? Needs a `train` stage (here model).
--   loev sql runs/quickstart -f examples/queries/throughput.sql
select sum(views) as views, sum(views / views_per_s) as seconds, sum(views) / sum(views / views_per_s) as views_per_s,
       sum(wait_share * views / views_per_s) / sum(views / views_per_s) as waiting,
       max(grad_norm) as highest_gradient, first_value(step order by grad_norm desc) as at_step
from model
