//! Dialogues: a service of the SDK whose builds ask otherwise, and the laws of its answers.
//!
//! Each generation asks what the seed has made of the questions of the one before: one more, one
//! less, other words, another order. The service runs through the real ABI, and its state says
//! which build ran which line. The model goes along the lines and those builds apart from the SDK:
//! of the answers so far it keeps those that the build asks for, in order and by name.

use crate::peers::Peer;
use crate::world::World;
use greenroom_handler::{Dialogue, Fault, Handler, Result, Step, Table, Talk, Turn, export, handler};
use greenroom_state::json::to_json;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::iter::repeat_n;

export!(Asks);

/// Table of effects: how often each was done.
const DID: &str = "did";
/// Effects by session, dialogue and name.
const EFFECTS: Table<u64> = Table::new(DID);

/// Parts of a dialogue, at least and at most.
const PARTS: (usize, usize) = (3, 9);
/// Numbers that questions and effects draw from.
const NUMBERS: u32 = 24;
/// Line that the peers of a build with a flaw send it.
const TRIP: &str = "trip";

/// Part of a dialogue.
#[derive(Clone)]
pub(crate) enum Part {
    Ask(Question),
    /// Effect that is to be done once.
    Once(u32),
}

/// Question of a build.
#[derive(Clone)]
pub(crate) struct Question {
    number: u32,
    /// Changes when the question is put in other words.
    words: u32,
    /// Whether its name stays when its words change.
    is_named: bool,
    /// Whether it refuses some answers, and asks again.
    is_picky: bool,
}

impl Question {
    fn prompt(&self) -> String {
        format!("? {} {}\n", self.number, self.words)
    }

    fn name(&self) -> String {
        if self.is_named { format!("q{}", self.number) } else { self.prompt().trim_end().to_owned() }
    }

    fn asks(&self, d: &mut Dialogue<Person>) -> Step<String> {
        let (name, prompt) = (self.name(), self.prompt());
        let line = prompt.trim_end();
        match (self.is_named, self.is_picky) {
            (true, false) => d.named(&name).ask_line(line),
            (false, false) => d.ask_line(line),
            (_, true) => d.named(&name).ask_until(&prompt, |answer| match is_refused(answer) {
                true => Err("no"),
                false => Ok(answer.to_owned()),
            }),
        }
    }

    /// Question that follows on some answers.
    fn more(&self) -> Question {
        Question { number: self.number + 100, is_picky: false, ..self.clone() }
    }
}

/// Whether a picky question refuses an answer.
fn is_refused(answer: &str) -> bool {
    answer.ends_with(['3', '6'])
}

/// Whether an answer brings a question more.
fn brings_more(answer: &str) -> bool {
    answer.ends_with(['0', '5'])
}

fn effect_name(number: u32) -> String {
    format!("do {number}")
}

/// Parts of a generation: those of the first one, changed so many times.
fn parts_of(seed: u64, generation: u64) -> Vec<Part> {
    let (mut rng, mut parts) = (fastrand::Rng::with_seed(seed), Vec::new());
    while parts.len() < PARTS.0 {
        insert(&mut parts, &mut rng);
    }
    for _ in 0..generation {
        for _ in 0..rng.usize(0..3) {
            change(&mut parts, &mut rng);
        }
    }
    parts
}

/// Inserts a part whose number no other one has.
fn insert(parts: &mut Vec<Part>, rng: &mut fastrand::Rng) {
    let (at, number) = (rng.usize(0..=parts.len()), rng.u32(0..NUMBERS));
    let has = |p: &Part| match p {
        Part::Ask(q) => q.number == number,
        Part::Once(of) => *of == number,
    };
    if parts.iter().any(has) {
        return;
    }
    let is_effect = !parts.is_empty() && rng.u8(0..3) == 0;
    let question = Question { number, words: 0, is_named: rng.bool(), is_picky: rng.u8(0..4) == 0 };
    parts.insert(at, if is_effect { Part::Once(number) } else { Part::Ask(question) });
}

