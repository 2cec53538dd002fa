//! Recordings of the whole service: the same code replays what was recorded without a difference.
//! A planted change is found in exactly the turns that it is in.

use crate::model::Subject;
use crate::reloads::LIBRARY;
use crate::world::World;
use greenroom_core::core::Core;
use greenroom_core::framing::custom::CustomCut;
use greenroom_core::ids::public_number;
use greenroom_core::limits::per_service::AllLimits;
use greenroom_core::service::offer::Build;
use greenroom_core::turn::code::{Batch, Code, CutPlace};
use greenroom_core::turn::staging::Staging;
use greenroom_core::turn::turn_record::{TurnOutcome, TurnRecord};
use greenroom_core::watch::subject::Subject as Watched;
use greenroom_state::abi::{Action, action, status};

/// Recorder of a world, and the core that replays what it has recorded.
#[derive(Default)]
pub(crate) struct Recorder {
    /// Whether this world is recorded. The others show what happens when nobody watches.
    on: bool,
    /// Watch of the core that lives; `None`: it is a fresh one.
    watch: Option<u64>,
    /// Core that replays, for one generation under these limits.
    player: Option<(u64, AllLimits, Core)>,
}

impl Recorder {
    /// Makes the recorder of a seed.
    pub(crate) fn of_seed(seed: u64) -> Recorder {
        Recorder { on: seed % 3 == 1, ..Recorder::default() }
    }

    /// The core has died, and its watches with it.
    pub(crate) fn worker_died(&mut self) {
        self.watch = None;
    }
}

/// Code with a change planted into some of its turns: they write an entry more.
struct Planted(Box<dyn Code>);

/// Whether a turn is one of those.
fn is_planted(session: u64, turn: u64, kind: u32) -> bool {
    // The answer of a page must be the first effect of its turn.
    kind != action::PAGE && (public_number(session) + turn).is_multiple_of(17)
}

impl Code for Planted {
    fn run(&self, batch: &Batch<'_>, staging: &mut Staging<'_>) -> u32 {
        if batch.actions.first().is_some_and(|a| is_planted(batch.session, batch.turn, a.kind)) {
            assert_eq!(staging.table_put("planted", b"key", b"value"), status::OK);
        }
        self.0.run(batch, staging)
    }

    fn knows(&self, kind: u32) -> bool {
        self.0.knows(kind)
    }

    fn bytes_of<'a>(&self, action: &Action<'a>) -> (&'a [u8], &'a [u8]) {
        self.0.bytes_of(action)
    }

    fn cut(&self, place: &CutPlace, input: &[u8], state: &mut Vec<u8>) -> Result<CustomCut, String> {
        self.0.cut(place, input, state)
    }

    fn encode(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        self.0.encode(message)
    }

    fn convert(&self, which: u32, from: u32, to: u32, value: &[u8]) -> Result<Vec<u8>, String> {
        self.0.convert(which, from, to, value)
    }
}

impl World {
    /// Begins to record, if this world is recorded and the core is a fresh one.
    pub(crate) fn record(&mut self) {
        if !self.recorder.on || self.recorder.watch.is_some() || self.damaged {
            return;
        }
        let service = Watched::Service { name: self.subject.name().to_owned(), per_mille: 1000 };
        self.recorder.watch = self.host.core.watching().begin(service, true).ok();
    }

    /// Ends the recording: the rest of the world runs as one that nobody watches.
    pub(crate) fn end_record(&mut self) {
        self.recorder.on = false;
        if let Some(watch) = self.recorder.watch.take() {
            self.host.core.watching().end(watch);
        }
    }

    /// Replays the turns that the last commit has let through.
    pub(crate) fn replay_recorded(&mut self) {
        let Some(seen) = self.recorder.watch.and_then(|w| self.host.core.watching().take(w)) else { return };
        let serving =
            self.host.core.services().first().and_then(|s| Some((s.offer.clone(), s.build.clone()?)));
        let Some((offer, build)) = serving.filter(|_| !self.damaged) else { return };
        let unreadable = self.builds.serving.unreadable;
        let limits = self.host.limits.clone();
        let mut player = match self.recorder.player.take() {
            Some((generation, old, core)) if (generation, &old) == (build.generation, &limits) => core,
            _ => {
                let mut core = Core::new(limits.host.clone());
                let code = Box::new(Planted(self.code(&build, unreadable)));
                let name = LIBRARY.to_owned();
                core.adopt(&Build { library: name, ..build.clone() }, vec![(offer, code)]);
                core.set_limits(limits.clone());
                core
            }
        };
        for turn in &seen.turns {
            // The previous build runs some turns again, and a build that was not read its state ran
            // none.
            let is_its = turn.generation == build.generation && turn.outcome != TurnOutcome::Quarantined;
            if is_its && let Ok(replayed) = player.operator().replay(turn) {
                assert_eq!(replayed.unknown, Vec::<String>::new(), "{turn:#?}");
                compare(turn, &replayed.turn);
                self.counts.replayed += 1;
            }
        }
        self.recorder.player = Some((build.generation, limits, player));
    }
}

/// Compares a turn with its replay, which has one effect more if that was planted.
#[track_caller]
fn compare(recorded: &TurnRecord, played: &TurnRecord) {
    let mut effects = played.effects.clone();
    let planted =
        is_planted(recorded.session, recorded.turn, recorded.action.kind) && recorded.fault.is_none();
    let differs = effects.first().is_some_and(|e| e.table.as_ref().is_some_and(|t| t.0 == b"planted"));
    assert_eq!(differs, planted && !effects.is_empty(), "{recorded:#?}\n{played:#?}");
    if differs {
        effects.remove(0);
    }
    let fault = |t: &TurnRecord| t.fault.as_ref().map(|f| (f.kind, f.message.clone()));
    assert_eq!(recorded.effects, effects, "{recorded:#?}\n{played:#?}");
    assert_eq!(
        (&recorded.before, &recorded.after, recorded.closes, &recorded.close_words, fault(recorded)),
        (&played.before, &played.after, played.closes, &played.close_words, fault(played)),
        "{recorded:#?}\n{played:#?}"
    );
    assert_eq!(recorded.fault_reply, played.fault_reply);
}

/// Subjects whose turns are enough to be replayed.
pub(crate) fn least(subject: Subject) -> u64 {
    match subject {
        Subject::Script => 10_000,
        Subject::Tally => 5_000,
        Subject::Asks => 500,
    }
}
