//! Tests of the state machine, with its steps as text.
//!
//! No thread, file or child takes part: a test reports each event itself, and reads the steps
//! that the core answers with. The build is put in charge by the real commit, so the live data
//! of the next judgement is real, too.

use super::*;
use crate::core::Core;
use crate::framing::Framing;
use crate::limits::host::Limits;
use crate::service::canary_terms::CanaryTerms;
use crate::service::offer::{Build, Offer};
use crate::test_support::Stub;
use crate::turn::code::Code;
use crate::turn::staging::Staging;
use greenroom_state::abi::Action;
use greenroom_state::compatibility::{StateShape, TableShape};
use greenroom_state::rehearsal_report::{Rehearsal, ShapeReport, Verdict, WayBack};
use greenroom_state::schema::Schema;

/// Offer of a service whose state has one field of this type. All migrations and downgrades are
/// there.
fn offer(name: &str, version: u32, field: &str) -> Offer {
    let text =
        format!(r#"{{"type":"object","properties":{{"count":{{"type":"{field}"}}}},"required":["count"]}}"#);
    let schema = Some(Schema::parse(&text).unwrap());
    let shape = StateShape {
        version,
        schema,
        migrations: (1..version).collect(),
        downgrades: (2..=version).collect(),
    };
    Offer { shape, ..Offer::new(name, Framing::Lines { bytes_max: 100 }) }
}

/// Findings of a trial without a rehearsal.
fn candidate(name: &str, offers: Vec<Offer>) -> Result<Candidate, String> {
    Ok(Candidate { name: name.into(), offers, build_id: None, rehearsal: None })
}

/// A core, and the steps of its reloads as text.
struct Bench(Core);

impl Bench {
    /// Bench with one library that runs no build.
    fn new() -> (Bench, LibraryId) {
        let mut core = Core::new(Limits::default());
        let id = core.reloads.library("liba.so".into());
        (Bench(core), id)
    }

    /// Reports an event, and returns the steps as text, in order.
    fn on(&mut self, event: Event) -> String {
        let steps = self.0.reload(event);
        let mut text = Vec::new();
        for step in steps {
            text.push(match &step {
                Step::Stage(_, path) => format!("stage {}", path.display()),
                Step::Try(_) => "try".into(),
                Step::Load(all) => {
                    let each: Vec<_> = all.iter().map(|(_, offers)| offers.len().to_string()).collect();
                    format!("load {}", each.join("+"))
                }
                Step::Commit(all) => {
                    let each: Vec<_> = all.iter().map(|(_, b)| b.generation.to_string()).collect();
                    format!("commit {}", each.join("+"))
                }
                Step::Discard(_) => "discard".into(),
                Step::Report(_, to, r) => {
                    format!("{:?} [{}] gen {} {}", r.outcome, to.id, r.generation, r.reason)
                }
            });
        }
        text.join(", ")
    }

    fn request(&mut self, l: LibraryId, id: u64, by: Requester) -> String {
        self.want(l, id, by, Want::Load)
    }

    fn want(&mut self, l: LibraryId, id: u64, by: Requester, want: Want) -> String {
        self.on(Event::Requested(vec![(l, Request { id, by, from: None, want, group: id })]))
    }

    /// Goes the whole way, from a staged hash to a commit. Returns the last steps.
    fn rest(&mut self, l: LibraryId, hash: &str, offers: Vec<Offer>) -> String {
        let mut said = self.on(Event::Staged(l, Ok(hash.into())));
        if said.ends_with("try") {
            said = self.on(Event::Tried(l, candidate("a", offers.clone())));
        }
        if said.starts_with("load") {
            said = self.on(Event::Loaded(l, Ok(())));
        }
        if let Some(generation) = said.strip_prefix("commit ") {
            let build =
                Build { library: "a".into(), generation: generation.parse().unwrap(), hash: hash.into() };
            let code = offers
                .into_iter()
                .map(|o| (o, Box::new(Stub(|_: &Action<'_>, _: &mut Staging<'_>| Ok(()))) as Box<dyn Code>))
                .collect();
            match self.0.reloads.under_way(l).map(|r| r.want) {
                Some(Want::Canary) => self.0.canaries().begin(&build, code, CanaryTerms::default()),
                _ => self.0.adopt(&build, code),
            }
            said = self.on(Event::Committed(vec![l], 5.0));
        }
        said
    }
}

const OP: Requester = Requester::Operator { uid: 0, pid: 1 };

#[test]
fn the_whole_way_and_unchanged() {
    let (mut b, l) = Bench::new();
    assert_eq!(b.request(l, 1, Requester::Start), "stage liba.so");
    assert_eq!(b.rest(l, "h1", vec![offer("s", 1, "integer")]), "Committed [1] gen 1 ");
    b.request(l, 2, OP);
    assert_eq!(b.on(Event::Staged(l, Ok("h1".into()))), "discard, Unchanged [2] gen 1 ");
    b.request(l, 3, OP);
    assert_eq!(b.rest(l, "h2", vec![offer("s", 1, "integer")]), "Committed [3] gen 2 ");
}

/// Content that was refused is tried again only for an operator: a file that stays in place
/// must not be tried for ever.
#[test]
fn the_watcher_tries_no_content_twice_but_an_operator_may() {
    let (mut b, l) = Bench::new();
    b.request(l, 1, Requester::Start);
    b.rest(l, "good", vec![offer("s", 1, "integer")]);
    b.request(l, 2, Requester::Watcher);
    let said = b.rest(l, "bad", vec![offer("s", 1, "string")]);
    assert!(said.starts_with("discard, Refused [2] gen 1 s: field count: integer -> string"), "{said}");
    b.request(l, 3, Requester::Watcher);
    assert_eq!(b.on(Event::Staged(l, Ok("bad".into()))), "discard");
    b.request(l, 4, OP);
    assert_eq!(b.on(Event::Staged(l, Ok("bad".into()))), "try");
}

/// A failed staging has no hash to compare, so the request behind it is carried out.
#[test]
fn a_request_that_waited_for_the_same_content_shares_the_outcome() {
    let (mut b, l) = Bench::new();
    b.request(l, 1, Requester::Watcher);
    assert_eq!(b.request(l, 2, OP), "");
    let said = b.rest(l, "h1", vec![offer("s", 1, "integer")]);
    assert_eq!(said, "Committed [1] gen 1 , stage liba.so");
    assert_eq!(b.on(Event::Staged(l, Ok("h1".into()))), "discard, Committed [2] gen 1 ");
    b.request(l, 3, OP);
    b.request(l, 4, OP);
    assert!(b.on(Event::Staged(l, Err("gone".into()))).contains("Refused [3] gen 1 gone, stage"));
    assert_eq!(b.rest(l, "h2", vec![offer("s", 1, "integer")]), "Committed [4] gen 2 ");
}

#[test]
fn services_have_one_library_and_libraries_one_path() {
    let (mut b, l) = Bench::new();
    b.request(l, 1, Requester::Start);
    b.rest(l, "h1", vec![offer("s", 1, "integer")]);
    let other = b.0.reloads.library("libb.so".into());
    b.request(other, 2, OP);
    b.on(Event::Staged(other, Ok("h2".into())));
    let said = b.on(Event::Tried(other, candidate("b", vec![offer("s", 1, "integer")])));
    assert!(said.contains("service s belongs to library a"), "{said}");
    b.request(other, 3, OP);
    b.on(Event::Staged(other, Ok("h2".into())));
    let said = b.on(Event::Tried(other, candidate("a", vec![offer("t", 1, "integer")])));
    assert!(said.contains("loaded already, from liba.so"), "{said}");
    b.request(other, 4, OP);
    b.on(Event::Staged(other, Ok("h2".into())));
    let mut greedy = offer("t", 1, "integer");
    greedy.endpoints[0].framing = Framing::Lines { bytes_max: u32::MAX };
    let said = b.on(Event::Tried(other, candidate("b", vec![greedy])));
    assert!(said.contains("limit frame_bytes_max"), "{said}");
}

/// The session opens between the two judgements, so only the second can refuse.
#[test]
fn a_service_with_sessions_is_not_withdrawn_even_at_the_last_moment() {
    let (mut b, l) = Bench::new();
    b.request(l, 1, Requester::Start);
    b.rest(l, "h1", vec![offer("s", 1, "integer"), offer("t", 1, "integer")]);
    b.request(l, 2, OP);
    b.on(Event::Staged(l, Ok("h2".into())));
    assert_eq!(b.on(Event::Tried(l, candidate("a", vec![offer("s", 1, "integer")]))), "load 1");
    let t = b.0.service_named("t").unwrap();
    let peer = "127.0.0.1:9".parse().unwrap();
    let slot = crate::ids::Slot(0);
    b.0.handle(crate::input::Input::Opened { slot, id: 1, service: t, kind: "", peer, at_ms: 0, tls: None });
    let said = b.on(Event::Loaded(l, Ok(())));
    assert!(said.contains("no longer offers service t, which has 1 sessions"), "{said}");
    b.0.handle(crate::input::Input::Broken { slot });
    b.request(l, 3, OP);
    assert_eq!(b.rest(l, "h3", vec![offer("s", 1, "integer")]), "Committed [3] gen 2 ");
    assert!(b.0.services()[usize::from(t.0)].build.is_none());
}

/// A dry run does not count as seen: the watcher still loads the same content.
#[test]
fn a_dry_run_ends_with_its_report_and_leaves_the_watcher_alone() {
    let (mut b, l) = Bench::new();
    b.request(l, 1, Requester::Start);
    b.rest(l, "h1", vec![offer("s", 1, "integer")]);
    b.want(l, 2, OP, Want::DryRun);
    assert_eq!(b.rest(l, "h2", vec![offer("s", 1, "integer")]), "discard, Rehearsed [2] gen 1 ");
    b.want(l, 3, OP, Want::DryRun);
    let said = b.rest(l, "h2", vec![offer("s", 1, "string")]);
    assert!(said.starts_with("discard, Refused [3] gen 1 s: field count"), "{said}");
    b.request(l, 4, Requester::Watcher);
    assert_eq!(b.rest(l, "h2", vec![offer("s", 1, "integer")]), "Committed [4] gen 2 ");
}

/// A plain load refuses the older version; a rollback gets its old generation back. The next
/// build still gets a number that was never used.
#[test]
fn a_build_that_ran_before_runs_again_under_its_number() {
    let (mut b, l) = Bench::new();
    b.request(l, 1, Requester::Start);
    b.rest(l, "h1", vec![offer("s", 1, "integer")]);
    b.request(l, 2, OP);
    assert_eq!(b.rest(l, "h2", vec![offer("s", 2, "string")]), "Committed [2] gen 2 ");
    // The content is the older build's, and going back must be asked for.
    b.want(l, 3, OP, Want::Load);
    let said = b.rest(l, "h1", vec![offer("s", 1, "integer")]);
    assert!(said.contains("STATE_VERSION 1 is below 2"), "{said}");
    b.want(l, 4, OP, Want::RollBack(1));
    assert_eq!(b.rest(l, "h1", vec![offer("s", 1, "integer")]), "RolledBack [4] gen 1 ");
    b.request(l, 5, OP);
    assert_eq!(b.rest(l, "h3", vec![offer("s", 2, "string")]), "Committed [5] gen 3 ");
}

/// Two libraries in one group, both of them staging.
fn two() -> (Bench, LibraryId, LibraryId) {
    let (mut b, l) = Bench::new();
    let m = b.0.reloads.library("libb.so".into());
    let both = |id| Request { id, by: OP, from: None, want: Want::Load, group: 1 };
    assert_eq!(b.on(Event::Requested(vec![(l, both(1)), (m, both(2))])), "stage liba.so, stage libb.so");
    (b, l, m)
}

/// A request for one member of the group waits until the commit of the whole group.
#[test]
fn libraries_that_go_together_wait_for_each_other_and_are_one_commit() {
    let (mut b, l, m) = two();
    assert_eq!(b.on(Event::Staged(m, Ok("m1".into()))), "try");
    assert_eq!(b.on(Event::Tried(m, candidate("b", vec![offer("t", 1, "integer")]))), "");
    assert_eq!(b.request(m, 9, OP), "");
    assert_eq!(b.on(Event::Staged(l, Ok("l1".into()))), "try");
    assert_eq!(b.on(Event::Tried(l, candidate("a", vec![offer("s", 1, "integer")]))), "load 1+1");
    assert_eq!(b.on(Event::Loaded(l, Ok(()))), "");
    assert_eq!(b.on(Event::Loaded(m, Ok(()))), "commit 1+1");
    let said = b.on(Event::Committed(vec![l, m], 3.0));
    assert_eq!(said, "Committed [1] gen 1 , Committed [2] gen 1 , stage libb.so");
}

/// The refusal must reach members in every stage: tried, under way in the child, and behind
/// another reload.
#[test]
fn if_one_is_refused_all_are_whatever_they_are_doing() {
    // The first member was tried; the file of the second cannot be loaded.
    let (mut b, l, m) = two();
    b.on(Event::Staged(m, Ok("m1".into())));
    b.on(Event::Tried(m, candidate("b", vec![offer("t", 1, "integer")])));
    let said = b.on(Event::Staged(l, Err("gone".into())));
    assert_eq!(
        said,
        "discard, Refused [1] gen 0 gone, discard, Refused [2] gen 0 it was to be committed together with liba.so, \
         which is refused: gone"
    );
    // The first member is in the child meanwhile, so its end is its trial's.
    let (mut b, l, m) = two();
    b.on(Event::Staged(m, Ok("m1".into())));
    assert_eq!(b.on(Event::Staged(l, Err("gone".into()))), "discard, Refused [1] gen 0 gone");
    let said = b.on(Event::Tried(m, candidate("b", vec![offer("t", 1, "integer")])));
    assert!(said.starts_with("discard, Refused [2] gen 0 it was to be committed together"), "{said}");
    // The second member waits behind another reload of its library.
    let (mut b, l) = Bench::new();
    let m = b.0.reloads.library("libb.so".into());
    b.request(m, 7, OP);
    let both = |id| Request { id, by: OP, from: None, want: Want::Load, group: 1 };
    assert_eq!(b.on(Event::Requested(vec![(l, both(1)), (m, both(2))])), "stage liba.so");
    b.on(Event::Staged(l, Ok("l1".into())));
    assert_eq!(b.on(Event::Tried(l, candidate("a", vec![offer("s", 1, "integer")]))), "");
    let said = b.on(Event::Staged(m, Err("gone".into())));
    assert_eq!(said, "discard, Refused [7] gen 0 gone, stage libb.so");
    let said = b.on(Event::Staged(m, Err("gone again".into())));
    assert!(said.contains("Refused [2] gen 0 gone again, discard, Refused [1] gen 0 it was to be"), "{said}");
    assert!(!b.0.reloads.is_busy());
    // Both members offer the same service.
    let (mut b, l, m) = two();
    b.on(Event::Staged(m, Ok("m1".into())));
    b.on(Event::Tried(m, candidate("b", vec![offer("s", 1, "integer")])));
    b.on(Event::Staged(l, Ok("l1".into())));
    let said = b.on(Event::Tried(l, candidate("a", vec![offer("s", 1, "integer")])));
    assert!(said.contains("Refused [1]") && said.contains("offers the same"), "{said}");
    assert!(said.contains("Refused [2] gen 0 it was to be committed together with a"), "{said}");
}

/// The build that serves stays in charge, and others wait, until the candidate is promoted under
/// its number or taken back.
#[test]
fn a_canary_is_in_the_way_until_it_is_promoted_or_taken_back() {
    let (mut b, l) = Bench::new();
    b.request(l, 1, Requester::Start);
    b.rest(l, "h1", vec![offer("s", 1, "integer")]);
    b.want(l, 2, OP, Want::Canary);
    assert_eq!(b.rest(l, "h2", vec![offer("s", 2, "string")]), "Canary [2] gen 1 ");
    assert_eq!(b.0.canary("a").map(|(build, ..)| build.generation), Some(2));
    for (id, want) in [(3, Want::Load), (4, Want::Canary), (5, Want::DryRun), (6, Want::Configure)] {
        b.want(l, id, OP, want);
        let said = b.rest(l, "h3", vec![offer("s", 2, "string")]);
        assert!(said.contains("generation 2 runs as a canary"), "{want:?}: {said}");
    }
    b.want(l, 7, OP, Want::Promote(3));
    assert!(b.rest(l, "h2", Vec::new()).contains("generation 3 is no canary any more"));
    b.want(l, 8, OP, Want::Promote(2));
    assert_eq!(b.rest(l, "h2", vec![offer("s", 2, "string")]), "Committed [8] gen 2 ");
    assert!(b.0.canary("a").is_none());
    // Taken back while its promotion is prepared.
    b.want(l, 9, OP, Want::Canary);
    b.rest(l, "h4", vec![offer("s", 2, "string")]);
    b.want(l, 10, OP, Want::Promote(3));
    b.on(Event::Staged(l, Ok("h4".into())));
    assert_eq!(b.0.canaries().take_back("a").map(|(build, _)| build.generation), Some(3));
    let said = b.on(Event::Tried(l, candidate("a", vec![offer("s", 2, "string")])));
    assert!(said.contains("generation 3 is no canary any more"), "{said}");
    // A number is never given again.
    b.request(l, 11, OP);
    assert_eq!(b.rest(l, "h5", vec![offer("s", 2, "string")]), "Committed [11] gen 4 ");
}

/// All that sessions of both builds would share stays as it is, and states have a way back.
#[test]
fn a_candidate_that_nothing_leads_back_from_is_no_canary() {
    let (mut b, l) = Bench::new();
    b.want(l, 1, OP, Want::Canary);
    let first = b.rest(l, "h1", vec![offer("s", 1, "integer")]);
    assert!(first.contains("runs no build beside which"), "{first}");
    b.request(l, 2, OP);
    b.rest(l, "h1", vec![offer("s", 1, "integer")]);
    let good = offer("s", 2, "string");
    let table =
        TableShape { name: "t".into(), shape: good.shape.clone(), hears_of_expiry: false, reads_keys: false };
    let optional = StateShape { downgrades: Vec::new(), ..good.shape.clone() };
    let other_endpoint = Offer::new("s", Framing::Lines { bytes_max: 99 }).endpoints;
    let bad = [
        (vec![good.clone(), offer("t", 1, "integer")], "adds service t"),
        (vec![Offer { endpoints: other_endpoint, ..good.clone() }], "has other endpoints"),
        (vec![Offer { dials: true, ..good.clone() }], "has other endpoints"),
        (vec![Offer { tables: vec![table], ..good.clone() }], "table t of service s is another one"),
        (vec![Offer { shape: optional, ..good.clone() }], "nothing leads back from version 2"),
        (vec![offer("s", 1, "string")], "count: integer -> string"),
        (Vec::new(), "does not offer service s"),
    ];
    for (n, (offers, why)) in bad.into_iter().enumerate() {
        b.want(l, 10 + n as u64, OP, Want::Canary);
        let said = b.rest(l, &format!("bad {n}"), offers);
        assert!(said.contains("Refused") && said.contains(why), "{why}: {said}");
    }
    // The rehearsal has seen a value that does not come back.
    let lost = ShapeReport {
        service: "s".into(),
        table: None,
        from: 1,
        to: 2,
        verdict: Verdict::None,
        fields: Vec::new(),
        way_back: WayBack::Loses { fields: vec!["count".into()] },
        read: 1,
        migrated: 1,
        left_out: 0,
    };
    let rehearsal = Some(Rehearsal { shapes: vec![lost], ..Rehearsal::default() });
    b.want(l, 30, OP, Want::Canary);
    b.on(Event::Staged(l, Ok("lossy".into())));
    let found = Candidate { name: "a".into(), offers: vec![good], build_id: None, rehearsal };
    let said = b.on(Event::Tried(l, Ok(found)));
    assert!(said.contains("s: the way back is not exact (loses count)"), "{said}");
}
