//! Endpoints: a service in several kinds, over TCP and Unix sockets, and one room over all.

use greenroom_tests::client::Client;
use greenroom_tests::fixture::install;
use greenroom_tests::host::Host;
use greenroom_tests::{built, wait_for};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A host that serves tally at these endpoints, with the file of its configuration.
struct Served {
    host: Host,
    file: PathBuf,
}

/// Writes a configuration in which tally listens at these endpoints, and echo at any port.
fn write(file: &Path, endpoints: &[String], more: &str) {
    let listen = serde_json::to_string(endpoints).expect("JSON");
    let echo = "[service.echo]\nlisten = [\"127.0.0.1:0\"]\n";
    std::fs::write(file, format!("[service.tally]\nlisten = {listen}\n{more}\n{echo}")).expect("a file");
}

fn serve(dir: &Path, endpoints: &[String], more: &str) -> Served {
    let file = dir.join("greenroom.toml");
    write(&file, endpoints, more);
    let host = Host::serve_with(&[], &[&built("libecho.so")], |c| {
        c.arg("--config").arg(&file);
    });
    Served { host, file }
}

impl Served {
    /// Connects to tally's endpoint of this kind on TCP.
    #[track_caller]
    fn tcp(&self, kind: &str) -> Client {
        let listen = self.host.service("tally")["listen"].clone();
        let all = listen.as_array().expect("a list").iter().filter_map(|l| l.as_str());
        let addr = all.filter_map(|l| l.strip_prefix(&format!("{kind}://"))).next();
        Client::connect(addr.expect("such an endpoint").parse().expect("an address"))
    }
}

fn unix(path: &Path) -> Client {
    let stream = UnixStream::connect(path).expect("a connection");
    Client::from(TcpStream::from(OwnedFd::from(stream)))
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("a file").permissions().mode() & 0o777
}

