//! The newcomer: an empty folder outside the repository, `greenroom new`, `greenroom dev`, a
//! client, an edit, a mistake and its mending, for each kind of handler.
//!
//! All crates share one target folder, so what they depend on is built once.

use greenroom_tests::client::Client;
use greenroom_tests::{built, root, wait_for};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Settings of `greenroom dev` for cargo, so that `cargo test` finds what it has built.
const PROFILE: [(&str, &str); 3] = [
    ("CARGO_PROFILE_DEV_INCREMENTAL", "true"),
    ("CARGO_PROFILE_DEV_LTO", "off"),
    ("CARGO_PROFILE_DEV_DEBUG", "line-tables-only"),
];

/// Folder of the builds of all newcomers.
fn target() -> PathBuf {
    root().join("target/newcomer")
}

/// Command in a folder, with the SDK and the builds in places of the tests' own. Builds are those
/// of somebody whose environment says nothing of them.
fn command(program: impl AsRef<Path>, dir: &Path) -> Command {
    let mut command = Command::new(program.as_ref());
    command.current_dir(dir).env("XDG_DATA_HOME", target().join("data")).env("CARGO_TARGET_DIR", target());
    command.env_remove("CARGO_INCREMENTAL").env_remove("CARGO_PROFILE_DEV_DEBUG");
    command
}

/// Runs `greenroom new` in a folder.
fn new(dir: &Path, args: &[&str]) -> Output {
    command(built("greenroom"), dir).arg("new").args(args).output().expect("greenroom new")
}

/// Text of standard error.
fn complaint(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// `greenroom dev` that runs. Dropping it ends it.
struct Dev {
    child: Child,
    /// Lines of standard output and of standard error.
    said: Arc<Mutex<String>>,
}

impl Dev {
    /// Starts it in a folder, for a service at an address that the kernel chooses.
    fn start(dir: &Path, listen: &str) -> Dev {
        let mut command = command(built("greenroom"), dir);
        command.args(["dev", "--listen", listen]).stdin(Stdio::null());
        Dev::of(command)
    }

    /// Starts it by a command.
    fn of(mut command: Command) -> Dev {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("greenroom dev");
        let said = Arc::<Mutex<String>>::default();
        hear(child.stdout.take().expect("a pipe"), said.clone());
        hear(child.stderr.take().expect("a pipe"), said.clone());
        Dev { child, said }
    }

    /// Lines so far.
    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Waits until a text is said, for up to five minutes: the first build makes all that handlers
    /// depend on, beside other tests.
    #[track_caller]
    fn wait(&self, text: &str) {
        let give_up = Instant::now() + Duration::from_secs(300);
        while !self.said().contains(text) {
            assert!(Instant::now() < give_up, "{text:?} was not said:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Address at which the service is served.
    #[track_caller]
    fn addr(&self) -> SocketAddr {
        self.wait("export GREENROOM_RUNTIME=");
        let said = self.said();
        let endpoint = said.lines().find_map(|line| line.split_once(" on ")?.1.split_once("://"));
        endpoint.expect("an endpoint").1.parse().expect("an address")
    }

    /// Sends a signal, and returns the exit code; none: the signal ended it.
    fn end(mut self, signal: i32) -> Option<i32> {
        // SAFETY: the child was not waited for.
        unsafe { libc::kill(self.child.id() as i32, signal) };
        self.child.wait().expect("its end").code()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // SAFETY: the child was not waited for.
            unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        }
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- greenroom dev ---\n{}", self.said());
        }
    }
}

/// Collects the lines of a pipe, on a thread.
fn hear(pipe: impl Read + Send + 'static, said: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            *said.lock().unwrap() += &(line + "\n");
        }
    });
}

/// Client of any kind: sends a text, and returns the answer to it.
type Ask = Box<dyn FnMut(&str) -> String>;

/// Client that reads lines. Telnet's commands and prompts stand before an answer.
fn lines(addr: SocketAddr) -> Ask {
    let mut client = Client::connect(addr);
    let welcome = client.line().expect("a welcome");
    assert!(welcome.contains("Welcome"), "{welcome}");
    Box::new(move |text| client.ask(text))
}

