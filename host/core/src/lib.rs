//! Greenroom's decisions: no socket, clock, thread, file or environment, and no unsafe code.
//!
//! [`core::Core`] takes one [`input::Input`] after another and answers with [`command::Command`]s;
//! time is an argument. So a whole server, with its reloads, cut reads, short writes and slow
//! readers, runs in one thread from one seed, and a failing seed replays. The shell around it (the
//! `greenroom` crate) owns sockets, files, threads and libraries.
//!
//! Folders, from the front door down; each uses only folders further down:
//!
//! | folder | holds |
//! | --- | --- |
//! | [`core`] | the front door: every call of the shell |
//! | [`pass`] | the stages of a pass |
//! | [`reload`] | from candidate to running build |
//! | [`operate`] | what operators read and write |
//! | [`recovery`] | after a process has died |
//! | [`execute`] | runs handler code |
//! | [`service`] | builds and the services they offer |
//! | [`turn`] | what a turn may ask for |
//! | [`effects`] | what a turn started and that comes back later |
//! | [`session`] | one connection and what it owes its peer |
//! | [`tables`] | data that sessions share |
//! | [`framing`] | bytes to messages |
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
pub mod turn;
