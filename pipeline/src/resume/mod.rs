//! What makes a run resumable: recipes (what goes into a stage), receipts (what came out), and the work that is
//! the difference between the two.
//!
//! ```text
//! options, versions, seeds, digests of inputs ──► Recipe ─┐
//!                                                         ├─► up to date, or shards to do, and why
//! receipts/<stage>.jsonl ──► Journal ──► Receipt, Done ───┘
//! ```
//!
//! Nothing here looks at clocks: work is recognised by digests alone.

pub mod fault;
pub mod journal;
pub mod ledger;
pub mod recipe;
pub mod work;
