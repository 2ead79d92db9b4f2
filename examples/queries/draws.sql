-- What was drawn: the range of each factor, and how often each base operator was applied.
select count(*) as views,
       min(pitch_shift['semitones']) as lowest_shift, max(pitch_shift['semitones']) as highest_shift,
       min(time_stretch['rate']) as slowest, max(time_stretch['rate']) as fastest,
       avg(case when gain['applied'] then 1.0 else 0.0 end) as gain,
       avg(case when filter['applied'] then 1.0 else 0.0 end) as filter
from views
