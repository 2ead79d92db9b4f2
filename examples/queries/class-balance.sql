-- Are the parts of the data alike? Share of each key in training, validation and test clips; a key that a part lacks is
-- 0 there. Needs clips with a column `split` (here the table split).
--   loev sql runs/quickstart -f examples/queries/class-balance.sql
select key,
       count(*) filter (where split = 'train') as train,
       count(*) filter (where split = 'valid') as valid,
       count(*) filter (where split = 'test') as test,
       count(*) / cast(sum(count(*)) over () as double) as share
from split
group by key
order by share desc, key
