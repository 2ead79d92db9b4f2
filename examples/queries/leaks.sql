-- Do views give away how they were made? Cues that tell more than chance. Needs a `leak` stage (here leaks).
--   loev sql runs/claims-1 -f examples/queries/leaks.sql
select test, coalesce(parameter, 'any processing') as told, cue, metric, value, lo, hi, chance, control
from leaks
where leaks
order by value - chance desc
