-- For which music does a probe fail? Share of right answers by style, task and subspace (tags: overlap of the sets).
-- Needs a `probe` stage (here probes) over clips with a column `style`.
--   loev sql runs/quickstart -f examples/queries/accuracy-by-style.sql
select task, subspace, style, avg(score) as score, count(distinct clip_id) as clips
from probes_labelled
where probe = 'linear'
group by task, subspace, style
order by task, subspace, style
