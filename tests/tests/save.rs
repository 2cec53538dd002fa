//! Tables on disk outlive the host: through a stop, a kill of the keeper, and a damaged file.

use greenroom_tests::client::Client;
use greenroom_tests::fixture::{compile_c, install, nicks_build};
use greenroom_tests::host::Host;
use greenroom_tests::{built, wait_for};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

fn serve(config: &Path) -> Host {
    Host::serve_with(&["chat"], &[&nicks_build("save_nicks")], |c| {
        c.arg("--config").arg(config);
    })
}

fn nicks(host: &Host) -> Value {
    host.json(&["state", "dump"])["tables"].clone()
}

/// A client whose nick is in a table, until the handler is told that it has gone.
fn person(host: &Host, nick: &str) -> Client {
    let mut client = Client::connect(host.addr("chat"));
    client.line().expect("a welcome");
    client.send(format!("{nick}\n"));
    wait_for("the nick in a table", || nicks(host).to_string().contains(nick).then_some(()));
    client
}

#[test]
fn tables_outlive_the_host() {
    let dir = tempfile::tempdir().expect("a directory");
    let (config, file) = (dir.path().join("greenroom.toml"), dir.path().join("kept/tables"));
    std::fs::write(&config, "[save]\nfile = \"kept/tables\"\nevery_s = 1\n").expect("a configuration");
    let mut host = serve(&config);
    let _ann = person(&host, "ann");
    let before = nicks(&host);

    // Nobody may stop the host in an orderly way: what was saved while it ran counts.
    let saved_at = |path: &Path| path.metadata().and_then(|m| m.modified()).ok();
    let first = wait_for("a save", || saved_at(&file));
    wait_for("a save of all that", || saved_at(&file).filter(|at| *at > first));
    wait_for("another", || saved_at(&file).filter(|at| *at > first + std::time::Duration::from_millis(900)));
    host.kill();

    let mut host = serve(&config);
    assert_eq!(nicks(&host), before, "as it was saved");
    host.wait_log("read from");
    let _bob = person(&host, "bob");
    // Tables may name sessions, so their numbers go on.
    assert_eq!(host.json(&["sessions", "--json"])[0]["id"], 2);

    host.signal(libc::SIGTERM);
    assert_eq!(host.wait(), Some(0));
    // Bob was told to go before the end, and ann is the dead host's.
    let mut host = serve(&config);
    assert_eq!(nicks(&host), before);
    host.signal(libc::SIGTERM);
    assert_eq!(host.wait(), Some(0));

    let mut bytes = std::fs::read(&file).expect("the file");
    let at = bytes.len() / 2;
    bytes[at] ^= 0xff;
    std::fs::write(&file, &bytes).expect("damage");

    let host = serve(&config);
    host.wait_log("its checksum is wrong; kept as");
    let log = host.log();
    let line = log.lines().find(|l| l.contains("its checksum is wrong; kept as")).expect("a line about it");
    assert!(line.contains("kept/tables"), "{line}");
    assert_eq!(nicks(&host), serde_json::json!({}));
    let aside = line.rsplit_once("kept as ").expect("where").1;
    assert_eq!(std::fs::read(aside).expect("the damaged file"), bytes);
}

/// Nobody may replace a good file by less: neither a start without it, nor a save that fails.
#[test]
fn a_good_file_is_never_replaced_by_less() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("greenroom.toml");
    std::fs::write(&config, "[save]\nfile = \"kept/tables\"\n").expect("a configuration");
    let file = dir.path().join("kept/tables");
    let elsewhere = dir.path().join("elsewhere");
    let mut host = serve(&config);
    let _ann = person(&host, "ann");
    host.signal(libc::SIGTERM);
    assert_eq!(host.wait(), Some(0));
    // Only the host's user may read it.
    let mode = |path: &Path| path.symlink_metadata().expect("the file").permissions().mode() & 0o777;
    assert_eq!(mode(&file), 0o600);

    // It may be a link, and stays one.
    std::fs::rename(&file, &elsewhere).expect("moved");
    std::os::unix::fs::symlink(&elsewhere, &file).expect("a link");
    let mut host = serve(&config);
    let _bob = person(&host, "bob");
    host.signal(libc::SIGTERM);
    assert_eq!(host.wait(), Some(0));
    assert!(file.symlink_metadata().expect("the link").is_symlink());
    let good = std::fs::read(&elsewhere).expect("the file");

    // Without room for its tables, and with a file that can't be read, no host starts.
    let refused = |config: &Path| {
        let mut command = std::process::Command::new(built("greenroom"));
        command.args(["serve", "--config"]).arg(config).args(["--listen", "chat=127.0.0.1:0"]);
        command.arg(nicks_build("save_nicks")).env("GREENROOM_RUNTIME", dir.path().join("run"));
        let out = command.output().expect("greenroom serve");
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let unreadable = dir.path().join("unreadable.toml");
    std::fs::write(&unreadable, "[save]\nfile = \"kept\"\n").expect("a configuration");
    let (code, said) = refused(&unreadable);
    assert!(code == Some(1) && said.contains("can't be read"), "{code:?}: {said}");
    assert_eq!(std::fs::read(&elsewhere).expect("the file"), good);
}

