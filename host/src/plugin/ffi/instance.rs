//! Instance of a service: runs turns and jobs, and converts values.
//!
//! An instance is built once from its settings and never changes, so a turn cannot leave
//! anything in it. The loop runs turns and conversions, one call at a time. Jobs run on threads
//! of their own meanwhile, and each holds a share of the instance. So the instance ends with
//! its last user, which may be a job of a build that was replaced.
//!
//! A call costs the board a few stores, and copies no part of the batch. By the ABI the library
//! catches its own panics. A crash or an endless turn ends the worker, and the board says which
//! turn it was.

use crate::clock::now_ns;
use crate::memory::board::Board;
use crate::memory::board_layout::Running;
use crate::memory::figures_layout::TurnSlot;
use crate::plugin::ffi::bytes::{sink, slice, some_sink, text};
use crate::plugin::ffi::host_calls::as_service;
use crate::plugin::ffi::under_way::TurnUnderWay;
use greenroom_core::framing::custom::{CustomCut, CustomMessage};
use greenroom_core::ids::public_number;
use greenroom_core::turn::code::{Batch, Code, CutPlace, Work};
use greenroom_core::turn::fault::Fault;
use greenroom_core::turn::staging::Staging;
use greenroom_state::abi;
use std::cell::Cell;
use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

/// Code of one service, with the instance that was built for it.
pub(super) struct Plugin {
    /// Shared with the jobs that run.
    instance: Arc<Instance>,
    abi_minor: u16,
    board: Board,
    /// Calls so far, modulo 256.
    calls: Cell<u8>,
    /// Place on the board for the times of its turns.
    turns: Cell<TurnSlot>,
}

/// Calls after which the core is told the time, and turns of one call from which it is. Turns that
/// are slow then end a pass.
const TIME_EVERY: u8 = 16;

/// Instance of a service. Jobs share it, and may outlive the build's turns.
struct Instance {
    /// Table of its functions.
    service: &'static abi::Service,
    /// Name of the service.
    name: &'static str,
    /// The host's functions, for its library.
    host: &'static abi::Host,
    /// Pointer that `create` returned; never null.
    made: *mut c_void,
}

// SAFETY: the ABI says that an instance never changes, and may be used from a thread after it was
// made on another.
unsafe impl Send for Instance {}
// SAFETY: the ABI says that jobs may run while a turn does; turns run on one thread, as a plugin
// isn't shared.
unsafe impl Sync for Instance {}

impl Plugin {
    /// Builds an instance from its settings (JSON). Runs code of the author. If the library
    /// refuses the settings, the error is its reason.
    pub(super) fn create(
        service: &'static abi::Service,
        abi_minor: u16,
        config: &str,
        host: &'static abi::Host,
        board: Board,
    ) -> Result<Plugin, String> {
        let mut message = Vec::new();
        let sink = sink(&mut message);
        let name = text(service.name).unwrap_or_default();
        // SAFETY: the arguments are valid for the call.
        let made = as_service(name, || unsafe { (service.create)(host, config.into(), sink) });
        match made.is_null() {
            false => Ok(Plugin {
                instance: Arc::new(Instance { service, name, host, made }),
                abi_minor,
                board,
                calls: Cell::new(0),
                turns: Cell::default(),
            }),
            // A null instance is a refusal, with or without words.
            true if message.is_empty() => Err("it was refused without a reason".into()),
            true => Err(String::from_utf8_lossy(&message).into_owned()),
        }
    }
}

impl Plugin {
    /// Runs a batch whose first action is of a later kind than the ABI began with, if it is not
    /// run like all others: the build does not know the kind, or it is a request for a page.
    #[cold]
    fn run_other(
        &self,
        batch: &Batch<'_>,
        first: &abi::Action<'_>,
        staging: &mut Staging<'_>,
    ) -> Option<u32> {
        if !self.knows(first.kind) {
            // Its framing's events are for newer builds: one that came back passes them by.
            if [abi::action::NEGOTIATED, abi::action::SUBNEGOTIATION].contains(&first.kind) {
                while staging.turn_ok() {}
                return Some(0);
            }
            // An older build would take the action for another kind.
            let message = match self.abi_minor {
                0 | 1 => {
                    "it was built for ABI 1.1, and knows no timers, notes, published messages or jobs".into()
                }
                minor => format!("it was built for ABI 1.{minor}, and serves no pages"),
            };
            staging.turn_failed(Fault { kind: abi::fault::ERROR, message, file: String::new(), line: 0 });
            return Some(0);
        }
        if first.kind != abi::action::PAGE {
            return None;
        }
        let Instance { service, host, made, .. } = &*self.instance;
        let Some(page) = service.page else {
            // Without an answer the peer learns that there is no such page.
            staging.turn_ok();
            return Some(0);
        };
        let begun_ns = now_ns();
        self.board.begin(first_turn(batch), 1);
        let mut running = TurnUnderWay { staging, board: self.board };
        let turn = (&raw mut running).cast::<abi::Turn>();
        // SAFETY: the instance is alive. The path and the staging area are valid until the call
        // returns. Only the functions in the host's table use the staging area meanwhile.
        unsafe { page(*made, *host, turn, first.name) };
        self.board.end();
        self.count_turns(batch, running.staging, now_ns().saturating_sub(begun_ns));
        Some(0)
    }

