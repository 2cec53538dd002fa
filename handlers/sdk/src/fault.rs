//! Faults: reasons why a turn failed.
//!
//! A fault is an error that the callback returned, or a panic that was caught here. Code of the
//! author runs in [`catch`], so that nothing unwinds across the C ABI. A panic in the drop of a
//! state is not caught and ends the worker. So would any panic of a build with `panic =
//! "abort"`; the host refuses to load such a build.

use greenroom_state::abi::fault;
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::Once;

/// Kind of the fault that ends a run of a dialogue whose question waits. No host sees it.
pub(crate) const ASKS: u32 = 0;

/// Fault of a turn. `?` makes one of any error, and notes the place of that `?`.
///
/// The turn's effects and its change of the state are dropped, and the fault is logged. The session
/// goes on, and its peer is told nothing, unless the fault says otherwise ([`Fault::tell`],
/// [`Fault::close`]). [`OrTell`] says it on the spot.
///
/// The type implements no `Error`: otherwise the conversion from every error would collide with
/// that from itself.
///
/// ```
/// use greenroom_handler::testing::TestHost;
/// use greenroom_handler::{Fault, Handler, Result, Turn, handler};
///
/// struct Purse;
/// #[handler]
/// impl Handler for Purse {
///     const SERVICE: &'static str = "purse";
///     type State = i64;
///     fn message(&self, turn: &mut Turn<i64>, line: &[u8]) -> Result {
///         let sum: i64 = String::from_utf8_lossy(line).parse()?;
///         *turn.state += sum;
///         if *turn.state < -10 {
///             return Err(Fault::new("too deep in debt").tell("Good-bye.").close());
///         }
///         turn.send_line(turn.state.to_string());
///         Ok(())
///     }
/// }
///
/// let mut host = TestHost::<Purse>::new("{}").unwrap();
/// let peer = host.open();
/// assert_eq!(host.line(peer, "5"), "5\n");
/// assert_eq!(host.line(peer, "-100"), "Good-bye.\n");
/// // The turn failed, so it changed nothing.
/// assert_eq!((host.state(peer), host.is_closed(peer)), (5, true));
/// ```
pub struct Fault {
    /// Kind, a number of [`greenroom_state::abi::fault`].
    pub(crate) kind: u32,
    /// Reason in words.
    pub(crate) message: String,
    /// Source file of the error or panic; empty: unknown.
    pub(crate) file: String,
    /// Line in the file; 0: unknown.
    pub(crate) line: u32,
    /// Line that the peer is told.
    pub(crate) tells: Option<String>,
    /// Whether the session is closed.
    pub(crate) closes: bool,
}

impl Fault {
    /// Fault in the author's own words.
    #[track_caller]
    pub fn new(message: impl fmt::Display) -> Fault {
        let at = Location::caller();
        Fault {
            kind: fault::ERROR,
            message: message.to_string(),
            file: at.file().to_owned(),
            line: at.line(),
            tells: None,
            closes: false,
        }
    }

    /// Has the peer told a line, as [`crate::Turn::send_line`] sends it. Without this the peer
    /// is told nothing.
    ///
    /// ```
    /// use greenroom_handler::{Fault, Result, Turn};
    ///
    /// fn pay(turn: &mut Turn<'_, u64>, price: u64) -> Result {
    ///     let too_poor = || Fault::new("too poor").tell("You can't afford that.");
    ///     *turn.state = turn.state.checked_sub(price).ok_or_else(too_poor)?;
    ///     Ok(())
    /// }
    /// ```
    #[must_use]
    pub fn tell(self, line: impl Into<String>) -> Fault {
        Fault { tells: Some(line.into()), ..self }
    }

    /// Has the session closed, behind the line that the peer is told. Without this the session
    /// goes on.
    #[must_use]
    pub fn close(self) -> Fault {
        Fault { closes: true, ..self }
    }

    /// Fault whose place is not known.
    pub(crate) fn bare(kind: u32, message: String) -> Fault {
        Fault { kind, message, file: String::new(), line: 0, tells: None, closes: false }
    }

    /// Describes the fault outside a turn, where there is no field for its place.
    pub(crate) fn in_words(self) -> String {
        match self.kind {
            fault::PANIC => format!("panicked at {}:{}: {}", self.file, self.line, self.message),
            _ => self.message,
        }
    }

    /// Fault of a state that can't be read: the action is kept, and not run.
    pub(crate) fn state(message: impl fmt::Display) -> Fault {
        Fault::bare(fault::STATE, message.to_string())
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}:{})", self.message, self.file, self.line)
    }
}

impl<E: std::error::Error> From<E> for Fault {
    #[track_caller]
    fn from(error: E) -> Fault {
        Fault::new(error)
    }
}

