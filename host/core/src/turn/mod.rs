//! Requests of a turn, all of them staged: applied when the turn succeeds, dropped when it
//! fails.
//!
//! A turn writes nothing but its staging area, so the same turn may run twice. Limits are
//! checked when a turn asks, against what is stored and what is staged. The size of the state
//! and the room in the store are checked afterwards (`crate::execute::reserve`).
//!
//! | file | holds |
//! | --- | --- |
//! | [`code`] | the contract with a service's code |
//! | [`staging`] | the staging area of a batch |
//! | `context` | what turns may read of the host |
//! | `effect` | every effect |
//! | `session_effects`, `topic_effects`, `timer_effects` | sends, topics, timers |
//! | `name_effects` | names of sessions |
//! | `chance` | token buckets, random numbers, numbers of the host |
//! | [`host_numbers`] | those numbers |
//! | `telnet_effects`, `datagram_effects` | options of telnet, prompts; datagrams |
//! | `heard_datagrams` | datagrams that are the actions of a batch |
//! | `job_effects`, `table_effects` | jobs and connections, writes to tables |
//! | [`table_reads`] | reads of tables |
//! | `staged` | what was staged, to be applied |
//! | `staged_entries`, `staged_timers` | indexes over entries and timers that a batch staged |
//! | `staged_topics`, `staged_names`, `staged_buckets` | the same for topics, names, buckets |
//! | [`fault`] | faults and log lines |
//! | [`turn_record`], [`effect_record`] | turns and effects as somebody who watches sees them |
//! | `tap`, `noted`, `effect_telling` | what a call notes of a turn that is watched |
//! | [`reads`], `stored_tables` | answers of the host, kept for a recording or played back |

mod chance;
pub mod code;
pub(crate) mod context;
pub(crate) mod datagram_effects;
pub mod effect;
pub mod effect_record;
mod effect_telling;
pub mod fault;
pub(crate) mod heard_datagrams;
pub mod host_numbers;
mod job_effects;
mod name_effects;
pub(crate) mod noted;
pub mod reads;
mod session_effects;
mod staged;
mod staged_buckets;
mod staged_entries;
mod staged_jobs;
mod staged_names;
mod staged_timers;
mod staged_topics;
pub mod staging;
pub(crate) mod stored_tables;
mod table_effects;
pub mod table_reads;
pub(crate) mod tap;
mod telnet_effects;
mod timer_effects;
mod topic_effects;
pub mod turn_record;
