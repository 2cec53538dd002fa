//! Run of a batch: decodes the state once, runs a turn for each action, and encodes the state
//! once if a turn changed it.
//!
//! The code is written against [`Host`], so that a handler's own tests run the same code as a
//! host does. Every way out has told the host how each turn ended. The state that is handed
//! over holds exactly the turns that succeeded:
//!
//! | end of the batch | state |
//! | --- | --- |
//! | all turns succeeded | handed over if one of them touched it, or it was migrated |
//! | a turn failed and had not touched the state | handed over if an earlier turn touched it |
//! | a turn failed and had touched it | as stored, or lost with the earlier turns' changes |
//! | no action: a rehearsal | handed over |
//!
//! A state that could not be read again is not handed over (`encode.rs`). If the state is lost, the
//! host runs the earlier turns again without the failed one. Copying the state before each turn
//! would cost every turn; this costs the rare fault.

use crate::action::Action;
use crate::carried::stored_as_is;
use crate::encode::read;
use crate::fault::{ASKS, Catching, Fault};
use crate::handler::Handler;
use crate::host::Host;
use crate::log;
use crate::turn::{State, Turn};
use greenroom_state::abi::{self, RUN_STATE_LOST, status};
use serde::de::DeserializeOwned;
use std::any::TypeId;

/// Session of a batch, as the host describes it.
#[derive(Clone, Copy)]
pub(crate) struct Session<'a> {
    /// Number of the session.
    pub(crate) id: u64,
    /// Time of the pass, in nanoseconds on CLOCK_MONOTONIC.
    pub(crate) now_ns: u64,
    /// Version and bytes of the stored state.
    pub(crate) state: Option<(u32, &'a [u8])>,
}

/// Whether a service keeps state at all. `()` stands for none; known at compile time.
pub(crate) fn has_state<H: Handler>() -> bool {
    TypeId::of::<H::State>() != TypeId::of::<()>()
}

/// Runs the actions, a turn each. Returns what [`greenroom_state::abi::Service::run`] does: 0,
/// or `RUN_STATE_LOST`.
///
/// Stops after the first turn that fails, or if the host wants no further one. Panics of the
/// callback and of the state's serde code are faults. If the state can't be read, no turn runs.
pub(crate) fn run<'a, H: Handler>(
    handler: &H,
    session: Session<'_>,
    actions: impl Iterator<Item = Action<'a>>,
    host: &mut dyn Host,
) -> u32 {
    // Declared before the guard, so that the state is dropped behind it: a panic in its drop is not
    // caught.
    let (mut state, mut changed);
    let catching = Catching::begin();
    match catching.catch(|| load::<H>(session.state)) {
        Ok(loaded) => (state, changed) = loaded,
        Err(fault) => {
            let why = Fault::state(format!("its state can't be read: {}", fault.message));
            hand_over_log(host);
            host.turn_failed(&why);
            return 0;
        }
    }
    let mut done = 0;
    let mut rehearsed = true;
    for action in actions {
        rehearsed = false;
        let mut turn = Turn {
            state: State { value: &mut state, touched: false },
            host,
            session: session.id,
            now_ns: session.now_ns,
            refused: None,
            retraces: None,
        };
        let result = catching.catch(|| handler.handle(&mut turn, action));
        // A refusal of the host fails the turn here, even if the callback returned `Ok`.
        let result = turn.outcome(result);
        let touched = turn.state.touched;
        hand_over_log(host);
        match result {
            Ok(()) => {
                done += 1;
                changed |= touched;
                if !host.turn_ok() {
                    break;
                }
            }
            Err(fault) => {
                host.turn_failed(&fault);
                if touched {
                    // The state may be half changed. If the earlier turns left it as it was
                    // stored, nothing is lost.
                    return if changed { RUN_STATE_LOST } else { 0 };
                }
                break;
            }
        }
    }
    if (changed && done > 0 || rehearsed) && has_state::<H>() {
        match catching.catch(|| stored_as_is(&state).map_err(Fault::new)) {
            Ok(bytes) => host.state(&bytes),
            Err(why) => {
                host.turn_failed(&Fault {
                    message: format!("the state can't be stored: {}", why.message),
                    ..why
                });
                return RUN_STATE_LOST;
            }
        }
    }
    0
}

