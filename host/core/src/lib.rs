//! Greenroom's decisions: no socket, clock, thread, file or environment, and no unsafe code.
//!
//! [`Core`] takes one [`Input`] after another and answers with [`Effect`]s; time is an argument. So a whole server, with
//! its reloads, cut reads, short writes and slow readers, runs in one thread from one seed, and a failing seed
//! replays. The shell around it (the `greenroom` crate) owns sockets, files, threads and libraries.
//!
//! | file | what it decides |
//! | --- | --- |
//! | [`core`] | the one `match` over inputs, and what a pass is |
//! | `running.rs` | from bytes to turns, and what comes of them |
//! | `output.rs` | output that a peer has not taken |
//! | `sending.rs` | who is sent to in this pass, and who in the next |
//! | `ending.rs` | how a session ends |
//! | [`session`] | the life of a session, as a table |
//! | [`service`] | what a library offers, and which code serves it now |
//! | [`framing`] | where a message ends |
//! | [`turn`] | what a turn may ask for, staged until it succeeds |
//! | [`tables`], [`topics`] | what sessions share |
//! | `pending.rs` | actions that wait for their turn: notes, published messages, timers that are due |
//! | `asked.rs` | what turns have asked for and is not done |
//! | [`connects`] | outbound connections |
//! | [`jobs`] | functions that may block, on threads of their own |
//! | `patience.rs` | how long a peer may leave a session waiting |
//! | `timers.rs` | names with a deadline |
//! | [`reload`] | the steps of a reload |
//! | `judge.rs` | every reason to refuse a build that was tried |
//! | [`outcome`] | how a reload ended, as it is told |
//! | [`ports`] | which ports to open and to close |
//! | [`limits`] | every limit: its name, unit and default |
//! | `limited.rs` | which limits hold for whom, and the counting of those that are reached |
//! | [`recover`] | how a successor goes on from the records of a process that died |
//! | [`quarantine`] | sessions whose next action must not run for now |
//! | [`crashes`] | what follows when an action killed the process |
//! | [`probation`] | how a new build proves itself, and how the one before takes over again |
//! | `standby.rs` | a turn that failed is run again by the build before |
//! | `proof.rs` | what is kept of a probation, and how one ends |
//! | [`convert`] | data of one version is made into data of another |
//! | [`given`] | states and entries as an operator gives them, and what would be stored of them |
//! | [`restore`] | what an operator puts back: states and tables, all of it or nothing |
//! | [`inspect`] | what an operator sees: sessions and tables, a slice at a time |
//! | [`store`] | the records that outlive code |
#![forbid(unsafe_code)]

mod asked;
pub mod connects;
pub mod convert;
pub mod core;
pub mod crashes;
mod ending;
pub mod framing;
pub mod given;
pub mod inspect;
pub mod jobs;
mod judge;
mod kept;
mod limited;
pub mod limits;
pub mod outcome;
mod output;
mod patience;
mod pending;
pub mod ports;
pub mod probation;
mod proof;
pub mod quarantine;
pub mod recover;
pub mod reload;
pub mod restore;
mod running;
mod sending;
pub mod service;
pub mod session;
mod standby;
pub mod store;
pub mod tables;
mod timers;
pub mod topics;
pub mod turn;

pub use crate::core::{Core, Effect, Input};