/// Makes one change. A dialogue without questions would not end.
fn change(parts: &mut Vec<Part>, rng: &mut fastrand::Rng) {
    let (at, len) = (rng.usize(0..parts.len()), parts.len());
    let questions = parts.iter().filter(|p| matches!(p, Part::Ask(_))).count();
    let is_needed = questions == 1 && matches!(parts[at], Part::Ask(_));
    match (rng.u8(0..4), &mut parts[at]) {
        (0, _) if len < PARTS.1 => insert(parts, rng),
        (1, _) if len > PARTS.0 && !is_needed => _ = parts.remove(at),
        (2, Part::Ask(q)) => match rng.u8(0..4) {
            0 => q.is_picky ^= true,
            _ => q.words += 1,
        },
        _ => parts.swap(at, 0),
    }
}

// --- the service --------------------------------------------------------------------------------

/// Settings of a build.
#[derive(Serialize, Deserialize)]
struct Settings {
    seed: u64,
    generation: u64,
    /// The line [`TRIP`] fails in this build.
    is_flawed: bool,
}

/// Settings of a build, as the host passes them.
pub(crate) fn settings(seed: u64, generation: u64, is_flawed: bool) -> String {
    serde_json::to_string(&Settings { seed, generation, is_flawed }).expect("settings are JSON")
}

/// State of a session.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Person {
    /// Lines so far.
    count: u64,
    /// Dialogues that came to their end.
    ended: u64,
    /// Generations, each with the number of lines that it ran in a row.
    runs: Vec<(u64, u64)>,
    talk: Talk,
}

struct Asks {
    settings: Settings,
    parts: Vec<Part>,
}

#[handler]
impl Handler for Asks {
    const SERVICE: &'static str = "asks";
    type State = Person;
    type Config = Settings;

    fn new(settings: Settings) -> Result<Self, String> {
        Ok(Asks { parts: parts_of(settings.seed, settings.generation), settings })
    }

    fn message(&self, turn: &mut Turn<Person>, line: &[u8]) -> Result {
        let generation = self.settings.generation;
        turn.state.count += 1;
        ran(&mut turn.state.runs, generation);
        // The first line begins the first dialogue.
        let mut answer = turn.state.talk.waits().then_some(line);
        while let Some(said) = turn.talk(|p| &mut p.talk, answer.take(), |d| self.enter(d))? {
            turn.state.ended += 1;
            turn.send_line(format!("said {said}"));
        }
        let end = format!("= {} {generation}", turn.state.count);
        turn.send_line(end);
        match self.settings.is_flawed && line.starts_with(TRIP.as_bytes()) {
            true => Err(Fault::new("as asked")),
            false => Ok(()),
        }
    }
}

impl Asks {
    /// Asks all questions, and returns what it has heard and done.
    fn enter(&self, d: &mut Dialogue<Person>) -> Step<String> {
        let mut said = Vec::new();
        for part in &self.parts {
            match part {
                Part::Ask(question) => {
                    let answer = question.asks(d)?;
                    let more = brings_more(&answer);
                    said.push(format!("{}={answer}", question.name()));
                    if more {
                        let more = question.more();
                        let answer = more.asks(d)?;
                        said.push(format!("{}={answer}", more.name()));
                    }
                }
                Part::Once(number) => {
                    let name = effect_name(*number);
                    let at = d.named(&name).once(|turn| {
                        let key = format!("{}:{}:{name}", turn.session(), turn.state.ended);
                        let times = EFFECTS.get(turn, &key)?.unwrap_or(0) + 1;
                        EFFECTS.put(turn, &key, &times)?;
                        Ok(turn.state.count)
                    })?;
                    said.push(format!("{name}@{at}"));
                }
            }
        }
        Ok(said.join(", "))
    }
}

/// Counts a line that a generation ran.
fn ran(runs: &mut Vec<(u64, u64)>, generation: u64) {
    match runs.last_mut().filter(|(of, _)| *of == generation) {
        Some((_, lines)) => *lines += 1,
        None => runs.push((generation, 1)),
    }
}

// --- the model ----------------------------------------------------------------------------------

/// Session of the service, computed apart from the SDK.
#[derive(Default)]
pub(crate) struct Model {
    lines: u64,
    ended: u64,
    runs: Vec<(u64, u64)>,
    /// Answers that the last build has seen, by the names of their questions.
    answers: Vec<(String, String)>,
    /// Question that waits.
    asked: Option<String>,
    /// Effects of this dialogue, with the line whose turn did each.
    done: BTreeMap<String, u64>,
    /// Answers that a build has dropped, as it asks otherwise.
    dropped: u64,
}

