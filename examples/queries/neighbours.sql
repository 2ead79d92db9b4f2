-- Does the nearest neighbour of a clip share its tempo, or its key? One answer per subspace.
with means as (
  select clip_id, subspace, embedding from embeddings where segment is null
), ranked as (
  select a.subspace, a.clip_id, b.clip_id as neighbour,
         row_number() over (partition by a.subspace, a.clip_id
                            order by cosine_distance(a.embedding, b.embedding)) as rank
  from means a join means b on a.subspace = b.subspace and a.clip_id <> b.clip_id
)
select subspace,
       avg(tempo_acc1(n.bpm, c.bpm)) as same_tempo,
       avg(case when n.key = c.key then 1.0 else 0.0 end) as same_key,
       count(*) as clips
from ranked
join clips c on c.clip_id = ranked.clip_id
join clips n on n.clip_id = ranked.neighbour
where rank = 1
group by subspace
order by subspace
