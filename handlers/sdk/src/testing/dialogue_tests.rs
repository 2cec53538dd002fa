//! Dialogues of one session through builds that ask otherwise.

use super::host::TestHost;
use crate::{Dialogue, Fault, Handler, NoConfig, Step, Talk, Turn};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::BTreeMap;

#[derive(Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Person {
    talk: Talk,
    /// Effects that were done, in their order.
    did: Vec<String>,
    /// Answers that the dialogue ended with.
    said: Option<Vec<String>>,
}

/// Service whose dialogue is one of several functions.
struct Asks<const N: usize>;

type Function = fn(&mut Dialogue<'_, '_, Person>) -> Step<Vec<String>>;

const FUNCTIONS: [Function; 8] = [plain, more, less, other_words, branches, rounds, short, random];

fn did<'t>(what: &'static str) -> impl FnOnce(&mut Turn<'t, Person>) -> Result<(), Fault> {
    move |turn| {
        turn.state.did.push(what.to_owned());
        Ok(())
    }
}

fn plain(d: &mut Dialogue<'_, '_, Person>) -> Step<Vec<String>> {
    d.say("Welcome.");
    let nick = d.named("nick").ask("Nick? ")?;
    d.named("greets").once(did("greeted"))?;
    let age = d.ask("Age? ")?;
    let town = d.ask("Town? ")?;
    d.say("Thanks.");
    Ok(vec![nick, age, town])
}

/// A question more, in the middle.
fn more(d: &mut Dialogue<'_, '_, Person>) -> Step<Vec<String>> {
    let nick = d.named("nick").ask("Nick? ")?;
    let color = d.ask("Color? ")?;
    d.named("greets").once(did("greeted"))?;
    let age = d.ask("Age? ")?;
    Ok(vec![nick, color, age])
}

/// A question less.
fn less(d: &mut Dialogue<'_, '_, Person>) -> Step<Vec<String>> {
    let nick = d.named("nick").ask("Nick? ")?;
    let town = d.ask("Town? ")?;
    d.say("Thanks.");
    Ok(vec![nick, town])
}

/// The last question less.
fn short(d: &mut Dialogue<'_, '_, Person>) -> Step<Vec<String>> {
    let nick = d.named("nick").ask("Nick? ")?;
    let age = d.ask("Age? ")?;
    d.say("Bye.");
    Ok(vec![nick, age])
}

/// The same with other words, and something more that is done once.
fn other_words(d: &mut Dialogue<'_, '_, Person>) -> Step<Vec<String>> {
    let nick = d.named("nick").ask("Your nick? ")?;
    d.named("greets").once(did("greeted"))?;
    d.named("counts").once(did("counted"))?;
    let age = d.ask("Age? ")?;
    let town = d.ask("Town? ")?;
    Ok(vec![nick, age, town])
}

/// Branches, loops, errors and answers that must be numbers.
fn branches(d: &mut Dialogue<'_, '_, Person>) -> Step<Vec<String>> {
    let count = d.ask_until("How many? ", |line| line.parse::<u8>().map_err(|_| "A number!"))?;
    let mut all = Vec::new();
    for n in 0..count {
        let one = d.ask(format!("{n}: "))?;
        if one == "fail" {
            return Err(Fault::new("as asked").tell("No."));
        }
        all.push(if one == "more" { d.ask_hidden("secret: ")? } else { one });
    }
    Ok(all)
}

/// Rounds, of which the record keeps one.
fn rounds(d: &mut Dialogue<'_, '_, Person>) -> Step<Vec<String>> {
    let name = d.ask("Name? ")?;
    d.rounds(|d| {
        let word = d.ask("> ")?;
        let twice = d.ask(">> ")?;
        d.say(format!("{word}{twice}"));
        d.once(did("round"))?;
        Ok((word == "end").then(|| vec![name.clone()]))
    })
}

impl<const N: usize> Handler for Asks<N> {
    const SERVICE: &'static str = "asks";
    type State = Person;
    type Config = NoConfig;

    fn new(_: NoConfig) -> Result<Self, String> {
        Ok(Asks)
    }

    fn opened(&self, turn: &mut Turn<'_, Person>) -> Result<(), Fault> {
        turn.state.said = turn.talk(|p| &mut p.talk, None, FUNCTIONS[N])?;
        Ok(())
    }

    fn message(&self, turn: &mut Turn<'_, Person>, line: &[u8]) -> Result<(), Fault> {
        if turn.state.said.is_none() {
            turn.state.said = turn.talk(|p| &mut p.talk, Some(line), FUNCTIONS[N])?;
        }
        Ok(())
    }
}

