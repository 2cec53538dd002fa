//! Services that use what the SDK has, as their authors would: a queue, a cache, a list of who is
//! present. Each goes on through swaps, deaths and an upgrade.

use greenroom_tests::client::Client;
use greenroom_tests::fixture::Fixture;
use greenroom_tests::host::Host;
use greenroom_tests::root;
use std::path::PathBuf;

/// Host with the first of two builds, whose answers begin with `a` and `b`.
struct Served {
    host: Host,
    builds: [PathBuf; 2],
    rooms: PathBuf,
    _dir: tempfile::TempDir,
}

fn serve() -> Served {
    let source = std::fs::read_to_string(root().join("tests/fixtures/vocabulary.rs")).expect("the fixture");
    let fixture = Fixture::new("vocabulary", "");
    let builds = ["a", "b"].map(|prefix| {
        fixture.write(&source.replace("PREFIX", prefix));
        fixture.build_as(&format!("vocabulary{prefix}.so"))
    });
    let dir = tempfile::tempdir().expect("a directory");
    let (file, rooms) = (dir.path().join("greenroom.toml"), dir.path().join("rooms"));
    std::fs::write(&rooms, "hall\nbar\n").expect("a file");
    let config = "[service.presence]\nsettings = { rooms = { read_file = \"rooms\" }, away_ms = 1500 }\n";
    std::fs::write(&file, config).expect("a file");
    let host = Host::serve_with(&["queue", "cache", "presence"], &[&builds[0]], |host| {
        host.arg("-c").arg(&file);
    });
    Served { host, builds, rooms, _dir: dir }
}

impl Served {
    fn connect(&self, service: &str) -> Client {
        Client::connect(self.host.addr(service))
    }

    #[track_caller]
    fn swap(&self, to: usize) {
        let (code, report) = self.host.reload_from("vocabulary", &self.builds[to]);
        assert_eq!(code, Some(0), "{report}");
    }

    #[track_caller]
    fn upgrade(&self) {
        let out = self.host.cli(&["upgrade"]);
        assert!(out.status.success(), "{out:?}");
    }
}

/// Next line of a client.
#[track_caller]
fn line(client: &mut Client) -> String {
    client.line().expect("a line")
}

#[test]
fn three_services_go_on_through_swaps_deaths_and_an_upgrade() {
    let served = serve();
    queue_keeps_messages_for_who_is_away(&served);
    cache_forgets_what_is_over(&served);
    list_tells_who_is_present(&served);
    faults_tell_their_peers(&served);
}

/// Messages wait in order, come once, and in slices; a name has one holder.
fn queue_keeps_messages_for_who_is_away(served: &Served) {
    let (mut ann, mut bob) = (served.connect("queue"), served.connect("queue"));
    assert_eq!(bob.ask("I am bob"), "a hello bob");
    for n in 1..=60 {
        assert_eq!(bob.ask(&format!("to ann message {n}")), format!("a kept {n}"));
    }
    served.host.kill_worker();
    for n in 61..=120 {
        assert_eq!(bob.ask(&format!("to ann message {n}")), format!("a kept {n}"));
    }
    // A long line before a name ends the session; a successor knows that, too.
    let mut long = served.connect("queue");
    assert_eq!(long.ask("to bob from a stranger"), "a kept 1");
    assert_eq!(line(&mut bob), "from a stranger");
    served.host.kill_worker();
    long.send("x".repeat(65));
    assert_eq!(long.line(), None);
    assert_eq!(ann.ask("I am ann"), "a hello ann");
    for n in 1..=120 {
        assert_eq!(line(&mut ann), format!("message {n}"));
    }
    assert_eq!(bob.ask(&format!("to ann {}", "y".repeat(1000))), "a kept 121");
    assert_eq!(line(&mut ann), "y".repeat(1000));
    let mut other = served.connect("queue");
    assert_eq!(other.ask("I am ann"), "a hello ann");
    assert_eq!((line(&mut ann), ann.line()), ("a another session has your name".into(), None));
    // What is forgotten never comes back, and what is said behind that comes.
    for n in 1..=3 {
        assert_eq!(bob.ask(&format!("to zoe {n}")), format!("a kept {n}"));
    }
    assert_eq!(bob.ask("forget zoe"), "a forgotten");
    served.host.kill_worker();
    assert_eq!(bob.ask("to zoe four"), "a kept 4");
    let mut zoe = served.connect("queue");
    assert_eq!((zoe.ask("I am zoe"), line(&mut zoe)), ("a hello zoe".into(), "four".into()));
}

