-- Which subspace follows semitones? For each, how far two views of a segment lie apart that differ in their shift alone
-- (mean cosine distance per semitone), how far when they differ in their rate alone (per 10% of tempo), and how much of
-- the shift a regression reads from both embeddings (R2). A subspace that follows its factor moves with it; one that was
-- taught to ignore a factor does not move with that.
-- Needs an `embed` stage over views with both factors (here loevpp_moved) and an `equivariance` stage over it.
--   loev sql runs/claims-1 -f examples/queries/follows.sql
with pairs as (
  select a.subspace, cosine_distance(a.embedding, b.embedding) as distance,
         abs(a.pitch_shift['semitones'] - b.pitch_shift['semitones']) as semitones,
         abs(ln(a.time_stretch['rate'] / b.time_stretch['rate'])) / ln(1.1) as tenths
  from loevpp_moved a
  join loevpp_moved b on a.subspace = b.subspace and a.clip_id = b.clip_id
                     and a.segment = b.segment and a.epoch = b.epoch and a.view < b.view
), moved as (
  select subspace, count(*) as pairs,
         avg(distance / semitones) filter (where tenths = 0 and semitones > 0) as per_semitone,
         avg(distance / tenths) filter (where semitones = 0 and tenths > 0) as per_tenth_of_tempo
  from pairs
  group by subspace
)
select subspace, per_semitone, per_tenth_of_tempo, value as r2, lo, hi, pairs
from moved
join loevpp_follows using (subspace)
where parameter = 'semitones' and measure = 'difference_r2'
order by per_semitone desc, subspace