/// Run of the model along the parts of a build.
struct Along<'m> {
    model: &'m mut Model,
    /// Number of the next answer.
    at: usize,
    /// The last answer is the line of this turn.
    is_fresh: bool,
    said: Vec<String>,
    sent: Vec<String>,
}

impl Model {
    /// Runs a line in a build, and returns the lines that its turn sends.
    fn line(&mut self, line: &str, generation: u64, parts: &[Part]) -> Vec<String> {
        self.lines += 1;
        ran(&mut self.runs, generation);
        let asked = self.asked.take();
        let is_fresh = asked.is_some();
        self.answers.extend(asked.map(|name| (name, line.to_owned())));
        let mut along = Along { model: self, at: 0, is_fresh, said: Vec::new(), sent: Vec::new() };
        while along.ends(parts) {
            let said = std::mem::take(&mut along.said).join(", ");
            along.sent.push(format!("said {said}"));
            along.drop_rest();
            along.model.answers.clear();
            along.model.done.clear();
            along.model.ended += 1;
            (along.at, along.is_fresh) = (0, false);
        }
        let mut sent = along.sent;
        sent.push(format!("= {} {generation}", self.lines));
        sent
    }

    /// Whether a session with these runs has come here, or to a later place.
    fn leads_to(&self, runs: &[(u64, u64)]) -> bool {
        let Some(((generation, lines), before)) = self.runs.split_last() else { return true };
        let (same, rest) = runs.split_at_checked(before.len()).unwrap_or((&[], &[]));
        same == before && rest.first().is_some_and(|(of, n)| of == generation && n >= lines)
    }
}

impl Along<'_> {
    /// Whether the build comes to its end. If not, a question waits.
    fn ends(&mut self, parts: &[Part]) -> bool {
        parts.iter().all(|part| match part {
            Part::Ask(question) => match self.answer(question) {
                Some(answer) if brings_more(&answer) => self.answer(&question.more()).is_some(),
                answer => answer.is_some(),
            },
            Part::Once(number) => {
                let name = effect_name(*number);
                let at = *self.model.done.entry(name.clone()).or_insert(self.model.lines);
                self.said.push(format!("{name}@{at}"));
                true
            }
        })
    }

    /// Next answer, if it is one to this question; `None`: the question is asked.
    fn answer(&mut self, question: &Question) -> Option<String> {
        let name = question.name();
        if let Some((of, answer)) = self.model.answers.get(self.at)
            && *of == name
        {
            let answer = answer.clone();
            if !(question.is_picky && is_refused(&answer)) {
                self.at += 1;
                self.said.push(format!("{name}={answer}"));
                return Some(answer);
            }
            if self.is_fresh && self.at + 1 == self.model.answers.len() {
                self.model.answers.pop();
                self.sent.push("no".to_owned());
            }
        }
        self.drop_rest();
        self.sent.push(question.prompt().trim_end().to_owned());
        self.model.asked = Some(name);
        None
    }

    /// Drops the answers from here on.
    fn drop_rest(&mut self) {
        self.model.dropped += (self.model.answers.len() - self.at) as u64;
        self.model.answers.truncate(self.at);
    }
}

/// Models of the sessions, and the parts of builds.
#[derive(Default)]
pub(crate) struct Dialogues {
    seed: u64,
    parts: BTreeMap<u64, Vec<Part>>,
    /// Sessions as their states were last seen.
    seen: BTreeMap<u64, Model>,
}

impl Dialogues {
    pub(crate) fn of_seed(seed: u64) -> Dialogues {
        Dialogues { seed, ..Dialogues::default() }
    }

    fn parts(&mut self, generation: u64) -> &[Part] {
        self.parts.entry(generation).or_insert_with(|| parts_of(self.seed, generation))
    }
}

/// Lines of the turn that a peer reads, and its session by the turns that it has read.
#[derive(Default)]
pub(crate) struct Heard {
    lines: Vec<String>,
    model: Model,
}

