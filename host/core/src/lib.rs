//! Decisions of Greenroom: no socket, clock, thread, file or environment, and no unsafe code.
//!
//! [`core::Core`] takes one [`input::Input`] after another and answers with
//! [`command::Command`]s; time is an argument. So a whole server runs in one thread from one
//! seed, with its reloads, cut reads, short writes and slow readers. A failing seed replays.
//! The shell around it (the `greenroom` crate) owns sockets, files, threads and libraries.
//!
//! All state that must survive lies in [`store`], as records that outlive the process. The
//! other parts keep indexes on the heap, which [`recovery`] builds again.
//!
//! Folders, from the front door down; each uses only folders further down:
//!
//! | folder | holds |
//! | --- | --- |
//! | [`core`] | the front door: every call of the shell |
//! | [`pass`] | the stages of a pass |
//! | [`reload`] | from candidate to running build |
//! | [`operate`] | views and restores for operators |
//! | [`recovery`] | after a process has died |
//! | [`execute`] | runs handler code |
//! | [`service`] | builds and the services they offer |
//! | [`watch`] | watchers of turns |
//! | [`turn`] | effects that a turn may ask for |
//! | [`effects`] | actions that come back later: timers, jobs, connections, topics |
//! | [`session`] | one connection and what it owes its peer |
//! | [`tables`] | data that sessions share |
//! | [`framing`] | bytes to messages |
//! | [`tls`] | records to bytes, and back |
//! | [`limits`] | every limit |
//! | [`store`] | records that outlive the process |
#![forbid(unsafe_code)]

pub mod command;
pub mod core;
pub mod effects;
pub mod execute;
pub mod framing;
pub(crate) mod host_state;
pub mod ids;
pub mod input;
pub mod ledger;
pub mod limits;
pub mod operate;
pub mod pass;
pub mod recovery;
pub mod reload;
pub mod service;
pub mod session;
pub mod store;
pub mod tables;
#[cfg(test)]
pub(crate) mod test_support;
pub mod tls;
pub mod turn;
pub mod watch;
