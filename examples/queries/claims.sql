-- The claims of LOEV, from runs of examples/loev-claims.yaml with different seeds:
--   loev sql runs/claims-1 runs/claims-2 runs/claims-3 -f examples/queries/claims.sql
-- A figure is the mean over runs; its interval spans the 95% bootstrap intervals of all runs. `apart` says that the
-- intervals of the two sides do not overlap.
with probes as (
  select 'plain' as model, * from plain_probes union all by name
  select 'augmented' as model, * from augmented_probes union all by name
  select 'loev' as model, * from loev_probes union all by name
  select 'loevpp' as model, * from loevpp_probes union all by name
  select 'reference' as model, * from reference_probes
), figures as (
  select model, subspace, task, metric, value, lo, hi from probes where probe = 'linear'
  union all
  -- The nearest test clip.
  select 'loevpp', subspace, task, 'nearest ' || metric, value, lo, hi from loevpp_nearest where k = 1
  union all
  -- What was done between two views, read from their embeddings.
  select 'loevpp', subspace, parameter, measure, value, lo, hi from loevpp_follows where measure = 'difference_r2'
), cells as (
  select model, subspace, task, metric, avg(value) as value, min(lo) as lo, max(hi) as hi, count(*) as runs
  from figures
  group by model, subspace, task, metric
), claims as (
  select * from (values
    ( 1, '1 as augmentations they cost key',     'key',       'accuracy',         'plain invariant',     'augmented invariant'),
    ( 2, '1 ... and tempo',                      'tempo',     'acc1',             'plain invariant',     'augmented invariant'),
    ( 3, '2 LOEV has key again',                 'key',       'accuracy',         'loev pitch_shift',    'augmented invariant'),
    ( 4, '2 ... and tempo',                      'tempo',     'acc1',             'loev time_stretch',   'augmented invariant'),
    ( 5, '2 ... at what cost in tags',           'tags',      'macro_roc_auc',    'loev all',            'augmented invariant'),
    ( 6, '2 ... and beside no factors',          'tags',      'macro_roc_auc',    'loev all',            'plain invariant'),
    ( 7, '3 LOEV++ holds key in one subspace',   'key',       'accuracy',         'loevpp pitch_shift',  'loevpp time_stretch'),
    ( 8, '3 ... and tempo in the other',         'tempo',     'acc1',             'loevpp time_stretch', 'loevpp pitch_shift'),
    ( 9, '3 nearest in key',                     'key',       'nearest accuracy', 'loevpp pitch_shift',  'loevpp time_stretch'),
    (10, '3 nearest in tempo',                   'tempo',     'nearest acc1',     'loevpp time_stretch', 'loevpp pitch_shift'),
    (11, '3 semitones between views',            'semitones', 'difference_r2',    'loevpp pitch_shift',  'loevpp time_stretch'),
    (12, '3 rate between views',                 'rate',      'difference_r2',    'loevpp time_stretch', 'loevpp pitch_shift'),
    (13, 'LOEV and the reference: key',          'key',       'accuracy',         'loev pitch_shift',    'reference pitch_shift'),
    (14, 'LOEV and the reference: tempo',        'tempo',     'acc1',             'loev time_stretch',   'reference time_stretch'),
    (15, 'LOEV and the reference: tags',         'tags',      'macro_roc_auc',    'loev all',            'reference all')
  ) as c(n, claim, task, metric, a, b)
)
select c.claim, c.metric,
       c.a, round(a.value, 3) as a_value, round(a.lo, 3) as a_lo, round(a.hi, 3) as a_hi,
       c.b, round(b.value, 3) as b_value, round(b.lo, 3) as b_lo, round(b.hi, 3) as b_hi,
       a.lo > b.hi or b.lo > a.hi as apart, a.runs
from claims c
join cells a on a.model || ' ' || a.subspace = c.a and a.task = c.task and a.metric = c.metric
join cells b on b.model || ' ' || b.subspace = c.b and b.task = c.task and b.metric = c.metric
order by c.n