    /// Notes the time of a call on the board. A call without actions only reads a state.
    #[inline]
    fn count_turns(&self, batch: &Batch<'_>, staging: &Staging<'_>, ns: u64) {
        if let Some(first) = batch.actions.first() {
            let mut slot = self.turns.get();
            let of = (batch.service.0, batch.generation);
            self.board.turns(&mut slot, of, first.kind, ns, staging.has_failed());
            self.turns.set(slot);
        }
    }
}

/// First turn of a batch, as the board notes it.
fn first_turn(batch: &Batch<'_>) -> Running {
    Running {
        service: batch.service.0,
        generation: batch.generation,
        session: batch.session,
        turn: batch.turn,
        action: batch.actions.first().map_or(0, |a| a.kind),
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // SAFETY: `create` made it, and it is not used after this.
        unsafe { (self.service.destroy)(self.made) }
    }
}

impl Work for Instance {
    fn run(&self, name: &str, input: &[u8], cancelled: &AtomicU32) -> Result<Vec<u8>, String> {
        let job = self.service.job.ok_or("this build has no jobs: it is of ABI 1.1")?;
        let (mut result, mut error) = (Vec::new(), Vec::new());
        let (to_result, to_error) = (sink(&mut result), sink(&mut error));
        let run = || {
            // SAFETY: the instance is alive, and the arguments are valid for the call.
            unsafe { job(self.made, name.into(), input.into(), cancelled, to_result, to_error) }
        };
        match as_service(self.name, run) {
            0 => Ok(result),
            _ => Err(String::from_utf8_lossy(&error).into_owned()),
        }
    }
}

impl Code for Plugin {
    #[inline]
    fn run(&self, batch: &Batch<'_>, staging: &mut Staging<'_>) -> u32 {
        if let Some(a) = batch
            .actions
            .first()
            .filter(|a| a.kind > abi::action::CLOSED && (a.kind == abi::action::PAGE || !self.knows(a.kind)))
            && let Some(flags) = self.run_other(batch, a, staging)
        {
            return flags;
        }
        let Instance { service, host, made, .. } = &*self.instance;
        let (state_version, state) = batch.state.unwrap_or((0, &[]));
        // State and actions are lent, not copied: all is valid until the call returns.
        let raw = abi::Batch {
            size: size_of::<abi::Batch<'_>>() as u32,
            state_version,
            has_state: u32::from(batch.state.is_some()),
            action_stride: size_of::<abi::Action<'_>>() as u32,
            actions: batch.actions.as_ptr(),
            action_count: batch.actions.len(),
            state: state.into(),
            session: public_number(batch.session),
            now_ns: batch.now_ns,
        };
        // From here to `end` a death of the process is blamed on this turn; `turn_ok` moves on
        // to the next one.
        let begun_ns = now_ns();
        self.board.begin(first_turn(batch), batch.actions.len());
        let mut running = TurnUnderWay { staging, board: self.board };
        let turn = (&raw mut running).cast::<abi::Turn>();
        // SAFETY: the instance is alive. The batch and the staging area are valid until the call
        // returns. Only the functions in the host's table use the staging area meanwhile.
        let flags = unsafe { (service.run)(*made, *host, turn, &raw) };
        self.board.end();
        let ended_ns = now_ns();
        let took_ns = ended_ns.saturating_sub(begun_ns);
        if batch.timed || running.staging.is_watched() {
            running.staging.took(took_ns);
        }
        self.count_turns(batch, running.staging, took_ns);
        let calls = self.calls.get().wrapping_add(1);
        self.calls.set(calls);
        if calls.is_multiple_of(TIME_EVERY) || batch.actions.len() >= usize::from(TIME_EVERY) {
            running.staging.tell_time(ended_ns);
        }
        flags
    }