#[test]
fn tables_that_cannot_be_saved_are_a_failure() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("greenroom.toml");
    std::fs::write(&config, "[save]\nfile = \"kept/tables\"\n").expect("a configuration");
    let mut host = serve(&config);
    let _ann = person(&host, "ann");
    // A file where the directory should be: as good as a full disk.
    std::fs::remove_dir_all(dir.path().join("kept")).expect("the directory");
    std::fs::write(dir.path().join("kept"), "").expect("a file");

    host.signal(libc::SIGTERM);
    assert_eq!(host.wait(), Some(1));
    host.wait_log("the tables cannot be saved to");
}

/// Another host has come to save to the file, as the lock was deleted. The first one leaves the
/// file alone, in time and at the end, and says so.
#[test]
fn a_host_that_has_lost_its_lock_does_not_save() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("greenroom.toml");
    std::fs::write(&config, "[save]\nfile = \"kept/tables\"\nevery_s = 1\n").expect("a configuration");
    let (file, lock) = (dir.path().join("kept/tables"), dir.path().join("kept/tables.lock"));
    let mut host = serve(&config);
    let failing = || host.json(&["status", "--json"])["host"]["failing"].to_string();
    wait_for("a save", || file.exists().then_some(()));
    let _ann = person(&host, "ann");

    // The lock of a host that is somebody else: this test.
    let taken = dir.path().join("taken");
    std::fs::write(&taken, std::process::id().to_string()).expect("a file");
    let held = std::fs::File::open(&taken).expect("the file");
    held.try_lock().expect("a lock");
    std::fs::rename(&taken, &lock).expect("its place");
    std::fs::write(&file, "GREENROOM TABLES 2\nof the other host").expect("its tables");

    wait_for("the reason", || failing().contains("tables.lock is not this host's").then_some(()));
    host.signal(libc::SIGTERM);
    assert_eq!(host.wait(), Some(1));
    let kept = std::fs::read_to_string(&file).expect("the file");
    assert_eq!(kept, "GREENROOM TABLES 2\nof the other host");
    let log = host.log();
    let aside = log.split("they are kept as ").nth(1).and_then(|l| l.lines().next()).expect("where");
    let own = std::fs::read(aside).expect("its own tables");
    assert!(own.starts_with(b"GREENROOM TABLES 2\n") && own.len() > 100, "{}", own.len());
    assert_eq!(std::fs::read_dir(dir.path().join("kept")).expect("the directory").count(), 3);
}

/// A host of one process that cannot save says so by its exit code, too.
#[test]
fn a_save_that_fails_is_a_failure_without_a_keeper() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("greenroom.toml");
    std::fs::write(&config, "[save]\nfile = \"kept/tables\"\n").expect("a configuration");
    let mut host = Host::serve_with(&["chat"], &[&nicks_build("save_nicks")], |c| {
        c.arg("--no-keeper").arg("--config").arg(&config);
    });
    let _ann = person(&host, "ann");
    std::fs::remove_dir_all(dir.path().join("kept")).expect("the directory");
    std::fs::write(dir.path().join("kept"), "").expect("a file");

    host.signal(libc::SIGTERM);

    assert_eq!(host.wait(), Some(1));
    host.wait_log("the tables cannot be saved to");
}