/// Client of WebSocket, which has got the page before.
fn websocket(addr: SocketAddr) -> Ask {
    let connect = |request: &str| {
        let mut stream = TcpStream::connect(addr).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        stream.write_all(request.as_bytes()).expect("a request");
        stream
    };
    let mut page = String::new();
    connect("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .read_to_string(&mut page)
        .unwrap();
    assert!(page.contains("<!doctype html>"), "{page}");
    let mut stream = connect(
        "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer");
        head.push(byte[0]);
    }
    let read = |stream: &mut TcpStream| {
        let mut size = [0; 2];
        stream.read_exact(&mut size).expect("a message");
        let mut text = vec![0; usize::from(size[1])];
        stream.read_exact(&mut text).expect("all of it");
        String::from_utf8(text).expect("text")
    };
    assert!(read(&mut stream).contains("Welcome"));
    Box::new(move |text| {
        // A mask of zeros leaves the text as it is.
        let head = [0x81, 0x80 | text.len() as u8, 0, 0, 0, 0];
        stream.write_all(&[&head, text.as_bytes()].concat()).expect("a message");
        read(&mut stream)
    })
}

/// Client of UDP.
fn datagrams(addr: SocketAddr) -> Ask {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    Box::new(move |text| {
        socket.send_to(text.as_bytes(), addr).expect("a datagram goes out");
        let mut answer = [0; 100];
        let n = socket.recv(&mut answer).expect("an answer");
        String::from_utf8_lossy(&answer[..n]).into_owned()
    })
}

/// Kind of handler, as the newcomer meets it.
struct Play {
    kind: &'static str,
    /// Source, and the text in it that makes the answer.
    source: &'static str,
    answer: &'static str,
    connect: fn(SocketAddr) -> Ask,
}

/// Plays the newcomer to the mended mistake.
#[track_caller]
fn play(play: Play) -> (tempfile::TempDir, Dev) {
    let dir = tempfile::tempdir().expect("an empty folder");
    let name = format!("newcomer_{}", play.kind);
    let made = new(dir.path(), &[&name, "--kind", play.kind]);
    assert!(made.status.success(), "{}", complaint(&made));
    let told = String::from_utf8_lossy(&made.stdout);
    let book = told.lines().find_map(|line| line.strip_prefix("The book for authors: "));
    assert!(book.is_some_and(|book| Path::new(book).is_file()), "{told}");
    let home = dir.path().join(&name);
    let scheme = if play.kind == "udp" { "udp://" } else { "" };
    let dev = Dev::start(&home, &format!("{name}={scheme}127.0.0.1:0"));
    let mut ask = (play.connect)(dev.addr());
    assert!(ask("good day").ends_with("1: good day"));

    let source = home.join(play.source);
    let text = fs::read_to_string(&source).expect("the source");
    let with = |mark: &str| {
        assert!(text.contains(play.answer), "{text}");
        text.replace(play.answer, &play.answer.replace(": ", mark))
    };
    fs::write(&source, with("! ")).expect("an edit");
    dev.wait(&format!("{name} generation 2: "));
    assert!(ask("two").ends_with("2! two"), "the session goes on in the new build");

    // Saved as editors do: another file takes its place.
    let saved = source.with_extension("saved");
    fs::write(&saved, with("? ") + "\nmistaken here\n").expect("a mistake");
    fs::rename(&saved, &source).expect("a rename");
    dev.wait("the build failed; the build before serves on");
    // By the other pipe, which may be read later.
    let shown =
        || dev.said().lines().filter(|line| line.contains("error: ") && line.contains("expected")).count();
    wait_for("the compiler's error", || (shown() > 0).then_some(()));
    assert!(ask("three").ends_with("3! three"));

    fs::write(&source, with("? ")).expect("mended");
    dev.wait(&format!("{name} generation 3: "));
    assert!(ask("four").ends_with("4? four"));
    assert_eq!(shown(), 1, "the compiler's error, once:\n{}", dev.said());
    (dir, dev)
}

