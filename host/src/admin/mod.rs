//! What operators ask: a Unix socket in the runtime directory, and a thread for each caller.
//!
//! The keeper takes the callers in, so that `status` is answered whatever the worker does; for all else it gives the socket to the
//! worker, which asks its loop for one small slice at a time, so that no answer holds up a client.

pub mod answer;
pub mod client;
pub mod query;
mod restore;
pub mod server;
pub mod text;