// --- laws ---------------------------------------------------------------------------------------

/// The record holds the answers that were given to the questions of its build, and no others. What
/// is done once was done, and once.
pub(crate) fn a_build_sees_the_answers_that_were_given(
    world: &World,
    dialogues: &mut Dialogues,
    (peer, lines_run, state): (&Peer, usize, Option<&[u8]>),
) {
    let Some(state) = state else { return assert_eq!(lines_run, 0, "session {}", peer.id) };
    let json = to_json(state).expect("MessagePack");
    let person: Person = serde_json::from_value(json.clone()).expect("a state");
    let mut model = dialogues.seen.remove(&peer.id).unwrap_or_default();
    if !model.leads_to(&person.runs) {
        // A kill took turns back.
        model = Model::default();
    }
    let generations = person.runs.iter().flat_map(|(of, lines)| repeat_n(*of, *lines as usize));
    let ran = peer.lines[..lines_run].iter().zip(generations).skip(model.lines as usize);
    for (line, generation) in ran {
        model.line(line, generation, dialogues.parts(generation));
    }
    assert_eq!((person.count, person.ended), (lines_run as u64, model.ended), "session {}", peer.id);
    assert_eq!(model.runs, person.runs, "each line ran once");
    let record = json["talk"]["answers"].as_str().expect("a record");
    assert_eq!(answers_in(record), model.answers, "session {}: {record:?}", peer.id);
    assert_eq!(json["talk"]["asked"].as_str(), model.asked.as_deref(), "session {}", peer.id);
    for name in model.done.keys() {
        let times = world.host.core.entry(DID, format!("{}:{}:{name}", peer.id, model.ended).as_bytes());
        assert_eq!(times.as_deref(), Some(&[1][..]), "session {}: {name}", peer.id);
    }
    dialogues.seen.insert(peer.id, model);
}

/// A turn sends what the model does: the next question, and at the end all answers. Returns the
/// generation if this line is the last one of its turn.
pub(crate) fn a_turn_asks_what_its_build_asks(
    dialogues: &mut Dialogues,
    peer: &mut Peer,
    line: &str,
) -> Option<u64> {
    // A prompt of lines has an end of its own, which is a line more over WebSocket.
    if line.is_empty() {
        return None;
    }
    peer.heard_of.lines.push(line.to_owned());
    let end = line.strip_prefix("= ")?;
    let generation = end.split(' ').nth(1).and_then(|g| g.parse().ok()).expect("a generation");
    let Heard { lines, model } = &mut peer.heard_of;
    let asked = peer.lines.get(peer.replies).expect("an answer has its line");
    let sent = model.line(asked, generation, dialogues.parts(generation));
    assert_eq!(std::mem::take(lines), sent, "session {}, answer {}", peer.id, peer.replies);
    peer.replies += 1;
    Some(generation)
}

/// Each effect of each dialogue was done once.
pub(crate) fn effects_are_done_once(world: &World) {
    let mut from = Some(Vec::new());
    while let Some(key) = from {
        let (entries, next) = world.host.core.entries_from(DID, &key);
        for (key, times) in entries {
            assert_eq!(times, [1], "{}", key.escape_ascii());
        }
        from = next;
    }
}

impl World {
    /// Adds what became of a peer's dialogues to the counts.
    pub(crate) fn count_dialogues(&mut self, peer: &Peer) {
        self.counts.dialogues_ended += peer.heard_of.model.ended;
        self.counts.answers_dropped += peer.heard_of.model.dropped;
        self.counts.builds_in_dialogues += peer.heard_of.model.runs.len() as u64;
    }
}

/// Questions of a record with their answers: `?`, the name and the answer, each behind its bytes.
fn answers_in(record: &str) -> Vec<(String, String)> {
    let (mut answers, mut rest) = (Vec::new(), record);
    while let Some(mark) = rest.chars().next() {
        let mut part = |begin: usize| {
            let (len, text) = rest[begin..].split_once(':').expect("a length");
            let (text, behind) = text.split_at(len.parse().expect("a length"));
            rest = behind;
            text.to_owned()
        };
        let (name, answer) = (part(1), part(0));
        if mark == '?' {
            answers.push((name, answer));
        }
    }
    answers
}
