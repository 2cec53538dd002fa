//! Shell around `greenroom-core`: sockets, files, threads and loaded libraries.
//!
//! The core decides, and the shell carries out. One crate is keeper, worker, trial and command
//! line: they are subcommands of one binary, so an upgrade replaces one file.
//!
//! `ARCHITECTURE.md` beside this crate is the map; start at [`worker`], then [`keeper`].
#![deny(unsafe_code)]

pub mod admin;
pub mod cli;
pub mod clock;
pub mod config;
pub mod crash_points;
pub mod exit_status;
pub mod handler_output;
pub mod handshaker;
pub mod job_threads;
pub mod keeper;
pub mod logs;
pub mod mailbox;
pub mod memory;
pub mod net;
pub mod observe;
pub mod plugin;
pub mod printable;
pub mod protocol;
pub mod runtime_dir;
pub mod saved_file;
pub mod saved_place;
pub mod sys;
pub mod tls;
pub mod watchdog;
pub mod worker;
