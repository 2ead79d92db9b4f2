-- How does the distance of two views grow with the difference of their shifts? One row per whole semitone and subspace.
-- Needs an `embed` stage over views (here loevpp_moved); --bars draws the curve.
--   loev sql runs/claims-1 -f examples/queries/response-curve.sql --bars=distance
with pairs as (
  select a.subspace, cosine_distance(a.embedding, b.embedding) as distance,
         round(abs(a.pitch_shift['semitones'] - b.pitch_shift['semitones'])) as semitones
  from loevpp_moved a
  join loevpp_moved b on a.subspace = b.subspace and a.clip_id = b.clip_id
                     and a.segment = b.segment and a.epoch = b.epoch and a.view < b.view
  where a.time_stretch['rate'] = b.time_stretch['rate']
)
select subspace, semitones, avg(distance) as distance, count(*) as pairs
from pairs
group by subspace, semitones
order by subspace, semitones
