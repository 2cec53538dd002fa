//! Cut: messages at the beginning of some input, at most a batch, and what ends it.
//!
//! Messages of most framings are slices of the input: they cost no copy, and no memory beyond the
//! stack. Other framings write to [`CutBuffers`].

use crate::framing::Framing;
use crate::framing::frame::{Frame, FrameBuffers, FrameState, Payload};
use crate::host_state::HostState;
use crate::ids::Slot;
use crate::limits::host::BATCH_ACTIONS_MAX;
use arrayvec::ArrayVec;
use greenroom_state::abi::{Action, Bytes, action};
use std::ops::Range;

/// Memory that cuts use again. Framings that cut slices of the input leave it alone.
#[derive(Default)]
pub(super) struct CutBuffers {
    /// Payloads and replies.
    frames: FrameBuffers,
    /// Messages that differ from their input: place in the batch, and in the payloads.
    unescaped: Vec<(usize, Range<usize>)>,
    /// State of the framing before the first message, and behind each.
    states: Vec<FrameState>,
}

impl CutBuffers {
    /// Begins a cut with the state before the first message.
    fn begin(&mut self, state: &FrameState) {
        self.frames.clear();
        self.unescaped.clear();
        self.states.clear();
        self.states.push(state.clone());
    }

    /// Reply of the framing, if the last cut ended in [`End::Reply`].
    pub(super) fn reply(&self) -> &[u8] {
        &self.frames.replies
    }
}

/// Whole messages at the beginning of some input, at most a batch.
pub(super) struct Cut<'b> {
    pub(super) actions: ArrayVec<Action<'b>, BATCH_ACTIONS_MAX>,
    /// End of each message.
    pub(super) ends: ArrayVec<usize, BATCH_ACTIONS_MAX>,
    /// Reason why there are no more messages.
    pub(super) end: End,
    /// States as [`CutBuffers`] has them; empty for a framing that stores nothing.
    states: &'b [FrameState],
}

/// Reason why a cut has no more messages.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The next message is not whole, or the batch is.
    More,
    /// The framing answers by itself, and takes so many bytes of the input. If messages come
    /// before, the next cut finds the reply again.
    Reply(usize),
    /// The next message is too long.
    TooLong,
    /// The input breaks the rules of the framing, for this reason.
    Invalid(&'static str),
}

impl<'b> Cut<'b> {
    /// A cut without messages. The struct is large: it is filled in place, never moved.
    #[inline]
    pub(super) fn new() -> Cut<'b> {
        Cut { actions: ArrayVec::new(), ends: ArrayVec::new(), end: End::More, states: &[] }
    }

    /// State of the framing behind the first `messages`. What was searched behind them counts as
    /// not searched.
    pub(super) fn state_behind(&self, messages: usize) -> FrameState {
        self.states.get(messages).cloned().unwrap_or_default()
    }

    /// Cuts at most `max` messages from `input`, from `at` on. The session's framing has the state
    /// behind the last message then. `None`: there is no such session.
    #[inline]
    pub(super) fn fill(
        &mut self,
        host: &mut HostState,
        slot: Slot,
        (input, at): (&'b [u8], usize),
        max: usize,
        buffers: &'b mut CutBuffers,
    ) -> Option<()> {
        let s = host.sessions.get_mut(slot)?;
        let framing = &host.services[s.service].offer.framing;
        if !framing.cuts_slices() {
            self.fill_with_buffers(framing, &mut s.frame, (input, at), max, buffers);
            return Some(());
        }
        let (mut done, mut left) = (at, max.min(BATCH_ACTIONS_MAX));
        let last = framing.cut_slices(&input[at..], &mut s.frame, |message, consumed| {
            done += consumed;
            left -= 1;
            self.actions.push(Action::new(action::MESSAGE, message.into()));
            self.ends.push(done);
            left > 0 && done < input.len()
        });
        self.end = match last {
            Frame::TooLong => End::TooLong,
            Frame::Invalid(why) => End::Invalid(why),
            _ => End::More,
        };
        Some(())
    }

    fn fill_with_buffers(
        &mut self,
        framing: &Framing,
        state: &mut FrameState,
        (input, at): (&'b [u8], usize),
        max: usize,
        buffers: &'b mut CutBuffers,
    ) {
        let mut done = at;
        buffers.begin(state);
        while !self.actions.is_full() && self.actions.len() < max && done < input.len() {
            let (payload, consumed) = match framing.cut(&input[done..], state, &mut buffers.frames) {
                Frame::Message { payload, consumed } => (payload, consumed),
                Frame::More => break,
                other => {
                    self.end = match other {
                        Frame::Reply { consumed } => End::Reply(consumed),
                        Frame::Invalid(why) => End::Invalid(why),
                        _ => End::TooLong,
                    };
                    break;
                }
            };
            done += consumed;
            let bytes = match payload {
                Payload::Input(bytes) => bytes.into(),
                Payload::Unescaped(range) => {
                    buffers.unescaped.push((self.actions.len(), range));
                    Bytes::EMPTY
                }
            };
            self.actions.push(Action::new(action::MESSAGE, bytes));
            self.ends.push(done);
            buffers.states.push(state.clone());
        }
        // The payloads stay where they are from here on.
        let buffers = &*buffers;
        for (at, range) in &buffers.unescaped {
            self.actions[*at].data = buffers.frames.payloads[range.clone()].into();
        }
        self.states = &buffers.states;
        if matches!(self.end, End::Reply(_)) && !self.actions.is_empty() {
            *state = self.state_behind(self.actions.len());
        }
    }
}
