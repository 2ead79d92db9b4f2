-- The loss of each head over training, in five parts, beside what it would be for a head that tells segments
-- apart and nothing else.
select ntile, min(step) as from_step, avg(loss_invariant) as invariant, max(floor_invariant) as its_floor,
       avg(loss_pitch_shift) as pitch_shift, avg(loss_time_stretch) as time_stretch, avg(wait_share) as waiting
from (select *, ntile(5) over (order by step) as ntile from model)
group by ntile
order by ntile
