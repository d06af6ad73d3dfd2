//! nf_tables, spoken directly: tables, chains and rules, changed in batches that apply as a whole or not at all.
//!
//! The plugins find their rules again by the comment that each carries, which is what the standard plugins do; so
//! either's `DEL` removes what the other's `ADD` made. Reading is by netlink too: no `nft` program is run.
//!
//! Invariant: a batch is one transaction of the kernel; nothing of it is left when any of it fails.

mod batch;
mod expression;
mod rule;
mod table;

pub use batch::{Base, Batch};
pub use rule::{Op, Rule, Verdict};
pub use table::{
    Comments, Family, Listed, Table, chain_exists, close_with_thread, delete_rules, is_supported, rules,
};