/// Entries are gone in time, under other builds and processes, too, and watchers hear it once.
fn cache_forgets_what_is_over(served: &Served) {
    let (mut one, mut two) = (served.connect("cache"), served.connect("cache"));
    assert_eq!(one.ask("watch user/"), "a watched by 1");
    assert_eq!(two.ask("watch "), "a watched by 1");
    for n in 1..=5 {
        assert_eq!(one.ask(&format!("set user/{n} 600000 value {n}")), "a ok");
    }
    assert_eq!(one.ask("get user/3"), "a value 3");
    assert_eq!(one.ask("keys user/"), "a user/5 user/4 user/3");
    assert_eq!(one.ask("set user/1 1 x"), "a ok");
    assert_eq!((line(&mut one), line(&mut two)), ("a over: user/1".into(), "a over: user/1".into()));
    assert_eq!(one.ask("get user/1"), "a none");
    served.swap(1);
    served.host.kill_worker();
    assert_eq!(two.ask("set other 1 x"), "b ok");
    assert_eq!(line(&mut two), "b over: other");
    assert_eq!(one.ask("get user/2"), "b value 2");
    assert_eq!(one.ask("flush user/"), "b flushed");
    assert_eq!(one.ask("keys user/"), "b ");
    assert_eq!(two.ask("set user/2 600000 again"), "b ok");
    served.host.kill_worker();
    assert_eq!((one.ask("keys user/"), one.ask("stats")), ("b user/2".into(), "b 2 here".into()));
    served.swap(0);
}

/// A turn that fails leaves nothing behind but what its fault has for the peer.
fn faults_tell_their_peers(served: &Served) {
    let (mut one, mut two) = (served.connect("cache"), served.connect("cache"));
    one.send("double 4\ntry k\ndouble x\nget k\ndouble 5\n");
    let told: Vec<_> = (0..5).map(|_| line(&mut one)).collect();
    assert_eq!(told, ["a 8", "a not kept", "a a number, please", "a none", "a 10"]);
    two.send("double 1\nleave\ndouble 2\n");
    assert_eq!((line(&mut two), line(&mut two), two.line()), ("a 2".into(), "a bye".into(), None));
    // The fault is still one: it is counted and logged.
    served.host.wait_log("as asked");
    served.host.kill_worker();
    assert_eq!(one.ask("try k"), "a not kept");
}

/// News reach who shares a room, once; silence is told once, also by a successor.
fn list_tells_who_is_present(served: &Served) {
    let (mut ann, mut bob) = (served.connect("presence"), served.connect("presence"));
    assert_eq!(ann.ask("I am ann"), "a welcome");
    assert_eq!(bob.ask("I am ann"), "a that name is taken");
    assert_eq!(bob.ask("I am bob"), "a welcome");
    assert_eq!(ann.ask("join attic"), "a there are hall bar");
    for room in ["hall", "bar"] {
        assert_eq!(ann.ask(&format!("join {room}")), format!("a {room} has 1"));
    }
    assert_eq!(bob.ask("join hall"), "a hall has 2");
    assert_eq!(line(&mut ann), "a bob is here");
    assert_eq!(bob.ask("join bar"), "a bar has 2");
    assert_eq!(line(&mut ann), "a bob is here", "once, though they share two rooms");
    assert_eq!((ann.ask("who"), ann.ask("rooms")), ("a ann bob".into(), "a bar hall".into()));
    served.host.kill_worker();
    // Both are silent, and hear of each other.
    assert_eq!((line(&mut ann), line(&mut bob)), ("a bob is away".into(), "a ann is away".into()));
    served.upgrade();
    assert_eq!(ann.ask("who"), "a ann bob");
    assert_eq!(line(&mut bob), "a ann is back");
    let roll: u32 = ann.ask("roll").trim_start_matches("a ").parse().expect("a number");
    assert!((1..=6).contains(&roll));
    // A room more is a change of the file.
    std::fs::write(&served.rooms, "hall\nbar\nattic\n").expect("a file");
    served.host.wait_log("by=watcher");
    assert_eq!(line(&mut ann), "a a new build serves");
    assert_eq!(ann.ask("join attic"), "a attic has 1");
    drop(ann);
    assert_eq!(last(&mut bob, "has left"), "a ann has left");
}

/// Next line that ends so. Others say that somebody is away, or that a build serves.
#[track_caller]
fn last(client: &mut Client, end: &str) -> String {
    loop {
        let line = line(client);
        if line.ends_with(end) {
            return line;
        }
    }
}
