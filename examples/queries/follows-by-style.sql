-- Does an embedding move with semitones for every style of music? Mean cosine distance of two views of a segment that
-- differ in their shift alone, by style and subspace. Needs an `embed` stage over views (here loevpp_moved).
--   loev sql runs/claims-1 -f examples/queries/follows-by-style.sql
select a.style, a.subspace, avg(cosine_distance(a.embedding, b.embedding)) as distance, count(*) as pairs
from loevpp_moved_labelled a
join loevpp_moved b on a.subspace = b.subspace and a.clip_id = b.clip_id
                   and a.segment = b.segment and a.epoch = b.epoch and a.view < b.view
where a.time_stretch['rate'] = b.time_stretch['rate'] and a.pitch_shift['semitones'] <> b.pitch_shift['semitones']
group by a.style, a.subspace
order by a.subspace, a.style
