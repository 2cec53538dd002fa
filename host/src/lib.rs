//! The shell around `greenroom-core`: sockets, files, threads and loaded libraries. The core decides, this carries out.
//!
//! `ARCHITECTURE.md` beside this crate is the map; start at [`worker`].
#![deny(unsafe_code)]

pub mod admin;
pub mod cli;
pub mod config;
pub mod logs;
pub mod mail;
pub mod net;
pub mod plugin;
pub mod runtime;
pub mod stager;
pub mod sys;
pub mod watch;
pub mod worker;