/// Files that are none of tables stay as they are, and two hosts never save to one file.
#[test]
fn only_a_file_of_tables_is_replaced_and_by_one_host() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    let config = at("greenroom.toml");
    let starts = |run: &str| {
        let mut command = std::process::Command::new(built("greenroom"));
        command.args(["serve", "--config"]).arg(&config).args(["--listen", "chat=127.0.0.1:0"]);
        command.arg(nicks_build("save_nicks")).env("GREENROOM_RUNTIME", at(run));
        let out = command.output().expect("greenroom serve");
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let text = "somebody's notes, longer than a checksum and a first line\n";
    std::fs::write(at("notes"), text).expect("a file");
    std::os::unix::fs::symlink("/nonexistent/disk/tables", at("link")).expect("a link");
    std::os::unix::fs::symlink(at("notes"), at("link to notes")).expect("a link");
    std::fs::create_dir(at("folder")).expect("a folder");
    let made = std::process::Command::new("mkfifo").arg(at("fifo")).status();
    assert!(made.is_ok_and(|status| status.success()));
    for (file, why) in [
        ("notes", "is no file of saved tables"),
        ("link to notes", "is no file of saved tables"),
        ("greenroom.toml", "is no file of saved tables"),
        ("link", "/nonexistent/disk/tables, which is not there"),
        ("folder", "it is not a file"),
        ("fifo", "it is not a file"),
        ("notes/below", "can't be"),
    ] {
        std::fs::write(&config, format!("[save]\nfile = \"{file}\"\n")).expect("a configuration");
        let (code, said) = starts("run");
        assert!(
            code == Some(1) && said.contains("save.file: ") && said.contains(why),
            "{file}: {code:?} {said}"
        );
        let checked = std::process::Command::new(built("greenroom"))
            .args(["serve", "--check-config", "--config"])
            .arg(&config)
            .arg(nicks_build("save_nicks"))
            .output()
            .expect("greenroom serve --check-config");
        assert_eq!(checked.status.code(), Some(1), "{file}: {checked:?}");
    }
    assert_eq!(std::fs::read_to_string(at("notes")).expect("the notes"), text);
    assert!(at("link to notes").is_symlink() && at("fifo").exists() && at("folder").is_dir());

    std::fs::write(&config, "[save]\nfile = \"kept/tables\"\n").expect("a configuration");
    let mut host = serve(&config);
    let _ann = person(&host, "ann");
    let (code, said) = starts("other");
    let used = format!("is used by the host with pid {}", host.pid());
    assert!(code == Some(1) && said.contains(&used), "{code:?}: {said}");
    // A device in the place, while the host runs: the save fails, and the device stays.
    std::os::unix::fs::symlink("/dev/null", at("kept/tables")).expect("a link");
    host.signal(libc::SIGTERM);
    assert_eq!(host.wait(), Some(1));
    host.wait_log("/dev/null is not a file");
    assert!(at("kept/tables").is_symlink() && !at("kept/tables.new").exists());
}

/// A host on a disk of `fixtures/slow_disk.c`, which takes its times from the file `disk`.
fn serve_on_slow_disk(config: &Path, library: &Path, disk: &Path) -> Host {
    Host::serve_with(&["chat"], &[&nicks_build("save_nicks")], |c| {
        c.arg("--config").arg(config).env("LD_PRELOAD", library).env("SLOW_DISK", disk);
    })
}

/// The disk is slower than all the time that a stop leaves for it. The save goes on while it moves.
#[test]
fn a_slow_disk_costs_no_tables_and_holds_up_nobody() {
    let dir = tempfile::tempdir().expect("a directory");
    let (library, disk) = (dir.path().join("slow.so"), dir.path().join("disk"));
    compile_c("slow_disk.c", &[], &library);
    let (config, file) = (dir.path().join("greenroom.toml"), dir.path().join("kept/tables"));
    let write = |path: &Path, text: &str| std::fs::write(path, text).expect("a file");

    write(&config, "[limits]\nstop_ms = 100\n[save]\nfile = \"kept/tables\"\nevery_s = 1\n");
    let mut host = serve(&config);
    let _ann = person(&host, "ann");
    let before = nicks(&host);
    let holds_ann = || std::fs::read(&file).is_ok_and(|all| all.windows(3).any(|three| three == b"ann"));
    wait_for("a save", || holds_ann().then_some(()));
    host.kill();

    // Its save in time hangs at the directory, and everybody is served.
    write(&disk, "0 3600000");
    let saved_at = || file.metadata().and_then(|m| m.modified()).expect("the file");
    let at = saved_at();
    let mut host = serve_on_slow_disk(&config, &library, &disk);
    wait_for("a save that is renamed", || (saved_at() > at).then_some(()));
    let mut bob = person(&host, "bob");
    assert_eq!(bob.line().expect("a greeting"), "* bob is here");
    assert_eq!(bob.ask("hello"), "bob: hello");

    write(&disk, "5500 0");
    host.signal(libc::SIGTERM);
    assert_eq!(host.wait(), Some(0), "{}", host.log());
    host.wait_log("1 table entries saved to");
    let good = std::fs::read(&file).expect("the file");

    // A save that moves no more has a limit.
    write(&disk, "0 0");
    write(&config, "[limits]\nsave_ms = 300\n[save]\nfile = \"kept/tables\"\n");
    let mut host = serve_on_slow_disk(&config, &library, &disk);
    assert_eq!(nicks(&host), before);
    write(&disk, "3600000 0");
    host.signal(libc::SIGTERM);
    assert_eq!(host.wait(), Some(1));
    host.wait_log("the save has not moved for 300 ms (limit save_ms)");
    assert_eq!(std::fs::read(&file).expect("the file"), good);
}

