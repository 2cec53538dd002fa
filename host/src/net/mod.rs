//! Sockets and the numbers by which the poll names them. What their bytes mean is the core's.

pub mod sockets;