/// Runs the crate's own tests, which are the template's.
#[track_caller]
fn cargo_test(dir: &tempfile::TempDir, kind: &str) {
    let home = dir.path().join(format!("newcomer_{kind}"));
    let source = home.join("src/lib.rs");
    // The answers are those of the template again.
    let text = fs::read_to_string(&source).expect("the source");
    fs::write(&source, text.replace("? {}", ": {}")).expect("an edit");
    let mut cargo = command(env!("CARGO"), &home);
    cargo.args(["test", "--offline", "--target-dir"]).arg(target().join("greenroom-dev")).envs(PROFILE);
    let out = cargo.output().expect("cargo");
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && said.contains("1 passed"), "{said}{}", complaint(&out));
}

#[test]
fn a_handler_of_lines_is_made_served_and_changed() {
    let (dir, dev) = play(Play { kind: "line", source: "src/lib.rs", answer: "{}: {}", connect: lines });
    // A state that changes its shape is refused, with what to write.
    let source = dir.path().join("newcomer_line/src/lib.rs");
    let text = fs::read_to_string(&source).expect("the source");
    let other = text.replace("lines: u64", "lines: String").replace("lines += 1", "lines.push('|')");
    fs::write(&source, other.replace("lines = turn.state.lines, ", "")).expect("an edit");
    dev.wait("field lines: integer -> string; raise STATE_VERSION");
    fs::write(&source, &text).expect("mended");
    dev.wait("generation 3: nothing has changed");
    // A configuration that changes is put in force, without a build.
    let config = dir.path().join("newcomer_line/greenroom.toml");
    let said = fs::read_to_string(&config).expect("the configuration");
    fs::write(&config, said.replace("Welcome. Say", "Welcome again. Say")).expect("an edit");
    dev.wait("newcomer_line generation 4: ");
    assert_eq!(dev.end(libc::SIGINT), Some(0));
    cargo_test(&dir, "line");
}

#[test]
fn a_handler_of_telnet_is_made_served_and_changed() {
    let (dir, dev) = play(Play {
        kind: "telnet",
        source: "src/lib.rs",
        answer: "{}: {}",
        connect: |addr| {
            let mut ask = lines(addr);
            Box::new(move |text| ask(text).trim_end_matches('\r').to_owned())
        },
    });
    assert_eq!(dev.end(libc::SIGTERM), Some(0));
    cargo_test(&dir, "telnet");
}

#[test]
fn a_handler_that_asks_is_made_served_and_changed() {
    let (dir, dev) = play(Play {
        kind: "dialogue",
        source: "src/lib.rs",
        answer: "{}: {}",
        connect: |addr| {
            let mut client = Client::connect(addr);
            // The count begins at the lucky number.
            assert!(client.ask("ann\n0").ends_with("Welcome, ann: 0 it is."));
            Box::new(move |text| client.ask(text))
        },
    });
    drop(dev);
    cargo_test(&dir, "dialogue");
}

#[test]
fn a_handler_of_websocket_is_made_served_and_changed() {
    let (dir, dev) =
        play(Play { kind: "websocket", source: "src/lib.rs", answer: "{}: {}", connect: websocket });
    // The page is a source as well: the compiler has read it.
    let page = dir.path().join("newcomer_websocket/src/page.html");
    let text = fs::read_to_string(&page).expect("the page");
    fs::write(&page, text + "<p>changed</p>\n").expect("an edit");
    dev.wait("generation 4: ");
    drop(dev);
    cargo_test(&dir, "websocket");
}

#[test]
fn a_handler_of_udp_is_made_served_and_changed() {
    let (dir, dev) =
        play(Play { kind: "udp", source: "src/lib.rs", answer: "{count}: {}", connect: datagrams });
    drop(dev);
    cargo_test(&dir, "udp");
}

/// A crate from another machine names an SDK that is not here.
#[test]
fn a_crate_that_misses_its_sdk_is_told_where_it_is() {
    let dir = tempfile::tempdir().expect("an empty folder");
    assert!(new(dir.path(), &["hello"]).status.success());
    let home = dir.path().join("hello");
    let manifest = fs::read_to_string(home.join("Cargo.toml")).expect("the manifest");
    let there = target().join("data/greenroom/sdk").display().to_string();
    fs::write(home.join("Cargo.toml"), manifest.replace(&there, "/elsewhere/greenroom/sdk"))
        .expect("an edit");
    let out = command(built("greenroom"), &home).arg("dev").output().expect("greenroom dev");
    let said = complaint(&out);
    assert!(out.status.code() == Some(1) && said.contains(&format!("it is in {there}")), "{said}");
}

