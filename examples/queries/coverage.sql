-- Are the factors drawn as evenly as they should be? Views per whole semitone. Needs a `views` stage with a pitch shift
-- (here views); --bars draws the histogram.
--   loev sql runs/quickstart -f examples/queries/coverage.sql --bars=views
select round(pitch_shift['semitones']) as semitones, count(*) as views, avg(time_stretch['rate']) as mean_rate
from views
group by 1
order by 1