/// Sessions keep the framing of their endpoint while the file changes, the worker is killed and the
/// host is upgraded. A crash alone closes those over Unix sockets.
#[test]
fn a_service_is_had_in_several_kinds() {
    let dir = tempfile::tempdir().expect("a directory");
    let sockets = [dir.path().join("plain.sock"), dir.path().join("telnet.sock")];
    let [plain, nvt] = sockets.each_ref().map(|s| s.display().to_string());
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let all = |first: &str| {
        [
            "127.0.0.1:0",
            &format!("{first}://127.0.0.1:{port}"),
            &format!("unix:{plain}"),
            &format!("telnet+unix:{nvt}"),
        ]
        .map(str::to_owned)
    };
    let served = serve(dir.path(), &all("telnet"), "socket_mode = \"0660\"");
    let host = &served.host;
    assert_eq!((mode(&sockets[0]), mode(&sockets[1])), (0o660, 0o660));

    // A byte 255 is a command in telnet, and LF becomes CR LF; elsewhere it is a byte.
    let mut line = served.tcp("tcp");
    let mut telnet = served.tcp("telnet");
    let (mut here, mut there) = (unix(&sockets[0]), unix(&sockets[1]));
    assert_eq!(line.ask("one"), "1 one");
    telnet.send(b"t\xff\xfd\x01wo\r\n");
    assert_eq!(
        telnet.line().expect("a refusal, and an answer").as_bytes(),
        "\u{fffd}\u{fffd}\u{1}1 two\r".as_bytes()
    );
    assert_eq!((here.ask("three"), there.ask("four")), ("1 three".into(), "1 four\r".into()));
    let sessions = host.json(&["sessions", "--json"]);
    let of = |session: &serde_json::Value| (session["endpoint"].clone(), session["peer"].clone());
    let told: Vec<_> = sessions.as_array().expect("a list").iter().map(of).collect();
    let kinds: Vec<_> = told.iter().map(|(kind, _)| kind.as_str().expect("a kind")).collect();
    assert_eq!(kinds, ["line", "telnet", "line", "telnet"]);
    let me = format!("unix:pid={},", std::process::id());
    assert!(told[2].1.as_str().expect("a peer").starts_with(&me), "{told:?}");

    // A client that nobody here wrote.
    let mut nc = Command::new("nc")
        .arg("-UN")
        .arg(&sockets[0])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("nc");
    nc.stdin.take().expect("its input").write_all(b"by nc\n").expect("sent");
    assert_eq!(nc.wait_with_output().expect("its output").stdout, b"1 by nc\n");

    // The telnet port closes, and its session lives on. Another mode is given without a new socket.
    write(&served.file, &all("raw"), "socket_mode = \"0600\"");
    let out = host.cli(&["reload", "--config"]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    wait_for("the mode", || (mode(&sockets[0]) == 0o600).then_some(()));
    let mut raw = served.tcp("raw");
    raw.send(b"\xff\xfd");
    raw.send(b"\n");
    assert_eq!(raw.line().expect("an answer").chars().next(), Some('1'));
    let ask = |clients: &mut [&mut Client], n: u32| {
        for (at, client) in clients.iter_mut().enumerate() {
            assert!(client.ask("on").starts_with(&format!("{n} on")), "client {at}");
        }
    };
    ask(&mut [&mut line, &mut telnet, &mut here, &mut there], 2);

    // In mid-line, by an orderly takeover.
    for client in [&mut line, &mut telnet, &mut here, &mut there] {
        client.send("o");
    }
    let binary = built("greenroom").display().to_string();
    let out = host.cli(&["upgrade", "--binary", &binary]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    for client in [&mut line, &mut telnet, &mut here, &mut there] {
        assert_eq!(client.ask("n").trim_end(), "3 on");
    }

    host.kill_worker();
    ask(&mut [&mut line, &mut telnet], 4);
    assert_eq!((here.line(), there.line()), (None, None), "a crash leaves no byte counts of them");
    assert_eq!(unix(&sockets[0]).ask("anew"), "1 anew");
    drop(served);
    assert!(sockets.iter().all(|s| s.exists()), "a host that is killed leaves its sockets");
}

/// `socat` over a Unix socket: one connection across a swap and an upgrade, and its end by a crash.
#[test]
fn socat_is_served_over_a_unix_socket_until_a_crash() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("s.sock");
    let host = serve(dir.path(), &[format!("unix:{}", path.display())], "").host;
    let mut socat = Command::new("socat")
        .args(["-", &format!("UNIX-CONNECT:{}", path.display())])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("socat");
    let mut says = socat.stdin.take().expect("a pipe");
    let mut hears = BufReader::new(socat.stdout.take().expect("a pipe")).lines();
    let mut ask = |line: &str| {
        writeln!(says, "{line}").expect("sent");
        hears.next().map(|answer| answer.expect("text"))
    };
    assert_eq!(ask("one").as_deref(), Some("1 one"));
    let library = built("libecho.so");
    host.cli(&["reload", "echo", "--from", library.to_str().expect("UTF-8")]);
    assert_eq!(ask("two").as_deref(), Some("2 two"));
    let binary = built("greenroom");
    let out = host.cli(&["upgrade", "--binary", binary.to_str().expect("UTF-8")]);
    assert!(out.status.success(), "{out:?}");
    assert_eq!(ask("three").as_deref(), Some("3 three"));
    host.kill_worker();
    drop(says);
    assert!(hears.next().is_none(), "the kernel counts no bytes of a Unix socket");
    assert!(socat.wait().is_ok_and(|status| status.success()));
}

/// A dead socket is replaced, and anything else at its path is left alone.
#[test]
fn only_a_dead_socket_is_replaced() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("s.sock");
    let endpoint = [format!("unix:{}", path.display())];
    drop(UnixListener::bind(&path).expect("a socket"));
    let mut served = serve(dir.path(), &endpoint, "");
    assert_eq!(unix(&path).ask("one"), "1 one");
    assert_eq!(mode(&path), 0o600);

    let second = |says: &str| {
        let out = Command::new(built("greenroom"))
            .args(["serve", "--config"])
            .arg(&served.file)
            .arg(built("libecho.so"))
            .env("GREENROOM_RUNTIME", dir.path().join("second"))
            .output()
            .expect("greenroom serve");
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && said.contains(says), "{said}");
    };
    second("another process listens there");
    assert_eq!(unix(&path).ask("one"), "1 one");

    // Somebody puts a file in the place of the socket: a stop leaves it there.
    std::fs::remove_file(&path).expect("removed");
    std::fs::write(&path, "mine").expect("a file");
    second("no socket is there");
    served.host.signal(libc::SIGTERM);
    assert_eq!(served.host.wait(), Some(0));
    assert_eq!(std::fs::read(&path).expect("the file"), b"mine");
    std::fs::remove_file(&path).expect("removed");

    // And its own socket goes with it.
    let mut served = serve(dir.path(), &endpoint, "");
    assert!(path.exists());
    served.host.signal(libc::SIGTERM);
    assert_eq!(served.host.wait(), Some(0));
    assert!(!path.exists());
}

