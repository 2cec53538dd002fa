//! Where a message ends: a pure function of the bytes not consumed yet and a little state that can be stored.
//!
//! So a reload in the middle of a frame needs nothing but those two, and cutting a stream anywhere changes nothing.

pub mod frame;
mod lines;
mod raw;

use crate::framing::frame::Frame;
use crate::framing::frame::FrameState;
use serde::{Deserialize, Serialize};

/// How a service's stream is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Framing {
    /// Lines that end in LF or CRLF.
    Lines {
        /// The longest message, without its line ending.
        bytes_max: u32,
    },
    /// Whatever arrived.
    Raw {
        /// The longest message.
        bytes_max: u32,
    },
}

impl Framing {
    /// Framing of a service that no library serves.
    pub(crate) const UNSERVED: Framing = Framing::Lines { bytes_max: 0 };

    /// Looks for the next message at the start of `bytes`. After [`Frame::Message`] the state is that of a fresh frame.
    #[inline]
    pub fn next<'a>(&self, bytes: &'a [u8], state: &mut FrameState) -> Frame<'a> {
        match self {
            Framing::Lines { bytes_max } => lines::next(bytes, state, *bytes_max as usize),
            Framing::Raw { bytes_max } => raw::next(bytes, *bytes_max as usize),
        }
    }

    /// The longest message, in bytes.
    pub fn bytes_max(&self) -> u32 {
        match *self {
            Framing::Lines { bytes_max } | Framing::Raw { bytes_max } => bytes_max,
        }
    }
}
