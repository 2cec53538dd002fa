//! Browser on the page of the chat: Chromium, by keyboard alone. People on the page and one with
//! `nc` hear each other; swaps and a killed worker disconnect nobody; behind an end of the host the
//! page connects again.

use greenroom_tests::browser::Browser;
use greenroom_tests::fixture::install;
use greenroom_tests::host::Host;
use greenroom_tests::{build_dir, built};
use std::io::{BufRead, BufReader, Lines, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Page of a person.
trait People {
    fn says(&mut self, page: usize, line: &str);
    fn hears(&mut self, page: usize, line: &str);
    fn sees(&mut self, page: usize, people: &str);
}

impl People for Browser {
    /// Types a line, wherever the focus is.
    fn says(&mut self, page: usize, line: &str) {
        self.order(&format!("type {page} {line}"));
        self.order(&format!("key {page} Enter"));
    }

    /// Waits for the last line of the conversation.
    #[track_caller]
    fn hears(&mut self, page: usize, line: &str) {
        self.wait(page, "document.querySelector('#room p:last-child')?.textContent", line);
    }

    #[track_caller]
    fn sees(&mut self, page: usize, people: &str) {
        self.wait(page, "[...document.querySelectorAll('#list li')].map(l => l.textContent).join()", people);
    }
}

/// Starts a host that serves the chat over lines, and on a page.
fn serve(library: &Path, [lines, page]: [&str; 2]) -> Host {
    Host::serve_with(&[], &[library], |c| {
        c.args(["--listen", &format!("chat={lines}"), "--listen", &format!("chat=ws://{page}")]);
    })
}

/// Person with `nc`.
struct Netcat {
    child: Child,
    keys: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Netcat {
    fn connect(addr: SocketAddr) -> Netcat {
        let mut nc = Command::new("nc");
        nc.args([addr.ip().to_string(), addr.port().to_string()]);
        let mut child = nc.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("nc");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        Netcat { keys: child.stdin.take(), child, lines }
    }

    fn says(&mut self, line: &str) {
        writeln!(self.keys.as_mut().expect("its input"), "{line}").expect("it reads");
    }

    #[track_caller]
    fn hears(&mut self, line: &str) {
        assert_eq!(self.lines.next().expect("a line").expect("text"), line);
    }
}

impl Drop for Netcat {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn people_on_the_page_stay_connected() {
    let dir = tempfile::tempdir().expect("a directory");
    let library = dir.path().join("libchat.so");
    install(&built("libchat.so"), &library);
    let mut host = serve(&library, ["127.0.0.1:0", "127.0.0.1:0"]);
    let (lines, page) = (host.addr("chat"), host.addr("chat ws"));
    let mut nc = Netcat::connect(lines);
    let mut web = Browser::start();
    let (ann, bob) = (web.open(&format!("http://{page}/")), web.open(&format!("http://{page}/")));
    nc.hears("Welcome to the green room. What is your nick?");
    nc.says("carol");
    nc.hears("* carol is here");

    // The keyboard is where a nick is asked for, and says so.
    for (person, nick) in [(ann, "ann"), (bob, "bob")] {
        web.hears(person, "Welcome to the green room. What is your nick?");
        web.wait(person, "document.activeElement.getAttribute('aria-label')", "Your nick");
        web.says(person, nick);
        web.wait(person, "document.getElementById('state').textContent", &format!("connected as {nick}"));
        nc.hears(&format!("* {nick} is here"));
    }
    web.sees(ann, "ann (you),bob,carol");
    web.sees(bob, "ann,bob (you),carol");
    web.says(ann, "hello <b>all</b>");
    nc.hears("ann: hello <b>all</b>");
    web.hears(bob, "ann hello <b>all</b>");
    nc.says("from a terminal");
    nc.hears("carol: from a terminal");
    web.hears(ann, "carol from a terminal");

    // All that can be used is reached by keyboard, and the order is that of the page.
    let mut order = vec![web.focus(ann)];
    for key in ["Tab", "ShiftTab", "ShiftTab", "Tab"] {
        web.order(&format!("key {ann} {key}"));
        order.push(web.focus(ann));
    }
    assert_eq!(order, ["line", "send", "line", "room", "line"]);

    // A mark on the connection shows whether it is still the same one.
    for person in [ann, bob] {
        web.order(&format!("run {person} socket.mark = 'first'"));
    }
    let mut bytes = std::fs::read(built("libchat.so")).expect("a library");
    bytes.push(0);
    let newer = dir.path().join("newer.so");
    std::fs::write(&newer, bytes).expect("a file");
    install(&newer, &library);
    let swapped = "chat is now generation 2: nobody was disconnected";
    for person in [ann, bob] {
        web.hears(person, swapped);
    }
    nc.hears(&format!("* {swapped}"));
    host.kill_worker();
    web.says(bob, "on");
    web.hears(ann, "bob on");
    nc.hears("bob: on");
    for person in [ann, bob] {
        web.wait(person, "socket.mark", "first");
        web.wait(person, "document.getElementById('state').className", "");
    }

    // Each scheme and width can be read, and nothing is beside the window.
    let shots = build_dir().join("screenshots");
    std::fs::create_dir_all(&shots).expect("a directory");
    for scheme in ["light", "dark"] {
        for width in [320, 1280] {
            let file = shots.join(format!("chat-{scheme}-{width}.png"));
            web.order(&format!("look {ann} {width} {scheme} {}", file.display()));
            let contrast = web.contrast(ann, "h1, h2, p, li, button, input, #state, .who", "#line");
            assert!(contrast >= 4.5, "{scheme}, {width}: a text has a contrast of {contrast}");
            let wide = web.order(&format!("run {ann} document.documentElement.scrollWidth"));
            assert_eq!(wide, width, "{scheme}");
        }
    }

    // The host really ends. What is typed meanwhile stays there, and so does the focus.
    web.order(&format!("type {ann} half a word"));
    host.signal(libc::SIGTERM);
    assert_eq!(host.wait(), Some(0));
    for person in [ann, bob] {
        web.wait(person, "document.getElementById('state').className", "lost");
    }
    assert_eq!((web.focus(ann), web.focus(bob)), ("line".into(), "line".into()));
    let _again = serve(&library, [&lines.to_string(), &page.to_string()]);
    for (person, people) in [(ann, "ann (you),bob"), (bob, "ann,bob (you)")] {
        web.wait(person, "document.getElementById('state').className", "");
        web.sees(person, people);
    }
    web.says(ann, " again");
    web.hears(bob, "ann half a word again");
}
