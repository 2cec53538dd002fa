//! Cut: messages at the beginning of some input, at most a batch, and what ends it.
//!
//! Messages of most framings are slices of the input: they cost no copy, and no memory beyond
//! the stack. Other framings write to [`CutBuffers`].
//!
//! A cut runs ahead of the turns: fewer messages may run than were cut. If a framing stores
//! something, the state behind each message is kept. The session then goes back to the state
//! behind the last message that ran.
//!
//! A cut never holds messages and a reply of the framing. The reply comes with the next cut, as
//! the messages' turns may end the session, and their output comes first.
//!
//! Costs: O(bytes searched), and one state of 16 bytes for each message of a framing with
//! buffers.

use crate::execute::batch::wait_for_code;
use crate::framing::Framing;
use crate::framing::custom;
use crate::framing::frame::{CutRefusal, Frame, FrameBuffers, FrameEvent, FrameState, Payload};
use crate::host_state::HostState;
use crate::host_state::framings::limited_framing;
use crate::ids::Slot;
use crate::limits::host::BATCH_ACTIONS_MAX;
use crate::turn::code::CutPlace;
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
    /// Place of the words of the peer's close in the payloads.
    closing: Range<usize>,
    /// State of the framing before the first message, and behind each.
    states: Vec<FrameState>,
}

impl CutBuffers {
    /// Begins a cut with the state before the first message. Payloads and replies of the last
    /// cut are gone.
    fn begin(&mut self, state: &FrameState) {
        self.frames.clear();
        self.unescaped.clear();
        self.states.clear();
        self.states.push(state.clone());
    }

    /// Whether the input holds no whole message and no reply, and breaks no rule. Then the state
    /// says how far the search got; else it is of no meaning. The last cut is gone.
    pub(super) fn finds_none(&mut self, framing: &Framing, input: &[u8], state: &mut FrameState) -> bool {
        self.frames.clear();
        matches!(framing.cut(input, state, &mut self.frames), Frame::More)
    }

    /// Reason why a library's framing refused the input, if the last cut ended so.
    pub(super) fn take_refusal(&mut self) -> Option<CutRefusal> {
        self.frames.refusal.take()
    }

    /// Event of the framing, if the last cut ended in [`End::Reply`] without a message before it.
    pub(super) fn take_event(&mut self) -> Option<FrameEvent> {
        self.frames.event.take()
    }

    /// Words of the peer's close, if the last cut ended in [`End::Closed`].
    pub(super) fn closing(&self) -> &[u8] {
        &self.frames.payloads[self.closing.clone()]
    }

    /// Takes the reply of the framing, if the last cut ended in [`End::Reply`] without a message
    /// before it.
    pub(super) fn take_reply(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.frames.replies)
    }
}

/// Whole messages at the beginning of some input, at most a batch.
pub(super) struct Cut<'b> {
    /// Messages as actions, in their order. Their data borrow from the input or from the
    /// buffers.
    pub(super) actions: ArrayVec<Action<'b>, BATCH_ACTIONS_MAX>,
    /// End of each message in the input, its framing included.
    pub(super) ends: ArrayVec<usize, BATCH_ACTIONS_MAX>,
    /// Reason why there are no more messages.
    pub(super) end: End,
    /// States as [`CutBuffers`] has them; empty for a framing that stores nothing.
    states: &'b [FrameState],
}

/// Reason why a cut has no more messages.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// No further message was found: the next one is not whole, or as many as were asked for
    /// are cut.
    More,
    /// The framing answers by itself, and takes so many bytes of the input. If messages come
    /// before, the next cut finds the reply again.
    Reply(usize),
    /// A request takes so many bytes of the input, and the host answers it.
    Request(usize),
    /// The peer closes by a word of the framing.
    Closed,
    /// The next message is too long.
    TooLong,
    /// The input breaks the rules of the framing, for this reason.
    Invalid(&'static str),
}

