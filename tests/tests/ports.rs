//! Ports of a library that is there twice, and ports that move to an address that overlaps.

use greenroom_tests::client::Client;
use greenroom_tests::fixture::install;
use greenroom_tests::host::Host;
use greenroom_tests::{built, wait_for};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

/// Writes a configuration of the echo service with these addresses.
fn write(file: &Path, listen: &str, more: &str) {
    let text =
        format!("{more}\n[service.echo]\nlisten = [{listen}]\n[service.tally]\nlisten = [\"127.0.0.1:0\"]\n");
    std::fs::write(file, text).expect("a configuration");
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port()
}

fn serve(file: &Path, libraries: &[&Path]) -> Host {
    Host::serve_with(&[], libraries, |c| {
        c.arg("--config").arg(file);
    })
}

/// A copy of a library that lies beside it is left out, by name. The port of the other one serves.
#[test]
fn a_copy_of_a_library_is_left_out_and_its_port_serves() {
    let dir = tempfile::tempdir().expect("a directory");
    let handlers = dir.path().join("handlers");
    std::fs::create_dir(&handlers).expect("a directory");
    for name in ["libecho.bak.so", "libecho.so"] {
        install(&built("libecho.so"), &handlers.join(name));
    }
    let (file, port) = (dir.path().join("greenroom.toml"), free_port());
    write(&file, &format!("\"127.0.0.1:{port}\""), &format!("handlers = [{handlers:?}]"));

    let host = serve(&file, &[]);

    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    assert_eq!(Client::connect(addr).ask("hello"), "hello");
    host.wait_log("is left out");
    let log = host.log();
    let refused: Vec<_> = log.lines().filter(|l| l.contains("WARN") && l.contains("is left out")).collect();
    assert_eq!(refused.len(), 1, "{log}");
    for name in ["libecho.bak.so", "libecho.so"] {
        assert!(refused[0].contains(&format!("{}", handlers.join(name).display())), "{}", refused[0]);
    }

    // A build of the one that serves is loaded as ever.
    host.kill_worker();
    assert_eq!(Client::connect(addr).ask("again"), "again");
}

/// A host of two libraries in a directory, with this port for echo and one of the kernel for chat.
fn two_libraries(dir: &Path, echo: u16) -> std::path::PathBuf {
    let handlers = dir.join("handlers");
    std::fs::create_dir(&handlers).expect("a directory");
    for name in ["libecho.so", "libchat.so"] {
        install(&built(name), &handlers.join(name));
    }
    let file = dir.join("greenroom.toml");
    let more = format!("handlers = [{handlers:?}]\n[service.chat]\nlisten = [\"127.0.0.1:0\"]\n");
    write(&file, &format!("\"127.0.0.1:{echo}\""), &more);
    file
}

/// A port is another process's when the host starts. The other library serves, `status` says what
/// is missing, and the first one serves once the port is free.
#[test]
fn a_library_whose_port_is_taken_at_the_start_serves_later() {
    let dir = tempfile::tempdir().expect("a directory");
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = other.local_addr().expect("an address");
    let file = two_libraries(dir.path(), addr.port());

    let host = serve(&file, &[]);

    assert!(host.addr("chat").port() > 0);
    let failing = host.json(&["status", "--json"])["host"]["failing"].to_string();
    assert!(failing.contains("libecho.so") && failing.contains("Address already in use"), "{failing}");
    wait_for("the load to be tried again", || {
        (host.log().matches("libecho.so: refused").count() > 2).then_some(())
    });
    let lines = host.json(&["history", "--json"]);
    let refused = lines.as_array().expect("lines").iter().filter(|l| l["outcome"] == "refused").count();
    assert_eq!(refused, 1, "{lines}");
    assert_eq!(
        host.log().lines().filter(|l| l.contains("WARN") && l.contains("libecho.so: refused")).count(),
        1
    );

    drop(other);
    wait_for("the port", || std::net::TcpStream::connect(addr).is_ok().then_some(()));
    assert_eq!(Client::connect(addr).ask("hello"), "hello");
    let status = host.json(&["status", "--json"]);
    assert_eq!(status["host"]["failing"].as_array().map_or(0, Vec::len), 0, "{status}");
}

/// A successor asks for such a load again, also where files are not watched.
#[test]
fn a_library_whose_port_is_taken_serves_later_although_its_worker_dies() {
    let dir = tempfile::tempdir().expect("a directory");
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = other.local_addr().expect("an address");
    let file = two_libraries(dir.path(), addr.port());
    let host = Host::serve_with(&[], &[], |c| {
        c.arg("--config").arg(&file).arg("--no-watch");
    });

    host.kill_worker();
    drop(other);

    wait_for("the port", || std::net::TcpStream::connect(addr).is_ok().then_some(()));
    assert_eq!(Client::connect(addr).ask("hello"), "hello");
}

/// A host that could serve nothing, as all ports are taken, ends: it would count as started.
#[test]
fn a_start_at_which_all_ports_are_taken_fails() {
    let dir = tempfile::tempdir().expect("a directory");
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = other.local_addr().expect("an address").port();
    let file = two_libraries(dir.path(), port);
    std::fs::remove_file(dir.path().join("handlers/libchat.so")).expect("a file");
    let mut command = std::process::Command::new(built("greenroom"));
    command.arg("serve").arg("--config").arg(&file).env("GREENROOM_RUNTIME", dir.path().join("run"));

    let out = command.output().expect("greenroom");

    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("127.0.0.1:{port}")) && said.contains("Address already in use"), "{said}");
    assert!(!String::from_utf8_lossy(&out.stdout).contains("ready"));
}

#[test]
fn a_port_moves_to_all_addresses_and_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let (file, port) = (dir.path().join("greenroom.toml"), free_port());
    let (narrow, wide) = (format!("\"127.0.0.1:{port}\""), format!("\"0.0.0.0:{port}\""));
    write(&file, &narrow, "");
    let host = serve(&file, &[&built("libecho.so")]);
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let elsewhere = SocketAddr::from(([127, 0, 0, 2], port));
    let mut old = Client::connect(addr);
    assert_eq!(old.ask("hello"), "hello");

    for (listen, is_wide) in [(&wide, true), (&narrow, false), (&wide, true)] {
        write(&file, listen, "");
        let out = host.cli(&["reload", "--config"]);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        assert_eq!(Client::connect(addr).ask("moved"), "moved");
        wait_for("the old address", || {
            (std::net::TcpStream::connect(elsewhere).is_ok() == is_wide).then_some(())
        });
        assert_eq!(old.ask("still"), "still");
    }

    // Both at once can't be, and nothing changes.
    write(&file, &format!("{narrow}, {wide}"), "");
    let out = host.cli(&["reload", "--config"]);
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(!out.status.success() && said.contains("which is part of"), "{said}");
    assert_eq!(Client::connect(addr).ask("on"), "on");
}
