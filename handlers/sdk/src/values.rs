//! Typed values on the way from turn to turn: notes, messages on topics, timers, inputs of jobs.
//!
//! A value is written by the build that sends it, and read by the build that serves when it
//! arrives. So its type follows the rules of a state: fields may be added with a default.

use crate::action::{Action, Job, JobEnd};
use crate::encode::encode;
use crate::fault::Fault;
use crate::turn::Turn;
use rmpv::Value as Pack;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::any::type_name;
use std::time::Duration;

impl<S> Turn<'_, S> {
    /// Sends a value to another session, as [`Turn::note`] sends bytes. [`Action::value`] reads it
    /// there. Fails if the value can't be written.
    ///
    /// ```
    /// use greenroom_handler::{Action, Result, Turn};
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Serialize, Deserialize)]
    /// enum Told { Hit { damage: u32 }, Healed }
    ///
    /// fn hit(turn: &mut Turn<'_, u32>, whom: u64) -> Result {
    ///     turn.note_value(whom, &Told::Hit { damage: 3 })
    /// }
    ///
    /// fn other(turn: &mut Turn<'_, u32>, action: Action) -> Result {
    ///     if let Action::Note { .. } = action {
    ///         match action.value()? {
    ///             Told::Hit { damage } => *turn.state = turn.state.saturating_sub(damage),
    ///             Told::Healed => *turn.state = 100,
    ///         }
    ///     }
    ///     Ok(())
    /// }
    /// ```
    #[track_caller]
    pub fn note_value(&mut self, session: u64, value: &impl Serialize) -> Result<(), Fault> {
        self.note(session, packed(value, "a note")?);
        Ok(())
    }

    /// Publishes a value on a topic, as [`Turn::publish`] does bytes.
    ///
    /// ```
    /// use greenroom_handler::testing::Conversation;
    /// use greenroom_handler::{Action, Handler, Job, JobEnd, Result, Turn, handler};
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Serialize, Deserialize)]
    /// struct Move {
    ///     row: u8,
    ///     column: u8,
    /// }
    ///
    /// struct Board;
    /// #[handler]
    /// impl Handler for Board {
    ///     const SERVICE: &'static str = "board";
    ///     fn opened(&self, turn: &mut Turn) -> Result {
    ///         turn.subscribe("board");
    ///         Ok(())
    ///     }
    ///     fn message(&self, turn: &mut Turn, line: &[u8]) -> Result {
    ///         let to = Move { row: 1, column: 2 };
    ///         match line {
    ///             b"move" => turn.publish_value_others("board", &to),
    ///             b"show" => turn.publish_value("board", &to),
    ///             _ => turn.start_job_value("think", &to).map(drop),
    ///         }
    ///     }
    ///     fn job(&self, job: &Job) -> Result<Vec<u8>> {
    ///         let Move { row, column } = job.value()?;
    ///         Job::done(&Move { row: column, column: row })
    ///     }
    ///     fn other(&self, turn: &mut Turn, action: Action) -> Result {
    ///         // The outcome of the job, if it has not failed.
    ///         let done = matches!(action, Action::Job { end: JobEnd::Done(_), .. });
    ///         if done || matches!(action, Action::Published { .. }) {
    ///             let Move { row, column } = action.value()?;
    ///             turn.send_line(format!("{row},{column}"));
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// Conversation::<Board>::new("{}").plays("
    ///     ann opens
    ///     bob opens
    ///     ann says move
    ///     bob hears 1,2
    ///     ann says show
    ///     ann hears 1,2
    ///     bob hears 1,2
    ///     ann says think
    ///     ann hears 2,1
    /// ");
    /// ```
    #[track_caller]
    pub fn publish_value(&mut self, topic: impl AsRef<[u8]>, value: &impl Serialize) -> Result<(), Fault> {
        self.publish(topic, packed(value, "a message")?);
        Ok(())
    }

    /// Publishes as [`Turn::publish_value`] does, but not to this session.
    pub fn publish_value_others(
        &mut self,
        topic: impl AsRef<[u8]>,
        value: &impl Serialize,
    ) -> Result<(), Fault> {
        self.publish_others(topic, packed(value, "a message")?);
        Ok(())
    }

    /// Starts a job, as [`Turn::start_job`] does, whose input is a value: [`crate::Job::value`].
    #[track_caller]
    pub fn start_job_value(&mut self, name: &str, input: &impl Serialize) -> Result<u64, Fault> {
        Ok(self.start_job(name, packed(input, "the input of a job")?))
    }

    /// Sets a timer of this session that is a value, as [`Turn::set_timer`] sets one by its name.
    /// Equal values are one timer. Its name, which dumps show, is the value as JSON.
    ///
    /// ```
    /// use greenroom_handler::{Result, Turn, timer_value};
    /// use serde::{Deserialize, Serialize};
    /// use std::time::Duration;
    ///
    /// #[derive(Serialize, Deserialize)]
    /// enum Due { Grows { plant: u32 }, Bill }
    ///
    /// fn plant(turn: &mut Turn, plant: u32) -> Result {
    ///     turn.set_timer_value(&Due::Grows { plant }, Duration::from_secs(60))
    /// }
    ///
    /// fn timer(turn: &mut Turn, name: &str) -> Result {
    ///     match timer_value(name)? {
    ///         Due::Grows { plant } => turn.send_line(format!("plant {plant} has grown")),
    ///         Due::Bill => turn.close(),
    ///     }
    ///     Ok(())
    /// }
    /// ```
    #[track_caller]
    pub fn set_timer_value(&mut self, timer: &impl Serialize, after: Duration) -> Result<(), Fault> {
        self.set_timer(&timer_name(timer)?, after);
        Ok(())
    }

    /// Cancels a timer of [`Turn::set_timer_value`].
    #[track_caller]
    pub fn cancel_timer_value(&mut self, timer: &impl Serialize) -> Result<(), Fault> {
        self.cancel_timer(&timer_name(timer)?);
        Ok(())
    }

    /// Sets a timer of the service that is a value, as [`Turn::set_service_timer`] does.
    ///
    /// ```
    /// use greenroom_handler::testing::TestHost;
    /// use greenroom_handler::{Action, Handler, Result, Turn, handler, timer_value};
    /// use serde::{Deserialize, Serialize};
    /// use std::time::Duration;
    ///
    /// #[derive(Serialize, Deserialize)]
    /// enum Due {
    ///     Warn,
    ///     Close { room: u32 },
    /// }
    ///
    /// struct Rooms;
    /// #[handler]
    /// impl Handler for Rooms {
    ///     const SERVICE: &'static str = "rooms";
    ///     fn message(&self, turn: &mut Turn, line: &[u8]) -> Result {
    ///         turn.subscribe("1");
    ///         match line {
    ///             b"open" => {
    ///                 turn.cancel_timer_value(&Due::Warn)?;
    ///                 turn.cancel_service_timer_value(&Due::Close { room: 1 })
    ///             }
    ///             _ => {
    ///                 turn.set_timer_value(&Due::Warn, Duration::from_secs(5))?;
    ///                 let close = Due::Close { room: 1 };
    ///                 turn.set_service_timer_value(&close, Duration::from_secs(10))
    ///             }
    ///         }
    ///     }
    ///     fn timer(&self, turn: &mut Turn, name: &str) -> Result {
    ///         if let Due::Warn = timer_value(name)? {
    ///             turn.send_line("soon");
    ///         }
    ///         Ok(())
    ///     }
    ///     fn handle_service(&self, turn: &mut Turn, action: Action) -> Result {
    ///         if let Action::Timer(_) = action
    ///             && let Due::Close { room } = action.value()?
    ///         {
    ///             turn.broadcast_line(room.to_string(), "closed");
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let mut host = TestHost::<Rooms>::new("{}").unwrap();
    /// let peer = host.open();
    /// host.line(peer, "close");
    /// host.advance(Duration::from_secs(10));
    /// assert_eq!(host.output(peer), "soon\nclosed\n");
    /// host.line(peer, "close");
    /// host.line(peer, "open");
    /// host.advance(Duration::from_secs(10));
    /// assert_eq!(host.output(peer), "");
    /// ```
    #[track_caller]
    pub fn set_service_timer_value(&mut self, timer: &impl Serialize, after: Duration) -> Result<(), Fault> {
        self.set_service_timer(&timer_name(timer)?, after);
        Ok(())
    }

    /// Cancels a timer of [`Turn::set_service_timer_value`].
    #[track_caller]
    pub fn cancel_service_timer_value(&mut self, timer: &impl Serialize) -> Result<(), Fault> {
        self.cancel_service_timer(&timer_name(timer)?);
        Ok(())
    }
}

