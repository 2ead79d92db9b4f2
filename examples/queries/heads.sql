-- When has each head learnt more than to tell segments apart? The first step whose loss is below the floor of such a
-- head, and how far it came. Needs a `train` stage with both factors (here model).
--   loev sql runs/quickstart -f examples/queries/heads.sql
with heads as (
  select step, 'invariant' as head, loss_invariant as loss, floor_invariant as floor from model
  union all select step, 'pitch_shift', loss_pitch_shift, floor_pitch_shift from model
  union all select step, 'time_stretch', loss_time_stretch, floor_time_stretch from model
)
select head, min(step) filter (where loss < floor) as below_floor_from, min(loss) as least_loss,
       first_value(loss order by step desc) as last_loss, first_value(floor order by step desc) as last_floor
from heads
group by head
order by head