fn begun<const N: usize>(lines: &[&str]) -> (TestHost<Asks<N>>, u64) {
    let mut host = TestHost::<Asks<N>>::new("{}").expect("a service");
    let peer = host.open();
    for line in lines {
        host.line(peer, line);
    }
    host.output(peer);
    (host, peer)
}

#[test]
fn each_thing_happens_once_in_a_dialogue() {
    let mut host = TestHost::<Asks<0>>::new("{}").expect("a service");
    let peer = host.open();
    assert_eq!(host.output(peer), "Welcome.\nNick? ");
    assert_eq!(host.line(peer, "ann"), "Age? ");
    assert_eq!(host.line(peer, "7"), "Town? ");
    assert!(host.state(peer).talk.waits());
    assert_eq!(host.line(peer, "Rome"), "Thanks.\n");
    let person = host.state(peer);
    assert_eq!(person.said, Some(["ann", "7", "Rome"].map(String::from).to_vec()));
    assert_eq!((person.did, person.talk), (vec!["greeted".to_owned()], Talk::default()));
}

#[test]
fn answers_are_matched_in_order_and_by_name() {
    // A question more: asked from there, and what was done is not done again.
    let (host, peer) = begun::<0>(&["ann", "7"]);
    let mut host = host.swap::<Asks<1>>("{}").expect("a swap");
    assert_eq!(host.line(peer, "an answer to no question"), "Color? ");
    assert_eq!(host.line(peer, "red"), "Age? ");
    host.line(peer, "8");
    let person = host.state(peer);
    assert_eq!(person.said, Some(["ann", "red", "8"].map(String::from).to_vec()));
    assert_eq!(person.did, ["greeted"]);
    // A question less, that has no answer yet.
    let (host, peer) = begun::<0>(&["ann"]);
    let mut host = host.swap::<Asks<2>>("{}").expect("a swap");
    assert_eq!(host.line(peer, "7"), "Town? ");
    assert_eq!(host.line(peer, "Rome"), "Thanks.\n");
    // Other words under the same name, and an effect more in what is behind.
    let (host, peer) = begun::<0>(&["ann", "7"]);
    let mut host = host.swap::<Asks<3>>("{}").expect("a swap");
    assert_eq!(host.line(peer, "Rome"), "");
    let person = host.state(peer);
    assert_eq!(person.said, Some(["ann", "7", "Rome"].map(String::from).to_vec()));
    assert_eq!(person.did, ["greeted", "counted"]);
    // A question less that had its answer: asked from there.
    let (host, peer) = begun::<0>(&["ann", "7"]);
    let mut host = host.swap::<Asks<2>>("{}").expect("a swap");
    assert_eq!(host.line(peer, "Rome"), "Town? ");
    assert_eq!(host.line(peer, "Oslo"), "Thanks.\n");
    assert_eq!(host.state(peer).said, Some(["ann", "Oslo"].map(String::from).to_vec()));
    // The end has come nearer: the answer is needed no more, and what is behind it happens.
    let (host, peer) = begun::<0>(&["ann", "7"]);
    let mut host = host.swap::<Asks<6>>("{}").expect("a swap");
    assert_eq!(host.line(peer, "Rome"), "Bye.\n");
    assert_eq!(host.state(peer).said, Some(["ann", "7"].map(String::from).to_vec()));
}

#[test]
fn wrong_answers_are_not_recorded_and_faults_ask_on() {
    let (mut host, peer) = begun::<4>(&[]);
    assert_eq!(host.line(peer, "x"), "A number!\nHow many? ");
    assert_eq!(host.line(peer, "2"), "0: ");
    // The fault drops the answer: the same question waits on.
    assert!(host.try_turn(peer, crate::Action::Message(b"fail")).is_err());
    assert_eq!(host.output(peer), "No.\n");
    assert_eq!(host.line(peer, "more"), "secret: ");
    assert_eq!(host.line(peer, "s"), "1: ");
    host.line(peer, "end");
    assert_eq!(host.state(peer).said, Some(vec!["s".into(), "end".into()]));
}