impl Action<'_> {
    /// Reads the value that the action carries: of a note, a published message, a dial, a job that
    /// is done, or a timer. Fails if the action carries none, or one of another type.
    #[track_caller]
    pub fn value<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        match self {
            Action::Note { bytes, .. } => unpacked(bytes, "a note"),
            Action::Published { bytes, .. } => unpacked(bytes, "a message"),
            Action::Dialed { context, .. } => unpacked(context, "what came with a dial"),
            Action::Job { end: JobEnd::Done(bytes), .. } => unpacked(bytes, "the result of a job"),
            Action::Timer(name) => timer_value(name),
            other => Err(Fault::new(format!("{other:?} carries no value"))),
        }
    }
}

impl Job<'_> {
    /// Reads the input of a job that was started with [`Turn::start_job_value`].
    #[track_caller]
    pub fn value<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        unpacked(self.input, "the input of a job")
    }

    /// Result of a job that is a value, for [`Action::value`].
    #[track_caller]
    pub fn done(value: &impl Serialize) -> Result<Vec<u8>, Fault> {
        packed(value, "the result of a job")
    }
}

/// Reads the value that is a timer ([`Turn::set_timer_value`]), from its name.
#[track_caller]
pub fn timer_value<T: DeserializeOwned>(name: &str) -> Result<T, Fault> {
    // No closure: a fault has the place of the caller.
    match serde_json::from_str(name) {
        Ok(value) => Ok(value),
        Err(e) => Err(Fault::new(format!("timer {name} can't be read as {}: {e}", type_name::<T>()))),
    }
}

