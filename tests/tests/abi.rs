//! The ABI from C's side: the header says what Rust says, and a handler in C is served.

use greenroom_state::abi;
use greenroom_tests::client::Client;
use greenroom_tests::fixture::compile_c;
use greenroom_tests::host::Host;
use std::fmt::Write;
use std::mem::offset_of;
use std::process::Command;

/// A C program that prints facts from the header, and the text that it is to print.
struct Printer {
    program: String,
    expected: String,
}

/// Has a C program print a struct's size and offsets, and expects those of Rust's.
macro_rules! compare {
    ($printer:ident, $c:literal = $rust:ty { $($field:ident),+ }) => {
        $printer.number(&format!("sizeof({})", $c), size_of::<$rust>());
        $(
            let field = format!("offsetof({}, {})", $c, stringify!($field));
            $printer.number(&field, offset_of!($rust, $field));
        )+
    };
}

impl Printer {
    fn new() -> Printer {
        let program = "#include <stddef.h>\n#include <stdio.h>\n#include \"greenroom.h\"\nint main(void) {\n";
        Printer { program: program.to_owned(), expected: String::new() }
    }

    /// Prints a number of C's, and expects a number of Rust's.
    fn number(&mut self, c: &str, rust: usize) {
        writeln!(self.program, "printf(\"%s %zu\\n\", \"{c}\", (size_t){c});").unwrap();
        writeln!(self.expected, "{c} {rust}").unwrap();
    }

    /// Compiles and runs the program, and compares.
    fn check(mut self) {
        self.program.push_str("return 0;\n}\n");
        let dir = tempfile::tempdir().unwrap();
        let (source, binary) = (dir.path().join("layout.c"), dir.path().join("layout"));
        std::fs::write(&source, self.program).unwrap();
        let include = greenroom_tests::root().join("state-schema/include");
        let mut cc = Command::new("cc");
        cc.args(["-std=c11", "-Wall", "-Wextra", "-pedantic", "-I"]).arg(include);
        assert!(cc.arg(&source).arg("-o").arg(&binary).status().unwrap().success());

        let printed = Command::new(&binary).output().unwrap();

        assert_eq!(String::from_utf8(printed.stdout).unwrap(), self.expected);
    }
}

