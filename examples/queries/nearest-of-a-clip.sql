-- What is nearest to one clip? The three nearest in each subspace, with their labels beside its own: put another name in
-- place of the first clip's. Needs an `embed` stage (here embeddings).
--   loev sql runs/quickstart -f examples/queries/nearest-of-a-clip.sql
with asked as (
  select * from embeddings_labelled where clip_id = (select min(clip_id) from clips)
), ranked as (
  select a.clip_id as asked, b.*, cosine_distance(a.embedding, b.embedding) as distance,
         row_number() over (partition by a.subspace order by cosine_distance(a.embedding, b.embedding), b.clip_id) as rank
  from asked a join embeddings_labelled b on a.subspace = b.subspace and a.clip_id <> b.clip_id
)
select subspace, rank, clip_id, distance, key, bpm, style
from ranked
where rank <= 3
order by subspace, rank