/// Whether a value has a number that JSON has no text for: it would come back as null.
fn has_odd_number(value: &Pack) -> bool {
    match value {
        Pack::F32(n) => !n.is_finite(),
        Pack::F64(n) => !n.is_finite(),
        Pack::Array(items) => items.iter().any(has_odd_number),
        Pack::Map(fields) => fields.iter().any(|(k, v)| has_odd_number(k) || has_odd_number(v)),
        _ => false,
    }
}

/// Name of a timer that is a value.
#[track_caller]
fn timer_name(timer: &impl Serialize) -> Result<String, Fault> {
    let packed = packed(timer, "a timer")?;
    if rmpv::decode::read_value(&mut &packed[..]).is_ok_and(|value| has_odd_number(&value)) {
        return Err(Fault::new(
            "a timer can't have a number that is infinite or none: it would not come back",
        ));
    }
    match serde_json::to_string(timer) {
        Ok(name) => Ok(name),
        Err(e) => Err(Fault::new(format!("a timer can't be written: {e}"))),
    }
}

/// Bytes of a value. The reader's type may be another one, so nobody reads them again here.
#[track_caller]
pub(crate) fn packed(value: &impl Serialize, what: &str) -> Result<Vec<u8>, Fault> {
    match encode(value) {
        Ok(bytes) => Ok(bytes),
        Err(e) => Err(Fault::new(format!("{what} can't be written: {e}"))),
    }
}

/// Value of bytes.
#[track_caller]
pub(crate) fn unpacked<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, Fault> {
    match rmp_serde::from_slice(bytes) {
        Ok(value) => Ok(value),
        Err(e) => Err(Fault::new(format!("{what} can't be read as {}: {e}", type_name::<T>()))),
    }
}
