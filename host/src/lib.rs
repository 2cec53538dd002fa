//! The shell around `greenroom-core`: sockets, files, threads and loaded libraries. The core decides, this carries out.
//!
//! `ARCHITECTURE.md` beside this crate is the map; start at [`worker`], then [`keeper`].
#![deny(unsafe_code)]

pub mod admin;
pub mod board;
pub mod cli;
pub mod config;
pub mod control;
pub mod found;
pub mod jobs;
pub mod keeper;
pub mod killpoint;
pub mod logs;
pub mod mail;
pub mod net;
pub mod plugin;
pub mod process;
pub mod region;
pub mod runtime;
pub mod save;
pub mod snapshot;
pub mod stager;
pub mod sys;
pub mod watch;
pub mod watchdog;
pub mod worker;
