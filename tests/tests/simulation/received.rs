//! Laws of what a peer receives: shouts, replies, and the end of its session.

use crate::canaries::candidates_answer_their_own_sessions;
use crate::dialogues::a_turn_asks_what_its_build_asks;
use crate::model::{Expected, Subject};
use crate::peers::Peer;
use crate::verbs::shout_len;
use crate::world::World;
use greenroom_core::framing::Framing;

impl World {
    /// Checks what a peer received, line by line.
    pub(crate) fn check_received(&mut self, at: usize) {
        let peer = &mut self.network.peers[at];
        if matches!(peer.framing, Framing::Raw { .. }) {
            return raw_bytes_come_back_once_and_in_order(peer);
        }
        let mut promised = std::mem::take(&mut peer.promised);
        let expected = promised.after(&peer.lines, self.subject, peer.id);
        let rolled_back = self.builds.stood_by > 0;
        while let Some(end) = peer.received.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = peer.received.drain(..=end).collect();
            let mut line = String::from_utf8(line[..end].to_vec()).expect("answers are UTF-8");
            if let Some(shout) = line.strip_prefix('~') {
                shouts_arrive_whole_once_and_in_order(peer, shout);
                self.counts.shouts_heard += 1;
                continue;
            }
            if self.subject == Subject::Asks {
                let asked = a_turn_asks_what_its_build_asks(&mut self.dialogues, peer, &line);
                if let Some(generation) = asked {
                    generations_go_back_by_a_rollback_alone(
                        peer,
                        generation,
                        rolled_back,
                        self.builds.highest,
                    );
                    candidates_answer_their_own_sessions(&self.canaries, peer, generation);
                    peer.last_generation = generation;
                }
                continue;
            }
            if self.subject == Subject::Script {
                let (generation, rest) = without_generation(&line);
                generations_go_back_by_a_rollback_alone(peer, generation, rolled_back, self.builds.highest);
                candidates_answer_their_own_sessions(&self.canaries, peer, generation);
                peer.last_generation = generation;
                line = rest;
            }
            replies_arrive_once_and_in_order(peer, &line, expected);
        }
        peer.promised = promised;
    }

    /// Checks a peer whose session was closed.
    pub(crate) fn check_closed(&self, peer: &mut Peer) {
        peer.promised.after(&peer.lines, self.subject, peer.id);
        let expected = peer.promised.expected();
        sessions_close_for_a_reason_that_the_peer_knows(peer, expected);
        sessions_answer_everything_before_they_close(peer, expected);
        peers_are_told_of_an_orderly_end(peer, expected);
    }
}

/// Splits a reply of the scripted service: its generation, and the rest.
fn without_generation(line: &str) -> (u64, String) {
    let mut words = line.splitn(3, ' ');
    let (count, generation, rest) = (words.next(), words.next(), words.next());
    let generation = generation.and_then(|g| g.parse().ok()).expect("a generation");
    (generation, format!("{} {}", count.unwrap_or_default(), rest.unwrap_or_default()))
}

/// A broadcast of two pieces arrives as one, and the next one is the next number.
fn shouts_arrive_whole_once_and_in_order(peer: &mut Peer, shout: &str) {
    let words: Vec<_> = shout.split(' ').collect();
    let [topic, n, text] = words[..] else { panic!("a shout is damaged: {shout}") };
    let n: u64 = n.parse().expect("a number");
    assert_eq!(text.len(), shout_len(n), "{shout}");
    if let Some(last) = peer.heard.insert(topic.to_owned(), n) {
        let follows = n == last + 1 || (peer.lossy && n > last);
        assert!(follows, "shouts on {topic} to {}: {n} after {last}", peer.id);
    }
}

/// A reply comes from the build of the last one, or from a newer one. Once a build has stood by,
/// older code may answer: after a rollback, or in place of a turn that failed.
fn generations_go_back_by_a_rollback_alone(peer: &Peer, generation: u64, rolled_back: bool, highest: u64) {
    let forward = peer.last_generation <= generation;
    assert!((forward || rolled_back) && generation <= highest, "code went back");
}

/// Bytes of a raw stream are echoed, each once.
fn raw_bytes_come_back_once_and_in_order(peer: &mut Peer) {
    let rest = &peer.wrote[peer.echoed..];
    assert!(rest.starts_with(&peer.received), "session {} at byte {}", peer.id, peer.echoed);
    peer.echoed += peer.received.len();
    peer.received.clear();
}

/// The next reply is the next one of the model, byte for byte. A peer that may have lost some gets
/// a later one, and none twice.
fn replies_arrive_once_and_in_order(peer: &mut Peer, line: &str, expected: &Expected) {
    if peer.lossy {
        let left = &expected.replies[peer.replies..];
        let lost = left.iter().position(|r| r == line);
        peer.replies += lost.unwrap_or_else(|| panic!("session {}: {line:?} is none of {left:?}", peer.id));
    }
    let next = expected.replies.get(peer.replies).map(String::as_str);
    assert_eq!(Some(line), next, "session {}, answer {}", peer.id, peer.replies);
    if let Some((_, topic)) = line.split_once(" join ") {
        peer.heard.remove(topic);
    }
    peer.replies += 1;
}

/// The handler closed the session, or the peer had ended its stream, or was silent too long.
fn sessions_close_for_a_reason_that_the_peer_knows(peer: &Peer, expected: &Expected) {
    let by_word = peer.goodbye && peer.to_host.is_empty();
    assert!(
        expected.closed || peer.done_read || by_word || peer.silent,
        "session {} was closed for nothing",
        peer.id
    );
}

/// Each line that was to be answered was answered before the end of the stream.
fn sessions_answer_everything_before_they_close(peer: &Peer, expected: &Expected) {
    let all = peer.replies == expected.answers && peer.echoed == peer.wrote.len();
    let by = (peer.road, peer.framing.kind(), peer.goodbye);
    assert!(all || peer.lossy, "session {} owes answers: {by:?}", peer.id);
}

/// TLS tells each end that is none of the network's. So does WebSocket, if the handler closes.
fn peers_are_told_of_an_orderly_end(peer: &Peer, expected: &Expected) {
    assert!(peer.tls.as_ref().is_none_or(|tls| tls.told), "session {} was cut off", peer.id);
    assert!(!peer.speaks_websocket() || !expected.closed || peer.told, "session {} was not told", peer.id);
}
