//! Console in Chromium, by keyboard alone: sessions, states, reloads, rollbacks. One host and one
//! browser serve all functions.

use greenroom_tests::browser::Browser;
use greenroom_tests::client::Client;
use greenroom_tests::fixture::install;
use greenroom_tests::host::Host;
use greenroom_tests::{build_dir, built, wait_for};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

/// Sessions beside those that the test talks to.
const MANY: usize = 300;

/// Sends a request, and returns the status of the answer and all of it.
#[track_caller]
fn ask(at: SocketAddr, method: &str, path: &str, headers: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(at).expect("the observer");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time limit");
    stream.write_all(format!("{method} {path} HTTP/1.1\r\n{headers}\r\n").as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    (answer.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status"), answer)
}

/// Installs a library of other bytes in place of the one that is served.
fn install_another(dir: &Path, at: &Path, byte: u8) {
    let mut bytes = std::fs::read(built("libecho.so")).expect("a library");
    bytes.push(byte);
    let newer = dir.join("newer.so");
    std::fs::write(&newer, bytes).expect("a file");
    install(&newer, at);
}

/// Text of an element.
fn text(selector: &str) -> String {
    format!("document.querySelector('{selector}')?.textContent ?? ''")
}

/// Whether the text of an element has these words.
fn says(selector: &str, words: &str) -> String {
    format!("String((document.querySelector('{selector}')?.textContent ?? '').includes('{words}'))")
}

/// Without the token nothing is read or changed, and no page of another site gets anything.
#[track_caller]
fn check_guard(host: &Host, at: SocketAddr, token: &str) {
    let (status, page) = ask(at, "GET", "/", "Host: localhost\r\n");
    assert_eq!(status, 200);
    for header in ["default-src 'none'; script-src 'self'", "X-Content-Type-Options: nosniff", "no-store"] {
        assert!(page.contains(header), "{header}: {page}");
    }
    let (_, style) = page.split_once("\r\n\r\n").expect("a page");
    assert!(!style.contains("style=") && !style.contains("<script>") && !style.contains("//"), "{style}");
    let right = format!("Host: {at}\r\nAuthorization: Bearer {token}\r\n");
    let wrong = format!("Host: {at}\r\nAuthorization: Bearer {}x\r\n", &token[1..]);
    let evil = format!("Host: evil.example\r\nAuthorization: Bearer {token}\r\n");
    let foreign = format!("{right}Origin: http://evil.example\r\n");
    for (headers, status) in [
        (right.as_str(), 200),
        (&format!("Host: {at}\r\n"), 401),
        (&wrong, 401),
        (&evil, 403),
        (&foreign, 403),
        (&format!("{right}Origin: http://{at}\r\n"), 200),
    ] {
        assert_eq!(ask(at, "GET", "/api/sessions", headers).0, status, "{headers}");
    }
    let first = host.json(&["sessions", "--json"])[0]["id"].as_u64().expect("a session");
    for headers in [&format!("Host: {at}\r\n"), &wrong, &evil, &foreign] {
        let (status, _) = ask(at, "POST", &format!("/api/session/{first}/close"), headers);
        assert!([401, 403].contains(&status), "{headers}: {status}");
    }
    assert_eq!(host.json(&["sessions", "--json"])[0]["id"], first, "it is open still");
    assert_eq!(ask(at, "GET", "/api/session/999999", &right).0, 404);
    assert_eq!(ask(at, "POST", "/api/reload", &right).0, 400, "a body is needed");
    for path in ["/api/session/x", "/api/../console.js", "/assets/console.js", "/api/session/1/kill"] {
        assert_eq!(ask(at, "GET", path, &right).0, 404, "{path}");
    }
}

/// Each scheme and width can be read, nothing is beside the window, and all controls have names.
#[track_caller]
fn check_looks(web: &mut Browser, page: usize, name: &str) {
    let shots = build_dir().join("screenshots");
    std::fs::create_dir_all(&shots).expect("a directory");
    for scheme in ["light", "dark"] {
        for width in [360, 1280] {
            let file = shots.join(format!("console-{name}-{scheme}-{width}.png"));
            web.order(&format!("look {page} {width} {scheme} {}", file.display()));
            let contrast =
                web.contrast(page, "h1, h2, h3, p, th, td, dt, dd, button, input, output, .cell", "#search");
            assert!(contrast >= 4.5, "{name}, {scheme}, {width}: a text has a contrast of {contrast}");
            let wide = web.run(page, "document.documentElement.scrollWidth");
            assert_eq!(wide, width, "{name}, {scheme}");
        }
    }
    let unnamed = "[...document.querySelectorAll('button, input, select, [role=button], [role=grid], dialog, article')] \
        .filter(e => !(e.getAttribute('aria-label') || e.getAttribute('aria-labelledby') || e.textContent.trim() \
        || e.labels?.[0]?.textContent.trim())).map(e => e.outerHTML).join()";
    assert_eq!(web.run(page, unnamed), "", "{name}");
}

#[test]
fn operators_work_in_the_console_by_keyboard() {
    let dir = tempfile::tempdir().expect("a directory");
    let (library, config) = (dir.path().join("libecho.so"), dir.path().join("greenroom.toml"));
    install(&built("libecho.so"), &library);
    std::fs::write(&config, "watch = false\n[observe]\nlisten = \"127.0.0.1:0\"\nconsole = true\n")
        .expect("a file");
    let host = Host::serve_with(&["echo", "tally"], &[&library], |c| {
        c.arg("--config").arg(&config);
    });
    let many: Vec<_> = (0..MANY).map(|_| Client::connect(host.addr("echo"))).collect();
    let mut tally = Client::connect(host.addr("tally"));
    assert_eq!(tally.ask("one"), "1 one");
    wait_for("all sessions", || (host.service("echo")["sessions"] == MANY).then_some(()));

    let out = host.cli(&["console"]);
    let url = String::from_utf8(out.stdout).expect("UTF-8").trim().to_owned();
    let (address, token) = url.split_once("/#token=").expect("a token");
    let at: SocketAddr = address.strip_prefix("http://").and_then(|a| a.parse().ok()).expect("an address");
    assert_eq!(at, host.addr("observer http"));
    check_guard(&host, at, token);

    // Without its token the page asks for it. It keeps the token out of the address.
    let mut web = Browser::start();
    let page = web.open(&format!("{address}/"));
    web.wait(page, "String(document.getElementById('login')?.open)", "true");
    web.types(page, token);
    web.keys(page, &["Enter"]);
    web.wait(page, &text("#found"), &format!("{} sessions", MANY + 1));
    assert_eq!(web.run(page, "location.hash"), "");
    check_sessions(&mut web, page, &mut tally);
    check_looks(&mut web, page, "sessions");
    check_reloads(&mut web, page, &host, dir.path(), &library);
    check_looks(&mut web, page, "reloads");
    check_history(&mut web, page, &mut tally);

    // Deaths of worker and observer are gaps of a moment.
    host.kill_worker();
    let pid = host.json(&["status", "--json"])["host"]["observer"]["pid"].as_i64().expect("a pid");
    // SAFETY: the pid is that of a process of our host, which is not reaped before it is dead.
    unsafe { libc::kill(pid as i32, libc::SIGKILL) };
    web.wait(page, &says("#host", "1 workers before"), "true");
    web.wait(page, &text("#found"), &format!("1 of {} sessions", MANY + 1));

    // The session is closed after a question, and its panel says so.
    web.types(page, "x");
    web.wait(page, "document.activeElement.id", "ask-yes");
    web.keys(page, &["Enter"]);
    assert_eq!(tally.line(), None);
    web.wait(page, &says("#session .message", "has ended"), "true");
    web.keys(page, &["Escape"]);
    web.types(page, "?");
    web.wait(page, "String(document.getElementById('help').open)", "true");
    drop(many);
}

/// Of all sessions few rows are in the page. They are searched and sorted; one is opened.
fn check_sessions(web: &mut Browser, page: usize, tally: &mut Client) {
    let rows = web.run(page, "document.querySelectorAll('#list .row').length").as_u64().expect("a number");
    assert!((5..60).contains(&rows), "{rows} rows for {MANY} sessions");
    web.types(page, "1");
    assert_eq!(web.focus(page), "list");
    web.keys(page, &["End"]);
    web.wait(page, &text(".row.active .cell.service"), "tally");
    web.keys(page, &["Home", "ArrowDown"]);
    web.wait(page, &text(".row.active .cell.service"), "echo");
    web.types(page, "s");
    web.wait(page, "document.querySelector('[aria-sort=ascending]')?.dataset.by", "service");
    web.types(page, "S");
    web.wait(page, &text(".row.active .cell.service"), "tally");
    web.types(page, "/");
    assert_eq!(web.focus(page), "search");
    web.types(page, "service:tally");
    web.wait(page, &text("#found"), &format!("1 of {} sessions", MANY + 1));
    web.keys(page, &["Escape", "Enter"]);
    web.wait(page, &says("#session-title", "tally"), "true");
    web.wait(page, &says("#state", "count 1"), "true");
    assert_eq!(tally.ask("two"), "2 two");
    web.wait(page, &says("#state", "count 2"), "true");
    web.wait(page, &text("#diff tbody tr"), "count12");

    // The trace begins and ends by a key, and shows the turn.
    web.types(page, "t");
    web.wait(page, &says("#trace [role=status]", "waits for a turn"), "true");
    assert_eq!(tally.ask("traced"), "3 traced");
    web.wait(page, &says("#turns tbody tr", "2 → 3"), "true");
    web.wait(page, &says("#turns tbody tr", "traced"), "true");
    web.types(page, "t");
    web.wait(page, &says("#trace [role=status]", "stopped"), "true");
    // The page has seen this state of the first build before another view is opened.
    web.wait(page, &says("#state", "count 3"), "true");
}

/// A build that waits is rehearsed, refused, rehearsed again and committed. One that has changed
/// since is not committed. A rollback brings the build before back.
fn check_reloads(web: &mut Browser, page: usize, host: &Host, dir: &Path, library: &Path) {
    install_another(dir, library, 0);
    web.types(page, "2");
    web.wait(page, &says("#services tr[data-service=tally]", "waits"), "true");
    web.types(page, "r");
    web.wait(page, &text("#rehearsal-title"), "Rehearsal of echo: rehearsed");
    web.wait(page, &says("#rehearsal", "way back exact"), "true");
    assert_eq!(web.focus(page), "commit");
    web.keys(page, &["Tab"]);
    assert_eq!(web.focus(page), "refuse");
    web.keys(page, &["Enter"]);
    web.wait(page, "String(document.getElementById('rehearsal').hidden)", "true");
    assert_eq!(host.generation("echo"), 1);
    web.types(page, "r");
    web.wait(page, "document.activeElement.id", "commit");
    web.keys(page, &["Enter"]);
    web.wait(page, &says("#trouble", "echo: committed, generation 2 serves"), "true");
    assert_eq!(host.generation("echo"), 2);

    // The mark of the swap is found by the keys, and opens its line.
    web.wait(page, "document.querySelector('#timeline .mark:last-of-type')?.dataset.line ?? ''", "2");
    web.run(page, "document.querySelector('#timeline .mark').focus()");
    web.keys(page, &["ArrowRight", "Enter"]);
    web.wait(page, &text("#line-title"), "Line 2: echo committed");
    web.wait(page, &says("#line", "way back exact"), "true");
    web.wait(page, "String(document.querySelectorAll('#around tbody tr').length > 1)", "true");
    web.keys(page, &["Escape"]);
    web.wait(page, "document.activeElement.dataset.line", "2");

    install_another(dir, library, 1);
    web.wait(page, &says("#services", "waits"), "true");
    web.types(page, "r");
    web.wait(page, "document.activeElement.id", "commit");
    let waits = || host.json(&["status", "--json"])["host"]["files"][0]["build"].clone();
    let rehearsed = waits();
    install_another(dir, library, 2);
    wait_for("the host to see the file", || (waits() != rehearsed).then_some(()));
    web.keys(page, &["Enter"]);
    web.wait(page, &says("#rehearsal", "has changed since it was rehearsed"), "true");
    assert_eq!(host.generation("echo"), 2);
    web.keys(page, &["Escape"]);

    web.run(page, "document.querySelector('[data-act=rollback]').focus()");
    web.keys(page, &["Enter"]);
    web.wait(page, "document.activeElement.id", "ask-yes");
    web.keys(page, &["Enter"]);
    web.wait(page, &says("#ledger td.rolled-back", "rolled-back"), "true");
    assert_ne!(host.generation("echo"), 2);
}

/// The page has kept what it saw of the session under each generation.
fn check_history(web: &mut Browser, page: usize, tally: &mut Client) {
    assert_eq!(tally.ask("three"), "4 three");
    web.types(page, "1");
    web.wait(page, &says("#state", "count 4"), "true");
    let against =
        "[...document.querySelectorAll('#against option')].some(o => o.text.startsWith('generation 2,'))";
    web.wait(page, &format!("String({against})"), "true");
    web.run(
        page,
        "(e => (e.value = '0', e.dispatchEvent(new Event('change'))))(document.getElementById('against'))",
    );
    web.wait(page, &text("#diff tbody tr"), "count34");
}