impl<'b> Cut<'b> {
    /// Returns a cut without messages. The struct has several KiB: it is filled in place, never
    /// moved.
    #[inline]
    pub(super) fn new() -> Cut<'b> {
        Cut { actions: ArrayVec::new(), ends: ArrayVec::new(), end: End::More, states: &[] }
    }

    /// Returns the framing's state behind the first `messages`. Bytes searched behind them
    /// count as not searched, which costs a second search and changes no result.
    pub(super) fn state_behind(&self, messages: usize) -> FrameState {
        self.states.get(messages).cloned().unwrap_or_default()
    }

    /// Cuts at most `max` messages from `input`, from `at` on; `max` is at least 1. The
    /// session's framing then has the state behind the last message. `None`: there is no such
    /// session.
    #[inline]
    pub(super) fn fill(
        &mut self,
        host: &mut HostState,
        slot: Slot,
        (input, at): (&'b [u8], usize),
        max: usize,
        buffers: &'b mut CutBuffers,
    ) -> Option<()> {
        let limited = limited_framing(host, slot);
        let s = host.sessions.get_mut(slot)?;
        let framing = limited.as_ref().unwrap_or(host.services[s.service].framings.get(s.framing));
        if !framing.cuts_slices() {
            if let Framing::Custom { version, bytes_max } = *framing {
                let form = (version, bytes_max as usize);
                return self.fill_by_code(host, slot, form, (input, at), max, buffers);
            }
            let cut = |rest: &'b [u8], state: &mut FrameState, frames: &mut FrameBuffers| {
                framing.cut(rest, state, frames)
            };
            self.fill_with_buffers(cut, &mut s.frame, (input, at), max, buffers);
            return Some(());
        }
        // The bound keeps each push below within the capacity of the two vectors.
        let (mut done, mut left) = (at, max.min(BATCH_ACTIONS_MAX));
        let last = framing.cut_slices(&input[at..], &mut s.frame, |message, consumed| {
            done += consumed;
            left -= 1;
            self.actions.push(Action::new(action::MESSAGE, message.into()));
            self.ends.push(done);
            left > 0 && done < input.len()
        });
        // Framings that cut slices never reply.
        self.end = match last {
            Frame::TooLong => End::TooLong,
            Frame::Invalid(why) => End::Invalid(why),
            _ => End::More,
        };
        Some(())
    }

    /// Cuts like [`Cut::fill`], by the code of the build that serves. `form`: version and longest
    /// message of its framing. Without a build the session waits for one.
    #[inline(never)]
    fn fill_by_code(
        &mut self,
        host: &mut HostState,
        slot: Slot,
        form: (u8, usize),
        input: (&'b [u8], usize),
        max: usize,
        buffers: &'b mut CutBuffers,
    ) -> Option<()> {
        let s = host.sessions.get_mut(slot)?;
        let service = &host.services[s.service];
        if service.build.is_none() {
            wait_for_code(host, slot);
            return Some(());
        }
        if !service.framings.is_offered(s.framing) {
            buffers.frames.refusal = None;
            self.end = End::Invalid("the build that serves has no framing of its own any more");
            return Some(());
        }
        let generation = service.generation();
        let mut place = CutPlace { session: s.id, service: s.service, generation, turn: s.turns };
        let cut = |rest: &'b [u8], state: &mut FrameState, frames: &mut FrameBuffers| {
            let frame = custom::cut(form, rest, state, frames, |kept| service.code.cut(&place, rest, kept));
            place.turn += u64::from(matches!(frame, Frame::Message { .. }));
            frame
        };
        self.fill_with_buffers(cut, &mut s.frame, input, max, buffers);
        Some(())
    }

    /// Cuts like [`Cut::fill`], for a framing that changes messages or answers by itself.
    #[inline(never)]
    fn fill_with_buffers(
        &mut self,
        mut cut: impl FnMut(&'b [u8], &mut FrameState, &mut FrameBuffers) -> Frame<'b>,
        state: &mut FrameState,
        (input, at): (&'b [u8], usize),
        max: usize,
        buffers: &'b mut CutBuffers,
    ) {
        let mut done = at;
        buffers.begin(state);
        while !self.actions.is_full() && self.actions.len() < max && done < input.len() {
            let (payload, consumed) = match cut(&input[done..], state, &mut buffers.frames) {
                Frame::Message { payload, consumed } => (payload, consumed),
                Frame::More => break,
                other => {
                    self.end = match other {
                        Frame::Reply { consumed } => End::Reply(consumed),
                        Frame::Request { consumed } => End::Request(consumed),
                        Frame::Closed(words) => {
                            buffers.closing = words;
                            End::Closed
                        }
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
                    // The buffer may still move as it grows, so the action gets its bytes
                    // behind the loop.
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
        // The reply is dropped with this cut, so the state must not say that it was given.
        if matches!(self.end, End::Reply(_)) && !self.actions.is_empty() {
            *state = self.state_behind(self.actions.len());
        }
    }
}