/// The host of a command that is killed ends with it.
#[test]
fn a_handler_in_c_is_made_served_and_changed_and_leaves_no_host_behind() {
    let (dir, dev) = play(Play { kind: "c", source: "handler.c", answer: "%u: ", connect: lines });
    let home = dir.path().join("newcomer_c");
    let made = command("make", &home)
        .args(["check", "CFLAGS=-O1 -Wall -Wextra -Wpedantic -Werror"])
        .arg(format!("GREENROOM={}", built("greenroom").display()))
        .output()
        .expect("make");
    assert!(made.status.success(), "{}", complaint(&made));
    let said = dev.said();
    let runtime = said.lines().find_map(|line| line.strip_prefix("export GREENROOM_RUNTIME="));
    let mut status = command(built("greenroom"), &home);
    let runtime = runtime.expect("a runtime directory");
    status.args(["status", "--json", "--runtime", runtime]);
    let status: Value = serde_json::from_slice(&status.output().expect("status").stdout).expect("JSON");
    let processes = ["pid", "worker_pid"].map(|key| status["host"][key].as_u64().expect("a process"));
    assert_eq!(dev.end(libc::SIGKILL), None);
    for process in processes {
        // One that is dead and not yet waited for has no memory.
        wait_for("the end of the host", || {
            let maps = fs::read(format!("/proc/{process}/maps")).unwrap_or_default();
            maps.is_empty().then_some(())
        });
    }
    fs::remove_dir_all(runtime).expect("the directory of a host that nobody tidied up for");
}

/// The desk on a bad day: a port that is taken, settings that are refused, a second command, and an
/// edit while a build runs.
#[test]
fn mishaps_at_the_desk_are_told_and_the_build_before_serves_on() {
    let dir = tempfile::tempdir().expect("an empty folder");
    let name = "newcomer_desk";
    assert!(new(dir.path(), &[name, "--kind", "c"]).status.success());
    let home = dir.path().join(name);
    let [source, config, makefile, words] =
        ["handler.c", "greenroom.toml", "Makefile", "words.txt"].map(|file| home.join(file));
    let edit = |file: &Path, from: &str, to: &str| {
        let text = fs::read_to_string(file).expect("a file");
        assert!(text.contains(from), "{text}");
        fs::write(file, text.replace(from, to)).expect("an edit");
    };

    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("its address");
    let dev = Dev::start(&home, &format!("{name}={addr}"));
    dev.wait("another process has that address: end it");
    drop(taken);
    // A file of the settings that begins with `bad`, in base64, is refused.
    let refuses = "if (config.len != 2) { /* anything but {} */\n        error.put(error.ctx, (gr_bytes)TEXT(\"newcomer_desk has no settings\"));";
    edit(
        &source,
        refuses,
        "int bad = 0;\n    for (size_t i = 0; i + 4 <= config.len; i++) bad |= !memcmp(config.ptr + i, \"YmFk\", 4);\n    \
         if (bad) {\n        error.put(error.ctx, (gr_bytes)TEXT(\"words.txt:1: a bad word\"));",
    );
    dev.wait("export GREENROOM_RUNTIME=");
    let mut ask = lines(addr);
    assert_eq!(ask("one"), "1: one");

    // The file of the settings comes together with the source that will not do without it.
    edit(&config, "# listen =", "settings = { words = { read_file = \"words.txt\" } }\n# listen =");
    dev.wait("words.txt can't be opened");
    fs::write(&words, "good").expect("a file");
    edit(&source, "int bad = 0;", "int bad = config.len == 2;");
    dev.wait("newcomer_desk generation 3: 1 session kept");
    fs::write(&words, "bad").expect("an edit");
    dev.wait("generation 3 serves on: service newcomer_desk: words.txt:1: a bad word");
    assert_eq!(ask("two"), "2: two");
    fs::write(&words, "better").expect("an edit");
    dev.wait("newcomer_desk generation 4: 1 session kept");
    // A refusal without a place of its own gets that of the settings.
    let line = fs::read_to_string(&config).expect("a file").lines().position(|l| l.starts_with("settings"));
    let place = format!("the settings of {name}: {}:{}\n", config.display(), line.expect("settings") + 1);
    dev.wait(&place);
    assert_eq!(dev.said().matches("WARN").count(), 0, "{}", dev.said());

    let second = command(built("greenroom"), &home).arg("dev").output().expect("greenroom dev");
    let said = complaint(&second);
    assert!(second.status.code() == Some(1) && said.contains("serves") && said.contains("already"), "{said}");

    // The compiler has read the source when it changes again.
    let [hold, compiled] = ["hold", "compiled"].map(|file| home.join(file));
    fs::write(&hold, "").expect("a file");
    edit(&makefile, "\tmv ", "\ttouch compiled; while [ -e hold ]; do sleep 0.02; done\n\tmv ");
    wait_for("a build", || compiled.exists().then_some(()));
    edit(&source, "%u: ", "%u! ");
    fs::remove_file(&hold).expect("the build goes on");
    dev.wait("newcomer_desk generation 5: 1 session kept");
    assert_eq!(ask("three"), "3! three");
    assert_eq!(dev.end(libc::SIGINT), Some(0));

    // Keys of a terminal, and a configuration that comes while the host serves.
    fs::remove_file(&config).expect("no configuration");
    edit(&source, "int bad = config.len == 2;", "int bad = 0;");
    let mut terminal = command("script", &home);
    let run = format!("{} dev --listen {name}=127.0.0.1:0", built("greenroom").display());
    let mut dev = Dev::of({
        terminal.args(["-qefc", &run, "/dev/null"]).stdin(Stdio::piped());
        terminal
    });
    dev.wait("q ends it, r builds anew");
    dev.wait("export GREENROOM_RUNTIME=");
    fs::write(&config, "[service").expect("half a configuration");
    dev.wait(&format!("{}: line 1, column 9: ", config.display()));
    fs::write(&config, format!("[service.{name}]\nsettings = {{ words = 1 }}\n")).expect("a configuration");
    dev.wait("newcomer_desk generation 2: ");
    fs::write(&config, "[service.mistyped]\nsettings = { words = 1 }\n").expect("an edit");
    dev.wait("service mistyped is configured, but no library that runs offers it");
    let mut keys = dev.child.stdin.take().expect("a pipe");
    keys.write_all(b"xr").expect("keys");
    dev.wait("generation 3: nothing has changed");
    // A folder that is moved away for a moment is no edit.
    let away = dir.path().join("away");
    fs::rename(&home, &away).expect("the folder is moved");
    dev.wait("is gone; what was built serves on until it is back");
    fs::rename(&away, &home).expect("the folder is back");
    keys.write_all(b"q").expect("a key");
    assert_eq!(dev.child.wait().expect("its end").code(), Some(0));
}