/// Runs the dialogue of a session along its answers, for a rehearsal ([`abi::action::DIALOGUE`]).
/// The callback runs over an empty line, and the host drops its effects. Returns what [`run`] does.
pub(crate) fn retrace<H: Handler>(handler: &H, session: Session<'_>, host: &mut dyn Host) -> u32 {
    // Declared before the guard, as above.
    let mut state;
    let mut found = None;
    let catching = Catching::begin();
    match catching.catch(|| load::<H>(session.state)) {
        Ok(loaded) => state = loaded.0,
        Err(fault) => {
            host.turn_failed(&fault);
            return 0;
        }
    }
    let mut turn = Turn {
        state: State { value: &mut state, touched: false },
        host,
        session: session.id,
        now_ns: session.now_ns,
        refused: None,
        retraces: Some(&mut found),
    };
    let ran = catching.catch(|| handler.handle(&mut turn, Action::Message(b"")));
    // Nothing of it has happened.
    log::take();
    let told = found.and_then(|found| serde_json::to_string(&found).ok());
    match (told, ran) {
        (Some(told), _) => host.turn_failed(&Fault::bare(abi::fault::DIALOGUE, told)),
        (None, Err(fault)) if fault.kind != ASKS => host.turn_failed(&fault),
        (None, _) => _ = host.turn_ok(),
    }
    0
}

/// Runs actions of the service itself, a turn each. There is no state, so nothing can be lost.
pub(crate) fn run_service<'a, H: Handler>(
    handler: &H,
    now_ns: u64,
    actions: impl Iterator<Item = Action<'a>>,
    host: &mut dyn Host,
) -> u32 {
    let catching = Catching::begin();
    for action in actions {
        let state = State { value: &mut (), touched: false };
        let mut turn = Turn { state, host, session: 0, now_ns, refused: None, retraces: None };
        let result = catching.catch(|| handler.handle_service(&mut turn, action));
        let result = turn.outcome(result);
        hand_over_log(host);
        match result {
            Ok(()) if host.turn_ok() => {}
            Ok(()) => break,
            Err(fault) => {
                host.turn_failed(&fault);
                break;
            }
        }
    }
    0
}

/// Runs the turn of a page: without state, and with the page as its only effect.
pub(crate) fn run_page<H: Handler>(handler: &H, path: &str, host: &mut dyn Host) {
    let page = Catching::begin().catch(|| Ok(handler.page(path)));
    let answered = page.and_then(|page| match page.map(|p| host.page(&p.content_type, &p.bytes)) {
        None | Some(status::OK) => Ok(()),
        Some(_) => Err(Fault::new("the host refused a page")),
    });
    hand_over_log(host);
    match answered {
        Ok(()) => _ = host.turn_ok(),
        Err(fault) => host.turn_failed(&fault),
    }
}

/// Reads the state, and says whether it had to be migrated. A migrated state counts as changed,
/// so that it is stored in this build's version. A session without a stored state begins with
/// the default.
fn load<H: Handler>(stored: Option<(u32, &[u8])>) -> Result<(H::State, bool), Fault> {
    match stored {
        _ if !has_state::<H>() => Ok((H::State::default(), false)),
        None => Ok((H::State::default(), false)),
        Some((version, bytes)) if version == H::STATE_VERSION => Ok((state_of(bytes)?, false)),
        Some((version, bytes)) => {
            let bytes = H::migrations().run(version, H::STATE_VERSION, bytes).map_err(Fault::new)?;
            Ok((state_of(&bytes)?, true))
        }
    }
}

/// Reads a state.
fn state_of<S: DeserializeOwned>(bytes: &[u8]) -> Result<S, Fault> {
    read(bytes).map_err(Fault::new)
}

/// Hands the events of a turn to the host. Called before the turn's end is told.
#[inline]
fn hand_over_log(host: &mut dyn Host) {
    if log::is_any() {
        log::take().iter().for_each(|event| host.log(event));
    }
}
