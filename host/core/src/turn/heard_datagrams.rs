//! Datagrams that are the actions of a batch, as its turns may answer them.

use crate::framing::peer::LocalEnd;
use std::net::SocketAddr;

/// Datagrams of the batch under way, by the place of their actions. None for any other batch.
#[derive(Debug, Default)]
pub(crate) struct HeardDatagrams {
    /// End that they came to.
    pub(crate) end: LocalEnd,
    /// Address and length of each.
    pub(crate) all: Vec<(SocketAddr, usize)>,
    /// Bytes that the turn under way answers with, and its place in the batch.
    pub(super) answered: (usize, u64),
}