/// Failures are in the status until a success: of a save, of a configuration, of a library that
/// was found.
#[test]
fn what_fails_is_in_the_status() {
    let dir = tempfile::tempdir().expect("a directory");
    let (config, kept) = (dir.path().join("greenroom.toml"), dir.path().join("kept"));
    let libraries = dir.path().join("libraries");
    std::fs::create_dir(&libraries).expect("a directory");
    install(&nicks_build("save_nicks"), &libraries.join("libchat.so"));
    let bad = libraries.join("libupper.so");
    compile_c("upper.c", &["-DEXIT_ON_LOAD"], &bad);
    std::fs::write(&config, "[save]\nfile = \"kept/tables\"\nevery_s = 1\n").expect("a configuration");
    let host = Host::serve_with(&["chat"], &[&libraries], |c| {
        c.arg("--config").arg(&config);
    });
    let refused = host.json(&["status", "--json"])["host"]["failing"][0].take();
    assert_eq!(refused["what"], format!("library {}", bad.display()));
    assert!(refused["why"].as_str().expect("a reason").contains("exit status"), "{refused}");
    // Told once for people, in one line.
    let text = String::from_utf8(host.cli(&["status"]).stdout).expect("UTF-8");
    let lines: Vec<_> = text.lines().filter(|l| l.contains("libupper.so")).collect();
    assert_eq!(lines.len(), 1, "{text}");
    assert!(lines[0].starts_with("failing: library ") && lines[0].contains("; it holds build "), "{text}");
    std::fs::remove_file(&bad).expect("removed");
    wait_for("the library to be forgotten", || {
        (host.json(&["status", "--json"])["host"]["failing"] == serde_json::json!([])).then_some(())
    });
    // A file where the directory should be: as good as a full disk.
    wait_for("a save", || kept.join("tables").exists().then_some(()));
    wait_for("its directory to go", || std::fs::remove_dir_all(&kept).ok());
    std::fs::write(&kept, "").expect("a file");
    let failing = || host.json(&["status", "--json"])["host"]["failing"].take();
    let found = wait_for("a second failure", || Some(failing()).filter(|f| f[0]["times"] == 2));
    assert_eq!(found[0]["what"], "save");
    assert!(found[0]["why"].as_str().expect("a reason").contains("kept/tables: "), "{found}");
    assert!(found[0]["since"].as_str().expect("a time").ends_with('Z'));
    let text = String::from_utf8(host.cli(&["status"]).stdout).expect("text");
    assert!(text.contains("failing: save, ") && text.contains(" times since 20"), "{text}");
    // The row outlives the worker that reported it.
    host.kill_worker();
    assert_eq!(failing()[0]["since"], found[0]["since"]);

    // So is a configuration that is refused.
    std::fs::write(&config, "nonsense = 1\n").expect("a configuration");
    assert_eq!(host.cli(&["reload", "--config"]).status.code(), Some(1));
    assert_eq!(failing()[0]["what"], "configuration");
    std::fs::write(&config, "[save]\nfile = \"kept/tables\"\nevery_s = 1\n").expect("a configuration");
    assert_eq!(host.cli(&["reload", "--config"]).status.code(), Some(0));
    assert_eq!(failing()[0]["what"], "save");

    std::fs::remove_file(&kept).expect("removed");
    wait_for("a save", || (failing() == serde_json::json!([])).then_some(()));
}

#[test]
fn output_that_nobody_can_hold_is_a_failure() {
    let host = serve(tempfile::NamedTempFile::new().expect("a configuration").path());
    let _ann = person(&host, "ann");
    for command in [&["state", "dump"][..], &["status"], &["sessions"], &["status", "--json"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
        let out = host.command(command).stdout(full).output().expect("greenroom");
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(1) && said.contains("No space left"), "{command:?}: {said}");
        // What is printed to a closed standard output is lost, too.
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", "exec \"$0\" \"$@\" >&-"]).arg(built("greenroom")).args(command);
        let out = shell.env("GREENROOM_RUNTIME", host.runtime()).output().expect("a shell");
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(1) && said.contains("is closed"), "{command:?}: {said}");
    }
}
