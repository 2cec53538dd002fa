//! Sockets and the numbers by which the poll names them. The core alone reads their bytes.

pub mod sockets;
pub mod stream;