#[test]
fn a_refusal_at_the_start_is_said_once() {
    let dir = tempfile::tempdir().expect("an empty folder");
    let name = "newcomer_refused";
    assert!(new(dir.path(), &[name, "--kind", "c"]).status.success());
    let home = dir.path().join(name);
    let source = home.join("handler.c");
    let text = fs::read_to_string(&source).expect("the source");
    assert!(text.contains("if (config.len != 2) {"), "{text}");
    fs::write(&source, text.replace("if (config.len != 2) {", "if (config.len) {")).expect("an edit");
    let dev = Dev::start(&home, &format!("{name}=127.0.0.1:0"));
    dev.wait("nothing serves; change what is wrong");
    assert_eq!(dev.said().matches("newcomer_refused has no settings").count(), 1, "{}", dev.said());
    fs::write(&source, text).expect("mended");
    assert_eq!(lines(dev.addr())("good day"), "1: good day");
}

/// A command that ends leaves nothing: no program that its compiler has started, and no directory
/// of a host that never served.
#[test]
fn a_command_that_ends_during_a_build_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("an empty folder");
    let name = "newcomer_left";
    assert!(new(dir.path(), &[name, "--kind", "c"]).status.success());
    let [home, places] = ["newcomer_left", "places"].map(|folder| dir.path().join(folder));
    fs::create_dir(&places).expect("a folder");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut command = command(built("greenroom"), &home);
    let listen = format!("{name}={}", taken.local_addr().expect("its address"));
    command.args(["dev", "--listen", &listen]).stdin(Stdio::null()).env("TMPDIR", &places);
    let dev = Dev::of(command);
    dev.wait("nothing serves; change what is wrong");
    let makefile = home.join("Makefile");
    let text = fs::read_to_string(&makefile).expect("the Makefile");
    assert!(text.contains("\tmv "), "{text}");
    let waits = "\techo $$$$ > waits.new; mv waits.new waits; sleep 1000; true\n\tmv ";
    fs::write(&makefile, text.replace("\tmv ", waits)).expect("an edit");
    let shell = wait_for("a build", || fs::read_to_string(home.join("waits")).ok());
    let children = format!("/proc/{0}/task/{0}/children", shell.trim());
    let sleep = wait_for("its child", || fs::read_to_string(&children).ok().filter(|c| !c.is_empty()));
    assert_eq!(dev.end(libc::SIGTERM), Some(0));
    for process in [shell, sleep] {
        let maps = format!("/proc/{}/maps", process.trim());
        wait_for("its end", || fs::read(&maps).unwrap_or_default().is_empty().then_some(()));
    }
    let left: Vec<_> = fs::read_dir(&places).expect("a folder").flatten().map(|e| e.path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_name_that_will_not_do_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("an empty folder");
    fs::create_dir(dir.path().join("there")).expect("a folder");
    for (name, why) in [
        ("", "say `greenroom new hello`"),
        ("9lives", "does not begin with a letter"),
        ("match", "is reserved by Rust"),
        ("Capital", "call it \"capital\""),
        ("there", "exists already"),
        ("nowhere/hello", "is not a folder"),
    ] {
        let out = new(dir.path(), &[name]);
        assert!(!out.status.success() && complaint(&out).contains(why), "{name}: {}", complaint(&out));
    }
    let mut nowhere = command(built("greenroom"), dir.path());
    nowhere.args(["new", "hello"]).env("XDG_DATA_HOME", "/proc/nowhere");
    let out = nowhere.output().expect("greenroom new");
    assert!(complaint(&out).contains("set XDG_DATA_HOME"), "{}", complaint(&out));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// A crate that lies in a workspace is a member of it, if the workspace names it, and else one of
/// its own. A root without a package serves all handlers below it.
#[test]
fn a_handler_is_made_in_a_workspace_and_beside_it() {
    let dir = tempfile::tempdir().expect("an empty folder");
    fs::create_dir(dir.path().join("handlers")).expect("a folder");
    fs::write(dir.path().join("Cargo.toml"), "[workspace]\nresolver = \"3\"\nmembers = [\"handlers/*\"]\n")
        .unwrap();
    fs::copy(root().join("Cargo.lock"), dir.path().join("Cargo.lock")).expect("a lock file");
    for name in ["handlers/newcomer_member", "newcomer_beside"] {
        let out = new(dir.path(), &[name]);
        assert!(out.status.success(), "{}", complaint(&out));
        let mut cargo = command(env!("CARGO"), &dir.path().join(name));
        let out = cargo.args(["metadata", "--offline", "--format-version", "1"]).output().expect("cargo");
        assert!(out.status.success() && out.stderr.is_empty(), "{}", complaint(&out));
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        let is_member = said.contains(&format!("\"workspace_root\":\"{}\"", dir.path().display()));
        assert_eq!(is_member, name.starts_with("handlers/"), "{said}");
    }
    // A member that the workspace names comes before another one that it names.
    let named = dir.path().join("named");
    fs::create_dir(&named).expect("a folder");
    fs::write(named.join("Cargo.toml"), "[workspace]\nresolver = \"3\"\nmembers = [\"m1\", \"m2\"]\n")
        .unwrap();
    for name in ["m1", "m2"] {
        let out = new(&named, &[name]);
        assert!(out.status.success(), "{}", complaint(&out));
        let manifest = fs::read_to_string(named.join(name).join("Cargo.toml")).expect("a manifest");
        assert!(!manifest.contains("[workspace]"), "{manifest}");
    }
    let dev = Dev::start(dir.path(), "newcomer_member=127.0.0.1:0");
    dev.wait("handlers/newcomer_member/greenroom.toml does not count here, ");
    assert!(lines(dev.addr())("good day").ends_with("1: good day"));
    assert_eq!(dev.end(libc::SIGINT), Some(0));
}
