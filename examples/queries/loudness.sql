-- How loud are the clips, and which are too loud, silent or clipped? Integrated loudness (ITU-R BS.1770),
-- peak and share of clipped samples of every recording; what cannot be read comes first, with its reason. Needs nothing
-- but clips, whose audio it reads.
--   loev sql runs/quickstart -f examples/queries/loudness.sql
select clip_id, round(loudness(uri), 1) as lufs, round(waveform_stats(uri)['peak'], 3) as peak,
       round(waveform_stats(uri)['clipped_share'], 4) as clipped, audio_error(uri) as error
from clips
order by error nulls last, lufs desc nulls first, clip_id
limit 20