    fn knows(&self, kind: u32) -> bool {
        match kind {
            ..=abi::action::CLOSED => true,
            abi::action::DIALOGUE.. => self.abi_minor >= 8,
            abi::action::WOKEN.. => self.abi_minor >= 6,
            abi::action::TLS_STARTED.. => self.abi_minor >= 5,
            abi::action::PAGE.. => self.abi_minor >= 4,
            _ => self.abi_minor >= 2,
        }
    }

    fn bytes_of<'a>(&self, action: &abi::Action<'a>) -> (&'a [u8], &'a [u8]) {
        // SAFETY: the host made the action of bytes that live as long as it does.
        let name = unsafe { slice(action.name) };
        // SAFETY: as above.
        let data = unsafe { slice(action.data) };
        (name, data)
    }

    fn cut(&self, place: &CutPlace, input: &[u8], state: &mut Vec<u8>) -> Result<CustomCut, String> {
        let cut = self.instance.service.cut.ok_or("this build has no framing of its own")?;
        let mut frame = abi::framing::FrameCut {
            size: size_of::<abi::framing::FrameCut>() as u32,
            state_len: state.len() as u32,
            state: [0; abi::framing::CUSTOM_STATE_BYTES_MAX],
            consumed: 0,
            message_at: 0,
            message_len: 0,
        };
        frame.state.iter_mut().zip(&*state).for_each(|(to, from)| *to = *from);
        let CutPlace { session, service, generation, turn } = *place;
        // A death is blamed on the message that is being cut.
        let action = abi::action::MESSAGE;
        self.board.begin(Running { service: service.0, generation, session, turn, action }, 1);
        let (mut own, mut error) = (None, Vec::new());
        // SAFETY: the arguments are valid for the call.
        let answer = unsafe { cut(input.into(), &raw mut frame, some_sink(&mut own), sink(&mut error)) };
        self.board.end();
        let kept = frame.state.get(..frame.state_len as usize);
        let kept = kept.ok_or_else(|| format!("it says that it keeps {} bytes of state", frame.state_len))?;
        *state = kept.to_vec();
        let consumed = frame.consumed;
        let error = || String::from_utf8_lossy(&error).into_owned();
        match answer {
            abi::framing::cut::MORE => Ok(CustomCut::More),
            abi::framing::cut::SKIPPED => Ok(CustomCut::Skipped { consumed }),
            abi::framing::cut::INVALID => Ok(CustomCut::Invalid(error())),
            abi::framing::cut::MESSAGE => {
                let end = frame.message_at.saturating_add(frame.message_len);
                let message = own.map_or(CustomMessage::Input(frame.message_at..end), CustomMessage::Own);
                Ok(CustomCut::Message { message, consumed })
            }
            abi::framing::cut::FAILED => Err(error()),
            other => Err(format!("its answer {other} is not known")),
        }
    }

    fn encode(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        let encode = self.instance.service.encode.ok_or("this build has no framing of its own")?;
        let (mut result, mut error) = (Vec::new(), Vec::new());
        let (to_result, to_error) = (sink(&mut result), sink(&mut error));
        // SAFETY: the arguments are valid for the call.
        match unsafe { encode(message.into(), to_result, to_error) } {
            0 => Ok(result),
            _ => Err(String::from_utf8_lossy(&error).into_owned()),
        }
    }

    fn work(&self) -> Option<Arc<dyn Work>> {
        self.instance.service.job.is_some().then(|| self.instance.clone() as Arc<dyn Work>)
    }

    fn convert(&self, which: u32, from: u32, to: u32, value: &[u8]) -> Result<Vec<u8>, String> {
        let convert = self.instance.service.convert.ok_or("this build converts nothing: it is of ABI 1.0")?;
        let (mut result, mut error) = (Vec::new(), Vec::new());
        let (to_result, to_error) = (sink(&mut result), sink(&mut error));
        // SAFETY: the arguments are valid for the call.
        match unsafe { convert(which, from, to, value.into(), to_result, to_error) } {
            0 => Ok(result),
            _ => Err(String::from_utf8_lossy(&error).into_owned()),
        }
    }
}
