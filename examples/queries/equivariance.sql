-- What does each subspace tell of each factor: the difference of the parameters of two views, by regression (R2)?
-- Needs an `equivariance` stage (here loevpp_follows).
--   loev sql runs/claims-1 -f examples/queries/equivariance.sql
select parameter, subspace, value, lo, hi, lo > chance as told, value - baseline as beyond_baseline
from loevpp_follows
where measure = 'difference_r2'
order by parameter, value desc
