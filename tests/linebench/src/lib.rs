//! What the load generators share: connections from loopback, what /proc tells, and figures as JSON.

pub mod figures;
pub mod net;
pub mod proc;

/// An error that ends the process, with its reason.
pub type Res<T> = Result<T, Box<dyn std::error::Error>>;