/// People over lines, telnet, WebSocket and a Unix socket hear each other, each in their kind,
/// across a swap, of which the room is told, and a kill.
#[test]
fn a_room_is_one_over_all_kinds() {
    let dir = tempfile::tempdir().expect("a directory");
    let (library, socket) = (dir.path().join("libchat.so"), dir.path().join("chat.sock"));
    install(&built("libchat.so"), &library);
    let endpoints = ["127.0.0.1:0", "telnet://127.0.0.2:0", "ws://127.0.0.3:0"];
    let host = Host::serve_with(&[], &[&library], |c| {
        for endpoint in endpoints {
            c.args(["--listen", &format!("chat={endpoint}")]);
        }
        c.args(["--listen", &format!("chat=unix:{}", socket.display())]);
    });
    let listen = host.service("chat")["listen"].clone();
    let addr =
        |at: usize| listen[at].as_str().expect("an endpoint").split_once("://").expect("a kind").1.to_owned();
    let mut line = Client::connect(addr(0).parse().expect("an address"));
    let mut telnet = Client::connect(addr(1).parse().expect("an address"));
    let mut here = unix(&socket);
    let client = greenroom_tests::root().join("tests/clients/room.py");
    let mut web = Command::new("python3")
        .arg(client)
        .arg(format!("ws://{}/", addr(2)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3");
    let mut to_web = web.stdin.take().expect("its input");
    let mut of_web = BufReader::new(web.stdout.take().expect("its output")).lines();
    let mut heard = || of_web.next().expect("a message").expect("text");

    // They join one after the other, and each reads of the later ones.
    let welcome = "Welcome to the green room. What is your nick?";
    assert_eq!(heard(), welcome);
    for (client, nick, end) in [(&mut line, "ann", ""), (&mut telnet, "tel", "\r"), (&mut here, "uni", "")] {
        assert_eq!(client.line(), Some(format!("{welcome}{end}")));
        assert_eq!(client.ask(nick), format!("* {nick} is here{end}"));
    }
    writeln!(to_web, "web").expect("sent");
    assert_eq!(heard(), "* web is here");
    for expected in ["* tel is here", "* uni is here", "* web is here"] {
        assert_eq!(line.line().as_deref(), Some(expected));
    }
    for expected in ["* uni is here\r", "* web is here\r"] {
        assert_eq!(telnet.line().as_deref(), Some(expected));
    }
    assert_eq!(here.line().as_deref(), Some("* web is here"));
    let mut all = |text: &str, with_unix: bool| {
        assert_eq!(line.line().as_deref(), Some(text));
        assert_eq!(telnet.line(), Some(format!("{text}\r")));
        if with_unix {
            assert_eq!(here.line().as_deref(), Some(text));
        }
        assert_eq!(heard(), text);
    };
    writeln!(to_web, "hello <b>").expect("sent");
    all("web: hello <b>", true);

    // Another file of the same code: the room is told of it without anybody saying a word.
    let mut bytes = std::fs::read(built("libchat.so")).expect("a library");
    bytes.push(0);
    let newer = dir.path().join("newer.so");
    std::fs::write(&newer, bytes).expect("a file");
    install(&newer, &library);
    all("* chat is now generation 2: nobody was disconnected", true);

    host.kill_worker();
    // The crash closes the Unix socket alone, and its nick goes with it.
    all("* uni has left", false);
    writeln!(to_web, "on").expect("sent");
    all("web: on", false);
    drop(to_web);
    assert!(web.wait().expect("it ends").success());
}
