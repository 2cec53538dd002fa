//! Files of the package: unit, users, cleaning, configuration, manual. They are what systemd and
//! the host take them for.

use greenroom_tests::fixture::install;
use greenroom_tests::{built, root};
use std::path::PathBuf;
use std::process::{Command, Output};

/// Highest exposure that `systemd-analyze security` may find, in tenths: "OK" ends at 5.
const EXPOSURE_MAX: &str = "22";

/// File of the package.
fn file(name: &str) -> PathBuf {
    root().join("host/package").join(name)
}

/// File of the package, as text.
#[track_caller]
fn text(name: &str) -> String {
    std::fs::read_to_string(file(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Runs a command that must succeed, and returns all that it printed.
#[track_caller]
fn run(command: &mut Command) -> String {
    let out = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let all = said(&out);
    assert!(out.status.success(), "{command:?}: {all}");
    all
}

/// Both streams of a command.
fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// Unit and socket are right for the systemd of this machine, and the unit is hardened.
#[test]
fn systemd_finds_no_fault_with_unit_and_socket() {
    let dir = tempfile::tempdir().expect("a directory");
    let [unit, socket] = ["greenroom.service", "greenroom.socket"].map(|name| {
        let binary = built("greenroom");
        let text = text(name).replace("/usr/bin/greenroom", binary.to_str().expect("UTF-8"));
        std::fs::write(dir.path().join(name), text).expect("a file");
        dir.path().join(name)
    });
    let analyze = || Command::new("systemd-analyze");
    let said = run(analyze().args(["verify", "--man=no", "--recursive-errors=no"]).args([&unit, &socket]));
    assert_eq!(said, "");
    let security = ["security", "--offline=true", "--no-pager", "--threshold", EXPOSURE_MAX];
    run(analyze().args(security).arg(&unit));

    // A name that systemd does not know is a line of the verdict.
    std::fs::write(&unit, text("greenroom.service").replace("WatchdogSec", "WatchdogSecs")).expect("a file");
    let out = analyze().args(["verify", "--man=no"]).arg(&unit).output().expect("systemd-analyze");
    assert!(self::said(&out).contains("WatchdogSecs"), "{out:?}");
}

/// The user is made, and cleaning leaves files of hosts alone, whatever their age.
#[test]
fn the_user_is_made_and_cleaning_leaves_files_of_hosts_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let top = format!("--root={}", dir.path().display());
    for folder in ["etc", "usr/lib", "tmp/greenroom-7/copies", "tmp/other", "run/greenroom"] {
        std::fs::create_dir_all(dir.path().join(folder)).expect("a folder");
    }
    run(Command::new("systemd-sysusers").arg(&top).arg(file("greenroom.sysusers")));
    let users = std::fs::read_to_string(dir.path().join("etc/passwd")).expect("users");
    let user = users.lines().find(|l| l.starts_with("greenroom:")).expect("a user");
    assert!(user.ends_with(":/var/lib/greenroom:/usr/sbin/nologin"), "{user}");

    let kept = ["tmp/greenroom-7/lock", "tmp/greenroom-7/copies/a.so", "run/greenroom/admin.sock"];
    for name in kept.into_iter().chain(["tmp/other/file"]) {
        std::fs::write(dir.path().join(name), "").expect("a file");
    }
    // All that is not left out is removed, however young it is.
    let clean = dir.path().join("clean.conf");
    std::fs::write(&clean, "d /tmp - - - 0\nd /run - - - 0\n").expect("a file");
    run(Command::new("systemd-tmpfiles")
        .arg(&top)
        .arg("--clean")
        .args([&clean, &file("greenroom.tmpfiles")]));
    for name in kept {
        assert!(dir.path().join(name).exists(), "{name}");
    }
    assert!(!dir.path().join("tmp/other/file").exists());
}

/// The shipped configuration is good as it is, and with every line in force that it shows.
#[test]
fn each_line_of_the_shipped_configuration_is_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let handlers = dir.path().join("handlers");
    std::fs::create_dir(&handlers).expect("a directory");
    install(&built("libchat.so"), &handlers.join("libchat.so"));
    let shipped = text("greenroom.toml")
        .replace("/usr/lib/greenroom/handlers", handlers.to_str().expect("UTF-8"))
        .replace("/var/lib/greenroom", dir.path().to_str().expect("UTF-8"));
    let check = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("a file");
        Command::new(built("greenroom")).args(["serve", "--check-config", "--config"]).arg(path).output()
    };
    let out = check("shipped.toml", &shipped).expect("greenroom");
    assert_eq!(
        said(&out),
        "chat on tcp://127.0.0.1:4000\nchat on telnet://127.0.0.1:4023\nchat on ws://127.0.0.1:4080\nthe configuration is good\n"
    );

    // A key in a comment follows its `#` at once; words follow a space.
    let lines = shipped.lines().filter(|l| !l.starts_with("#user") && !l.starts_with("#tls"));
    let all: String = lines
        .map(|l| format!("{}\n", l.strip_prefix('#').filter(|l| !l.starts_with(' ')).unwrap_or(l)))
        .collect();
    assert!(all.contains("\nstall_kill_ms = 0\n") && all.contains("\nhashes = []\n"), "{all}");
    let out = check("all.toml", &all).expect("greenroom");
    assert!(said(&out).ends_with("the configuration is good\n"), "{out:?}");
    let known = check(
        "user.toml",
        "[process]\nuser = \"no-such-user\"\n[service.x.tls]\ncertificate = \"c\"\nkey = \"k\"\n",
    );
    assert!(said(&known.expect("greenroom")).contains("there is no user no-such-user"));
}

/// Manual and completions are made from the command line itself.
#[test]
fn the_manual_has_a_page_for_each_command_and_completions_for_three_shells() {
    let dir = tempfile::tempdir().expect("a directory");
    run(Command::new(built("greenroom")).arg("manual").arg(dir.path()));
    let read =
        |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    let help = run(Command::new(built("greenroom")).arg("--help"));
    let commands = help.lines().skip_while(|l| *l != "Commands:").skip(1).take_while(|l| !l.is_empty());
    // Deeper lines continue a description.
    let names: Vec<_> =
        commands.filter(|l| !l.starts_with("   ")).filter_map(|l| l.split_whitespace().next()).collect();
    assert!(names.contains(&"serve") && names.contains(&"reload"), "{help}");
    for name in names.into_iter().filter(|n| *n != "help") {
        assert!(read(&format!("man/greenroom-{name}.1")).contains(".SH SYNOPSIS"), "{name}");
    }
    assert!(read("man/greenroom-serve.1").contains("check\\-config"));
    for hidden in ["man/greenroom-trial.1", "man/greenroom-help.1"] {
        assert!(!dir.path().join(hidden).exists(), "{hidden}");
    }
    for name in ["completions/greenroom.bash", "completions/_greenroom", "completions/greenroom.fish"] {
        assert!(read(name).contains("check-config"), "{name}");
    }
    run(Command::new("bash").arg("-n").arg(dir.path().join("completions/greenroom.bash")));
}
