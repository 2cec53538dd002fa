//! Dialogues: questions to a peer, written top-down as if each answer came at once.
//!
//! A dialogue is a function that asks. Its progress is the record of answers, a [`Talk`] in the
//! session's state. Each turn runs the function from its top; recorded answers are returned at
//! once, and the first question without one sends its prompt and ends the turn. So a dialogue goes
//! on in any build and process, in the middle of a prompt as well. A turn costs the record:
//! O(answers).
//!
//! | what the function does | in a later turn, when it runs again |
//! | --- | --- |
//! | [`Dialogue::ask`] and its kin | returns the recorded answer |
//! | [`Dialogue::once`] | returns the recorded value |
//! | [`Dialogue::say`] | nothing |
//! | [`Dialogue::rounds`] | the answers of rounds that are over are gone |
//!
//! Answers and values of `once` alone may decide what a function asks next: a table, the time or
//! the state may be another one when it runs again. What must be looked up goes into a `once`.
//!
//! # Another build
//!
//! Recorded answers are matched in order, by the names of their questions. A name is the prompt, or
//! what [`Dialogue::named`] gives. If a build asks another question at a place, the answers from
//! there on are dropped, and the peer is asked from there. What it says to a question that is no
//! more is dropped, too. So:
//!
//! | change | what becomes of a session in the middle |
//! | --- | --- |
//! | a question behind the last answer | nothing is lost |
//! | a question before it, or one less | asked again from that place |
//! | another prompt | the same, unless the question has a name that stays |
//! | a `once` that was done | not done again: its value is kept by its name |
//! | a `once` more before it | done at the next turn |

use crate::fault::{ASKS, Fault};
use crate::talk::{Run, Talk};
use crate::turn::Turn;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Result of a function that asks. `?` hands on a question that waits for its answer, and any
/// error.
///
/// ```
/// use greenroom_handler::{Dialogue, Step};
///
/// /// A part of a dialogue is a function, too.
/// fn year<S>(d: &mut Dialogue<S>) -> Step<u16> {
///     d.ask_until("Year? ", |line| line.parse().map_err(|_| "Four digits, please."))
/// }
/// ```
pub type Step<T = ()> = Result<T, Fault>;

/// Runs of one dialogue that a turn may take. More are a loop that asks nothing.
pub(crate) const RUNS_MAX: usize = 1000;

/// Dialogue under way: what a function asks with.
///
/// ```
/// use greenroom_handler::{Dialogue, Handler, Result, Step, Talk, Turn, export, handler};
/// use greenroom_handler::testing::TestHost;
///
/// #[derive(Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
/// struct Guest { talk: Talk, name: Option<String> }
///
/// fn enter(d: &mut Dialogue<Guest>) -> Step {
///     let name = d.ask("Name? ")?;
///     let age = d.ask_until("Age? ", |line| line.parse::<u8>().map_err(|_| "A number, please."))?;
///     if age < 18 && d.ask("Do your parents know? ")? != "yes" {
///         d.say("Ask them.");
///         return d.once(|turn| Ok(turn.close()));
///     }
///     d.once(|turn| Ok(turn.state.name = Some(name)))
/// }
///
/// struct Door;
/// #[handler]
/// impl Handler for Door {
///     const SERVICE: &'static str = "door";
///     type State = Guest;
///     fn opened(&self, turn: &mut Turn<Guest>) -> Result {
///         turn.talk(|guest| &mut guest.talk, None, enter)?;
///         Ok(())
///     }
///     fn message(&self, turn: &mut Turn<Guest>, line: &[u8]) -> Result {
///         if turn.state.name.is_none() {
///             turn.talk(|guest| &mut guest.talk, Some(line), enter)?;
///         }
///         Ok(())
///     }
/// }
/// export!(Door);
///
/// let mut host = TestHost::<Door>::new("{}").unwrap();
/// let peer = host.open();
/// assert_eq!(host.output(peer), "Name? ");
/// assert_eq!(host.line(peer, "ann"), "Age? ");
/// assert_eq!(host.line(peer, "x"), "A number, please.\nAge? ");
/// assert_eq!(host.line(peer, "20"), "");
/// assert_eq!(host.state(peer).name.as_deref(), Some("ann"));
/// ```
pub struct Dialogue<'d, 't, S> {
    pub(crate) turn: &'d mut Turn<'t, S>,
    pub(crate) run: &'d mut Run,
}