/// Words for the peer, on whatever may be missing or fail.
///
/// ```
/// use greenroom_handler::{Action, OrTell, Result, Turn};
///
/// fn said(turn: &mut Turn, line: &[u8]) -> Result {
///     let line = std::str::from_utf8(line).or_close("UTF-8, please.")?;
///     let (_, number) = line.split_once(' ').or_tell("Two words, please.")?;
///     let number: u32 = number.parse().or_tell("The second word is a number.")?;
///     turn.send_line(format!("{}", number * 2));
///     Ok(())
/// }
/// ```
pub trait OrTell<T> {
    /// Returns the value, or a fault that tells the peer this line; the session goes on.
    fn or_tell(self, line: impl Into<String>) -> Result<T, Fault>;

    /// Returns the value, or a fault that tells the peer this line and closes the session.
    fn or_close(self, line: impl Into<String>) -> Result<T, Fault>;
}

impl<T, E> OrTell<T> for Result<T, E>
where
    Fault: From<E>,
{
    #[track_caller]
    fn or_tell(self, line: impl Into<String>) -> Result<T, Fault> {
        match self {
            Ok(value) => Ok(value),
            Err(error) => Err(Fault::from(error).tell(line)),
        }
    }

    #[track_caller]
    fn or_close(self, line: impl Into<String>) -> Result<T, Fault> {
        match self {
            Ok(value) => Ok(value),
            Err(error) => Err(Fault::from(error).tell(line).close()),
        }
    }
}

impl<T> OrTell<T> for Option<T> {
    #[track_caller]
    fn or_tell(self, line: impl Into<String>) -> Result<T, Fault> {
        match self {
            Some(value) => Ok(value),
            None => {
                let line = line.into();
                Err(Fault::new(&line).tell(line))
            }
        }
    }

    #[track_caller]
    fn or_close(self, line: impl Into<String>) -> Result<T, Fault> {
        match self {
            Some(value) => Ok(value),
            None => {
                let line = line.into();
                Err(Fault::new(&line).tell(line).close())
            }
        }
    }
}

thread_local! {
    /// Whether a panic on this thread is reported as a fault.
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    /// Place of the last panic on this thread, noted by the hook.
    static PLACE: RefCell<Option<(String, u32)>> = const { RefCell::new(None) };
}

/// Installs the hook that notes a panic's place instead of printing it. Panics outside of turns
/// go to the previous hook. Installed once for a library: each one has statics of its own.
pub(crate) fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !CATCHING.get() {
                return before(info);
            }
            let place = info.location().map(|l| (l.file().to_owned(), l.line()));
            PLACE.with(|p| p.replace(place));
        }));
    });
}

/// Runs `f`; a panic becomes a fault. Costs two stores to a thread-local.
pub(crate) fn catch<T>(f: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    Catching::begin().catch(f)
}

/// Guard: while it lives, panics on this thread are reported as faults.
pub(crate) struct Catching {
    /// Value to restore: guards may be nested.
    outer: bool,
}

impl Catching {
    /// Begins to report panics on this thread as faults, until the guard is dropped.
    #[inline]
    pub(crate) fn begin() -> Catching {
        Catching { outer: CATCHING.replace(true) }
    }

    /// Runs `f`; a panic becomes a fault. A batch makes one guard for all of its turns.
    #[inline]
    pub(crate) fn catch<T>(&self, f: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
        // A panic may leave the state half changed, and the caller drops that.
        catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|payload| Err(panicked(&*payload)))
    }
}

impl Drop for Catching {
    #[inline]
    fn drop(&mut self) {
        CATCHING.set(self.outer);
    }
}

/// Makes a fault of a panic, with the place that the hook noted. Cold: most turns do not panic.
#[cold]
fn panicked(payload: &(dyn Any + Send)) -> Fault {
    let (file, line) = PLACE.take().unwrap_or_default();
    Fault { file, line, ..Fault::bare(fault::PANIC, text_of(payload)) }
}

/// Message of a panic. `panic!` with arguments makes a `String`, without them a `&str`.
fn text_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_keeps_its_message_and_place() {
        install_hook();
        let fault = catch::<()>(|| panic!("lost {}", 3)).unwrap_err();
        assert_eq!((fault.kind, fault.message.as_str()), (fault::PANIC, "lost 3"));
        assert!(fault.file.ends_with("fault.rs") && fault.line > 0);
        let fault = catch::<()>(|| Ok("x".parse::<u8>().map(|_| ())?)).unwrap_err();
        assert!(fault.message.contains("invalid digit") && fault.file.ends_with("fault.rs"), "{fault:?}");
    }
}
