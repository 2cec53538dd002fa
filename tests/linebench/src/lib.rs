//! Parts shared by the load generators.
//!
//! | file | subject |
//! | --- | --- |
//! | `batch.rs` | lines that verify their replies |
//! | `net.rs` | connections from loopback |
//! | `wire.rs` | connections over TCP, TLS and UDP |
//! | `proc.rs` | CPU time and memory, from /proc |
//! | `figures.rs` | quantiles, and figures as JSON |

pub mod batch;
pub mod figures;
pub mod net;
pub mod proc;
pub mod wire;

/// An error that ends the process, with its reason.
pub type Res<T> = Result<T, Box<dyn std::error::Error>>;
