//! Counts of what a run brings about. A run in which nothing happens proves nothing.

use crate::model::Subject;
use crate::recorded::least;
use std::fmt;
use std::ops::AddAssign;

macro_rules! counts {
    ($($(#[$doc:meta])* $field:ident,)*) => {
        /// Counts of one seed, or of all seeds together.
        #[derive(Default)]
        pub(crate) struct Counts { $($(#[$doc])* pub(crate) $field: u64,)* }

        impl AddAssign for Counts {
            fn add_assign(&mut self, other: Counts) {
                $(self.$field += other.$field;)*
            }
        }
    };
}

counts! {
    /// Turns of all cores, dead and living.
    turns,
    /// Turns that failed.
    faults,
    /// Reloads that were committed.
    commits,
    /// Reloads that were refused.
    refusals,
    /// States that the serving build could not read.
    quarantined,
    kills,
    /// Kills while records of dropped entries are deleted.
    kills_in_sweep,
    /// Entries with a deadline that were over, and not deleted, when the clock was set back.
    kept_over,
    rollbacks,
    probations_passed,
    /// Turns of a build on probation that the previous build answered.
    turns_spared,
    /// Turns that no line caused: notes, messages, timers, results.
    actions,
    /// Jobs that were to run once, and began.
    jobs_once,
    jobs_lost,
    shouts_heard,
    /// Connections that the host made.
    connected,
    states_put_back,
    /// Configurations that were put in force.
    configured,
    /// Sessions that the host reset because their peers read too slowly.
    resets,
    /// Processes that handed over to another one.
    upgrades,
    /// Sessions over Unix sockets that ended with their process.
    unix_ended,
    /// Datagrams that were lost, in either direction.
    datagrams_lost,
    /// Datagrams to the service itself that were answered.
    datagrams_answered,
    /// Silences of peers that their sessions were told of.
    silences,
    /// Notes and messages that were dropped, and told.
    missed,
    /// Sessions over UDP that ended because their peers were silent.
    timed_out,
    /// Streams that WebSocket carried.
    carried,
    /// Records of TLS that the host sealed.
    sealed,
    /// Turns that were recorded and replayed.
    replayed,
    /// Canaries that began.
    canaries,
    canaries_promoted,
    canaries_taken_back,
    /// Canaries of those that a rule took back.
    canaries_by_rule,
    /// Turns of candidates, and those that failed and that the build before does not fail.
    canary_turns,
    canary_faults,
    /// Batches that both builds have run.
    canary_compared,
    /// Kills and upgrades while a canary ran.
    kills_with_canary,
    /// Dialogues that came to their end.
    dialogues_ended,
    /// Answers that a build has dropped, as it asks otherwise.
    answers_dropped,
    /// Changes of the build, within sessions that ask.
    builds_in_dialogues,
}

impl Counts {
    /// Checks that the usual seeds reach everything that they are to test.
    pub(crate) fn assert_enough(&self, subject: Subject) {
        if subject == Subject::Asks {
            assert!(self.turns > 5_000 && self.faults > 50 && self.kills > 50 && self.upgrades > 20);
            assert!(self.commits > 50 && self.rollbacks > 5 && self.turns_spared > 20 && self.canaries > 3);
            assert!(self.dialogues_ended > 300 && self.answers_dropped > 150);
            assert!(self.builds_in_dialogues > 200 && self.replayed > least(subject), "{self}");
            return;
        }
        assert!(self.turns > 50_000 && self.commits > 500 && self.refusals > 500 && self.kills > 500);
        assert!(self.states_put_back > 5000 && self.configured > 1000);
        assert!(self.upgrades > 300 && self.unix_ended > 100 && self.sealed > 10_000);
        assert!(self.carried > 800 && self.replayed > least(subject), "{self}");
        assert!(self.canaries > 60 && self.canaries_promoted > 15 && self.canaries_taken_back > 40);
        assert!(self.canary_turns > 2000 && self.canary_compared > 500 && self.kills_with_canary > 40);
        // The shipped tally does not fail, and has no effects but output.
        if subject == Subject::Script {
            assert!(self.faults > 5000 && self.quarantined > 100);
            assert!(self.rollbacks > 100 && self.probations_passed > 30 && self.turns_spared > 300);
            assert!(self.silences > 50 && self.missed > 200 && self.timed_out > 15);
            assert!(self.actions > 10_000 && self.jobs_once > 500 && self.jobs_lost > 50);
            assert!(self.shouts_heard > 5_000 && self.connected > 500 && self.resets > 100);
            assert!(self.canaries_by_rule > 3 && self.canary_faults > 25);
            assert!(self.kills_in_sweep > 50 && self.kept_over > 20);
            assert!(self.datagrams_lost > 500 && self.datagrams_answered > 2_000);
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} turns, {} failed; ", self.turns, self.faults)?;
        write!(f, "{} reloads committed, {} refused; ", self.commits, self.refusals)?;
        write!(f, "{} quarantined, {} kills, ", self.quarantined, self.kills)?;
        write!(f, "{} in a sweep, {} entries over before their time; ", self.kills_in_sweep, self.kept_over)?;
        write!(f, "{} builds rolled back, {} passed, ", self.rollbacks, self.probations_passed)?;
        write!(f, "{} turns spared; ", self.turns_spared)?;
        write!(f, "{} notes, messages, timers and results, ", self.actions)?;
        write!(f, "{} jobs to run once, {} jobs lost, ", self.jobs_once, self.jobs_lost)?;
        write!(f, "{} shouts heard; {} connections made; ", self.shouts_heard, self.connected)?;
        write!(f, "{} states put back, ", self.states_put_back)?;
        write!(f, "{} configurations in force; {} slow readers reset; ", self.configured, self.resets)?;
        write!(f, "{} upgrades, {} Unix sockets ended, ", self.upgrades, self.unix_ended)?;
        write!(f, "{} datagrams lost, {} answered, ", self.datagrams_lost, self.datagrams_answered)?;
        write!(f, "{} silences told, {} actions missed, ", self.silences, self.missed)?;
        write!(f, "{} sessions timed out, ", self.timed_out)?;
        write!(f, "{} streams carried, {} records sealed, ", self.carried, self.sealed)?;
        write!(f, "{} turns replayed; ", self.replayed)?;
        write!(f, "{} canaries, {} promoted, ", self.canaries, self.canaries_promoted)?;
        write!(f, "{} taken back, {} by a rule; ", self.canaries_taken_back, self.canaries_by_rule)?;
        write!(f, "{} turns of theirs, {} failed, ", self.canary_turns, self.canary_faults)?;
        write!(f, "{} batches compared, {} kills; ", self.canary_compared, self.kills_with_canary)?;
        write!(f, "{} dialogues, {} answers dropped, ", self.dialogues_ended, self.answers_dropped)?;
        write!(f, "{} builds in them", self.builds_in_dialogues)
    }
}