#[test]
fn a_batch_has_the_same_layout_in_c_and_rust() {
    let mut printer = Printer::new();
    compare!(printer, "gr_bytes" = abi::Bytes<'static> { ptr, len });
    compare!(printer, "gr_sink" = abi::Sink { ctx, put });
    compare!(printer, "gr_action" = abi::Action<'static> { kind, detail, data, name, from });
    compare!(printer, "gr_batch" = abi::Batch<'static> {
        size, state_version, has_state, action_stride, actions, action_count, state, session, now_ns
    });
    compare!(
        printer,
        "gr_stats" = abi::Stats {
            size,
            reserved,
            sessions,
            service_sessions,
            turns,
            faults,
            generation,
            uptime_ns,
            store_bytes,
            store_bytes_max
        }
    );
    compare!(printer, "gr_fault" = abi::fault::Fault<'static> { size, kind, message, file, line });
    compare!(printer, "gr_log_event" = abi::level::LogEvent<'static> { size, level, target, message });

    printer.check();
}

#[test]
fn the_hosts_functions_have_the_same_layout_in_c_and_rust() {
    let mut printer = Printer::new();
    compare!(
        printer,
        "gr_host" = abi::Host {
            size,
            log_level,
            turn_ok,
            turn_failed,
            state,
            peer,
            send,
            close,
            subscribe,
            unsubscribe,
            broadcast,
            table_get,
            table_put,
            table_delete,
            table_next,
            log,
            table_len,
            set_timer,
            cancel_timer,
            note,
            publish,
            start_job,
            cancel_job,
            connect,
            wait_for,
            hold,
            send_line,
            close_with,
            fact,
            page,
            negotiate,
            subnegotiate,
            prompt,
            send_datagram,
            start_tls,
            connect_tls,
            wall,
            register_name,
            unregister_name,
            whereis,
            name_next,
            wake,
            broadcast_any,
            send_to,
            close_session,
            topic_len,
            topic_next,
            wake_when_drained,
            unsent,
            session_next,
            table_seek,
            table_drop_prefix,
            table_put_until,
            frame_max,
            idle_after,
            allow,
            random,
            stats,
            fault_reply
        }
    );

    printer.check();
}

#[test]
fn a_library_has_the_same_layout_in_c_and_rust() {
    let mut printer = Printer::new();
    compare!(
        printer,
        "gr_service" = abi::Service {
            size,
            state_version,
            name,
            port,
            flags,
            framing,
            frame_bytes_max,
            migration_count,
            migrations,
            state_schema,
            create,
            destroy,
            run,
            downgrade_count,
            table_count,
            downgrades,
            tables,
            table_stride,
            reserved2,
            convert,
            job,
            framing_parameters,
            endpoint_count,
            endpoint_stride,
            endpoints,
            page,
            cut,
            encode
        }
    );
    compare!(
        printer,
        "gr_offered_endpoint" =
            abi::OfferedEndpoint { size, framing, framing_parameters, port, flags, reserved }
    );
    compare!(
        printer,
        "gr_frame_cut" = abi::framing::FrameCut { size, state_len, state, consumed, message_at, message_len }
    );
    compare!(
        printer,
        "gr_table" = abi::table::Table {
            size,
            version,
            name,
            schema,
            migration_count,
            downgrade_count,
            migrations,
            downgrades,
            flags,
            reserved
        }
    );
    compare!(
        printer,
        "gr_library" =
            abi::Library { size, abi_major, abi_minor, name, services, service_count, service_stride }
    );

    printer.check();
}

#[test]
fn constants_have_the_same_values_in_c_and_rust() {
    let mut printer = Printer::new();
    let numbers = [
        ("GR_ABI_MAJOR", u32::from(abi::MAJOR)),
        ("GR_ABI_MINOR", u32::from(abi::MINOR)),
        ("GR_ABSENT", abi::status::ABSENT),
        ("GR_LIMIT", abi::status::LIMIT),
        ("GR_INVALID", abi::status::INVALID),
        ("GR_MESSAGE", abi::action::MESSAGE),
        ("GR_CLOSED", abi::action::CLOSED),
        ("GR_BROKEN", abi::closed::BROKEN),
        ("GR_STOPPING", abi::closed::STOPPING),
        ("GR_BY_OPERATOR", abi::closed::OPERATOR),
        ("GR_LINES", abi::framing::LINES),
        ("GR_LENGTH_PREFIX", abi::framing::LENGTH_PREFIX),
        ("GR_DELIMITER", abi::framing::DELIMITER),
        ("GR_TELNET", abi::framing::TELNET),
        ("GR_WEBSOCKET", abi::framing::WEBSOCKET),
        ("GR_PAGE", abi::action::PAGE),
        ("GR_DATAGRAM", abi::action::DATAGRAM),
        ("GR_DATAGRAMS", abi::framing::DATAGRAMS),
        ("GR_PEER", abi::framing::PEER),
        ("GR_CUSTOM", abi::framing::CUSTOM),
        ("GR_CUSTOM_STATE_MAX", abi::framing::CUSTOM_STATE_BYTES_MAX as u32),
        ("GR_CUT_FAILED", abi::framing::cut::FAILED),
        ("GR_NEGOTIATED", abi::action::NEGOTIATED),
        ("GR_SUBNEGOTIATION", abi::action::SUBNEGOTIATION),
        ("GR_FAULT_STATE", abi::fault::STATE),
        ("GR_LOG_TRACE", abi::level::TRACE),
        ("GR_BROADCAST_OTHERS", abi::BROADCAST_OTHERS),
        ("GR_BROADCAST_LINE", abi::BROADCAST_LINE),
        ("GR_EXPIRED", abi::action::EXPIRED),
        ("GR_DIALOGUE", abi::action::DIALOGUE),
        ("GR_FAULT_DIALOGUE", abi::fault::DIALOGUE),
        ("GR_TABLE_HEARS_OF_EXPIRY", abi::table::HEARS_OF_EXPIRY),
        ("GR_TABLE_READS_KEYS", abi::table::READS_KEYS),
        ("GR_KEY_OF", abi::table::KEY_OF),
        ("GR_TABLE_BACKWARDS", abi::table::BACKWARDS),
        ("GR_TABLE_KEY_ALONE", abi::table::KEY_ALONE),
        ("GR_RUN_STATE_LOST", abi::RUN_STATE_LOST),
    ];
    for (name, value) in numbers {
        printer.number(name, value as usize);
    }

    printer.check();
}

/// The header alone, with a note as each library has one, in both languages and without a warning.
#[test]
fn the_header_is_c_and_cpp() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("alone.c");
    let text = "#include \"greenroom.h\"\nGR_NOTE(\"abi=1.0\\n\")\nconst gr_library *entry(void);\n";
    std::fs::write(&source, text).unwrap();
    let include = greenroom_tests::root().join("state-schema/include");
    for (compiler, language) in [("cc", ["-xc", "-std=c11"]), ("g++", ["-xc++", "-std=c++17"])] {
        let mut command = Command::new(compiler);
        command.args(language).args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", "-I"]);
        let out = command.arg(&include).arg(&source).output().unwrap();
        assert!(out.status.success(), "{compiler}: {}", String::from_utf8_lossy(&out.stderr));
    }
}

#[test]
fn a_handler_in_c_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let library = dir.path().join("libupper.so");
    compile_c("upper.c", &[], &library);
    let host = Host::serve(&["upper"], &[&library]);
    let mut peer = Client::connect(host.addr("upper"));

    assert_eq!(peer.ask("hello"), "1 HELLO");

    // The turn in the middle fails alone, although all three may come in one batch.
    peer.send("two\nbad\nthree\n");
    assert_eq!(peer.line().unwrap(), "2 TWO");
    assert_eq!(peer.line().unwrap(), "3 THREE");
    assert_eq!(host.service("upper")["faults"], 1);
    host.wait_log("bad is not allowed at");
    let dump = host.json(&["state", "dump"]);
    assert_eq!(dump["sessions"][0]["state"], serde_json::json!({"lines": 3}));

    // A handler that doesn't keep the rules loses its turn, not the host.
    peer.send("late\n");
    greenroom_tests::wait_for("the fault", || (host.service("upper")["faults"] == 2).then_some(()));
    assert_eq!(peer.ask("four"), "4 FOUR");

    // Neither does one that was built before the ABI had what it has now.
    let older = dir.path().join("older.so");
    compile_c("upper.c", &["-DABI_1_0"], &older);
    let (code, report) = host.reload_from("upper", &older);
    assert_eq!(
        (code, &report["generation"], &report["rehearsal"]["sessions"]),
        (Some(0), &2.into(), &1.into()),
        "{report}"
    );
    assert_eq!(peer.ask("five"), "5 FIVE");

    // Numbers of each width, as an operator's edit writes them.
    for n in [6, 200, 60_000, 70_000] {
        let set = host.cli(&["state", "set", "1", &format!("lines={n}")]);
        assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
        assert_eq!(peer.ask("more"), format!("{} MORE", n + 1));
    }
}

/// Builds of each minor version are served by one host, beside the state that the one before left:
/// swapped up and down, and taken over by another process.
#[test]
fn libraries_of_each_minor_version_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let builds: Vec<_> = (0..=abi::MINOR)
        .map(|minor| {
            let library = dir.path().join(format!("minors{minor}.so"));
            compile_c("minors.c", &[&format!("-DMINOR={minor}")], &library);
            library
        })
        .collect();
    let host = Host::serve(&["minors"], &[&builds[0]]);
    let mut peer = Client::connect(host.addr("minors"));
    let mut lines = 0;
    let mut talks = |peer: &mut Client, minor: u16| {
        lines += 1;
        let calls =
            [(0, " table"), (2, " note"), (4, " fact"), (5, " wall"), (6, " stats"), (7, " fault_reply")];
        let did: String = calls.iter().filter(|(since, _)| *since <= minor).map(|(_, call)| *call).collect();
        assert_eq!(peer.ask("more"), format!("{lines} 1.{minor}{did}"));
        if minor >= 2 {
            assert_eq!(peer.line().unwrap(), "noted");
        }
    };
    talks(&mut peer, 0);
    let up = 1..=abi::MINOR;
    for minor in up.chain((0..abi::MINOR).rev()) {
        let (code, report) = host.reload_from("minors", &builds[usize::from(minor)]);
        assert_eq!((code, &report["rehearsal"]["sessions"]), (Some(0), &1.into()), "{report}");
        talks(&mut peer, minor);
        host.kill_worker();
        talks(&mut peer, minor);
        peer.send("fail\n");
        if minor >= 7 {
            assert_eq!(peer.line().unwrap(), "it failed");
        }
    }
    assert_eq!(host.json(&["state", "dump"])["sessions"][0]["state"]["lines"], lines);
}

/// A framing in C, whose state is kept across a swap. What breaks its rules is closed.
#[test]
fn a_handler_in_c_has_a_framing_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|end| {
        let library = dir.path().join(format!("{end}.so"));
        let end = format!("-DEND=\" {end}\"");
        compile_c("upper.c", &["-DOWN_FRAMING", &end], &library);
        library
    });
    let host = Host::serve(&["upper"], &[&one]);
    let mut peer = Client::connect(host.addr("upper"));

    peer.send("0hello;1wor");
    assert_eq!(peer.line().unwrap(), "1 HELLO one");
    let (code, report) = host.reload_from("upper", &two);
    assert_eq!(code, Some(0), "{report}");
    peer.send("ld;3no;");
    assert_eq!(peer.line().unwrap(), ";2 WORLD two");
    assert_eq!(peer.line(), None);
    host.wait_log("closed: its framing refuses the input: a number is missing");
}