#[test]
fn rounds_do_not_grow() {
    let (mut host, peer) = begun::<5>(&["ann"]);
    host.line(peer, "a");
    assert_eq!(host.line(peer, "b"), "ab\n> ");
    let one = serde_json::to_string(&host.state(peer).talk).expect("JSON").len();
    for _ in 0..50 {
        assert_eq!(host.line(peer, "a"), ">> ");
        assert_eq!(host.line(peer, "b"), "ab\n> ");
    }
    assert_eq!(serde_json::to_string(&host.state(peer).talk).expect("JSON").len(), one);
    host.line(peer, "end");
    assert_eq!(host.line(peer, "!"), "end!\n");
    assert_eq!((host.state(peer).did.len(), host.state(peer).said), (52, Some(vec!["ann".into()])));
}

// --- random dialogues ---------------------------------------------------------------------------

/// Part of a random dialogue.
#[derive(Clone)]
enum Part {
    Ask(String),
    Once(String),
}

thread_local! {
    /// Dialogue of the build that serves.
    static PARTS: RefCell<Vec<Part>> = const { RefCell::new(Vec::new()) };
}

/// Asks what the build that serves asks. An even answer brings a question more.
fn random(d: &mut Dialogue<'_, '_, Person>) -> Step<Vec<String>> {
    let mut said = Vec::new();
    for part in PARTS.with_borrow(Vec::clone) {
        match part {
            Part::Ask(name) => {
                let answer = d.ask(&name)?;
                let is_even = answer.ends_with(['0', '2', '4', '6', '8']);
                said.push(answer);
                if is_even {
                    said.push(d.ask(format!("{name}+"))?);
                }
            }
            Part::Once(name) => d.named(&name).once(|turn| {
                turn.state.did.push(name.clone());
                Ok(())
            })?,
        }
    }
    Ok(said)
}

/// Random numbers of a seed, by the generator of Knuth's MMIX.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// Another build: it asks more, less, or in another order.
fn change(parts: &mut Vec<Part>, random: &mut Random) {
    let (at, name) = (random.below(parts.len() as u64 + 1) as usize, format!("q{}", random.below(20)));
    match random.below(4) {
        0 if parts.len() > 3 => _ = parts.remove(at.min(parts.len() - 1)),
        1 => {
            let (a, b) = (random.below(parts.len() as u64), random.below(parts.len() as u64));
            parts.swap(a as usize, b as usize);
        }
        kind => {
            let is_new =
                |p: &Part| !matches!(p, Part::Ask(of) | Part::Once(of) if of.trim_start_matches('!') == name);
            if parts.iter().all(is_new) {
                let part = if kind == 2 { Part::Once(format!("!{name}")) } else { Part::Ask(name) };
                parts.insert(at, part);
            }
        }
    }
}

/// Builds change and processes die between any two answers. What a dialogue ends with are the last
/// answers to its questions, and nothing that is done once is done twice.
#[test]
fn random_dialogues_end_with_the_answers_that_were_given() {
    let mut ended = 0;
    for seed in 0..300 {
        let mut random = Random(seed);
        let mut parts = Vec::new();
        (0..20).for_each(|_| change_from(&mut parts, &mut random));
        PARTS.set(parts.clone());
        let mut host = TestHost::<Asks<7>>::new("{}").expect("a service");
        let peer = host.open();
        let (mut asked, mut given) = (host.output(peer), BTreeMap::new());
        for n in 0..200 {
            if host.state(peer).said.is_some() {
                break;
            }
            if random.below(4) == 0 {
                change(&mut parts, &mut random);
                PARTS.set(parts.clone());
            }
            let answer = format!("{asked}={n}");
            if random.below(3) == 0 {
                // A process that dies before the commit has done nothing.
                let before = host.shared.clone();
                host.line(peer, &answer);
                host.shared = before;
            }
            given.insert(asked.clone(), answer.clone());
            let next = host.line(peer, &answer);
            asked = next;
        }
        let Person { said, did, .. } = host.state(peer);
        let Some(said) = said else { continue };
        ended += 1;
        for answer in &said {
            let question = answer.split('=').next().expect("a question");
            assert_eq!(given.get(question), Some(answer), "seed {seed}: {said:?}");
        }
        let done = parts.iter().filter_map(|p| if let Part::Once(name) = p { Some(name) } else { None });
        for name in done {
            let times = did.iter().filter(|did| *did == name).count();
            assert_eq!(times, 1, "seed {seed}: {name} of {did:?}");
        }
    }
    assert!(ended > 200, "{ended} dialogues came to their end");
}

/// Changes parts, of which there may be none yet.
fn change_from(parts: &mut Vec<Part>, random: &mut Random) {
    match parts.is_empty() {
        true => parts.push(Part::Ask("first".into())),
        false => change(parts, random),
    }
}