/// Ways to ask.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Prompt,
    Line,
    Hidden,
}

/// Ways to ask, and to act once.
///
/// ```
/// use greenroom_handler::testing::Conversation;
/// use greenroom_handler::{Dialogue, Handler, Result, Step, Talk, Turn, handler};
///
/// #[derive(Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
/// struct Guest {
///     talk: Talk,
///     items: Vec<String>,
/// }
///
/// fn order(d: &mut Dialogue<Guest>) -> Step {
///     let who = d.ask_line("Your name, please.")?;
///     if d.ask_hidden("PIN? ")? != "1234" {
///         d.say("That is not it.");
///         // From the top again, with nothing recorded.
///         return d.forget();
///     }
///     // A round that is over is forgotten: the record of a long list does not grow.
///     d.rounds(|d| {
///         let item = d.named("item").ask("Item? ")?;
///         if item.is_empty() {
///             return Ok(Some(()));
///         }
///         d.named("add").once(|turn| Ok(turn.state.items.push(item)))?;
///         Ok(None)
///     })?;
///     d.say(format!("{}: {}", who, d.state().items.join(", ")));
///     d.named("end").once(|turn| Ok(turn.close()))
/// }
///
/// struct Shop;
/// #[handler]
/// impl Handler for Shop {
///     const SERVICE: &'static str = "shop";
///     type State = Guest;
///     fn opened(&self, turn: &mut Turn<Guest>) -> Result {
///         turn.talk(|guest| &mut guest.talk, None, order).map(drop)
///     }
///     fn message(&self, turn: &mut Turn<Guest>, line: &[u8]) -> Result {
///         turn.talk(|guest| &mut guest.talk, Some(line), order).map(drop)
///     }
/// }
///
/// Conversation::<Shop>::new("{}").plays("
///     ann opens
///     ann hears Your name, please.
///     ann says ann
///     ann hears PIN?
///     ann says 1
///     ann hears That is not it.
///     ann hears Your name, please.
///     ann says ann
///     ann hears PIN?
///     ann says 1234
///     ann hears Item?
///     ann says tea
///     ann hears Item?
///     ann says milk
///     ann hears Item?
///     ann says
///     ann hears ann: tea, milk
///     ann is closed
/// ");
/// ```
impl<'t, S> Dialogue<'_, 't, S> {
    /// Asks, and returns the answer, a line without its end. Bytes that are not UTF-8 become
    /// U+FFFD. The prompt is sent as [`Turn::prompt`] does.
    pub fn ask(&mut self, prompt: impl AsRef<str>) -> Step<String> {
        let prompt = prompt.as_ref();
        self.question(prompt, prompt, How::Prompt)
    }

    /// Asks with a prompt that is a line of its own, as [`Turn::send_line`] sends it.
    pub fn ask_line(&mut self, prompt: impl AsRef<str>) -> Step<String> {
        let prompt = prompt.as_ref();
        self.question(prompt, prompt, How::Line)
    }

    /// Asks for what must not be seen: a telnet peer does not show what is typed. Elsewhere it is a
    /// plain question. The answer is in the record, and so in the state, until the dialogue ends.
    pub fn ask_hidden(&mut self, prompt: impl AsRef<str>) -> Step<String> {
        let prompt = prompt.as_ref();
        self.question(prompt, prompt, How::Hidden)
    }

    /// Asks until the answer can be read, and says why not. Wrong answers are not recorded.
    /// `read` is a pure function: it reads the recorded answer each time.
    pub fn ask_until<T, E: AsRef<str>>(
        &mut self,
        prompt: impl AsRef<str>,
        read: impl FnMut(&str) -> Result<T, E>,
    ) -> Step<T> {
        let prompt = prompt.as_ref();
        self.question_until(prompt, prompt, read)
    }

    /// Gives the next question or `once` a name, by which it is known to later builds.
    pub fn named<'n>(&'n mut self, name: &'n str) -> Named<'n, 't, S> {
        Named { name, turn: &mut *self.turn, run: &mut *self.run }
    }

    /// Does something once, and returns its value each time: the place for effects, and for all
    /// that is looked up. The value is recorded. Several in one dialogue should be [named].
    ///
    /// [named]: Dialogue::named
    pub fn once<T: Serialize + DeserializeOwned>(
        &mut self,
        does: impl FnOnce(&mut Turn<'t, S>) -> Result<T, Fault>,
    ) -> Step<T> {
        self.thing("once", does)
    }

    /// Sends a line to the peer, once.
    pub fn say(&mut self, line: impl AsRef<[u8]>) {
        if self.run.is_live() {
            self.turn.send_line(line);
        }
    }

    /// Runs a function that asks, round by round, until it returns a value. The record keeps the
    /// round under way alone, so a long dialogue does not grow.
    pub fn rounds<T>(
        &mut self,
        mut round: impl FnMut(&mut Dialogue<'_, 't, S>) -> Step<Option<T>>,
    ) -> Step<T> {
        let begin = self.run.at;
        for _ in 0..RUNS_MAX {
            if let Some(value) = round(&mut Dialogue { turn: &mut *self.turn, run: &mut *self.run })? {
                return Ok(value);
            }
            let over = begin..self.run.at;
            self.run.record.answers.drain(over);
            (self.run.at, self.run.live_from) = (begin, self.run.live_from.min(begin));
        }
        Err(Fault::new("a round of the dialogue ends again and again, and asks nothing"))
    }

    /// Forgets all answers and all that was done once, and begins the dialogue anew, from its top.
    /// The session's state must have by now what the dialogue needs then: see [`Dialogue::state`].
    pub fn forget<T>(&mut self) -> Step<T> {
        self.run.record = Talk { hidden: self.run.record.hidden, ..Talk::default() };
        (self.run.live_from, self.run.live, self.run.again) = (0, true, true);
        Err(Fault::bare(ASKS, "the dialogue begins anew".into()))
    }

    /// State of the session. A function that reads it, and changes it in a `once`, calls
    /// [`Dialogue::forget`] behind that: else it would find the change when it runs again.
    pub fn state(&self) -> &S {
        &self.turn.state
    }
}

