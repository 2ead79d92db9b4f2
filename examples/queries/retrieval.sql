-- How good is search? Agreement of labels at k beside exact chance, and how many times chance it is.
-- Needs a `retrieve` stage (here loevpp_nearest).
--   loev sql runs/claims-1 -f examples/queries/retrieval.sql
select task, metric, k, subspace, value, lo, hi, chance, value / nullif(chance, 0) as times_chance
from loevpp_nearest
order by task, metric, k, value desc, subspace