/// Question or `once` with a name: [`Dialogue::named`].
///
/// ```
/// use greenroom_handler::{Dialogue, Step, Turn};
///
/// /// With names, prompts may be reworded, and questions added, while sessions are in the middle.
/// fn enter(d: &mut Dialogue<u8>) -> Step {
///     let name = d.named("name").ask("Your name: ")?;
///     let greeting = format!("Hello {name}. New here?");
///     let is_new = d.named("new").ask_line(greeting)? == "yes";
///     let prompt = if is_new { "Choose a password: " } else { "Password: " };
///     let _password = d.named("password").ask_hidden(prompt)?;
///     let age = d.named("age").ask_until("Age: ", |line| line.parse().map_err(|_| "A number."))?;
///     d.named("keep").once(|turn| Ok(*turn.state = age))
/// }
/// ```
pub struct Named<'n, 't, S> {
    name: &'n str,
    turn: &'n mut Turn<'t, S>,
    run: &'n mut Run,
}

impl<'t, S> Named<'_, 't, S> {
    /// Asks as [`Dialogue::ask`] does.
    pub fn ask(self, prompt: impl AsRef<str>) -> Step<String> {
        self.dialogue(|d, name| d.question(name, prompt.as_ref(), How::Prompt))
    }

    /// Asks as [`Dialogue::ask_line`] does.
    pub fn ask_line(self, prompt: impl AsRef<str>) -> Step<String> {
        self.dialogue(|d, name| d.question(name, prompt.as_ref(), How::Line))
    }

    /// Asks as [`Dialogue::ask_hidden`] does.
    pub fn ask_hidden(self, prompt: impl AsRef<str>) -> Step<String> {
        self.dialogue(|d, name| d.question(name, prompt.as_ref(), How::Hidden))
    }

    /// Asks as [`Dialogue::ask_until`] does.
    pub fn ask_until<T, E: AsRef<str>>(
        self,
        prompt: impl AsRef<str>,
        read: impl FnMut(&str) -> Result<T, E>,
    ) -> Step<T> {
        self.dialogue(|d, name| d.question_until(name, prompt.as_ref(), read))
    }

    /// Does something as [`Dialogue::once`] does.
    pub fn once<T: Serialize + DeserializeOwned>(
        self,
        does: impl FnOnce(&mut Turn<'t, S>) -> Result<T, Fault>,
    ) -> Step<T> {
        self.dialogue(|d, name| d.thing(name, does))
    }

    /// Uses the dialogue with the name.
    fn dialogue<T>(self, uses: impl FnOnce(&mut Dialogue<'_, 't, S>, &str) -> Step<T>) -> Step<T> {
        let Named { name, turn, run } = self;
        uses(&mut Dialogue { turn, run }, name)
    }
}
